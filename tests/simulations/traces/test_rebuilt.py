"""A trace made of counters: as many requests, as long, as were counted, the rest drawn and said."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from policies.scaling.demand import LoadBin
from simulations.traces import Trace, TraceError
from simulations.traces.rebuilt import rebuilt

START = 1_800_000_000.0
EDGES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, float("inf"))


@dataclass(frozen=True)
class Lengths:
    edges: tuple[float, ...]
    counts: NDArray[np.float64]


@dataclass(frozen=True)
class Traffic:
    bins: tuple[LoadBin, ...]
    prompts: Lengths | None = None
    outputs: Lengths | None = None
    start: float = START
    end: float = START + 3600
    name: str = "inference/llama"
    problems: tuple[str, ...] = ()


def counted(of: Trace, what: str = "prompt") -> NDArray[np.int64]:
    """How many requests lie in each bucket."""
    lengths = of.prompt_tokens if what == "prompt" else of.output_tokens
    return np.bincount(np.searchsorted(np.array(EDGES), lengths), minlength=len(EDGES))


def minutes(*per_second: float, prompt: float = 100.0, output: float = 40.0) -> tuple[LoadBin, ...]:
    return tuple(LoadBin(START + 60 * n, 60.0, rate, rate * prompt, rate * output) for n, rate in enumerate(per_second))


STEADY = Traffic(minutes(*[2.0] * 60))


def test_each_minute_has_as_many_requests_as_were_counted() -> None:
    rates = [0.0, 1.0, 2.5, 0.5, *[3.0] * 56]
    trace = rebuilt(Traffic(minutes(*rates)))
    per_minute = np.histogram(trace.arrived_at_seconds, np.arange(61) * 60.0)[0]
    assert per_minute.tolist() == [60 * rate for rate in rates]
    # Inside a minute they come at any time, not in step.
    gaps = np.diff(trace.arrived_at_seconds[trace.arrived_at_seconds > 300])
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)


def test_fractions_of_requests_add_up() -> None:
    """One in three minutes is counted as a third of one in each."""
    assert rebuilt(Traffic(minutes(*[1 / 180] * 60))).requests == 20


def test_without_a_histogram_each_request_has_the_mean_of_its_hour_and_that_is_said() -> None:
    two_hours = tuple(LoadBin(START + 300 * n, 300.0, 1.0, 150.0 if n < 12 else 300.5, 40.0) for n in range(24))
    trace = rebuilt(Traffic(two_hours, end=START + 7200))
    first = trace.arrived_at_seconds < 3600
    assert set(trace.prompt_tokens[first].tolist()) == {150}
    assert set(trace.prompt_tokens[~first].tolist()) == {300, 301}
    assert trace.output_tokens.sum() == 7200 * 40
    assert (
        "inference/llama: prompt lengths have no histogram there: each request has the mean of its hour" in trace.notes
    )


def test_lengths_are_those_of_the_histogram_and_add_up_to_the_tokens() -> None:
    shares = np.array([0, 0, 1, 0, 2, 5, 30, 50, 12, 0.0])
    prompts = Lengths(EDGES, np.tile(shares * 6, (12, 1)))
    traffic = replace(STEADY, bins=minutes(*[2.0] * 60, prompt=130.0), prompts=prompts)
    trace = rebuilt(traffic)
    assert counted(trace).tolist() == (shares * 72).tolist()
    assert trace.prompt_tokens.sum() == 7200 * 130
    assert len(set(trace.prompt_tokens.tolist())) > 100


def test_a_rare_length_is_not_lost_in_the_rounding_of_five_minutes() -> None:
    """One prompt in two hundred is long; five minutes have sixty."""
    shares = np.array([0, 0, 0, 0, 0, 0, 199, 0, 0, 1.0]) * 0.3
    traffic = Traffic(minutes(*[0.2] * 60, prompt=90.0), prompts=Lengths(EDGES, np.tile(shares, (12, 1))))
    trace = rebuilt(traffic)
    assert trace.requests == 720
    assert counted(trace)[-1] in (3, 4)
    assert trace.prompt_tokens.max() <= 1000


def test_lengths_follow_their_five_minutes() -> None:
    short, long = np.zeros(10), np.zeros(10)
    short[4], long[8] = 600.0, 600.0
    counts = np.array([short] * 6 + [long] * 6)
    trace = rebuilt(replace(STEADY, prompts=Lengths(EDGES, counts)))
    early = trace.arrived_at_seconds < 1800
    assert trace.prompt_tokens[early].max() <= 20
    assert trace.prompt_tokens[~early].min() > 200


def test_five_minutes_without_a_histogram_take_that_of_all() -> None:
    shares = np.zeros(10)
    shares[[3, 6]] = 300.0
    counts = np.tile(shares, (12, 1))
    counts[4] = np.nan
    counts[5] = 0.0
    trace = rebuilt(replace(STEADY, prompts=Lengths(EDGES, counts)))
    there = (trace.arrived_at_seconds >= 1200) & (trace.arrived_at_seconds < 1800)
    assert np.count_nonzero(trace.prompt_tokens[there] <= 10) == 600


def test_tokens_that_the_histogram_cannot_hold_are_told() -> None:
    shares = np.zeros(10)
    shares[4] = 600.0
    trace = rebuilt(replace(STEADY, prompts=Lengths(EDGES, np.tile(shares, (12, 1)))))
    assert set(trace.prompt_tokens.tolist()) == {20}
    assert any(
        note.startswith("inference/llama: prompt tokens, 720000 by their counter, were 576000 more than")
        for note in trace.notes
    )


def test_gaps_are_said_and_nobody_comes_in_them() -> None:
    bins = tuple(each for n, each in enumerate(STEADY.bins) if not (10 <= n < 25 or n == 40) and n < 58)
    trace = rebuilt(replace(STEADY, bins=bins, problems=("Prometheus remarks: partial",)))
    assert trace.requests == 120 * len(bins)
    assert not ((trace.arrived_at_seconds > 600) & (trace.arrived_at_seconds < 1500)).any()
    remark, *gaps = trace.notes[:4]
    assert remark == "Prometheus remarks: partial"
    said = [gap.partition("known ")[2] for gap in gaps]
    assert said == [
        "from 2027-01-15 08:10 to 2027-01-15 08:25 UTC (15 min): nobody comes then in the trace",
        "from 2027-01-15 08:58 to 2027-01-15 09:00 UTC (2 min): nobody comes then in the trace",
        "from 2027-01-15 08:40 to 2027-01-15 08:41 UTC (1 min): nobody comes then in the trace",
    ]
    sparse = replace(STEADY, bins=STEADY.bins[::2])
    assert any("of 30 gaps these are the longest; all together are 30 min" in note for note in rebuilt(sparse).notes)


def test_traffic_of_nobody_is_no_trace() -> None:
    with pytest.raises(
        TraceError, match="inference/llama: nothing was counted between 2027-01-15 08:00 and 2027-01-15 09"
    ):
        rebuilt(Traffic(()))
    with pytest.raises(TraceError, match=r"no request came between .* name the pods by pods=REGEX"):
        rebuilt(Traffic(minutes(0.0, 0.0)))


def test_the_same_seed_is_the_same_trace_and_another_is_another() -> None:
    shares = np.tile(np.arange(10.0), (12, 1))
    traffic = replace(STEADY, prompts=Lengths(EDGES, shares), outputs=Lengths(EDGES, shares))
    one, same, other = rebuilt(traffic, seed=1), rebuilt(traffic, seed=1), rebuilt(traffic, seed=2)
    for field in ("arrived_at_seconds", "prompt_tokens", "output_tokens"):
        assert np.array_equal(getattr(one, field), getattr(same, field))
        assert not np.array_equal(getattr(one, field), getattr(other, field))
    assert one.requests == other.requests
    assert np.array_equal(counted(one, "output"), counted(other, "output"))


rates = st.floats(0, 3) | st.just(0.0)
buckets = st.lists(st.floats(0, 50) | st.just(0.0), min_size=len(EDGES), max_size=len(EDGES))


@given(
    st.lists(rates, min_size=1, max_size=25),
    st.lists(buckets, min_size=5, max_size=5),
    st.floats(1, 400),
    st.integers(0, 9),
)
@settings(deadline=None, max_examples=60)
def test_whatever_was_counted_the_trace_has_as_much_of_it(
    per_second: list[float], drawn: list[list[float]], prompt: float, seed: int
) -> None:
    bins = minutes(*per_second, prompt=prompt)
    counts = np.array(drawn)
    traffic = Traffic(bins, Lengths(EDGES, counts), None, end=START + 1500)
    expected = np.cumsum([60 * rate for rate in per_second])
    if expected[-1] < 0.49:
        with pytest.raises(TraceError, match="no request came"):
            rebuilt(traffic, seed=seed)
        return
    if expected[-1] < 0.51:
        return
    trace = rebuilt(traffic, seed=seed)
    come = np.searchsorted(trace.arrived_at_seconds, 60.0 * np.arange(1, len(bins) + 1))
    assert np.abs(come - expected).max() <= 0.51
    if counts.sum() >= 1:
        # In each five minutes and bucket, within the few that rounding moves on to the next five minutes.
        overall = counts.sum(axis=0) / counts.sum()
        owed = np.zeros(len(EDGES))
        for n, stretch in enumerate(counts):
            arrivals = np.count_nonzero((trace.arrived_at_seconds // 300).astype(int) == n)
            owed += arrivals * (stretch / stretch.sum() if stretch.sum() >= 1 else overall)
        assert np.abs(counted(trace) - owed).max() < len(EDGES)
    total = round(float(sum(each.prompt_tokens_per_second * 60 for each in bins)))
    if not any("prompt tokens, " in note for note in trace.notes):
        assert int(trace.prompt_tokens.sum()) == pytest.approx(total, rel=0.011, abs=2)
