"""Series of long replays: columns keep what the fleet cost, and pages of a week stay light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.decision import Came, Decision, Forecast
from simulations.report.series import arrivals, foreseen, latencies, latency_step, load_seen, means, ticks
from tests.simulations.report.compared import compared

REPLAY = compared().outcomes[0].replay


def test_a_replay_of_few_ticks_is_drawn_as_it_was() -> None:
    drawn = ticks(REPLAY, 1000)
    assert drawn.per == 1
    assert drawn.created.tolist() == REPLAY.timeline.created.tolist()
    assert drawn.fewest_ready.tolist() == drawn.most_ready.tolist() == drawn.ready.tolist()


@pytest.mark.parametrize("most", [1, 7, 30])
def test_columns_keep_the_area_and_the_range(most: int) -> None:
    drawn = ticks(REPLAY, most)
    count = len(REPLAY.decisions)
    assert len(drawn.x) == len(drawn.said.sentences) <= most
    held = np.diff(np.append(np.arange(0, count, drawn.per), count))
    assert (drawn.created * held).sum() == pytest.approx(REPLAY.timeline.created.sum())
    assert drawn.fewest_ready.min() == REPLAY.timeline.ready.min()
    assert drawn.most_ready.max() == REPLAY.timeline.ready.max()


def test_a_column_tells_its_greatest_change_and_when_it_was() -> None:
    drawn = ticks(REPLAY, 1)
    greatest = max(REPLAY.decisions, key=lambda each: (abs(each.replicas - each.desired), each.time))
    assert drawn.said.sentences[0].endswith(greatest.sentence)
    assert drawn.said.sentences[0][:2].isdigit()


def test_the_last_column_may_be_short() -> None:
    assert means(np.array([1, 3, 5]), 2).tolist() == [2.0, 5.0]


@pytest.mark.parametrize("days", [0.01, 1, 3, 7, 31])
def test_no_trace_has_more_points_than_can_be_seen(days: float) -> None:
    last = days * 86400.0
    load = arrivals(np.linspace(0, last, 500))
    assert len(load.y) <= 745
    assert load.y.sum() * load.x.step == pytest.approx(500)
    assert last / latency_step(last) <= 2100
    assert latency_step(86400.0) == 300.0


def test_requests_that_all_come_at_once_are_counted() -> None:
    load = arrivals(np.zeros(3))
    assert (load.y * load.x.step).tolist() == [3.0]
    made = replace(REPLAY, arrived_at_seconds=np.zeros(3), ttft=np.ones(3), tpot=np.zeros(3), attained=np.ones(3, bool))
    assert latencies(made, 99).missed.tolist() == [0.0]


def test_latencies_are_of_the_requests_of_each_step_alone() -> None:
    arrived = np.array([10.0, 20.0, 70.0, 200.0])
    made = replace(
        REPLAY,
        arrived_at_seconds=arrived,
        ttft=np.array([1.0, 3.0, np.nan, 2.0]),
        tpot=np.full(4, 0.05),
        attained=np.array([True, False, False, True]),
    )
    found = latencies(made, 100)
    np.testing.assert_array_equal(found.ttft_seconds, [3.0, np.nan, np.nan, 2.0])
    np.testing.assert_array_equal(found.missed, [0.5, 1.0, np.nan, 0.0])
    assert (found.x.start, found.x.step) == (30.0, 60.0)


def test_no_line_bridges_moments_of_which_nothing_was_foreseen() -> None:
    times = [15.0 * tick for tick in range(20)] + [15.0 * tick for tick in range(60, 80)]
    decisions = tuple(replace(REPLAY.decisions[0], forecast=Forecast(time, "trend", 5.0, 7.0, 0.9)) for time in times)
    found = foreseen(replace(REPLAY, decisions=decisions, end_seconds=2000.0), 1000)
    assert found is not None
    assert np.flatnonzero(np.isnan(found.upper)).tolist() == [20]
    assert np.isfinite(found.x).all()
    assert foreseen(replace(REPLAY, decisions=()), 1000) is None


def test_a_column_of_forecasts_tells_means_of_both_edges() -> None:
    uppers = [7.0, 9.0, 6.0]
    decisions = tuple(
        replace(REPLAY.decisions[0], forecast=Forecast(15.0 * tick, "trend", upper - 2, upper, 0.9))
        for tick, upper in enumerate(uppers)
    )
    found = foreseen(replace(REPLAY, decisions=decisions, end_seconds=60.0), 2)
    assert found is not None
    assert found.x.tolist() == [0.0, 30.0]
    assert found.expected.tolist() == [6.0, 4.0]
    assert found.upper.tolist() == [8.0, 6.0]


def looks(seen: Sequence[float | None]) -> tuple[Decision, ...]:
    """A tick each, that tells the load of 90 s before."""
    return tuple(
        replace(
            REPLAY.decisions[0],
            time=15.0 * tick + 90.0,
            came=None if load is None else Came(15.0 * tick, load),
        )
        for tick, load in enumerate(seen)
    )


def test_load_that_was_not_seen_is_a_gap_and_counts_in_no_mean() -> None:
    seen = [2.0, None, None, None, 0.0]
    made = looks(seen)
    found = load_seen(replace(REPLAY, decisions=made), 3)
    assert found is not None
    assert found.x.tolist() == [0.0, 30.0, 60.0]
    np.testing.assert_array_equal(found.y, [2.0, np.nan, 0.0])
    assert load_seen(replace(REPLAY, decisions=made[1:4]), 3) is None


@given(
    seen=st.lists(st.one_of(st.none(), st.integers(0, 10**6).map(float)), min_size=1, max_size=60),
    most=st.integers(1, 30),
)
def test_columns_of_load_lie_between_what_was_seen_in_them(seen: list[float | None], most: int) -> None:
    made = looks(seen)
    found = load_seen(replace(REPLAY, decisions=made), most)
    if found is None:
        assert set(seen) == {None}
        return
    assert len(found.x) == len(found.y) <= most
    seen = seen[next(at for at, each in enumerate(seen) if each is not None) :]
    per = -(-len(seen) // most)
    for at, value in enumerate(found.y.tolist()):
        known = [each for each in seen[at * per : (at + 1) * per] if each is not None]
        assert min(known) - 1e-6 <= value <= max(known) + 1e-6 if known else np.isnan(value)
