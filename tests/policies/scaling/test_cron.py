"""Schedules by the wall clock: what comes next, summer time included, and within what KEDA takes itself to be."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.cron import is_within, read_schedule, zone

BERLIN = ZoneInfo("Europe/Berlin")


def following(text: str, now: dt.datetime) -> str:
    due = read_schedule(text).after(now)
    assert due is not None
    return due.astimezone(now.tzinfo).strftime("%a %Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("text", "following_time"),
    [
        ("30 8 * * *", "Thu 2024-02-29 08:30"),
        ("0 8 * * *", "Fri 2024-03-01 08:00"),  # it is that very minute: the next one
        ("*/20 * * * *", "Thu 2024-02-29 08:20"),
        ("5-10/5,50 * * * *", "Thu 2024-02-29 08:05"),
        ("0 9 * * mon-wed", "Mon 2024-03-04 09:00"),
        ("0 9 1 JAN,jun *", "Sat 2024-06-01 09:00"),
        ("0 9 13 * 5", "Fri 2024-03-01 09:00"),  # either day
        ("0 9 13 * ?", "Wed 2024-03-13 09:00"),
        ("0 0 29 2 *", "Tue 2028-02-29 00:00"),
        ("15 10/6 * * *", "Thu 2024-02-29 10:15"),
    ],
)
def test_the_next_time_of_a_schedule(text: str, following_time: str) -> None:
    assert following(text, dt.datetime(2024, 2, 29, 8, 0, tzinfo=BERLIN)) == following_time


def test_summer_time_skips_what_does_not_exist() -> None:
    # On 31 March 2024 there was no 02:30 in Berlin.
    assert following("30 2 * * *", dt.datetime(2024, 3, 31, 0, 0, tzinfo=BERLIN)) == "Mon 2024-04-01 02:30"
    assert read_schedule("0 0 30 2 *").after(dt.datetime(2024, 1, 1, tzinfo=BERLIN)) is None


@given(st.integers(0, 700 * 86400), st.integers(0, 23), st.integers(0, 59))
def test_between_start_and_end_of_a_day_it_is_within(seconds: int, hour: int, length: int) -> None:
    midnight = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    now = midnight + dt.timedelta(seconds=seconds)
    begins = midnight + dt.timedelta(hours=hour)
    ends = begins + dt.timedelta(minutes=60 + length)
    start, end = (read_schedule(f"{moment.minute} {moment.hour} * * *") for moment in (begins, ends))
    minutes = (now.hour * 60 + now.minute - hour * 60) % 1440
    assert is_within(start, end, now) == (minutes < 60 + length)


def test_one_that_never_comes_is_before_everything() -> None:
    never, daily = read_schedule("0 0 30 2 *"), read_schedule("0 0 * * *")
    now = dt.datetime(2024, 1, 1, tzinfo=zone("UTC"))
    assert is_within(never, daily, now)
    assert not is_within(daily, never, now)
