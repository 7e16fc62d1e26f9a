"""How the share of late requests is learnt from what was late at which load."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.lateness import BINS, PRESSURES, PRIOR, Lateness, TokenTimes
from policies.scaling.observation import Distribution, Interval

DAY = 86_400.0


def seen(*stretches: tuple[float, float, float], seconds: float = 15.0) -> Lateness:
    """After stretches of (pressure, late, all)."""
    lateness = Lateness()
    for pressure, late, count in stretches:
        lateness = lateness.then(pressure, late, count, seconds=seconds, half_life_seconds=DAY)
    return lateness


def at(lateness: Lateness, pressure: float) -> float:
    return float(np.interp(pressure, PRESSURES, lateness.curve()))


def test_before_anything_was_seen_the_prior_speaks() -> None:
    assert Lateness().curve() == pytest.approx(PRIOR)
    assert at(Lateness(), 1.35) == pytest.approx(0.5)
    assert at(Lateness(), 1.0) < 0.01 < 0.99 < at(Lateness(), 1.7)


def test_what_was_seen_outweighs_it_where_it_was_seen() -> None:
    lateness = seen(*[(0.925, 30.0, 100.0)] * 600)
    assert at(lateness, 0.925) == pytest.approx(0.3, abs=0.01)
    assert at(lateness, 0.3) < 0.01
    assert at(lateness, 2.0) == pytest.approx(1.0, abs=0.01)


def test_a_day_later_half_of_it_is_forgotten() -> None:
    old = seen((0.925, 3000.0, 10_000.0))
    later = old.then(0.5, 0.0, 0.0, seconds=DAY, half_life_seconds=DAY)
    assert later.late.sum() == pytest.approx(old.late.sum() / 2)
    assert later.seen.sum() == pytest.approx(old.seen.sum() / 2)


def test_a_load_beyond_the_last_bin_is_in_it() -> None:
    assert seen((1000.0, 5.0, 5.0)).seen[BINS - 1] == 5.0


@given(
    st.lists(
        st.tuples(st.floats(0.0, 4.0), st.floats(0.0, 1.0), st.floats(0.0, 1e4)).map(
            lambda t: (t[0], t[1] * t[2], t[2])
        ),
        max_size=40,
    )
)
def test_more_load_never_makes_fewer_late(stretches: list[tuple[float, float, float]]) -> None:
    curve = seen(*stretches).curve()
    assert len(curve) == BINS
    assert np.all(np.diff(curve) >= 0)
    assert np.all((curve >= 0) & (curve <= 1 + 1e-12))


def told(pressure: float, beyond: tuple[float, float], edges: tuple[float, float] = (0.05, 0.075)) -> TokenTimes:
    """After ten thousand requests at a pressure, shares of them slower than the lower and than the upper edge."""
    within = Interval(*(10_000.0 * (1.0 - share) for share in beyond))
    read = Distribution(0.0, 0.0, edges[0], 0.0, edges[1], 0.0)
    times = TokenTimes()
    for _ in range(2):
        times = times.then(pressure, within, 10_000.0, read, seconds=15.0, half_life_seconds=DAY)
    return times


def test_of_tokens_between_two_edges_half_were_slow_while_nothing_is_known() -> None:
    assert TokenTimes().slow_between(0.9, 0.06) == 0.5
    assert told(0.9, (0.1, 0.001)).slow_between(0.4, 0.06) == 0.5


@pytest.mark.parametrize(("lower", "upper"), [(0.1, 0.1), (2.5, float("inf"))])
def test_without_two_edges_to_lie_between_half_were(lower: float, upper: float) -> None:
    assert told(0.9, (0.1, 0.001), (lower, upper)).slow_between(0.9, 3.0) == 0.5


def test_how_many_lie_beyond_either_edge_says_how_many_between_them_were_slow() -> None:
    """Normal of mean 50 ms and spread 10 ms: beyond 50 half, beyond 75 six in a thousand, beyond 60 0.159."""
    spread = told(0.9, (0.5, 0.00621))
    share = (0.1587 - 0.00621) / (0.5 - 0.00621)
    assert spread.slow_between(0.9, 0.060) == pytest.approx(share, abs=0.002)
    assert spread.slow_between(0.9, 0.0501) > 0.98
    assert spread.slow_between(0.9, 0.0749) < 0.01


def test_a_fleet_just_above_the_lower_edge_is_not_slow_half_of_the_time() -> None:
    assert told(0.9, (0.5, 0.0)).slow_between(0.9, 0.070) < 0.01
    assert told(0.9, (1.0, 0.5)).slow_between(0.9, 0.055) > 0.99


def test_by_other_buckets_it_begins_anew() -> None:
    before = told(0.9, (0.1, 0.001))
    other = Distribution(0.0, 0.0, 0.075, 0.0, 0.1, 0.0)
    after = before.then(0.9, Interval(0.0, 100.0), 100.0, other, seconds=15.0, half_life_seconds=DAY)
    assert after.edges_seconds == (0.075, 0.1)
    assert after.counts.sum() == 0.0


@given(
    st.lists(st.tuples(st.floats(0.0, 4.0), st.floats(0.0, 1e4), st.floats(0.0, 1e4), st.floats(0.0, 1e4)), max_size=9),
    st.floats(0.0, 4.0),
)
def test_the_share_between_two_edges_is_one_and_falls_with_the_objective(
    stretches: list[tuple[float, float, float, float]], pressure: float
) -> None:
    times, read = TokenTimes(), Distribution(0.0, 0.0, 0.05, 0.0, 0.075, 0.0)
    for at_pressure, *kept in stretches:
        low, high, count = sorted(kept)
        times = times.then(at_pressure, Interval(low, high), count, read, seconds=15.0, half_life_seconds=DAY)
    shares = [times.slow_between(pressure, 0.05 + 0.001 * i) for i in range(1, 25)]
    assert all(0.0 <= share <= 1.0 for share in shares)
    assert all(b <= a + 1e-9 for a, b in pairwise(shares))
