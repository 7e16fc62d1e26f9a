"""The KPA against the figures of Knative's own tests and documentation."""

from __future__ import annotations

import pytest

from simulations.peers.kpa import KpaLaw, KpaMemory, scale
from tests.simulations.peers.seen import held, in_flight, named, replicas, seen, told

TESTED = KpaLaw(10.0, max_scale_up_rate=10.0, max_scale_down_rate=10.0)
"""As autoscaler_test.go sets it up."""
CALM = KpaMemory()


def wanted(law: KpaLaw, stable: float, panic: float, *, ready: int = 1, memory: KpaMemory = CALM) -> int:
    return scale(law, memory, now=0.0, ready=ready, stable=stable, panic=panic)[0]


@pytest.mark.parametrize(
    ("stable", "panic", "ready", "expected"),
    [(50, 10, 1, 5), (100, 10, 1, 10), (50, 50, 1, 5), (100, 99, 1, 10), (100, 100, 8, 10), (50, 50, 8, 5)],
)
def test_pods_are_the_load_over_the_target(stable: float, panic: float, ready: int, expected: int) -> None:
    """TestAutoscalerStableModeIncrease…, …WithRPS, …StableModeDecrease."""
    assert wanted(TESTED, stable, panic, ready=ready) == expected


def test_no_traffic_needs_no_pod() -> None:
    """TestAutoscalerStableModeNoTrafficScaleToZero."""
    assert wanted(TESTED, 1, 0) == 1
    assert wanted(TESTED, 0, 0) == 0


def test_an_activation_scale_holds_once_there_is_traffic() -> None:
    """TestAutoscalerActivationScale."""
    law = KpaLaw(10.0, max_scale_up_rate=10.0, max_scale_down_rate=10.0, activation_scale=2)
    assert wanted(law, 0, 0) == 0
    assert wanted(law, 1, 0) == 2


def test_a_slow_rate_still_grows_by_one() -> None:
    """The comment's own figures: rate 1.1, 2 pods ready, 3 needed."""
    assert wanted(KpaLaw(1.0, max_scale_up_rate=1.1), 3, 3, ready=2) == 3


def test_a_hundred_at_once_of_ten_a_pod_at_seventy_percent_are_fifteen_pods() -> None:
    assert wanted(KpaLaw(10 * 0.7), 100, 100, ready=15) == 15


def test_panic_ends_after_a_slow_increase() -> None:
    """TestAutoscalerUnpanicAfterSlowIncrease."""
    law = KpaLaw(1.0, max_scale_up_rate=10.0, max_scale_down_rate=10.0)
    pods, memory = scale(law, CALM, now=0.0, ready=10, stable=11, panic=25)
    assert (pods, memory.panic_at) == (25, 0.0)
    pods, memory = scale(law, memory, now=30.0, ready=40, stable=30, panic=41)
    assert (pods, memory.panic_at) == (41, 0.0)
    pods, memory = scale(law, memory, now=62.0, ready=55, stable=50, panic=56)
    assert (pods, memory.panic_at) == (50, None)


def test_a_surge_that_goes_on_extends_the_panic() -> None:
    """TestAutoscalerExtendPanicWindow."""
    law = KpaLaw(1.0, max_scale_up_rate=10.0, max_scale_down_rate=10.0)
    _, memory = scale(law, CALM, now=0.0, ready=10, stable=11, panic=25)
    pods, memory = scale(law, memory, now=30.0, ready=40, stable=30, panic=80)
    assert (pods, memory.panic_at) == (80, 30.0)


def test_panic_never_shrinks() -> None:
    law = KpaLaw(1.0, max_scale_down_rate=10.0)
    _, memory = scale(law, CALM, now=0.0, ready=2, stable=4, panic=8)
    pods, _ = scale(law, memory, now=30.0, ready=8, stable=2, panic=1)
    assert pods == 8


def test_a_scale_down_delay_keeps_the_highest_wish() -> None:
    """TestAutoscalerScaleDownDelay, "simple" and "gradual"."""
    law = KpaLaw(
        10.0, panic_threshold=100, max_scale_up_rate=10.0, max_scale_down_rate=10.0, scale_down_delay_seconds=300.0
    )
    memory, made = CALM, []
    for now, load in ((2, 40), (300, 0), (302, 0), (540, 40), (600, 30), (660, 0), (840, 0), (900, 0)):
        pods, memory = scale(law, memory, now=now, ready=1, stable=load, panic=load)
        made.append(pods)
    assert made == [4, 4, 0, 4, 4, 4, 3, 0]


def test_it_begins_in_panic_over_more_than_one_pod() -> None:
    """A restart has no history: for the length of the window it keeps what it finds."""
    idle = in_flight(0)
    assert held(named("kpa"), lambda now: idle, start=3, seconds=75)[:6] == [3, 3, 3, 3, 3, 1]
    assert held(named("kpa", least=0), lambda now: idle, start=1, seconds=45) == [1, 1, 0, 0]


def test_zero_waits_for_its_grace_and_a_router_wakes_it() -> None:
    kpa = named("kpa", least=0)
    idle = [seen(15.0 * i, [in_flight(0)]) for i in range(3)]
    empty = [seen(45.0 + 15.0 * i, [], desired=0, arrivals_total=7.0) for i in range(6)]
    woken = [seen(135.0, [], desired=0, arrivals_total=8.0)]
    assert replicas(kpa, [*idle, *empty, *woken]) == [1, 1, 0, *[0] * 6, 1]


def test_a_pod_that_shows_nothing_counts_as_the_others() -> None:
    assert replicas(named("kpa:target=10,utilization=1"), [seen(0.0, [in_flight(5)], silent=1)]) == [2]
    assert replicas(named("kpa:target=2,utilization=1"), [seen(0.0, [in_flight(5)], silent=1)]) == [5]


def test_booting_pods_do_not_end_a_panic() -> None:
    """It counts ready pods: while they boot the load stays over, and it asks for more as more comes."""
    looks = [seen(15.0 * i, [in_flight(200 + 70 * i)], booting=max(0, i), desired=1 + i) for i in range(6)]
    assert replicas(named("kpa"), looks) == [3, 4, 5, 6, 7, 8]


def test_golden_decisions_of_a_ramp() -> None:
    assert told("kpa:target=20") == GOLDEN


GOLDEN = "0:2 41:3 42:4 44:5 45:6 46:7 47:9 48:10 49:12 50:14 58:7 61:8 63:9 73:8 100:7 101:5 102:3 103:2"
