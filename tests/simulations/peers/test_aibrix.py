"""AIBrix as coded and as documented: its own tests, its issue 2670, and where the two part."""

from __future__ import annotations

import pytest

from simulations.peers.aibrix import AibrixLaw, apa, kpa
from tests.simulations.peers.seen import held, named, replicas, seen, told


def kv(usage: float) -> dict[str, float]:
    return {"kv_cache_usage": usage}


@pytest.mark.parametrize(
    ("replicas_", "per_pod", "expected"),
    [
        (4, 80, 7),  # Of a target of 50: 4 · 1.6, rounded up.
        (4, 85, 7),
        (4, 54, 4),  # Within the tolerance of a tenth.
        (4, 46, 4),
        (4, 200, 8),  # At most doubled.
        (4, 5, 2),  # At most halved.
        (4, 44, 4),  # Below the tolerance, but rounded up to what is there.
        (10, 44, 9),
        (0, 100, 0),
    ],
)
def test_apa_follows_the_mean_of_a_pod(replicas_: int, per_pod: float, expected: int) -> None:
    assert apa(AibrixLaw(50.0), replicas_, per_pod) == expected


@pytest.mark.parametrize(
    ("law", "replicas_", "stable", "panic", "expected"),
    [
        (AibrixLaw(10.0), 2, 20.0, 20.0, 2),  # stable_mode_basic_scaling of kpa_test.go.
        (AibrixLaw(10.0, max_scale_up_rate=1.5), 2, 100.0, 100.0, 3),  # max_scale_up_rate_limit.
        (AibrixLaw(10.0), 4, 5.0, 5.0, 2),  # max_scale_down_rate_limit.
        (AibrixLaw(10.0, panic_threshold=1.2), 2, 30.0, 40.0, 4),  # panic_mode_scaling_up, its threshold crossed.
        (AibrixLaw(50.0), 4, 85.0, 85.0, 2),  # The mean is not multiplied by the pods.
        (AibrixLaw(10.0), 1, 0.0, 0.0, 0),  # scale_to_zero.
    ],
)
def test_kpa_as_coded_takes_the_mean_for_a_number_of_pods(
    law: AibrixLaw, replicas_: int, stable: float, panic: float, expected: int
) -> None:
    assert kpa(law, replicas_, stable, panic) == expected


@pytest.mark.parametrize(("guard", "expected"), [("no", [4, 8, 16]), ("yes", [4, 4, 4])])
def test_pending_replicas_let_it_double_again_and_again(guard: str, expected: list[int]) -> None:
    """Issue 2670's own figures: 2 ready, and 2, 4, 8 asked; pull request 2671 ends it."""
    looks = [
        seen(0.0, [kv(1.0)] * 2),
        seen(15.0, [kv(1.0)] * 2, booting=2),
        seen(30.0, [kv(1.0)] * 2, booting=2 if guard == "yes" else 6),
    ]
    assert replicas(named(f"aibrix:target=0.5,guard={guard}"), looks) == expected


def test_a_guarded_shrink_counts_what_boots_as_on_target() -> None:
    looks = [seen(0.0, [kv(0.2)] * 4, booting=4)]
    assert replicas(named("aibrix-documented:guard=yes,down_cooldown=0"), looks) == [6]
    assert replicas(named("aibrix-documented:guard=no,down_cooldown=0"), looks) == [4]


def test_a_scrape_that_fails_is_zero_as_coded_and_left_out_as_documented() -> None:
    look = [seen(0.0, [kv(0.5), kv(0.5)], silent=2)]
    assert replicas(named("aibrix-coded"), look) == [2]
    assert replicas(named("aibrix-documented"), look) == [4]


def test_a_shrink_takes_the_lowest_wish_as_coded_and_the_highest_as_documented() -> None:
    """A quiet minute, a busy one, then a little less: five minutes later the quiet one still counts, one way."""
    usage = {0: 0.05, 60: 0.9, 120: 0.4}

    def shown(now: float) -> dict[str, float]:
        return kv(usage[min(120, int(now // 60) * 60)])

    windows = "stable_window=15,panic_window=15"
    coded = held(named(f"aibrix-coded:{windows}", most=8), shown, start=4, seconds=120)
    documented = held(named(f"aibrix-documented:{windows}", most=8), shown, start=4, seconds=120)
    assert coded == [2, 1, 1, 1, 2, 4, 8, 8, 1]
    assert documented == [2, 2, 2, 2, 4, 8, 8, 8, 8]


def test_panic_is_forgotten_as_coded_and_lasts_as_documented() -> None:
    """A jump within the short window, then half of it: the fleet may shrink at once, or only when it is over."""

    def shown(now: float) -> dict[str, float]:
        return {"requests_running": 4.0 if now < 180 else 40.0 if now < 195 else 6.0, "requests_waiting": 0.0}

    spec = "algorithm=kpa,metric=in-flight,target=10,panic_window=15,down_cooldown=0"
    coded = held(named(f"aibrix-coded:{spec}"), shown, start=2, seconds=240)
    documented = held(named(f"aibrix-documented:{spec}"), shown, start=2, seconds=240)
    assert coded[11:] == [1, 2, 1, 1, 1, 1]
    assert documented[11:] == [1, 2, 2, 2, 2, 2]


def test_nothing_shown_by_any_pod_is_no_change_as_documented() -> None:
    assert replicas(named("aibrix-documented"), [seen(0.0, [], silent=3)]) == [3]


def test_golden_decisions_of_a_ramp() -> None:
    assert told("aibrix:guard=yes") == CODED
    assert told("aibrix-documented:algorithm=kpa") == DOCUMENTED


CODED = (
    "0:1 10:2 18:3 28:1 39:2 47:3 55:4 63:5 68:6 71:7 76:8 86:5 99:6 106:5 107:4 108:3 109:2 130:1 "
    "141:2 149:3 159:1 170:2 178:3 188:1 199:2"
)
DOCUMENTED = "0:1 10:2 18:3 47:2 57:3 65:4 73:5 78:6 81:7 86:8 115:7 119:6 122:5 125:4 135:3 142:2 155:1 166:2 174:3"
