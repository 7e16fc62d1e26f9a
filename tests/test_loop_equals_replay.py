"""The test that holds the house together: the autoscaler's loop over the simulated fleet is the replay."""

from __future__ import annotations

import pytest

from autoscaler.loop import Outcome, turn
from policies.scaling.history import History
from policies.scaling.policy import ScalingPolicy
from policies.scaling.resource import Objectives, Prometheus, ScaleTargetRef, Spec
from simulations.live import LiveFleet
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions
from simulations.model.engine import shipped_engine
from simulations.model.fleet import SimulatedFleet
from simulations.replay import Preheat, replay
from simulations.traces import shipped_trace

ENGINE = shipped_engine("llama2-7b_a40_tp1")
TRACE = shipped_trace().until(1200)
COLD_START_SECONDS = 90.0
CONDITIONS = Conditions(Constant(COLD_START_SECONDS))


def spec() -> Spec:
    return Spec(
        scale_target_ref=ScaleTargetRef(name="vllm"),
        max_replicas=9,
        objectives=Objectives(ttft_seconds=3, tpot_seconds=0.1),
        cold_start_seconds=COLD_START_SECONDS,
        prometheus=Prometheus(url="http://prometheus:9090"),
    )


@pytest.mark.parametrize("tick_seconds", [5.0, 15.0])
async def test_the_loop_over_the_simulated_fleet_decides_as_the_replay_tick_by_tick(tick_seconds: float) -> None:
    offline = replay(
        TRACE,
        ENGINE,
        Preheat.of(spec(), tick_seconds=tick_seconds),
        objectives=spec().objectives,
        conditions=CONDITIONS,
        tick_seconds=tick_seconds,
        max_replicas=spec().max_replicas,
    )

    simulated = SimulatedFleet(TRACE, ENGINE, objectives=spec().objectives, conditions=CONDITIONS)
    fleet = LiveFleet(simulated, tick_seconds=tick_seconds)
    policy = ScalingPolicy.of(spec(), tick_seconds=tick_seconds)
    history = History()
    outcomes = set()
    while fleet.next_tick():
        made = await turn(fleet, history, policy)
        assert made.decision is not None
        history = made.history
        outcomes.add(made.outcome)
        fleet.note(made.decision)
    live = fleet.result(spec().objectives)

    assert live.decisions == offline.decisions
    assert live.decision_hash == offline.decision_hash
    assert (live.attainment, live.gpu_hours) == (offline.attainment, offline.gpu_hours)
    # A fleet that never changes would agree whatever was decided.
    assert outcomes == {Outcome.UNCHANGED, Outcome.RESCALED}
    assert len({decision.replicas for decision in offline.decisions}) > 3
