"""The error budget, spent by hand and by force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.replay import Replay
from simulations.report.budget import MOST_STEPS, Budget, budget
from tests.simulations.report.compared import compared

REPLAY = compared().outcomes[0].replay


def replayed(arrived: Sequence[float], missed: Sequence[int], since: float = 0.0) -> Replay:
    """The requests of these numbers missed."""
    attained = np.ones(len(arrived), dtype=bool)
    attained[[*missed]] = False
    return replace(REPLAY, arrived_at_seconds=np.array(arrived), attained=attained, score_from_seconds=since)


def spent(replay: Replay, attainment: float = 0.9) -> Budget:
    found = budget(replay, attainment)
    assert found is not None
    return found


def test_each_miss_is_spent_as_its_request_arrives() -> None:
    found = spent(replayed([10.0 * at for at in range(20)], [0, 3, 4]))
    assert found.time.tolist() == [0.0, 30.0, 60.0, 90.0, 120.0, 150.0, 180.0, 190.0]
    assert found.spent.tolist() == pytest.approx([0.5, 1.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5])
    assert (found.requests, found.missed, found.may_miss) == (20, 3, 2)
    assert found.allowed == pytest.approx(2)
    assert found.total == pytest.approx(1.5)
    assert found.gone_at == 40.0


def test_what_came_before_the_scored_time_neither_spends_nor_is_promised_anything() -> None:
    found = spent(replayed([10.0 * at for at in range(20)], [0, 3, 15], since=100.0))
    assert found.time[0] == 100.0
    assert (found.requests, found.missed) == (10, 1)
    assert found.spent[0] == 0
    assert found.total == pytest.approx(1)


@pytest.mark.parametrize(("attainment", "requests"), [(0.9, 100), (0.99, 100), (0.9, 30), (0.95, 60), (0.999, 1000)])
def test_a_budget_that_is_spent_to_the_last_miss_is_not_gone(attainment: float, requests: int) -> None:
    may = round((1 - attainment) * requests)
    arrived = np.arange(requests, dtype=np.float64)
    kept = spent(replayed(arrived.tolist(), range(may)), attainment)
    assert kept.may_miss == may
    assert kept.gone_at is None
    assert kept.total == pytest.approx(1)
    assert spent(replayed(arrived.tolist(), range(may + 1)), attainment).gone_at == may


def test_of_few_requests_none_may_miss() -> None:
    found = spent(replayed([0.0, 5.0, 7.0], [1]))
    assert (found.may_miss, found.gone_at) == (0, 5.0)
    assert found.total == pytest.approx(1 / 0.3)


def test_where_nothing_is_scored_there_is_no_budget() -> None:
    assert budget(replayed([0.0, 1.0], [0], since=2.0), 0.99) is None


def test_one_request_has_a_budget_of_one_point() -> None:
    found = spent(replayed([4.0], [], since=4.0))
    assert found.time.tolist() == [4.0]
    assert found.spent.tolist() == [0.0]


@given(
    gaps=st.lists(st.floats(0, 3e5), min_size=1, max_size=80),
    every=st.integers(1, 9),
    attainment=st.sampled_from([0.5, 0.9, 0.99]),
    share=st.floats(0, 1),
)
def test_a_curve_only_rises_and_ends_at_the_attainment(
    gaps: list[float], every: int, attainment: float, share: float
) -> None:
    arrived = np.cumsum(gaps)
    since = float(arrived[-1]) * share
    made = replayed(arrived.tolist(), range(0, len(gaps), every), since=since)
    found = spent(made, attainment)
    scored = arrived >= since
    missed = int((~made.attained & scored).sum())
    assert len(found.time) == len(found.spent) <= MOST_STEPS + 2
    assert found.time[0] == since if len(found.time) > 1 else found.time[0] == arrived[-1]
    assert found.time[-1] == arrived[-1]
    assert (np.diff(found.spent) >= 0).all()
    assert found.spent[-1] == found.total == pytest.approx(missed / ((1 - attainment) * scored.sum()))
    assert (found.gone_at is not None) == (missed > found.may_miss)
    for time, value in zip(found.time.tolist(), found.spent.tolist(), strict=True):
        by_then = (~made.attained & scored & (arrived <= time)).sum()
        assert value == pytest.approx(by_then / found.allowed)
