"""What the simulated fleet shows, as a cluster would, and what it counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cluster.vllm_metrics import TTFT_EDGES
from policies.scaling.observation import Observation, PodStage, SampleState
from policies.scaling.resource import Objectives
from simulations.model import kernel
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions, Scraping, Shortage
from simulations.model.engine import Engine, StepTime
from simulations.model.fleet import FleetError, SimulatedFleet
from simulations.traces import Trace

ENGINE = Engine("plain", StepTime(10, 0, 0, 0, 0), kv_tokens=100_000, gpus=2, model="org/plain-7b")
"""Every step takes 10 ms, whatever it holds."""
OBJECTIVES = Objectives(ttft_seconds=3, tpot_seconds=0.1)
SLOW = Conditions(Constant(100))


def steady(seconds: float, a_second: float, *, prompt: int = 100, output: int = 50) -> Trace:
    count = round(seconds * a_second)
    return Trace.of("steady", np.arange(count) / a_second, np.full(count, prompt), np.full(count, output))


def fleet_of(trace: Trace, conditions: Conditions = SLOW, *, start_replicas: int = 1) -> SimulatedFleet:
    return SimulatedFleet(trace, ENGINE, objectives=OBJECTIVES, conditions=conditions, start_replicas=start_replicas)


def stages(observation: Observation) -> list[PodStage]:
    return [pod.stage for pod in observation.pods]


def test_a_pod_goes_through_its_stages_and_serves_after_the_cold_start() -> None:
    fleet = fleet_of(steady(600, 2))
    fleet.advance(30)
    fleet.scale(2)
    seen = []
    for now in (30.0, 31.0, 36.0, 129.0, 130.0, 135.0):
        fleet.advance(now)
        seen.append(fleet.observe().pods[1])
    assert [pod.stage.value for pod in seen] == ["created", "scheduled", "starting", "starting", "ready", "ready"]
    ready = seen[-1]
    assert (ready.created_at, ready.scheduled_at, ready.started_at, ready.ready_at) == (30, 31, 35, 130)
    assert seen[0].sample is None
    # Ready since 130 s, first scraped at 135 s: until then it is there without a reading.
    assert seen[-2].sample is not None
    assert seen[-2].sample.state is SampleState.ABSENT
    assert ready.sample is not None
    assert (ready.sample.time, ready.sample.state) == (135, SampleState.FRESH)


def test_the_first_replicas_took_as_long_to_start_as_any_and_cost_nothing_before_time_0() -> None:
    fleet = fleet_of(steady(600, 2))
    (first,) = fleet.observe().pods
    assert (first.stage, first.created_at, first.ready_at) == (PodStage.READY, -100, 0)
    fleet.advance(36)
    assert fleet.gpu_hours() == pytest.approx(36 / 3600 * 2)


def test_a_sample_is_as_old_as_the_last_scrape_and_no_finer_than_vllm_shows() -> None:
    fleet = fleet_of(steady(600, 2))
    fleet.advance(40)
    observation = fleet.observe()
    (pod,) = observation.pods
    sample = pod.sample
    assert sample is not None
    assert (observation.time, sample.time) == (40, 30)
    assert sample.ttft is not None
    assert (sample.ttft.lower_edge_seconds, sample.ttft.upper_edge_seconds) == (2.5, 5.0)
    # Arrivals at 0, 0.5, …, 29.5 s have a first token 10 to 20 ms later; the one at 30 s not yet.
    assert (sample.ttft.count, sample.ttft.lower_count, sample.ttft.upper_count) == (60, 60, 60)
    assert sample.tpot is not None
    assert (sample.tpot.lower_edge_seconds, sample.tpot.upper_edge_seconds) == (0.1, 0.1)
    assert sample.prompt_tokens == 6000
    assert sample.kv_cache_tokens == 100_000
    assert 3.0 not in TTFT_EDGES, "the objective was meant to lie between two edges"


def test_a_pod_without_work_is_idle_only_by_evidence() -> None:
    fleet = fleet_of(steady(10, 2))
    states = []
    previous = None
    for now in (0, 15, 30, 45):
        fleet.advance(now)
        previous = fleet.observe(previous)
        sample = previous.pods[0].sample
        assert sample is not None
        states.append(sample.state)
    # At 15 s counters have moved since 0 s; at 30 s they stand still for the first time.
    assert states == [SampleState.FRESH, SampleState.FRESH, SampleState.IDLE, SampleState.IDLE]


def test_instant_values_are_shown_where_nothing_scrapes() -> None:
    fleet = fleet_of(steady(600, 2), replace(SLOW, scraping=Scraping(0)))
    fleet.advance(40.25)
    sample = fleet.observe().pods[0].sample
    assert sample is not None
    assert sample.time == 40.25


def test_removal_takes_the_youngest_not_ready_first_then_the_least_loaded() -> None:
    # Three requests: the first two replicas get two and one, the third none.
    trace = Trace.of("three", np.array([0.0, 0.0, 0.0]), np.full(3, 10), np.full(3, 2_000))
    fleet = fleet_of(trace, start_replicas=2)
    fleet.advance(1)
    fleet.scale(3)
    fleet.advance(2)
    fleet.scale(4)
    fleet.scale(3)
    assert [pod.name for pod in fleet.observe().pods] == ["replica-0", "replica-1", "replica-2"]
    fleet.scale(1)
    observation = fleet.observe()
    assert [(pod.name, pod.stage) for pod in observation.pods] == [
        ("replica-0", PodStage.READY),
        ("replica-1", PodStage.TERMINATING),
    ]
    assert observation.desired == 1


def test_a_removed_replica_answers_what_it_holds_and_holds_its_gpus_meanwhile() -> None:
    trace = Trace.of("two", np.array([0.0, 0.0]), np.array([10, 10]), np.array([2_000, 1_000]))
    fleet = fleet_of(trace, start_replicas=2)
    fleet.advance(5)
    fleet.scale(1)
    fleet.advance(9.5)
    # Of two that hold as much, the younger goes.
    assert stages(fleet.observe()) == [PodStage.READY, PodStage.TERMINATING]
    fleet.advance(20)
    assert stages(fleet.observe()) == [PodStage.READY]
    assert (fleet.servers.requests[:, kernel.FATE] == kernel.DONE).all()
    # It is gone with its last token after 10 s, the other is there for 20 s; two GPUs each.
    assert fleet.gpu_hours() == pytest.approx(2 * (10 + 20) / 3600, rel=1e-12)
    assert fleet.gpu_hours(since=15) == pytest.approx(2 * 5 / 3600, rel=1e-12)


def test_pods_beyond_the_gpus_are_unschedulable_and_take_the_first_that_is_freed() -> None:
    fleet = fleet_of(steady(600, 1), replace(SLOW, replica_slots=2))
    fleet.advance(10)
    fleet.scale(3)
    assert stages(fleet.observe()) == [PodStage.READY, PodStage.CREATED, PodStage.UNSCHEDULABLE]
    fleet.advance(300)
    assert stages(fleet.observe()) == [PodStage.READY, PodStage.READY, PodStage.UNSCHEDULABLE]
    held = fleet.gpu_hours()
    assert held == pytest.approx(2 * (300 + 290) / 3600, rel=1e-12)
    # Asked for two only, the one that is nowhere goes first, and nothing that serves.
    fleet.scale(2)
    assert stages(fleet.observe()) == [PodStage.READY, PodStage.READY]
    fleet.scale(3)
    fleet.scale(4)
    assert stages(fleet.observe())[2:] == [PodStage.UNSCHEDULABLE, PodStage.UNSCHEDULABLE]


def test_whoever_is_created_in_a_shortage_waits_for_its_end() -> None:
    fleet = fleet_of(steady(600, 1), replace(SLOW, shortage=Shortage(30, 100)), start_replicas=2)
    fleet.advance(20)
    fleet.scale(3)
    fleet.advance(40)
    fleet.scale(4)
    assert stages(fleet.observe()) == [PodStage.READY, PodStage.READY, PodStage.STARTING, PodStage.UNSCHEDULABLE]
    fleet.scale(1)  # a place that is given up is not to be had again
    fleet.scale(2)
    fleet.advance(129)
    assert stages(fleet.observe()) == [PodStage.READY, PodStage.UNSCHEDULABLE]
    fleet.advance(300)
    _, late = fleet.observe().pods
    assert (late.created_at, late.scheduled_at, late.ready_at) == (40.0, 131.0, 230.0)
    fleet.scale(3)
    assert stages(fleet.observe()) == [PodStage.READY, PodStage.READY, PodStage.CREATED]


def test_requests_wait_at_the_gateway_while_nothing_is_ready() -> None:
    trace = Trace.of("early", np.array([1.0, 2.0]), np.array([10, 10]), np.array([5, 5]))
    fleet = fleet_of(trace, Conditions(Constant(50)), start_replicas=0)
    fleet.scale(1)
    fleet.advance(40)
    assert fleet.queued() == (2, 0)
    assert fleet.observe().pods[0].sample is None
    fleet.advance(60)
    ttft = fleet.servers.time_to_first_token_ps() / 1e12
    assert ttft.tolist() == [49.01, 48.01]
    # vLLM knows nothing of the time at the gateway.
    sample = fleet.observe().pods[0].sample
    assert sample is not None
    assert sample.ttft is not None
    assert sample.ttft.sum_seconds == pytest.approx(0.02)


def test_a_prompt_larger_than_the_cache_is_refused_and_a_longer_answer_cut() -> None:
    engine = Engine("small", StepTime(10, 0, 0, 0, 0), kv_tokens=160)
    trace = Trace.of("large", np.array([0.0, 1.0]), np.array([161, 100]), np.array([5, 500]))
    fleet = SimulatedFleet(trace, engine, objectives=OBJECTIVES, conditions=SLOW)
    fleet.advance(100)
    assert fleet.servers.refused == 1
    assert fleet.servers.cut_short.tolist() == [True, True]
    assert fleet.servers.requests[1, kernel.GOAL] == 61
    assert fleet.servers.is_idle()


def test_time_goes_forward_only_and_settings_are_checked() -> None:
    fleet = fleet_of(steady(10, 1))
    fleet.advance(5)
    with pytest.raises(FleetError, match="time goes forward only"):
        fleet.advance(4)
    with pytest.raises(FleetError, match="-1 replicas were asked"):
        fleet.scale(-1)
    with pytest.raises(FleetError, match="start replicas is -1"):
        fleet_of(steady(10, 1), start_replicas=-1)
