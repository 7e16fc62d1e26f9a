"""Coverage counted by hand and by force: what is known counts, what is unseen counts neither way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.telemetry import ForecastScore
from policies.scaling.decision import Came, Decision, Forecast
from simulations.replay import Replay
from simulations.report.coverage import Covered, Forecasts, load_at, shares, step_of, weakest, what_was_covered
from tests.simulations.report.compared import compared

REPLAY = compared().outcomes[0].replay
NOTHING = Decision(0.0, 1, 1, 1, REPLAY.decisions[0].binding, "")
TICK = 15.0


def replayed(
    demands: Sequence[float | None], forecasts: Sequence[tuple[float, float]], *, tick: float = TICK
) -> Replay:
    """The load seen at each tick, and forecasts of (time, upper), one made at each tick from the first on."""
    made: list[Forecast | None] = [Forecast(time, "trend", upper / 2, upper, 0.9) for time, upper in forecasts]
    made += [None] * (len(demands) - len(made))
    decisions = tuple(
        replace(NOTHING, time=tick * at, came=None if demand is None else Came(tick * at, demand), forecast=forecast)
        for at, (demand, forecast) in enumerate(zip(demands, made, strict=True))
    )
    return replace(REPLAY, decisions=decisions, end_seconds=tick * len(decisions))


def found(replay: Replay) -> Forecasts:
    made = Forecasts.of(replay)
    assert made is not None
    return made


def test_what_lies_at_the_quantile_is_covered_and_what_lies_above_is_not() -> None:
    made = found(replayed([1.0, 2.0, 3.0, 4.0], [(15.0, 2.0), (30.0, 2.9), (45.0, 5.0)]))
    assert made.came.tolist() == [2.0, 3.0, 4.0]
    assert made.is_covered.tolist() == [True, False, True]
    assert made.quantile == 0.9


def test_a_forecast_is_held_to_the_first_tick_from_its_time_on() -> None:
    made = replayed([1.0, 2.0, 3.0], [])
    assert load_at(made, np.array([0.0, 0.1, 15.0, 15.1, 30.0])).tolist() == [1.0, 2.0, 2.0, 3.0, 3.0]


def test_what_was_not_seen_is_unknown_and_never_zero() -> None:
    made = replayed([1.0, None, 3.0], [(15.0, 9.0), (30.0, 9.0), (10.0, 9.0)])
    assert np.isnan(load_at(made, np.array([15.0, 14.0, 31.0]))).all()
    forecasts = found(made)
    assert forecasts.time.tolist() == [10.0, 15.0, 30.0]
    assert forecasts.by_step(600.0) == (Covered(0.0, 600.0, 1, 1),)
    assert math.isnan(found(replayed([1.0, None, 1.0], [(15.0, 9.0)])).by_step(600.0)[0].share)


def test_a_tick_that_is_missing_leaves_its_time_unknown() -> None:
    made = replayed([1.0] * 6, [])
    late = replace(made, decisions=(*made.decisions[:3], *made.decisions[5:]))
    np.testing.assert_array_equal(load_at(late, np.array([30.0, 40.0, 60.0])), [1.0, np.nan, 1.0])


def test_a_forecast_whose_time_is_still_to_come_is_none_of_these() -> None:
    assert found(replayed([1.0, 1.0, 1.0], [(30.0, 2.0), (31.0, 2.0)])).time.tolist() == [30.0]
    assert Forecasts.of(replayed([1.0, 1.0], [(15.1, 2.0)])) is None


def test_there_is_nothing_to_compare_without_forecasts_or_without_a_load_that_is_told() -> None:
    assert Forecasts.of(replayed([1.0, 2.0], [])) is None
    assert Forecasts.of(replayed([None, None], [(15.0, 2.0)])) is None
    assert Forecasts.of(replace(REPLAY, decisions=())) is None
    assert np.isnan(load_at(replace(REPLAY, decisions=()), np.array([0.0]))).all()


def test_hours_are_counted_apart_and_one_without_a_forecast_is_empty() -> None:
    ticks = 3 * 240 + 1
    times = [(1000.0, 1.0), (3599.0, 2.0), (7200.0, 2.0), (7300.0, 1.0), (7400.0, 1.0)]
    hours = found(replayed([1.5] * ticks, times)).by_step(3600.0)
    assert [(each.covered, each.known) for each in hours] == [(1, 2), (0, 0), (1, 3)]
    assert [each.begin for each in hours] == [0.0, 3600.0, 7200.0]
    assert hours[0].share == 0.5
    assert math.isnan(hours[1].share)


def test_the_same_hour_of_all_days_is_one() -> None:
    tick = 1800.0
    nine = [(86400.0 * day + 9 * 3600.0, 2.0 if day else 1.0) for day in range(3)]
    hours = found(replayed([1.5] * 144, nine, tick=tick)).by_hour_of_day()
    assert hours[9] == Covered(32400.0, 36000.0, 2, 3)
    assert sum(each.known for each in hours) == 3


@given(
    demands=st.lists(st.one_of(st.none(), st.integers(0, 8).map(float)), min_size=2, max_size=60),
    lead=st.integers(1, 12).map(float),
    upper=st.integers(0, 8).map(float),
    since=st.integers(0, 900).map(float),
)
def test_steps_add_up_to_what_is_counted_one_by_one(
    demands: list[float | None], lead: float, upper: float, since: float
) -> None:
    last = TICK * (len(demands) - 1)
    times = [TICK * at + lead * 7.0 for at in range(len(demands))]
    made = Forecasts.of(replayed(demands, [(time, upper) for time in times]))
    if made is None:
        assert set(demands) == {None} or min(times) > last
        return
    late = made.since(since)
    seen = [demands[math.ceil(time / TICK)] for time in times if since <= time <= last]
    known = [each for each in seen if each is not None]
    for stretches in (late.by_step(600.0), late.by_hour_of_day()):
        assert sum(each.known for each in stretches) == len(known)
        assert sum(each.covered for each in stretches) == sum(each <= upper for each in known)
        assert all(each.known == 0 or 0 <= each.share <= 1 for each in stretches)
    assert int(late.is_known.sum()) == len(known)


def test_a_running_autoscaler_would_have_counted_the_same() -> None:
    score = ForecastScore()
    for decision in REPLAY.decisions:
        score.follow(decision, TICK)
    made = found(REPLAY)
    assert score.compared == int(made.is_known.sum()) > 20
    assert score.coverage_ratio == pytest.approx(made.is_covered.sum() / made.is_known.sum())


@pytest.mark.parametrize(
    ("hours", "step"), [(0.0, 600), (1.99, 600), (2.0, 3600), (168.0, 3600), (720.0, 3600), (721.0, 86400)]
)
def test_a_replay_is_told_by_stretches_that_can_be_seen(hours: float, step: float) -> None:
    assert step_of(3600.0 * hours) == step


def test_one_instant_does_not_speak_for_an_hour() -> None:
    told = shares([Covered(0, 1, 30, 40), Covered(1, 2, 0, 9), Covered(2, 3, 5, 10), Covered(3, 4, 0, 0)])
    np.testing.assert_array_equal(told, [0.75, np.nan, 0.5, np.nan])
    np.testing.assert_array_equal(shares([Covered(0, 1, 0, 0)]), [np.nan])
    assert shares([]) == []


def test_the_weakest_is_the_least_covered_of_those_that_hold_enough() -> None:
    few, weak, strong = Covered(0, 600, 0, 19), Covered(600, 1200, 5, 20), Covered(1200, 1800, 39, 40)
    assert weakest([strong, weak, few]) == weak
    assert weakest([few]) is None


def test_a_sentence_tells_the_share_what_was_meant_and_where_it_was_least() -> None:
    demands: list[float | None] = [1.0] * 120
    demands[60:80] = [3.0] * 20
    demands[100:110] = [None] * 10
    made = found(replayed(demands, [(TICK * at, 2.0) for at in range(120)]))
    assert what_was_covered("ours", made, since=0.0, end=1800.0) == (
        "ours: at 90 of 110 instants (81.8%) the load that came was at most what had been planned for; 90% were meant "
        "to be. Of 10 more nothing is known: no load was seen. Fewest from 10:00 to 20:00: 20 of 40 (50.0%)."
    )
    assert what_was_covered("ours", made, since=1200.0, end=1800.0) == (
        "ours: at 30 of 30 instants from 20:00 on (100.0%) the load that came was at most what had been planned for; "
        "90% were meant to be. Of 10 more nothing is known: no load was seen."
    )
    assert what_was_covered("ours", made, since=1e6, end=1800.0) == (
        "ours: no forecast was for a time from 11d 13:46:40 on at which a load was seen."
    )


def test_of_several_days_the_weakest_hour_of_the_day_is_told() -> None:
    tick = 60.0
    demands = [3.0 if at // 60 % 24 == 9 and at % 2 else 1.0 for at in range(2 * 1440)]
    made = found(replayed(demands, [(tick * at, 2.0) for at in range(2 * 1440)], tick=tick))
    said = what_was_covered("ours", made, since=0.0, end=2 * 86400.0)
    told = "Fewest in the hour of the day from 9:00:00 to 10:00:00, counted from the trace's begin: 60 of 120 (50.0%)."
    assert said.endswith(told)
