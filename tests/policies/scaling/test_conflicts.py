"""What is put back again and again is told from what a person changes once."""

from __future__ import annotations

from policies.scaling.conflicts import TIMES, TRY_AGAIN_SECONDS, ByHand, Change, PutBacks

MINUTE = 60.0


def put_back(times: int, every_seconds: float = 3 * MINUTE) -> PutBacks:
    """So many writes from 2 to 5, each undone half a period later."""
    seen = PutBacks()
    for number in range(times):
        at = number * every_seconds
        seen = seen.saw(2, at).wrote(2, 5, at).saw(5, at + 15).saw(2, at + every_seconds / 2)
    return seen


def test_three_times_within_the_hour_is_a_conflict_that_is_tried_again_later() -> None:
    last = (TIMES - 0.5) * 3 * MINUTE
    assert not put_back(TIMES - 1).lasts(last)
    assert put_back(TIMES).lasts(last)
    assert put_back(TIMES).lasts(last + TRY_AGAIN_SECONDS - 1)
    assert not put_back(TIMES).lasts(last + TRY_AGAIN_SECONDS)


def test_what_is_spread_over_hours_is_none() -> None:
    assert not put_back(6, every_seconds=40 * MINUTE).lasts(5.5 * 40 * MINUTE)


def test_another_number_than_the_old_one_is_somebody_scaling_by_hand() -> None:
    seen = PutBacks()
    for number in range(10):
        seen = seen.wrote(2, 5, number * MINUTE).saw(7, number * MINUTE + 15)
    assert seen.times == ()


def test_a_number_that_stood_for_long_is_not_put_back() -> None:
    seen = PutBacks()
    for number in range(10):
        seen = seen.wrote(2, 5, number * 60 * MINUTE).saw(2, number * 60 * MINUTE + 30 * MINUTE)
    assert seen.times == ()


def test_a_number_of_somebody_else_is_remembered_until_our_next() -> None:
    ours = ByHand().saw(2, 0).wrote(5).saw(5, 15)
    assert ours.change is None
    theirs = ours.saw(7, 30).saw(7, 45)
    assert theirs.change == Change(5, 7, 30)
    assert theirs.saw(9, 60).change == Change(7, 9, 60)
    assert theirs.wrote(6).saw(6, 60).change is None


def test_what_is_not_known_to_have_been_ours_is_nobodys() -> None:
    assert ByHand().saw(7, 0).change is None
