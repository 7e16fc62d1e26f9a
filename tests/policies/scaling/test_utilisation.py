"""How full replicas are planned, from what the last day would have been at each utilisation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.scaling.lateness import Lateness
from policies.scaling.utilisation import MOST_LATE, TRUTH, UNTIL, USE, UTILISATIONS, Imagined, Utilisation, imagine

BINS = 1440
NONE = np.zeros(BINS, dtype=bool)
ALL = np.ones(BINS, dtype=bool)
DAY_SECONDS = 86_400.0
TIMES = 60.0 * np.arange(1, BINS + 1, dtype=np.float64)


def day(late_share: NDArray[np.float64] | list[float], requests: float = 100.0) -> Imagined:
    """A day on which every minute had this share late at each of the utilisations."""
    shares = np.asarray(late_share)[:, np.newaxis] * np.ones(BINS)
    return Imagined(shares * requests, np.full(BINS, requests))


def chosen(
    imagined: Imagined,
    before: Utilisation | None = None,
    *,
    attainment: float = 0.99,
    prior_requests: float = 0.0,
    lead_ratio: float = 1.0,
    mean_replicas: float = 1e9,
    leaving: NDArray[np.bool_] = NONE,
    now: float = DAY_SECONDS,
) -> Utilisation:
    return (before or Utilisation()).then(
        imagined,
        TIMES,
        now=now,
        leaving=leaving,
        keep=1.0,
        attainment=attainment,
        prior_requests=prior_requests,
        lead_ratio=lead_ratio,
        mean_replicas=mean_replicas,
    )


def since(began: float, *, late: float = 0.0, value: float = 1.0) -> Utilisation:
    """Chosen last at `began`, with so many late since."""
    return Utilisation(value, late_since=late, periods=np.array([(began, 0.0, value)]))


def late_at(value: float, imagined: Imagined) -> float:
    """Imagined late of the whole day at this utilisation."""
    return float(np.interp(value, UTILISATIONS, imagined.late.sum(axis=1)))


def rising_from(utilisation: float) -> NDArray[np.float64]:
    """Nobody late below it, and e times as many for each 0.1 beyond it, where the objective's own share is reached."""
    return 0.01 * USE * np.exp((UTILISATIONS - utilisation) / 0.1)


@pytest.mark.parametrize("bears", [0.7, 1.0, 1.3])
def test_it_is_as_full_as_the_objective_allows(bears: float) -> None:
    assert chosen(day(rising_from(bears))).value == pytest.approx(bears, abs=0.02)


def test_a_stricter_objective_runs_emptier() -> None:
    calm = day(rising_from(1.1))
    assert chosen(calm, attainment=0.999).value < chosen(calm).value < chosen(calm, attainment=0.95).value


def test_a_step_that_no_fleet_would_have_met_does_not_drive_it_to_the_ceiling() -> None:
    calm = rising_from(1.1)
    step = day(calm)
    step.late[:, 700:730] = 100.0  # half an hour, all late at every utilisation: two percent of the day
    with_step = chosen(step).value
    assert 0.9 < with_step < chosen(day(calm)).value


def with_steps(*begin: int) -> Imagined:
    """A calm day with half-hour steps that all but the emptiest fleet are late for: two percent of the day each."""
    told = day(rising_from(1.1))
    for minute in begin:
        told.late[1:, minute : minute + 30] = 100.0
    return told


def test_one_event_alone_does_not_empty_the_replicas_and_two_do() -> None:
    calm, once, twice, thrice = (
        chosen(with_steps(*begin)).value for begin in ((), (600,), (600, 900), (300, 600, 900))
    )
    assert 0.95 < once < calm
    assert twice < 0.65
    assert thrice <= twice
    assert chosen(with_steps(615)).value == pytest.approx(once)  # at whatever minute it begins


def test_of_what_little_is_aimed_for_beside_what_could_not_be_helped_one_event_is_heard_for_half_too() -> None:
    """Or a crowd of five minutes, for most of which no fleet is large enough, empties the replicas for a day."""
    crowd = with_steps(600)
    crowd.late[0, 600:630] = 50.0
    calm = chosen(day(rising_from(1.1))).value
    assert 0.9 < chosen(crowd).value < calm


def test_what_one_event_is_heard_for_is_remembered_no_louder() -> None:
    after = chosen(with_steps(600), leaving=ALL)
    calm = chosen(day(rising_from(1.1)), leaving=ALL)
    one = list(UTILISATIONS).index(0.6)
    assert after.past_late[one] - calm.past_late[one] <= 0.5 * USE * 0.01 * after.past_requests


def test_without_a_past_the_prior_speaks_and_a_longer_start_makes_it_careful() -> None:
    nothing = Imagined(np.zeros((len(UTILISATIONS), BINS)), np.zeros(BINS))
    ratios = (0.001, 0.5, 1.0, 2.0, 1000.0)
    value = {ratio: chosen(nothing, prior_requests=1e5, lead_ratio=ratio).value for ratio in ratios}
    assert value == pytest.approx({0.001: 1.2, 0.5: 1.1, 1.0: 0.98, 2.0: 0.86, 1000.0: 0.7})


def test_the_more_was_seen_the_less_careful_the_prior_is() -> None:
    calm = day(np.zeros(len(UTILISATIONS)))
    values = [chosen(calm, prior_requests=float(calm.requests.sum()) * weight).value for weight in (0.5, 2.0, 100.0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] > 0.95


def test_few_replicas_are_planned_fuller_as_far_as_their_traffic_was_seen() -> None:
    nothing = Imagined(np.zeros((len(UTILISATIONS), BINS)), np.zeros(BINS))
    assert chosen(nothing, prior_requests=1e5, mean_replicas=0.5).value == chosen(nothing, prior_requests=1e5).value
    calm = day(np.zeros(len(UTILISATIONS)))
    as_much = float(calm.requests.sum())
    few = {
        many: chosen(calm, prior_requests=as_much, mean_replicas=many).value - 0.15 * np.log(2)
        for many in (0.01, 0.5, 2.0, 1e9)
    }
    ratios = {many: value / few[1e9] for many, value in few.items()}
    assert ratios == pytest.approx({0.01: 1.225, 0.5: 1.15, 2.0: 1.0375, 1e9: 1.0})


def test_without_a_past_a_strict_objective_runs_emptier() -> None:
    nothing = Imagined(np.zeros((len(UTILISATIONS), BINS)), np.zeros(BINS))
    strict = {share: chosen(nothing, prior_requests=1e5, attainment=share).value for share in (0.95, 0.99, 0.999)}
    assert strict[0.99] - strict[0.999] == pytest.approx(0.08 * np.log(10))
    assert strict[0.95] - strict[0.99] == pytest.approx(0.08 * np.log(5))


def test_what_was_imagined_is_believed_as_far_as_it_came_true() -> None:
    imagined = day(rising_from(1.0))
    expected = late_at(1.0, imagined)
    assert expected > 0

    def with_late(share: float) -> float:
        return chosen(imagined, since(0.0, late=share * expected), prior_requests=1e4).value

    assert with_late(0.1) > with_late(0.25) > with_late(0.5) > with_late(1.0) > with_late(1.5)
    # A single night that went well, or one that went wrong, is believed within bounds.
    assert with_late(50.0) == pytest.approx(with_late(TRUTH[1]), abs=0.01)


def test_each_period_is_held_against_the_utilisation_that_was_in_force() -> None:
    imagined = day(rising_from(1.0))
    before_noon, after = (late_at(value, imagined) / 2 for value in (0.9, 1.1))
    one_then_other = chosen(imagined, since(0.0, late=before_noon, value=0.9), now=DAY_SECONDS / 2, prior_requests=1e4)
    both = chosen(imagined, replace(one_then_other, late_since=after, value=1.1), prior_requests=1e4)
    came_true = since(0.0, late=late_at(1.0, imagined))
    assert both.value == pytest.approx(chosen(imagined, came_true, prior_requests=1e4).value)


def test_a_step_whose_lateness_is_imagined_by_now_is_not_counted_twice() -> None:
    imagined = day(rising_from(1.0))
    expected = late_at(1.0, imagined)
    # Before the curve of lateness had learnt of it nothing was imagined; now all of it is, and the past is the same.
    unknown = chosen(day(np.zeros(len(UTILISATIONS))), since(0.0, late=expected), prior_requests=1e4)
    learnt = chosen(imagined, replace(unknown, value=1.0), now=DAY_SECONDS + 300.0, prior_requests=1e4)
    never = chosen(imagined, since(0.0, late=expected), prior_requests=1e4)
    assert learnt.value == pytest.approx(never.value)


def test_what_was_late_before_the_day_that_is_imagined_is_forgotten() -> None:
    imagined = day(rising_from(1.0))
    old = np.array([(-300.0, 0.0, 1.0), (0.0, 1e6, 1.0)])
    as_imagined = since(0.0, late=late_at(1.0, imagined))
    after = chosen(imagined, replace(as_imagined, periods=old), prior_requests=1e4)
    assert after.value == chosen(imagined, as_imagined, prior_requests=1e4).value
    assert after.periods[:, UNTIL].tolist() == [0.0, DAY_SECONDS]


def test_five_minutes_in_which_all_were_late_tell_little_of_the_days_that_are_imagined() -> None:
    imagined = day(rising_from(1.0))
    began = DAY_SECONDS - 300.0
    ordinary = chosen(imagined, since(0.0, late=1000.0), now=began, prior_requests=1e4)
    values = {
        share: chosen(imagined, replace(ordinary, late_since=share * 500.0), prior_requests=1e4).value
        for share in (0.0, MOST_LATE, 1.0)
    }
    assert values[0.0] > values[MOST_LATE] == values[1.0]


def test_what_was_late_while_replicas_were_wished_for_and_did_not_come_tells_nothing() -> None:
    imagined = day(rising_from(1.0))
    short = since(0.0).with_late(1e3).with_late(None).with_late(1e3)
    as_imagined = since(0.0, late=late_at(1.0, imagined))
    after = chosen(imagined, short, prior_requests=1e4)
    assert after.value == pytest.approx(chosen(imagined, as_imagined, prior_requests=1e4).value)
    # And the time that is no measure ends with the refit.
    assert after.with_late(5.0).late_since == 5.0


def test_days_before_the_last_are_remembered() -> None:
    bad, good = day(rising_from(0.7)), day(rising_from(1.3))
    after = chosen(bad, leaving=ALL)
    assert after.past_requests == pytest.approx(bad.requests.sum())
    assert chosen(good, Utilisation()).value > chosen(good, after).value > chosen(bad).value


def imagined_fleet(loads: NDArray[np.float64], **changed: float) -> Imagined:
    settings = {"capacity": 2.0, "hardest": 2.8, "step_seconds": 60.0, "ttft_objective_seconds": 3.0} | changed
    return imagine(loads, loads, Lateness().curve(), hold_bins=15, lead_bins=3, fewest=1, most=20, **settings)


def test_a_steady_load_is_late_only_where_replicas_are_planned_too_full() -> None:
    late = imagined_fleet(np.full(BINS, 20.0)).late.sum(axis=1)
    share = late / (BINS * 20.0 * 60.0)
    assert np.all(share[UTILISATIONS <= 1.0] < 0.01)
    assert share[-1] > 0.9


def test_a_step_is_late_for_as_long_as_a_start_takes_and_its_queue_after_it() -> None:
    loads = np.concatenate((np.full(600, 4.0), np.full(BINS - 600, 12.0)))
    one = list(UTILISATIONS).index(1.0)
    late = imagined_fleet(loads).late[one] / (loads * 60.0)
    assert np.all(late[:600] < 0.01)
    assert np.all(late[600:604] > 0.9)  # known at the end of the minute that shows it, and served three after that
    assert np.all(late[700:] < 0.01)
    slow = imagine(
        loads, loads, Lateness().curve(), capacity=2.0, hardest=2.8, hold_bins=15, lead_bins=7, fewest=1, most=20,
        step_seconds=60.0, ttft_objective_seconds=3.0,
    )  # fmt: skip
    assert slow.late[one].sum() > 1.5 * (late * loads * 60.0).sum()
    assert np.all(np.diff(slow.late.sum(axis=1)) >= -1e-6)
