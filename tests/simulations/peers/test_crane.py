"""crane's periodic forecast, and the HPA that takes the highest of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulations.peers.crane import Crane, Forecast
from simulations.peers.crane_signal import (
    ESTIMATORS,
    amplified,
    next_cycle,
    period_seconds,
    prediction_error,
    whole_cycles,
    without_outliers,
)
from tests.simulations.peers.seen import decisions, in_flight, named, seen, told

DAY, WEEK = 86_400.0, 604_800.0
STEP = 600.0
"""Ten minutes a sample keep these tests quick; crane's default is one."""
PER_DAY = round(DAY / STEP)


def days(count: int, noise: float = 0.0, weekend: float = 1.0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A day's curve, lower at weekends where told; "noise" is a fixed jagged pattern, not chance."""
    place = np.arange(count * PER_DAY)
    curve = 60 + 40 * np.sin(2 * np.pi * place / PER_DAY)
    curve = curve * np.where(place // PER_DAY % 7 >= 5, weekend, 1.0)
    return np.asarray(curve + noise * np.sin(place * place * 0.37), dtype=np.float64)


def test_a_day_that_repeats_is_found_and_noise_is_not() -> None:
    assert period_seconds(days(3), STEP, (DAY, WEEK)) == DAY
    assert period_seconds(days(3, noise=10.0), STEP, (DAY, WEEK)) == DAY
    assert period_seconds(days(1), STEP, (DAY, WEEK)) is None
    jagged = np.sin(np.arange(3 * PER_DAY) ** 2 * 0.37)
    assert period_seconds(jagged, STEP, (DAY, WEEK)) is None
    assert period_seconds(np.full(3 * PER_DAY, 5.0), STEP, (DAY, WEEK)) is None


def test_half_a_day_is_a_period_but_none_that_it_believes() -> None:
    place = np.arange(3 * PER_DAY)
    assert period_seconds(50 + 40 * np.sin(4 * np.pi * place / PER_DAY), STEP, (DAY, WEEK)) is None


def test_two_weeks_with_weekends_repeat_weekly() -> None:
    assert period_seconds(days(14, weekend=0.2), STEP, (DAY, WEEK)) in (DAY, WEEK)
    shifted = np.concatenate([np.where(np.arange(7 * PER_DAY) // PER_DAY == 2, 90.0, 10.0)] * 2)
    assert period_seconds(shifted, STEP, (DAY, WEEK)) == WEEK


def test_the_next_cycle_is_the_last_without_its_noise_and_with_a_margin() -> None:
    cycle = next_cycle(days(3), STEP, DAY)
    assert cycle is not None
    assert len(cycle) == PER_DAY
    ratio = cycle / days(1)
    margins = [each.margin for each in ESTIMATORS]
    assert min(ratio) == pytest.approx(max(ratio), rel=1e-6)
    assert any(ratio[0] == pytest.approx(1 + margin, rel=1e-6) for margin in margins)
    assert next_cycle(days(1), STEP, DAY) is None


def test_too_little_is_charged_more_than_too_much() -> None:
    """accuracy.go: 0.1 counts as 0.47, 0.5 as 3.1."""
    assert amplified(0.1) == pytest.approx(0.47, abs=0.005)
    assert amplified(0.5) == pytest.approx(3.1, abs=0.01)
    assert amplified(1.0) == math.inf
    actual, low, high = np.array([10.0]), np.array([9.0]), np.array([11.0])
    assert prediction_error(actual, low) > prediction_error(actual, high) == pytest.approx(0.1)
    assert prediction_error(np.array([0.0, 4.0]), np.array([1.0, 3.0])) == pytest.approx(1.0)


def test_outliers_are_replaced_by_what_came_before() -> None:
    samples = [float(10 + place % 7) for place in range(2000)]
    samples[500] = 1e6
    cleaned = without_outliers(samples)
    assert cleaned[500] == samples[499]
    assert len(cleaned) == 2000


def test_whole_cycles_are_the_newest() -> None:
    """TestSignal_Truncate: of 15 days two weeks remain."""
    assert len(whole_cycles(np.arange(24.0 * 15), 24 * 7)) == 24 * 14
    assert whole_cycles(np.arange(10.0), 3).tolist() == list(range(1, 10))


def test_the_highest_of_the_window_counts_and_beyond_the_forecast_nothing() -> None:
    forecast = Forecast(600.0, (1.0, 9.0, 2.0, 3.0))
    assert forecast.highest(600.0, 1200.0, 60.0) == 9.0
    assert forecast.highest(700.0, 760.0, 60.0) == 2.0
    assert forecast.highest(0.0, 500.0, 60.0) is None
    assert forecast.highest(900.0, 1200.0, 60.0) is None


def squeezed(spec: str = "crane") -> Crane:
    """With a day of an hour, an hour's window of two and a half minutes."""
    crane = named(spec)
    assert isinstance(crane, Crane)
    return Crane(crane.hpa, crane.readings, crane.target, 150.0, 15.0, 7 * 3600.0, 1800.0, (3600.0, 7 * 3600.0))


def test_a_peak_that_came_twice_is_met_ahead_of_time() -> None:
    """Each hour a wave: the third is met by replicas that were asked for before it rose."""

    def load(now: float) -> float:
        return 80.0 - 60.0 * math.cos(2 * math.pi * now / 3600.0)

    looks = [seen(15.0 * i, [in_flight(load(15.0 * i) / 5)] * 5) for i in range(4 * 240)]
    made = [decision.replicas for decision in decisions(squeezed(), looks)]
    rise = range(10, 110)
    second = sum(made[240 + place] for place in rise)
    fourth = sum(made[720 + place] for place in rise)
    assert fourth > second
    needed = math.ceil(load(15.0 * 30) / 16)
    assert (made[240 + 30], made[720 + 30]) == (needed, needed + 1)


def test_before_two_whole_days_it_is_an_hpa() -> None:
    assert told("crane") == GOLDEN


def test_a_gap_is_bridged_by_a_straight_line_and_a_long_one_forgets() -> None:
    crane = squeezed()
    state = crane.begin()
    for now, total in ((0.0, 10.0), (15.0, 20.0), (60.0, 50.0)):
        _, state = crane.decide(seen(now, [in_flight(total)]), state)
    assert state.samples == (10.0, 20.0, 30.0, 40.0, 50.0)
    _, state = crane.decide(seen(60.0 + 3700.0, [in_flight(7.0)]), state)
    assert state.samples == (7.0,)


def test_a_forecast_that_ran_out_keeps_it_from_shrinking() -> None:
    crane = squeezed()
    _, state = crane.decide(seen(0.0, [in_flight(1)] * 3), crane.begin())
    outdated = type(state)(state.hpa, samples=(1.0,), last_at=0.0, learnt_at=0.0, forecast=Forecast(-100.0, (5.0,)))
    for place in range(1, 30):
        decision, outdated = crane.decide(seen(15.0 * place, [in_flight(1)] * 3), outdated)
        assert decision.replicas == 3


GOLDEN = "0:2 42:3 44:5 46:6 47:8 49:11 50:13 51:15 75:13 76:11 77:9 78:7 84:8 115:7 120:2"
