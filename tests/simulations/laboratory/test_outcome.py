"""Intervals over seeds, and who may be called the best."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from simulations.laboratory.comparison import figures
from simulations.laboratory.outcome import Comparison, LowerBound, Outcome, Spread
from simulations.replay import Schedule, replay
from tests.simulations.scenes import OBJECTIVES, TRACE, scenario

SCENE = scenario(TRACE.until(30))
REPLAY = replay(
    SCENE.trace, SCENE.engine, Schedule.static(3), objectives=OBJECTIVES, conditions=SCENE.conditions, max_replicas=3
)
FIGURES = figures(SCENE, REPLAY)


def outcome(name: str, attained: tuple[float, ...], hours: tuple[float, ...]) -> Outcome:
    runs = tuple(
        replace(FIGURES, seed=seed, slo_attainment=share, gpu_hours=held)
        for seed, (share, held) in enumerate(zip(attained, hours, strict=True))
    )
    return Outcome(name, "", (), 1, 9, runs, REPLAY, "")


def comparison(*outcomes: Outcome, price: float | None = None) -> Comparison:
    seeds = tuple(range(len(outcomes[0].figures)))
    return Comparison(SCENE, seeds, outcomes, LowerBound(0.1, ""), price)


def test_an_interval_is_students_and_one_seed_has_none() -> None:
    spread = Spread.of([1.0, 2.0, 3.0])
    # Two degrees of freedom: 4.3027 standard errors of 1/√3.
    assert (spread.mean, spread.low, spread.high) == pytest.approx((2.0, 2 - 2.48414, 2 + 2.48414), rel=1e-5)
    assert Spread.of([4.0]) == Spread(4.0, None, None)


def test_the_best_is_said_only_where_the_intervals_separate() -> None:
    cheap = outcome("cheap", (0.995, 0.996, 0.997), (10.0, 10.1, 10.2))
    dear = outcome("dear", (0.995, 0.996, 0.997), (12.0, 12.1, 12.2))
    near = outcome("near", (0.995, 0.996, 0.997), (10.3, 10.4, 10.5))
    assert comparison(dear, cheap).best is cheap
    assert comparison(dear, cheap, near).best is None


def test_who_misses_or_foresees_is_never_the_best_but_who_may_attain_stands_in_the_way() -> None:
    good = outcome("good", (0.995, 0.996, 0.997), (10.0, 10.1, 10.2))
    late = outcome("late", (0.90, 0.91, 0.92), (5.0, 5.1, 5.2))
    perhaps = outcome("perhaps", (0.97, 0.99, 1.0), (5.0, 5.1, 5.2))
    oracle = outcome("oracle", (0.995, 0.996, 0.997), (4.0, 4.1, 4.2))
    assert comparison(good, late, oracle).best is good
    assert comparison(good, perhaps).best is None
    assert comparison(late, oracle).best is None


def test_seeds_that_drew_nothing_say_nothing() -> None:
    same = outcome("same", (0.995, 0.995), (10.0, 10.0))
    dear = outcome("dear", (0.995, 0.995), (12.0, 12.0))
    assert not comparison(same, dear).seeds_differ
    assert comparison(same, dear).best is None
    assert comparison(replace(same, figures=same.figures[:1]), replace(dear, figures=dear.figures[:1])).best is None


def test_regret_is_a_share_of_the_oracles_hours_and_unknown_without_one_that_attains() -> None:
    mine = outcome("mine", (0.99,), (15.0,))
    assert comparison(mine, outcome("oracle", (0.99,), (10.0,))).regret(mine) == pytest.approx(0.5)
    assert comparison(mine).regret(mine) is None
    assert comparison(mine, outcome("oracle", (0.98,), (10.0,))).regret(mine) is None


def test_dollars_need_a_price() -> None:
    mine = outcome("mine", (0.99,), (15.0,))
    assert comparison(mine).dollars(mine) is None
    assert comparison(mine).dollars_per_thousand_requests(mine) is None
    priced = comparison(mine, price=2.0)
    assert priced.dollars(mine) == 30.0
    assert priced.dollars_per_thousand_requests(mine) == pytest.approx(30_000 / FIGURES.requests)


def test_figures_are_of_the_replay() -> None:
    assert (FIGURES.requests, FIGURES.finished) == (REPLAY.requests, REPLAY.finished)
    assert FIGURES.requests_per_second == pytest.approx(SCENE.trace.requests / REPLAY.loop_seconds)
    assert not math.isnan(FIGURES.under_provisioned_seconds)
