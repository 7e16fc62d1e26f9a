"""What a day in shadow mode would have saved or lost, hour by hour."""

from __future__ import annotations

import pytest

from policies.scaling.decision import Binding, Decision
from policies.scaling.shadow import HOURS_KEPT, hours_after, replica_hours
from policies.scaling.status import ShadowHour

NOON = 1_760_011_200.0
TICK_SECONDS = 15.0


def decided(ours: int, theirs: int) -> Decision:
    return Decision(NOON, ours, ours, theirs, Binding.FORECAST, "as the test says")


def test_theirs_above_ours_is_saved_and_below_is_lost() -> None:
    assert replica_hours(decided(3, 5), 1_800) == (1.0, 0.0)
    assert replica_hours(decided(5, 3), 900) == (0.0, 0.5)
    assert replica_hours(decided(4, 4), 900) == (0.0, 0.0)


def test_an_hour_of_turns_adds_up_and_the_next_begins_anew() -> None:
    hours: tuple[ShadowHour, ...] = ()
    for turn in range(360):
        ours = 3 if turn < 120 else 6
        hours = hours_after(hours, decided(ours, 5), TICK_SECONDS, NOON + turn * TICK_SECONDS)
    second, first = hours
    assert (first.hour, second.hour) == ("2025-10-09T12:00:00Z", "2025-10-09T13:00:00Z")
    assert (first.saved_replica_hours, first.lost_replica_hours) == pytest.approx((1.0, 0.5))
    assert (second.saved_replica_hours, second.lost_replica_hours) == pytest.approx((0.0, 0.5))


def test_a_day_is_kept() -> None:
    hours: tuple[ShadowHour, ...] = ()
    for hour in range(30):
        hours = hours_after(hours, decided(1, 2), 3_600, NOON + hour * 3_600)
    assert len(hours) == HOURS_KEPT
    assert hours[0].hour == "2025-10-10T17:00:00Z"
    assert {each.saved_replica_hours for each in hours} == {1.0}
