"""What a user types, as values or as sentences that say what to mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.files import ConfigError
from simulations.laboratory.jobs import jobs
from simulations.laboratory.scenario import Scenario
from simulations.laboratory.settings import Settings
from simulations.model.cold_start import Constant, Jittered, Sampled
from simulations.model.engine import EngineError, StepTime, shipped_engine
from simulations.model.engine_file import engine_of
from simulations.replay import Schedule
from simulations.traces import Trace
from tests.simulations.scenes import TRACE

ENGINE = """
name: mine
step_ms: {a: 10, b: 0.1, c: 0.0001, d: 0.05, e: 0.000005}
kv_tokens: 100000
gpus: 2
"""


def asked(trace: Trace = TRACE, **given: Any) -> Scenario:
    usual: dict[str, Any] = {"engine": "llama2-7b_a40_tp1", "slo_ttft": 3, "slo_tpot": 0.1, "max": 9}
    return Settings(**(usual | given)).scenario(trace)


def test_flags_become_a_scenario() -> None:
    made = asked(min=2, start=4, tick=5, scrape_interval=0, score_from=60, clip_prompt=100, grace=30, seed="7,8")
    assert (made.min_replicas, made.max_replicas, made.start_replicas, made.tick_seconds) == (2, 9, 4, 5)
    assert (made.conditions.scraping.interval_seconds, made.conditions.grace_seconds, made.conditions.seed) == (
        0,
        30,
        7,
    )
    assert made.trace.prompt_tokens.max() == 100
    assert made.objectives.attainment == 0.99


def test_the_cold_start_is_one_number_spread_or_as_measured(tmp_path: Path) -> None:
    assert asked(cold_start=90).conditions.cold_start == Constant(90)
    assert asked(cold_start=90, cold_start_jitter="20").conditions.cold_start == Jittered(90, 20)
    lines, listed = tmp_path / "lines", tmp_path / "list.json"
    lines.write_text("# seconds\n61\n\n75.5\n")
    listed.write_text("[61, 75.5]")
    for path in (lines, listed):
        made = asked(cold_start_jitter=str(path))
        assert made.conditions.cold_start == Sampled((61.0, 75.5))
        assert made.cold_start_seconds == 68.25


def test_measured_cold_starts_that_are_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="holds something that is no number of seconds"):
        asked(cold_start_jitter=str(path))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"min": 5, "max": 4}, "--max (4) is less than --min (5): raise --max or lower --min"),
        ({"max": 0}, "--max is 0: a fleet that may not have one replica serves nobody"),
        ({"min": -1}, "--min is -1: 0 is the fewest replicas there can be"),
        ({"start": -1}, "--start is -1: 0 is the fewest replicas there can be"),
        ({"tick": 0}, "--tick is 0: seconds between decisions must be more than 0"),
        ({"tick": 1e9}, "--tick is 1e+09: give at most 86400 s between decisions, a day"),
        ({"cold_start": 1e300}, "a cold start takes up to 1e+300 s: give at most 86400 s, a day, jitter included"),
        (
            {"cold_start": 80_000, "cold_start_jitter": "7000"},
            "a cold start takes up to 87000 s: give at most 86400 s, a day, jitter included",
        ),
        ({"score_from": 1e6}, "--score-from (1e+06 s) is after the last request"),
        ({"score_from": -1}, "--score-from is -1: give seconds from the trace's time 0, at least 0"),
        ({"slo_ttft": 0}, "--slo-ttft is 0: give seconds, more than 0"),
        ({"slo_tpot": float("nan")}, "--slo-tpot is nan: give seconds, more than 0"),
        ({"attainment": 99}, "--attainment is 99: give a share between 0 and 1, as in 0.99"),
        ({"clip_prompt": 0}, "--clip-prompt is 0: a prompt has at least 1 token"),
        ({"cold_start": -3}, "the cold start is -3: give seconds, at least 0"),
        ({"cold_start_jitter": "much"}, "--cold-start-jitter much is neither seconds nor a file that can be read"),
        (
            {"router": "sticky"},
            "--router is 'sticky': choose one of least-outstanding, round-robin, random, two-choices",
        ),
        ({"seed": "1;2"}, "--seed is '1;2': give whole numbers from 0 on, as in 0 or 1,2,3"),
        ({"seed": "1,9223372036854775808"}, "--seed holds a number beyond 9223372036854775807: give one of 64 bits"),
        ({"seed": "9" * 5000}, "--seed holds a number beyond 9223372036854775807: give one of 64 bits"),
        (
            {"client_timeout": 1e300},
            "a client waits for 1e+300 s, the timeout times its attempts: give a client timeout",
        ),
        ({"engine": "llama2-7b_a40"}, "engine 'llama2-7b_a40' is not known: did you mean llama2-7b_a40_tp1?"),
        ({"engine": "mine.json"}, "engine file mine.json cannot be read: there is no such file"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_remedy(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as told:
        asked(**given)
    assert len(told.value.problems) == 1
    assert told.value.problems[0].startswith(sentence)


@pytest.mark.parametrize(("days", "told"), [(53.4, "53.4"), (1e300, "1e+300")])
def test_a_trace_beyond_the_simulated_clock_is_refused_with_the_remedy(days: float, told: str) -> None:
    long = Trace.of("long", np.array([0.0, days * 86_400]), np.array([500, 500]), np.array([50, 50]))
    with pytest.raises(ConfigError) as refused:
        asked(long)
    assert refused.value.problems == (
        f"trace long ends {told} days after its time 0: at most 50 are replayed, cut its file into shorter ones, "
        "or begin its times at 0",
    )


def test_the_longest_of_all_that_is_allowed_is_replayed_to_its_end() -> None:
    """One request comes at the last instant, finds no replica, and is given up on after the longest patience."""
    day = 86_400
    longest = Trace.of("longest", np.array([0.0, 50 * day]), np.array([500, 500]), np.array([50, 50]))
    scene = asked(longest, tick=day, cold_start=day, client_timeout=50 * day, seed=str(2**63 - 1), router="random")
    one_then_none = Schedule("one, then none", day, (1, 0))
    for policy, finished in ((Schedule.static(1), 2), (one_then_none, 1)):
        result = scene.replayed(policy, min_replicas=0, max_replicas=2, start_replicas=1)
        assert (result.finished, result.requests) == (finished, 2)
        assert result.end_seconds <= 52 * day


def test_time_0_has_a_wall_time() -> None:
    def said(text: str | None) -> str:
        return Settings(engine="x", slo_ttft=1, slo_tpot=1, max=1, starts_at=text).wall_start.isoformat()

    assert said(None) == "2024-01-01T00:00:00+00:00"
    assert said("2026-03-02T08:00") == "2026-03-02T08:00:00+00:00"
    assert said("2026-03-02T08:00+01:00") == "2026-03-02T08:00:00+01:00"
    with pytest.raises(ConfigError) as refused:
        said("monday")
    assert refused.value.problems == ("--starts-at is 'monday': give an ISO 8601 time, as in 2026-03-02T08:00+01:00",)


def test_several_mistakes_are_told_together() -> None:
    with pytest.raises(ConfigError) as told:
        asked(engine="nothing", slo_ttft=-1, cold_start=-1, clip_prompt=0)
    assert len(told.value.problems) == 4


def test_an_engine_of_a_file_is_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(ENGINE)
    engine = engine_of(str(path))
    assert (engine.name, engine.kv_tokens, engine.gpus, engine.max_num_seqs) == ("mine", 100_000, 2, 256)
    assert engine.step_ms == StepTime(10, 0.1, 0.0001, 0.05, 0.000005)
    assert engine_of("llama2-7b_a40_tp1") == shipped_engine("llama2-7b_a40_tp1")


def test_an_engine_may_be_told_in_either_form(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    step = {"a": 0, "w": 11.3, "k": 0.067, "q": 1.46, "b": 0, "c": 8e-5, "e": 5e-6}
    path.write_text(json.dumps({"name": "mine", "step_ms": step, "kv_tokens": 100_000}))
    assert engine_of(str(path)).step_ms == StepTime(d=0, **step)
    roofline = engine_of("llama2-7b_a40_tp1:roofline")
    assert roofline == shipped_engine("llama2-7b_a40_tp1", form="roofline") != engine_of("llama2-7b_a40_tp1:linear")


@pytest.mark.parametrize(
    ("was", "becomes", "named"),
    [
        ("a: 10", "a: 0", "step_ms.a"),
        ("a: 10", "a: -1", "step_ms.a"),
        ("d: 0.05", "w: 0", "step_ms.d is not given: give it, or w, k and q"),
        ("c: 0.0001", "c: -1", "step_ms.c"),
        ("kv_tokens: 100000", "kv_tokens: many", "kv_tokens"),
        ("kv_tokens: 100000", "kv_token: 1", "kv_token:"),
        ("gpus: 2", "max_num_batched_tokens: 100", "max_num_batched_tokens"),
        ("name: mine", "name: [", "is not valid YAML"),
    ],
)
def test_an_engine_that_cannot_be_is_refused_by_field(tmp_path: Path, was: str, becomes: str, named: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(ENGINE.replace(was, becomes))
    with pytest.raises(EngineError, match=named) as told:
        engine_of(str(path))
    assert "\n" not in str(told.value)


def test_jobs_are_a_number_or_a_ray_cluster() -> None:
    assert jobs("3") == 3
    assert jobs("ray://head:10001") == "ray://head:10001"
    for wrong in ("0", "all", "ray://", "-1"):
        with pytest.raises(ConfigError, match="give a number of processes, 1 or more, or ray://HOST:PORT"):
            jobs(wrong)
