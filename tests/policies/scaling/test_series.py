from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies.scaling.series import COLUMNS, Series

STRETCHES = st.lists(st.tuples(st.floats(0, 900), st.floats(0, 400), st.floats(0, 50)), min_size=1, max_size=12)


@given(stretches=STRETCHES, keep=st.integers(1, 30), first=st.tuples(st.floats(0, 900), st.floats(1, 100)))
@example(stretches=[(0.0, 5e-324, 1.0)], keep=1, first=(0.0, 1.0))
def test_many_stretches_at_once_are_as_one_after_the_other(
    stretches: list[tuple[float, float, float]], keep: int, first: tuple[float, float]
) -> None:
    begun = Series(60.0, keep).add(first[0], sum(first), (1.0,) * COLUMNS)
    one_by_one = begun
    for start, seconds, count in sorted(stretches):
        one_by_one = one_by_one.add(start, start + seconds, (count,) * COLUMNS)
    table = np.array(sorted(stretches))
    rows = np.repeat(table[:, 2:], COLUMNS, axis=1)
    at_once = begun.add_all(table[:, 0], table[:, 0] + table[:, 1], rows)
    newest = max(one_by_one.last, at_once.last)
    for index in range(newest - keep + 1, newest + 1):
        assert of(at_once, index) == pytest.approx(of(one_by_one, index), rel=1e-4, abs=1e-4)


def of(series: Series, index: int) -> float:
    """What the series holds of one bin."""
    place = index - series.first
    return float(series.sums[place, 1]) if 0 <= place < len(series.sums) else 0.0
