"""SkyServe's request-rate autoscaler by the figures of its own tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from policies.scaling.observation import Distribution, Observation
from tests.simulations.peers.seen import in_flight, named, replicas, seen, told


def arriving(per_minute: float, *, turns: int, desired: int = 1, tick: float = 20.0) -> Iterator[Observation]:
    """Looks at a router's counter; the first of them tells no rate yet, so one comes before."""
    for turn in range(-4, turns):
        total = 1000.0 + per_minute / 60 * tick * (turn + 4)
        yield seen(tick * (turn + 4), [in_flight(0)] * desired, arrivals_total=total)


@pytest.mark.parametrize(
    ("least", "most", "qps", "per_minute", "expected"),
    [(1, 3, 1, 1000, 3), (2, 5, 10, 0, 2), (1, 5, 5, 300, 1), (1, 5, 5, 303, 2), (1, 9, 2.5, 750, 5)],
)
def test_replicas_are_the_rate_over_the_target_within_bounds(
    least: int, most: int, qps: float, per_minute: float, expected: int
) -> None:
    """test_request_rate_target_clips_to_max, …to_min, and 300 or 301 requests a minute of 5 a second."""
    sky = named(f"skyserve:qps={qps},upscale_delay=20,downscale_delay=20", least=least, most=most)
    assert replicas(sky, arriving(per_minute, turns=1))[-1] == expected


def test_a_delay_of_forty_seconds_is_the_second_turn() -> None:
    """test_request_rate_hysteresis_delays_scale_up: no at the first turn, yes at the second."""
    sky = named("skyserve:qps=5,upscale_delay=40", least=1, most=5)
    looks = [seen(20.0 * i, [in_flight(0)], arrivals_total=1000.0 + (101 * i)) for i in range(6)]
    # 303 in the last minute from the fourth look on: more than one replica's 300.
    assert replicas(sky, looks) == [1, 1, 1, 1, 2, 2]


def test_a_shrink_needs_twenty_minutes_by_default() -> None:
    made = replicas(named("skyserve", least=1), arriving(0, turns=70, desired=4))
    assert made[58:60] == [4, 1]  # The sixtieth turn that wants it.


def test_from_none_it_grows_at_once() -> None:
    sky = named("skyserve:qps=1", least=0, most=5)
    totals = [0.0, 0.0, 150.0]
    looks = [seen(20.0 * i, [], desired=0, arrivals_total=total) for i, total in enumerate(totals)]
    assert replicas(sky, looks) == [0, 0, 3]


def test_overprovision_comes_on_top() -> None:
    sky = named("skyserve:qps=1,overprovision=1,upscale_delay=20", least=2, most=5)
    assert replicas(sky, arriving(0, turns=1, desired=2))[-1] == 3


def test_arrivals_are_rebuilt_from_the_pods_counters_too() -> None:
    """At each look ten more have ended and ten more wait: one a second."""
    looks = []
    for place in range(6):
        ended = 10.0 * place
        readings = {
            **in_flight(0, ended),
            "requests_finished": ended,
            "http_requests_ended": ended,
            "ttft": Distribution(ended, ended, 2.5, ended, 2.5, ended),
        }
        looks.append(seen(20.0 * place, [readings]))
    assert replicas(named("skyserve:qps=0.5,upscale_delay=20"), looks) == [1, 1, 2, 2, 2, 2]


def test_golden_decisions_of_a_ramp() -> None:
    assert told("skyserve:upscale_delay=60,downscale_delay=300") == GOLDEN


GOLDEN = "0:2 49:3 57:5 121:2"
