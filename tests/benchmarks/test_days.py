from __future__ import annotations

import numpy as np
import pytest

from benchmarks.parts.days import reasoning


def test_the_made_trace_has_the_published_lengths_and_is_burstier_than_chance() -> None:
    trace = reasoning()
    assert trace.output_tokens.mean() == pytest.approx(1_500, rel=0.03)
    assert np.percentile(trace.output_tokens, 99) == pytest.approx(12_700, rel=0.06)
    a_minute = np.bincount((trace.arrived_at_seconds / 60).astype(int))
    assert a_minute.mean() / 60 == pytest.approx(1.5, rel=0.03)
    assert a_minute.var() > 5 * a_minute.mean()


def test_the_same_seed_makes_the_same_trace() -> None:
    one, other = reasoning(0.1), reasoning(0.1)
    assert np.array_equal(one.arrived_at_seconds, other.arrived_at_seconds)
    assert np.array_equal(one.output_tokens, other.output_tokens)
