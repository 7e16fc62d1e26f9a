"""Between two bursts of requests the simulated fleet rests at zero, and what waits at the gateway wakes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policies.scaling.decision import Binding
from policies.scaling.resource import Objectives, Spec
from policies.scaling.resource_reading import read
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions
from simulations.model.engine import shipped_engine
from simulations.replay import Preheat, Replay, replay
from simulations.traces import Trace
from tests.policies.scaling.structural import DOCUMENT

IDLE, GAP, COLD = 300.0, 3_600.0, 60.0
OBJECTIVES = Objectives(ttft_seconds=3, tpot_seconds=0.1)


def bursts() -> Trace:
    """Five minutes of a request every two seconds, an hour of silence, and the same again."""
    burst = np.arange(0.0, 300.0, 2.0)
    times = np.concatenate((burst, burst + 300.0 + GAP))
    return Trace.of("bursts", times, np.full(times.size, 200), np.full(times.size, 50))


def spec(**changes: Any) -> Spec:
    return read({**DOCUMENT, "spec": {**DOCUMENT["spec"], "coldStartSeconds": COLD, **changes}}).spec


def told(**changes: Any) -> Replay:
    stated = spec(**changes)
    return replay(
        bursts(),
        shipped_engine("llama2-7b_a40_tp1"),
        Preheat.of(stated),
        objectives=OBJECTIVES,
        conditions=Conditions(Constant(COLD)),
        min_replicas=stated.min_replicas,
        max_replicas=stated.max_replicas,
    )


@pytest.fixture(scope="module")
def resting() -> Replay:
    return told(minReplicas=0, idleSeconds=IDLE, wake={"query": "queued"})


def test_it_begins_and_ends_at_zero_and_every_request_is_answered(resting: Replay) -> None:
    created = resting.timeline.created
    assert resting.finished == resting.requests
    silence = (resting.timeline.time > 300.0 + IDLE + 2 * 60.0) & (resting.timeline.time < 300.0 + GAP)
    assert set(created[silence].tolist()) == {0}
    woken = [each for each in resting.decisions if each.desired == 0 and each.replicas > 0]
    assert [each.binding for each in woken] == [Binding.AWAKE, Binding.AWAKE]
    assert all("the wake query asked for it" in each.sentence for each in woken)


def test_rest_costs_the_start_of_each_burst_and_saves_the_silence(resting: Replay) -> None:
    kept = told(minReplicas=1)
    assert resting.gpu_hours < kept.gpu_hours - (GAP - IDLE - 300.0) / 3600
    for burst in (0.0, 300.0 + GAP):
        first = resting.ttft[resting.arrived_at_seconds >= burst][0]
        # The scrape that shows it, the tick that sees it, the start.
        assert COLD < first < COLD + 15.0 + 15.0 + 3.0


def test_without_a_signal_it_never_begins() -> None:
    deaf = told(minReplicas=0, idleSeconds=IDLE)
    assert deaf.finished == 0
    assert {each.replicas for each in deaf.decisions} == {0}
