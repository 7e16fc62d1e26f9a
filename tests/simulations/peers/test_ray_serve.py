"""Ray Serve's policy by its own rules, and by the figures of its documentation."""

from __future__ import annotations

import pytest

from simulations.peers.ray_serve import desired_replicas
from tests.simulations.peers.seen import held, in_flight, named, replicas, seen, told


@pytest.mark.parametrize(
    ("ongoing", "running", "up", "down", "expected"),
    [
        (20, 2, 1.0, 1.0, 10),
        (5, 1, 1.0, 1.0, 3),
        (4, 10, 1.0, 1.0, 2),
        (20, 2, 0.5, 1.0, 6),  # Half of the way up.
        (20, 2, 2.0, 1.0, 18),
        (4, 10, 1.0, 0.5, 6),
        (18, 10, 1.0, 0.5, 9),  # 9.5 rounded up would never leave 10.
        (19, 10, 1.0, 0.5, 10),  # 9.5 are 10 pods, no fewer than there are.
        (0, 1, 1.0, 1.0, 0),
    ],
)
def test_two_requests_a_replica_by_default(ongoing: float, running: int, up: float, down: float, expected: int) -> None:
    found = desired_replicas(ongoing, running, target=2.0, up_factor=up, down_factor=down)
    assert found == expected


def test_growth_waits_half_a_minute_and_a_shrink_ten_minutes() -> None:
    busy, idle = in_flight(20), in_flight(0)
    assert held(named("ray-serve:target=10"), lambda now: busy, start=1, seconds=30) == [1, 1, 2]
    made = held(named("ray-serve:target=10"), lambda now: idle, start=4, seconds=630)
    assert (made[39], made[40]) == (4, 1)


def test_a_wish_that_is_interrupted_begins_its_wait_anew() -> None:
    loads = [20, 10, 20, 20, 20, 20]
    looks = [seen(15.0 * i, [in_flight(load)]) for i, load in enumerate(loads)]
    ray = named("ray-serve:target=10,look_back=1")
    assert replicas(ray, looks) == [1, 1, 1, 1, 2, 1]


def test_load_is_meaned_over_the_look_back_period() -> None:
    looks = [seen(15.0 * i, [in_flight(load)]) for i, load in enumerate([0, 40, 40])]
    ray = named("ray-serve:target=10,upscale_delay=0")
    assert replicas(ray, looks) == [1, 2, 4]


def test_booting_replicas_are_not_counted_and_the_target_is_compared() -> None:
    """Of one running replica 40 requests want 4; where 4 were asked already nothing changes."""
    ray = named("ray-serve:target=10,upscale_delay=0")
    assert replicas(ray, [seen(0.0, [in_flight(40)], booting=3)]) == [4]


def test_from_none_it_wakes_at_once() -> None:
    ray = named("ray-serve", least=0)
    looks = [seen(15.0 * i, [], desired=0, arrivals_total=total) for i, total in enumerate([0.0, 0.0, 3.0])]
    assert replicas(ray, looks) == [0, 0, 1]


def test_golden_decisions_of_a_ramp() -> None:
    assert told("ray-serve:target=16") == GOLDEN


GOLDEN = "0:2 43:3 46:6 49:10 52:17 55:21 96:5 99:10 140:2"
