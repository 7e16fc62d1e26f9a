"""Reading traces, and what is said of those that cannot be read."""

from __future__ import annotations

from itertools import pairwise
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.demo import day_curve
from simulations.traces import PromptBlocks, Trace, TraceError, shipped_trace


def test_the_shipped_trace_is_the_one_its_attribution_tells_of() -> None:
    trace = shipped_trace()
    assert (trace.requests, round(trace.end_seconds / 60)) == (19_366, 58)
    assert "CC-BY 4.0" in trace.source
    assert round(float(trace.prompt_tokens.mean())) == 1155


def test_a_trace_that_is_none_is_refused_with_the_request() -> None:
    one = np.ones(1)
    with pytest.raises(TraceError, match="arrived_at of request 2 is -1: give the time from the start, 0 or more"):
        Trace.of("t", np.array([0.0, -1.0]), np.ones(2), np.ones(2))
    with pytest.raises(TraceError, match="arrived_at of request 1 is inf"):
        Trace.of("t", np.array([np.inf]), one, one)
    with pytest.raises(TraceError, match="num_prefill_tokens of request 1 is 0: every request has at least one token"):
        Trace.of("t", one, np.zeros(1), one)
    with pytest.raises(TraceError, match=r"num_decode_tokens of request 1 is 3e\+09: give a whole number"):
        Trace.of("t", one, one, np.array([3e9]))
    with pytest.raises(TraceError, match="holds no request"):
        Trace.of("t", np.zeros(0), np.zeros(0), np.zeros(0))


def test_clipping_and_cutting_leave_the_rest_as_it_was() -> None:
    trace = shipped_trace()
    assert trace.clipped(100).prompt_tokens.max() == 100
    assert trace.clipped(100).requests == trace.requests
    assert trace.until(60).end_seconds < 60
    with pytest.raises(TraceError, match="no request before"):
        trace.until(0)
    with pytest.raises(TraceError, match="cannot be clipped to prompts of 0 tokens"):
        trace.clipped(0)


@given(st.floats(0.5, 4))
@settings(max_examples=10, deadline=None)
def test_bending_moves_requests_in_time_and_loses_none(scale: float) -> None:
    trace = shipped_trace()
    bent = trace.bent(day_curve, name="bent", scale=scale)
    assert bent.requests == trace.requests
    assert bent.end_seconds == pytest.approx(trace.end_seconds / scale, rel=1e-6)
    assert (np.diff(bent.arrived_at_seconds) >= 0).all()
    assert np.array_equal(bent.prompt_tokens, trace.prompt_tokens)


def test_bending_follows_the_curve() -> None:
    count = 100_000
    even = Trace.of("even", np.arange(count) / 10, np.ones(count, dtype=int), np.ones(count, dtype=int))
    bent = even.bent(day_curve, name="bent")
    span = bent.end_seconds
    rates = np.histogram(bent.arrived_at_seconds, np.linspace(0, span, 41))[0] / (span / 40)
    curve = np.array([day_curve((i + 0.5) / 40) for i in range(40)])
    assert rates == pytest.approx(10 * curve / curve.mean(), rel=0.02)


def blocks_of(trace: Trace) -> list[list[int]]:
    assert trace.prompt_blocks is not None
    offsets, hashes = trace.prompt_blocks.offsets.tolist(), trace.prompt_blocks.hashes.tolist()
    return [hashes[a:b] for a, b in pairwise(offsets)]


requests = st.tuples(st.integers(0, 50), st.integers(1, 40), st.integers(1, 9), st.lists(st.integers(0, 9), max_size=6))


@given(st.lists(requests, min_size=1, max_size=20), st.integers(1, 45), st.integers(1, 60))
def test_prompt_blocks_stay_with_their_requests(
    rows: list[tuple[int, int, int, list[int]]], clip: int, until: int
) -> None:
    """Blocks of 8 tokens: sorted, clipped and cut as the requests are, never more than a prompt has."""
    offsets = np.cumsum([0, *(len(hashes) for *_, hashes in rows)])
    hashes = np.array([each for *_, hashes in rows for each in hashes], dtype=np.int64)
    times, prompts, outputs = (np.array(column) for column in zip(*(row[:3] for row in rows), strict=True))
    trace = Trace.of("drawn", times, prompts, outputs, prompt_blocks=PromptBlocks(8, offsets, hashes))
    expected = sorted(rows, key=lambda row: row[0])
    assert trace.prompt_tokens.tolist() == [row[1] for row in expected]
    assert blocks_of(trace) == [row[3][: ceil(row[1] / 8)] for row in expected]
    assert bool(trace.notes) == (sorted(times.tolist()) != times.tolist())
    assert blocks_of(trace.clipped(clip)) == [row[3][: ceil(min(row[1], clip) / 8)] for row in expected]
    if until > times.min():
        cut = trace.until(until)
        assert blocks_of(cut) == blocks_of(trace)[: cut.requests]


def test_prompt_blocks_that_fit_no_request_are_refused() -> None:
    one = np.ones(1, dtype=np.int64)
    with pytest.raises(TraceError, match="must rise from 0"):
        PromptBlocks(512, np.array([0, 2]), one)
    with pytest.raises(TraceError, match="at least one"):
        PromptBlocks(0, np.array([0, 1]), one)
    with pytest.raises(TraceError, match="blocks of 2 requests, but 1"):
        Trace.of("t", np.zeros(1), one, one, prompt_blocks=PromptBlocks(512, np.array([0, 1, 1]), one))
    with pytest.raises(TraceError, match="has 2 times, 1 prompts and 1 outputs"):
        Trace.of("t", np.zeros(2), one, one)
