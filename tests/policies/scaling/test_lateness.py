"""How the share of late requests is learnt from what was late at which load."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.lateness import BINS, PRESSURES, PRIOR, Lateness

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
