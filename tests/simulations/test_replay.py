"""The replay's score and what must hold of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from policies.scaling.decision import Binding, Decision
from policies.scaling.observation import Observation
from policies.scaling.resource import Objectives
from simulations.laboratory.foreseeable import foreseeable, mean_work, request_work_seconds, schedule
from simulations.laboratory.scenario import Scenario
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions
from simulations.model.engine import Engine, StepTime, shipped_engine
from simulations.peers.rules import hpa_on_in_flight
from simulations.replay import Replay, Schedule, replay
from simulations.traces import Trace, shipped_trace

ENGINE = shipped_engine("llama2-7b_a40_tp1")
TRACE = shipped_trace().until(900)
OBJECTIVES = Objectives(ttft_seconds=3, tpot_seconds=0.1)
MINUTE = Conditions(Constant(60))
PLAIN = Engine("plain", StepTime(10, 0, 0, 0, 0), kv_tokens=16_000, max_num_seqs=1)
"""One request at a time, each token 10 ms."""


def static(replicas: int, *, trace: Trace = TRACE, engine: Engine = ENGINE) -> Replay:
    return replay(
        trace,
        engine,
        Schedule.static(replicas),
        objectives=OBJECTIVES,
        conditions=MINUTE,
        max_replicas=replicas,
        start_replicas=replicas,
    )


@dataclass(frozen=True)
class Watching:
    """Asks for two replicas, and counts the looks it had."""

    reads_histograms: bool = True

    def begin(self) -> int:
        return 0

    def decide(self, observation: Observation, state: int) -> tuple[Decision, int]:
        sentence = f"look {state}"
        return Decision(observation.time, 2, 2, observation.desired, Binding.FLOOR, sentence), state + 1


def test_a_request_attains_by_both_objectives_and_one_token_has_no_gaps() -> None:
    # Served one after the other: first tokens after 10 ms, 3.01 s and 3.02 s of waiting and work.
    trace = Trace.of("three", np.array([0.0, 0.0, 0.0]), np.array([5, 5, 5]), np.array([300, 1, 20]))
    result = static(1, trace=trace, engine=PLAIN)
    assert result.ttft.tolist() == pytest.approx([0.01, 3.01, 3.02])
    assert result.tpot.tolist() == pytest.approx([0.01, 0.0, 0.01])
    assert result.attainment == pytest.approx(1 / 3)
    strict = replace(PLAIN, step_ms=StepTime(100.001, 0, 0, 0, 0))
    assert static(1, trace=trace.until(1), engine=strict).attainment == 0


def test_what_is_never_answered_is_a_miss() -> None:
    slow = replace(PLAIN, step_ms=StepTime(20_000, 0, 0, 0, 0))
    trace = Trace.of("two", np.array([0.0, 0.0]), np.array([5, 5]), np.array([100, 150]))
    result = replay(
        trace,
        slow,
        Schedule.static(1),
        objectives=Objectives(ttft_seconds=100, tpot_seconds=50),
        conditions=MINUTE,
        max_replicas=1,
    )
    assert (result.requests, result.finished, result.attainment) == (2, 1, 0.5)
    assert result.end_seconds == pytest.approx(3600, abs=16)


def test_only_what_arrives_from_then_on_is_scored() -> None:
    trace = Trace.of("pairs", np.array([0.0, 0.0, 100.0]), np.full(3, 5), np.array([400, 1, 1]))
    whole = static(1, trace=trace, engine=PLAIN)
    assert whole.attainment == pytest.approx(2 / 3)
    later = replay(
        trace,
        PLAIN,
        Schedule.static(1),
        objectives=OBJECTIVES,
        conditions=MINUTE,
        max_replicas=1,
        score_from_seconds=90,
    )
    assert (later.requests, later.attainment) == (1, 1.0)
    assert later.gpu_hours == pytest.approx((later.end_seconds - 90) / 3600)


def test_more_replicas_never_serve_worse() -> None:
    attained = [static(replicas).attainment for replicas in (2, 3, 4, 6, 9)]
    assert attained == sorted(attained)
    assert attained[0] < 0.9 < attained[-1]


def test_a_policy_is_handed_its_own_state_and_every_tick_is_kept() -> None:
    result = replay(
        TRACE, ENGINE, Watching(), objectives=OBJECTIVES, conditions=MINUTE, tick_seconds=15, max_replicas=5
    )
    assert [decision.sentence for decision in result.decisions[:3]] == ["look 0", "look 1", "look 2"]
    assert result.timeline.time.tolist() == [15.0 * i for i in range(len(result.decisions))]
    assert result.timeline.created.tolist() == [2] * len(result.decisions)
    # Created at 0, ready at 60 s.
    assert result.timeline.ready[:6].tolist() == [1, 1, 1, 1, 2, 2]
    assert (result.replica_changes, result.max_replicas) == (0, 2)


def test_the_same_replay_gives_the_same_decisions() -> None:
    def once() -> Replay:
        return replay(
            TRACE,
            ENGINE,
            hpa_on_in_flight(1, 9, target=10),
            objectives=OBJECTIVES,
            conditions=MINUTE,
            max_replicas=9,
        )

    first, second = once(), once()
    assert first.decisions == second.decisions
    assert first.decision_hash == second.decision_hash
    assert np.array_equal(first.ttft, second.ttft)


def test_bounds_hold_whatever_a_policy_asks() -> None:
    result = replay(
        TRACE,
        ENGINE,
        Schedule("wild", 15, (0, 50)),
        objectives=OBJECTIVES,
        conditions=Conditions(Constant(15)),
        min_replicas=2,
        max_replicas=4,
    )
    assert sorted(set(result.timeline.created.tolist())) == [2, 4]


def test_the_work_of_a_request_is_what_the_coefficients_say() -> None:
    s = ENGINE.step_ms
    trace = Trace.of("one", np.array([300.0]), np.array([1000]), np.array([200]))
    work = s.d * 1000 + s.b * 200 + s.c * 200 * (1000 + 100) + s.a * 200 / 48
    assert request_work_seconds(trace, ENGINE).tolist() == pytest.approx([work / 1000])
    mean = mean_work(trace, ENGINE, step_seconds=100, end_seconds=1000)
    # Within 300 s of the arrival it is spread over the window, which the trace's start cuts to half at 0.
    assert mean[[1, 3, 5]].tolist() == pytest.approx([work / 1000 / n for n in (400, 600, 600)])
    assert mean[[7, 9]].tolist() == [0, 0]


def scenario(trace: Trace, *, cold_start_seconds: float, max_replicas: int) -> Scenario:
    return Scenario(trace, ENGINE, OBJECTIVES, Conditions(Constant(cold_start_seconds)), max_replicas)


def test_the_foreseeable_creates_a_cold_start_ahead() -> None:
    quiet, busy = np.arange(0, 1800, 10.0), np.arange(1800, 3600, 0.5)
    arrived = np.concatenate((quiet, busy))
    trace = Trace.of("step", arrived, np.full(arrived.size, 1000), np.full(arrived.size, 200))
    plan = schedule(scenario(trace, cold_start_seconds=300, max_replicas=50), 0.8)
    later = schedule(scenario(trace, cold_start_seconds=60, max_replicas=50), 0.8)
    top = max(plan.replicas)
    assert top == max(later.replicas) > 1
    assert later.replicas.index(top) - plan.replicas.index(top) == (300 - 60) / 15


def test_the_foreseeable_reaches_the_attainment_and_no_less() -> None:
    trace = shipped_trace().until(1800)
    found = foreseeable(scenario(trace, cold_start_seconds=60, max_replicas=24), tolerance=0.05)
    assert found is not None
    assert found.missed is not None
    assert found.reached.attainment >= 0.99 > found.missed.attainment
    assert found.missed.gpu_hours <= found.gpu_hours <= found.reached.gpu_hours
    assert foreseeable(scenario(trace, cold_start_seconds=60, max_replicas=1)) is None
