"""What must hold of any replay: nothing is lost, GPU-seconds add up, and slower clocks tell the same story."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from policies.scaling.resource import Objectives
from simulations.laboratory.candidates import candidates
from simulations.laboratory.comparison import compare
from simulations.laboratory.oracle import serve
from simulations.laboratory.scenario import Scenario
from simulations.model import kernel
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions, Scraping
from tests.simulations.scenes import scenario

SCENE = scenario()


def slowed(scene: Scenario, times: float) -> Scenario:
    """The same world in which everything takes so many times as long."""
    o = scene.objectives
    return replace(
        scene,
        trace=replace(scene.trace, arrived_at_seconds=scene.trace.arrived_at_seconds * times),
        engine=scene.engine.slowed(times),
        objectives=Objectives(ttft_seconds=o.ttft_seconds * times, tpot_seconds=o.tpot_seconds * times),
        conditions=Conditions(Constant(scene.cold_start_seconds * times), Scraping(15 * times)),
        tick_seconds=scene.tick_seconds * times,
    )


@pytest.mark.parametrize(
    ("name", "as_slow"),
    [
        ("static:4", "static:4"),
        ("hpa:target=12,sync=15,down_window=120", "hpa:target=12,sync=60,down_window=480"),
    ],
)
def test_time_times_four_with_rates_by_four_is_the_same_story(name: str, as_slow: str) -> None:
    slow = slowed(SCENE, 4.0)
    one = compare(SCENE, candidates([name], SCENE)).outcomes[0]
    other = compare(slow, candidates([as_slow], slow)).outcomes[0]
    # Coefficients are rounded to picoseconds, which the slower world has four times as many of.
    assert other.slo_attainment.mean == pytest.approx(one.slo_attainment.mean, abs=0.003)
    assert [each.replicas for each in other.replay.decisions] == [each.replicas for each in one.replay.decisions]
    assert other.gpu_hours.mean == pytest.approx(4 * one.gpu_hours.mean, rel=0.005)
    p99, slow_p99 = (each.figures[0].ttft_seconds["p99"] for each in (one, other))
    assert slow_p99 == pytest.approx(4 * p99, rel=0.02)


def test_every_request_ends_once_and_every_gpu_second_is_somebodys() -> None:
    replicas = np.array([3, 5, 4, 2, 6, 3] * 10)
    fleet, _ = serve(SCENE, replicas)
    fates = fleet.servers.requests[:, kernel.FATE]
    assert (fates == kernel.DONE).all()
    assert fleet.servers.arrived == SCENE.trace.requests
    outcome = compare(SCENE, candidates(["hpa:target=8"], SCENE)).outcomes[0]
    replay = outcome.replay
    assert outcome.figures[0].finished + outcome.figures[0].refused == outcome.figures[0].requests
    # At each tick's end the created ones have held a GPU throughout; those that drain, some of the time.
    held = replay.timeline.created.sum() * SCENE.tick_seconds
    most = (replay.timeline.created + replay.timeline.draining).sum() * SCENE.tick_seconds
    assert replay.timeline.draining.any()
    assert held < replay.gpu_hours * 3600 < most


def test_more_replicas_never_lower_the_attainment_beyond_noise() -> None:
    attained = [
        compare(SCENE, candidates([f"static:{n}"], SCENE)).outcomes[0].slo_attainment.mean for n in (2, 3, 4, 6, 9)
    ]
    assert all(more >= fewer - 0.002 for fewer, more in itertools.pairwise(attained))
    assert attained[0] < 0.9 < attained[-1]
