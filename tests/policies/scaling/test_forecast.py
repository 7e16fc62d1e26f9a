from __future__ import annotations

from collections.abc import Callable
from math import sin

import numpy as np
import pytest

from policies.scaling.decision import Forecast
from policies.scaling.forecast import PRIOR_ERROR, ForecastFit, fit, foresee
from policies.scaling.forecasters.views import LastValue, Past, Trend, View, trailing_mean
from policies.scaling.series import Series
from tests.policies.scaling.story import policy

DAY = 86_400.0
POLICY = policy()


def past(rate: Callable[[float], float], days: float, *, noise: float = 0.0, until: float = 0.0) -> tuple[Past, float]:
    """Days of arrivals at a rate, folded as a history folds them."""
    rng = np.random.default_rng(7)
    fine, coarse = Series(60.0, 1440), Series(300.0, 8 * 288)
    start = 19_000 * DAY
    end = start + days * DAY + until
    for minute in range(round((end - start) / 60)):
        at = start + minute * 60.0
        count = max(0.0, rate(at - start) * (1 + noise * rng.standard_normal())) * 60
        row = (60.0, count, 0.0, 0.0, 0.0, 0.0)
        fine, coarse = fine.add(at, at + 60, row), coarse.add(at, at + 60, row)
    return Past(fine, coarse), end


def fitted(seen: Past, now: float, *, horizon: float = 180.0, quantile: float = 0.9) -> ForecastFit:
    found = fit(seen, POLICY.views, now=now, horizon_seconds=horizon, quantile=quantile, smooth_seconds=180.0)
    assert found is not None
    return found


def ahead(seen: Past, now: float, found: ForecastFit | None, horizon: float = 180.0) -> Forecast:
    forecast = foresee(seen, POLICY.views, found, now=now, horizon_seconds=horizon, quantile=0.9)
    assert forecast is not None
    return forecast


def daily(at: float) -> float:
    """Quiet, with a steep rise at the eighth hour of each day, over in half an hour."""
    hour = at % DAY / 3600
    return 2.0 + 10.0 * min(1.0, max(0.0, (hour - 8) * 2)) * (hour < 20)


def test_a_daily_rise_is_foreseen_by_the_season_before_it_begins() -> None:
    seen, now = past(daily, 3, noise=0.05, until=8.1 * 3600)
    found = fitted(seen, now, horizon=600.0)
    assert POLICY.views[found.view].name == "seasonal-day"
    forecast = ahead(seen, now, found, 600.0)
    assert forecast.expected > 1.4 * LastValue(120.0).ahead(seen, 0.0)[-1]


def hourly(at: float) -> float:
    """A few minutes of each hour as many again, whatever comes beside."""
    return 4.0 + 2.0 * sin(at / 5000) + 5.0 * (at % 3600 < 600)


def test_what_comes_each_hour_is_foreseen_before_it_comes_and_before_it_goes() -> None:
    seen, now = past(hourly, 0, noise=0.05, until=12 * 3600 - 120)
    found = fitted(seen, now, horizon=240.0)
    assert POLICY.views[found.view].name == "recurring-hour"
    assert ahead(seen, now, found, 240.0).expected == pytest.approx(hourly(12 * 3600 + 120), rel=0.25)
    seen, now = past(hourly, 0, noise=0.05, until=12 * 3600 + 480)
    assert ahead(seen, now, fitted(seen, now, horizon=240.0), 240.0).expected < 6.5


def test_what_came_in_one_hour_of_three_is_not_expected_again() -> None:
    def once(at: float) -> float:
        return 4.0 + 8.0 * (5 * 3600 <= at < 5 * 3600 + 600)

    view = next(view for view in POLICY.views if view.name == "recurring-hour")
    seen, _ = past(once, 0, until=7 * 3600 - 120)
    assert view.ahead(seen, 240.0)[-1] == pytest.approx(4.0)


def test_where_a_season_has_no_past_yet_the_level_stands_in_for_what_it_would_have_said() -> None:
    """On the second morning yesterday is known, and of yesterday nothing: it is imagined all the same."""
    seen, now = past(daily, 1, noise=0.05, until=9 * 3600)
    found = fitted(seen, now, horizon=600.0)
    believed = POLICY.views[found.view]
    assert believed.name == "seasonal-day"
    own = found.upper(believed.ahead(seen, found.horizon_seconds))
    unknown = np.isnan(own)
    assert unknown.mean() > 0.5
    uppers = found.uppers(seen, POLICY.views)
    assert np.isnan(uppers).sum() <= 1
    assert uppers[~unknown] == pytest.approx(own[~unknown])


def test_a_rise_is_drawn_on_from_the_present_level_and_damped() -> None:
    per_second = 1 / 300
    seen, _ = past(lambda at: 2.0 + per_second * at, 1 / 24)
    level = LastValue(120.0).ahead(seen, 180.0)[-1]
    foreseen = Trend(120.0, 300.0).ahead(seen, 180.0)[-1]
    # The level is that of a minute ago: 240 s are to go, of which 0.7 are believed.
    assert foreseen == pytest.approx(level + 0.7 * per_second * 240.0, rel=1e-4)


@pytest.mark.parametrize("horizon", [0.0, 15.0, 60.0, 76.0, 89.9, 197.3, 600.0])
def test_what_came_is_read_just_a_horizon_after_the_end_of_each_bin(horizon: float) -> None:
    per_second = 1 / 300
    seen, _ = past(lambda at: 2.0 + per_second * at, 1 / 24)
    begun = seen.fine_times()[0] - 60.0
    came = seen.came(horizon, 180.0)
    told = came[~np.isnan(came)][1:-1]  # the outermost have a neighbour on one side alone
    # The rate of a minute is that of its begin, half a minute before its middle.
    there = seen.fine_times() - begun - 30.0 + horizon
    assert told == pytest.approx(2.0 + per_second * there[1 : 1 + len(told)], rel=1e-6)
    assert len(told) == pytest.approx(60 - horizon / 60 - 2, abs=1)


def test_a_view_without_skill_is_muted() -> None:
    rng = np.random.default_rng(3)
    levels = rng.uniform(2, 12, 400)
    seen, now = past(lambda at: levels[int(at // 1800)], 3, noise=0.05)
    found = fitted(seen, now)
    assert not POLICY.views[found.view].name.startswith("seasonal")


def test_half_the_asked_share_is_covered_out_of_sample() -> None:
    seen, now = past(lambda at: 5.0, 2, noise=0.2)
    found = fitted(seen, now)
    assert found.coverage == pytest.approx(0.9, abs=0.06)
    assert found.compared > 1000


def test_a_past_with_a_hole_is_judged_without_it() -> None:
    seen, now = past(daily, 2, noise=0.05)
    sums = seen.fine.sums.copy()
    sums[200:700] = 0.0
    holed = Past(Series(60.0, 1440, seen.fine.first, sums), seen.coarse)
    found = fitted(holed, now)
    assert found.compared < fitted(seen, now).compared
    assert found.mean > 0


def test_an_old_past_says_nothing_of_now() -> None:
    seen, now = past(lambda at: 5.0, 1)
    assert foresee(seen, POLICY.views, None, now=now + 600, horizon_seconds=180, quantile=0.9) is None


def test_without_a_back_test_the_forecast_is_the_level_and_a_margin() -> None:
    seen, now = past(lambda at: 5.0, 0.01)
    forecast = ahead(seen, now, None)
    assert forecast.view == "last-value"
    assert forecast.expected == pytest.approx(5.0)
    assert forecast.upper > 5.0


def test_no_demand_at_all_is_fitted_to_nothing() -> None:
    seen, now = past(lambda at: 0.0, 1)
    assert fit(seen, POLICY.views, now=now, horizon_seconds=180, quantile=0.9, smooth_seconds=180) is None


@pytest.mark.parametrize("view", POLICY.views, ids=lambda view: view.name)
@pytest.mark.parametrize("horizon", [180.0, 600.0, 2 * 3600.0])
def test_no_view_looks_at_anything_later_than_its_time(view: View, horizon: float) -> None:
    seen, _ = past(daily, 8, noise=0.1)
    whole = view.ahead(seen, horizon)
    assert not np.isnan(whole[-1])
    cut = 100
    shorter = Past(
        Series(60.0, 1440, seen.fine.first, seen.fine.sums[:-cut]),
        Series(300.0, 2304, seen.coarse.first, seen.coarse.sums[: -cut // 5]),
    )
    np.testing.assert_allclose(view.ahead(shorter, horizon), whole[:-cut], rtol=1e-5)


def test_a_mean_over_too_little_is_unknown() -> None:
    values = np.array([1.0, np.nan, np.nan, np.nan, 5.0, 5.0])
    assert list(np.isnan(trailing_mean(values, 4))) == [True, True, True, True, True, False]


def test_a_few_errors_are_believed_less_than_many_alike() -> None:
    def steps(at: float) -> float:
        return 3.0 + 6.0 * (at % 600 < 300)

    def level_alone(minutes: float) -> ForecastFit:
        seen, now = past(steps, minutes / 1440)
        found = fit(seen, POLICY.views[:1], now=now, horizon_seconds=180, quantile=0.9, smooth_seconds=180)
        assert found is not None
        return found

    few, many = level_alone(20), level_alone(600)
    assert few.compared < 30 < many.compared
    assert PRIOR_ERROR < few.error < many.error


def test_another_view_is_believed_only_once_it_was_often_compared() -> None:
    short, soon = past(lambda at: 2.0 + at / 600, 25 / 1440)
    long, later = past(lambda at: 2.0 + at / 600, 120 / 1440)
    assert fitted(short, soon).view == 0
    assert fitted(long, later).view != 0


def test_that_a_fleet_fills_up_at_first_is_no_error_of_its_forecasts() -> None:
    filling, now = past(lambda at: 1.0 if at < 60 else 5.0, 20 / 1440)
    steady, _ = past(lambda _: 5.0, 20 / 1440)
    assert fitted(filling, now).error == pytest.approx(fitted(steady, now).error)
    # What rises later is.
    rising, _ = past(lambda at: 1.0 if at < 180 else 5.0, 20 / 1440)
    assert fitted(rising, now).error > 2 * fitted(steady, now).error
