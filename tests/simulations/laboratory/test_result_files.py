"""What a comparison leaves on disk: the keys and columns that others read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from simulations.laboratory.candidates import candidates
from simulations.laboratory.comparison import compare
from simulations.laboratory.outcome import Comparison
from simulations.laboratory.result_files import decisions_csv, json_of, write_decisions
from simulations.model.cold_start import Jittered
from simulations.peers import NAMES
from tests.simulations.scenes import TRACE, scenario

KEYS = {
    "name",
    "slo_attainment",
    "gpu_hours",
    "requests",
    "finished",
    "ttft_s",
    "tpot_s",
    "replica_changes",
    "max_replicas",
    "under_provisioned_s",
    "regret_vs_oracle",
    "dollars",
    "wall_s",
    "requests_per_s",
    "decision_hash",
}


def compared(*policies: str, seeds: tuple[int, ...] = (0,), price: float | None = None, start: int = 3) -> Comparison:
    scene = scenario(TRACE.until(240), start_replicas=start, cold_start=Jittered(40, 20), score_from_seconds=60)
    return compare(scene, candidates(policies, scene), seeds=seeds, gpu_hour_price=price)


def test_the_json_has_every_figure_of_every_policy() -> None:
    found = compared("static:4", "oracle", price=2.5)
    told = json.loads(json_of(found))
    assert {"trace", "engine", "policies", "lower_bound", "settings", "version"} <= set(told)
    fixed, oracle = told["policies"]
    assert set(fixed) >= KEYS
    assert list(fixed["ttft_s"]) == list(fixed["tpot_s"]) == ["p50", "p90", "p99"]
    first = found.outcomes[0].figures[0]
    assert fixed["requests"] == fixed["finished"] == int((TRACE.until(240).arrived_at_seconds >= 60).sum())
    assert (fixed["slo_attainment"], fixed["gpu_hours"]) == (first.slo_attainment, first.gpu_hours)
    assert fixed["dollars"] == pytest.approx(2.5 * first.gpu_hours)
    assert fixed["regret_vs_oracle"] == pytest.approx(first.gpu_hours / oracle["gpu_hours"] - 1)
    assert oracle["regret_vs_oracle"] == 0
    assert fixed["requests_per_s"] == pytest.approx(TRACE.until(240).requests / fixed["wall_s"])
    assert told["lower_bound"]["gpu_hours"] < oracle["gpu_hours"]


def test_what_is_not_known_is_null() -> None:
    fixed = json.loads(json_of(compared("static:4")))["policies"][0]
    assert fixed["dollars"] is fixed["regret_vs_oracle"] is fixed["gpu_hours_interval"] is None
    assert fixed["seeds"] == []


def test_several_seeds_give_means_intervals_and_their_own_figures() -> None:
    told = json.loads(json_of(compared("hpa:target=8", seeds=(1, 2, 3), start=1)))["policies"][0]
    attained = [each["slo_attainment"] for each in told["seeds"]]
    assert len(set(attained)) > 1
    assert told["slo_attainment"] == pytest.approx(sum(attained) / 3)
    low, high = told["slo_attainment_interval"]
    assert low < told["slo_attainment"] < high
    assert told["decision_hash"] == told["seeds"][0]["decision_hash"]


def test_the_decisions_are_a_row_a_tick() -> None:
    outcome = compared("hpa:target=6").outcomes[0]
    rows = list(csv.DictReader(decisions_csv(outcome).splitlines()))
    assert list(rows[0]) == [
        "time_s",
        "replicas_wanted",
        "replicas_unbounded",
        "replicas_created",
        "replicas_ready",
        "reason",
    ]
    assert [float(row["time_s"]) for row in rows] == [15.0 * tick for tick in range(len(outcome.replay.decisions))]
    # What is asked is created at once; what was created then is ready a cold start later.
    assert [row["replicas_wanted"] for row in rows] == [row["replicas_created"] for row in rows]
    assert {row["replicas_ready"] for row in rows} != {"3"}
    assert all(row["reason"] for row in rows)


def test_each_policy_has_a_file_of_its_own_whatever_it_is_called(tmp_path: Path) -> None:
    found = compared("hpa:target=6", "hpa:target=6,metric=in-flight", "static:2")
    written = write_decisions(found, tmp_path / "new")
    assert [path.name for path in written] == ["hpa-target-6.csv", "hpa-target-6-metric-in-flight.csv", "static-2.csv"]
    assert all(path.read_text().startswith("time_s,") for path in written)


def test_the_inputs_hash_changes_with_anything_that_decides() -> None:
    same = [compared("static:4").outcomes[0].inputs_hash for _ in range(2)]
    assert same[0] == same[1]
    others = {compared("static:5").outcomes[0].inputs_hash, compared("static:4", seeds=(1,)).outcomes[0].inputs_hash}
    assert len({*same, *others}) == 3


def test_the_hash_of_every_policy_is_the_same_in_another_process() -> None:
    """An address in a policy's text would change it."""
    scene = scenario(TRACE.until(30))
    assert not any("0x" in repr(each.policy) for each in candidates(["preheat", *NAMES], scene))
