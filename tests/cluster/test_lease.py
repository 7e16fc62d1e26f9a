"""When a Lease may be taken, how long its new holder keeps still, and how it is written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.lease import Record, Sight, Terms, looked, may_take, quiet_seconds

TERMS = Terms()
HELD = Record("other", "t0", 3, 8.0, version="1")


def test_a_record_is_free_when_it_stood_unchanged_for_a_duration_of_our_own_clock() -> None:
    sight = looked(None, HELD, 100.0)
    for now in (101.0, 104.0, 107.9):
        sight = looked(sight, HELD, now)
        assert not may_take(sight, "me", now, TERMS)
    assert may_take(looked(sight, HELD, 108.0), "me", 108.0, TERMS)


def test_a_renewal_begins_the_wait_anew() -> None:
    sight = looked(looked(None, HELD, 100.0), Record("other", "t1", 3, 8.0, version="2"), 107.0)
    assert not may_take(sight, "me", 114.9, TERMS)
    assert may_take(sight, "me", 115.0, TERMS)


def test_a_holder_that_asked_for_longer_is_given_longer() -> None:
    sight = Sight(Record("other", "t0", 0, 60.0), 0.0)
    assert not may_take(sight, "me", 59.0, TERMS)


def test_what_nobody_holds_is_free_at_once() -> None:
    for record in (None, Record("", "t", 1, 1.0), Record("me", "t", 1, 8.0)):
        assert may_take(Sight(record, 5.0), "me", 5.0, TERMS)


def test_only_after_a_clean_end_a_new_holder_need_not_keep_still() -> None:
    assert quiet_seconds(Record("", "t", 1, 1.0), "me", TERMS) == 0
    assert quiet_seconds(Record("me", "t", 1, 8.0), "me", TERMS) == 0
    assert quiet_seconds(HELD, "me", TERMS) == TERMS.duration
    assert quiet_seconds(None, "me", TERMS) == TERMS.duration


def test_the_shipped_terms_hand_over_within_twenty_seconds_and_leave_no_overlap() -> None:
    assert 2 * TERMS.duration + 2 * TERMS.retry + TERMS.request <= 20
    # What was begun at the last moment ends before anybody else may write.
    assert TERMS.renew_deadline < TERMS.duration
    assert TERMS.retry + TERMS.request < TERMS.renew_deadline


@given(st.floats(0, 1e6), st.floats(0, 100), st.lists(st.floats(0, 3), max_size=20))
def test_no_clock_but_our_own_matters(start: float, drift: float, looks: list[float]) -> None:
    """The candidate's answer depends on how long it looked, never on what either clock shows."""

    def story(begun: float) -> list[bool]:
        now, sight, told = begun, looked(None, HELD, begun), []
        for pause in looks:
            now += pause
            sight = looked(sight, HELD, now)
            told.append(may_take(sight, "me", now, TERMS) if abs(now - begun - 8) > 1e-6 else True)
        return told

    waited = 0.0
    for pause, (here, there) in zip(looks, zip(story(start), story(start + drift), strict=True), strict=True):
        waited += pause
        if abs(waited - 8) > 1e-3:
            assert here == there == (waited >= 8)
