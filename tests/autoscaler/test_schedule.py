"""Turns fall on whole multiples of the tick, whatever each of them takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.schedule import Schedule, share_of_tick


@given(st.floats(0, 1e6), st.sampled_from([1.0, 5.0, 15.0, 30.0]), st.integers(0, 100_000))
def test_ticks_do_not_drift(start: float, tick_seconds: float, number: int) -> None:
    schedule = Schedule(start, tick_seconds)
    assert schedule.due(number) == start + number * tick_seconds


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_next_tick_is_the_first_that_is_not_past(start: float, now: float) -> None:
    schedule = Schedule(start, 15.0)
    number = schedule.number_at_or_after(now)
    assert schedule.due(number) >= now - 1e-6
    assert number == 0 or schedule.due(number - 1) < now + 1e-6


def test_names_are_spread_evenly_over_the_tick() -> None:
    shares = [share_of_tick(f"inference/llama-{number}") for number in range(1_000)]
    assert all(0 <= share < 1 for share in shares)
    for tenth in range(10):
        assert 60 < sum(tenth / 10 <= share < (tenth + 1) / 10 for share in shares) < 140


def test_a_name_keeps_its_place_over_a_restart() -> None:
    assert share_of_tick("inference/llama") == 0.25315376091748476  # hash() would differ in every process
