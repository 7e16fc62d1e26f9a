"""Our evaluation against the answers of a real Prometheus, kept in tests/data/promql (`record_promql` asks anew)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulations.policy_files.evaluation import Labels, Points, QueryFailedError, Vector, evaluate
from simulations.policy_files.promql import parse
from simulations.policy_files.scrapes import LOOKBACK_SECONDS, Scrapes

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data/promql/answers.json").read_text())
QUERIES = list(dict.fromkeys(each["query"] for each in RECORDED["answers"]))


def labels_of(metric: dict[str, str]) -> Labels:
    return tuple(sorted(metric.items()))


def scraped(time: float) -> Scrapes:
    """What had been scraped by then."""
    past: dict[tuple[str, Labels], Points] = {}
    now: dict[str, Vector] = {}
    for series in RECORDED["series"]:
        points = [(at, float(value)) for at, value in series["points"] if at <= time]
        if points:
            past[series["name"], labels_of(series["labels"])] = points
            if points[-1][0] > time - LOOKBACK_SECONDS:
                now.setdefault(series["name"], {})[labels_of(series["labels"])] = points[-1][1]
    return Scrapes(time, now, past)


def ours(query: str, time: float) -> list[tuple[Labels, float]] | None:
    try:
        answer = evaluate(parse(query), scraped(time))
    except QueryFailedError:
        return None
    vector = answer if isinstance(answer, dict) else {(): answer}
    return sorted(vector.items())


def recorded(query: str) -> Iterator[tuple[float, list[tuple[Labels, float]] | None]]:
    for each in RECORDED["answers"]:
        if each["query"] == query:
            answer = each["answer"]
            found = None if answer is None else sorted((labels_of(metric), float(value)) for metric, value in answer)
            yield each["time"], found


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_answers_as_prometheus_answered(query: str) -> None:
    for time, expected in recorded(query):
        found = ours(query, time)
        assert (found is None) == (expected is None), time
        if found is None or expected is None:
            continue
        assert [labels for labels, _ in found] == [labels for labels, _ in expected], time
        for (_, one), (_, other) in zip(found, expected, strict=True):
            assert one == pytest.approx(other, rel=1e-12, abs=1e-12) or (math.isnan(one) and math.isnan(other)), time


def test_what_is_recorded_tells_something() -> None:
    answers = [each["answer"] for each in RECORDED["answers"]]
    assert RECORDED["prometheus"] == "0.315.0"  # as its Go module is numbered: Prometheus 3.15.0
    assert len(answers) == len(QUERIES) * 6 > 300
    assert sum(bool(answer) for answer in answers) > 300
    assert any(answer is None for answer in answers)
    assert any(value == "NaN" for answer in answers if answer for _, value in answer)
