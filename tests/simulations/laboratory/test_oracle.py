"""The oracle and the lower bound: between them lies what a clairvoyant needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.scaling.resource import Objectives
from simulations.laboratory.candidates import candidates
from simulations.laboratory.comparison import compare
from simulations.laboratory.foreseeable import foreseeable, mean_work, request_work_seconds
from simulations.laboratory.lower_bound import lower_bound
from simulations.laboratory.oracle import oracle, serve
from simulations.laboratory.scenario import Scenario
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions, Rollout
from simulations.model.engine import Engine, StepTime, shipped_engine
from simulations.replay import Replay, Schedule, attainment, replay
from simulations.traces import Trace
from tests.simulations.scenes import scenario

SCENE = replace(scenario(), start_replicas=None)


def ruled(scene: Scenario, schedule: Schedule) -> Replay:
    return replay(
        scene.trace,
        scene.engine,
        schedule,
        objectives=scene.objectives,
        conditions=scene.conditions,
        tick_seconds=scene.tick_seconds,
        max_replicas=scene.max_replicas,
        start_replicas=schedule.replicas[0],
        score_from_seconds=scene.score_from_seconds,
    )


def test_the_oracle_attains_for_no_more_than_the_foreseeable_and_no_less_than_the_bound() -> None:
    found, less_clever = oracle(SCENE), foreseeable(SCENE)
    assert less_clever is not None
    result = ruled(SCENE, found.schedule)
    assert found.attains
    assert result.attainment >= 0.99
    assert lower_bound(SCENE).gpu_hours < result.gpu_hours <= less_clever.reached.gpu_hours


def test_requests_at_the_last_instant_are_work_too() -> None:
    tokens = np.full(40, 100)
    for arrived in (np.zeros(40), np.concatenate((np.arange(20.0), np.full(20, 50.0)))):
        trace = Trace.of("all at the end", arrived, tokens, tokens)
        mean = mean_work(trace, SCENE.engine, step_seconds=10.0, end_seconds=trace.end_seconds)
        seconds = max(10.0, trace.end_seconds)
        assert mean[0] * seconds == pytest.approx(request_work_seconds(trace, SCENE.engine).sum())


def test_the_oracle_finds_the_same_twice() -> None:
    scene = replace(SCENE, trace=SCENE.trace.until(300))
    assert oracle(scene).schedule == oracle(scene).schedule


def test_an_oracle_without_enough_replicas_says_so_and_keeps_them_all() -> None:
    scene = replace(SCENE, trace=SCENE.trace.until(300), max_replicas=1)
    found = oracle(scene)
    assert not found.attains
    assert set(found.schedule.replicas) == {1}


def test_a_candidate_is_judged_as_a_replay_judges_it() -> None:
    replicas = np.array([3, 2, 4, 4, 1, 3] * 10)
    fleet, _ = serve(SCENE, replicas)
    result = ruled(SCENE, Schedule("any", SCENE.tick_seconds, tuple(replicas.tolist())))
    assert fleet.gpu_hours() == result.gpu_hours
    assert attainment(fleet.servers, SCENE.objectives) == result.attainment


def test_the_bound_of_one_request_is_its_work_with_the_fixed_cost_shared_as_widely_as_can_be() -> None:
    engine = Engine("plain", StepTime(10, 1, 0.01, 0.1, 0.001), kv_tokens=1600, max_num_seqs=10)
    trace = Trace.of("one", np.array([0.0]), np.array([100]), np.array([11]))
    scene = Scenario(trace, engine, Objectives(ttft_seconds=9, tpot_seconds=9), Conditions(Constant(0)), 1)
    context = sum(100 + n for n in range(1, 11))
    own = 0.1 * 100 + 0.001 * 100 * 100 / 2 + 1 * 10 + 0.01 * context
    # At most ten decode in a step, of which 1600 tokens fit: the sequences bind, 10/10 against 1055/1600.
    assert lower_bound(scene).gpu_hours == pytest.approx((own + 10 * 10 / 10) / 3.6e6)


def test_fewest_replicas_are_a_bound_too() -> None:
    trace = Trace.of("two", np.array([0.0, 7200.0]), np.array([5, 5]), np.array([5, 5]))
    scene = replace(SCENE, trace=trace, min_replicas=3)
    assert lower_bound(scene).gpu_hours == pytest.approx(6.0)


def test_no_policy_of_a_comparison_is_below_its_bound_whatever_its_own_fewest() -> None:
    trace = Trace.of("two", np.array([0.0, 7200.0]), np.array([5, 5]), np.array([5, 5]))
    scene = replace(SCENE, trace=trace, min_replicas=3)
    found = compare(scene, candidates(["static:1", "static:4"], scene))
    assert found.lower_bound.gpu_hours == pytest.approx(2.0)
    assert found.lower_bound.gpu_hours < min(each.figures[0].gpu_hours for each in found.outcomes)
    assert compare(scene, candidates(["static:4"], scene)).lower_bound.gpu_hours == pytest.approx(6.0)


@pytest.mark.parametrize("form", ["linear", "roofline"])
@pytest.mark.parametrize("prompt", [20, 400])
def test_the_bound_is_near_where_a_replica_is_as_busy_as_can_be(
    form: Literal["linear", "roofline"], prompt: int
) -> None:
    """All come at once and nobody is in a hurry: short ones fill the batch, long ones the KV cache."""
    trace = Trace.of("burst", np.zeros(1000), np.full(1000, prompt), np.full(1000, 200))
    scene = Scenario(
        trace,
        shipped_engine("llama2-7b_a40_tp1", form=form),
        Objectives(ttft_seconds=3000, tpot_seconds=30, attainment=0.99),
        Conditions(Constant(0)),
        1,
        tick_seconds=0.1,
    )
    held = ruled(scene, Schedule.static(1)).gpu_hours
    assert 0.8 * held < lower_bound(scene).gpu_hours < held


def test_the_bound_is_of_the_faster_engine_where_a_rollout_brings_one() -> None:
    trace = Trace.of("burst", np.ones(1000), np.full(1000, 20), np.full(1000, 200))
    old = shipped_engine("llama2-7b_a40_tp1")
    promised = Objectives(ttft_seconds=3000, tpot_seconds=30, attainment=0.99)
    scene = Scenario(trace, old, promised, Conditions(Constant(0)), 1, tick_seconds=0.1)
    faster = replace(scene, conditions=Conditions(Constant(0), rollout=Rollout(0, old.slowed(0.5))))
    slower = replace(scene, conditions=Conditions(Constant(0), rollout=Rollout(0, old.slowed(2))))
    assert lower_bound(faster).gpu_hours == pytest.approx(lower_bound(scene).gpu_hours / 2)
    assert lower_bound(slower) == lower_bound(scene)
    held = ruled(faster, Schedule.static(1)).gpu_hours
    assert 0.8 * held < lower_bound(faster).gpu_hours < held < lower_bound(scene).gpu_hours


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["llama2-7b_a40_tp1", "llama3-8b_a100_tp1"]),
    form=st.sampled_from(["linear", "roofline"]),
    seed=st.integers(0, 10_000),
    tpot=st.floats(0.03, 0.3),
    attained=st.floats(0.3, 0.99),
)
def test_no_fleet_that_attains_is_below_the_bound(
    name: str, form: str, seed: int, tpot: float, attained: float
) -> None:
    """A burst keeps the replicas as busy as can be, so the bound is near."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 80))
    trace = Trace.of(
        "burst", np.sort(rng.uniform(0, 20, count)), rng.integers(1, 2000, count), rng.integers(1, 300, count)
    )
    scene = Scenario(
        trace,
        shipped_engine(name, form="linear" if form == "linear" else "roofline"),
        Objectives(ttft_seconds=30, tpot_seconds=tpot, attainment=attained),
        Conditions(Constant(0)),
        4,
        tick_seconds=0.5,
    )
    bound = lower_bound(scene).gpu_hours
    for replicas in (1, 2, 4):
        result = ruled(scene, Schedule.static(replicas))
        if result.attainment >= attained:
            assert bound <= result.gpu_hours
