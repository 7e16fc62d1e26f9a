from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.observation import PodSample, SampleState
from policies.scaling.sequence_limit import FEWEST_LOOKS, SequenceLimit

Look = tuple[float, float, float]
"""Running, waiting, KV cache in use."""


def after(looks: Iterable[Look]) -> SequenceLimit:
    found = SequenceLimit()
    for running, waiting, usage in looks:
        sample = PodSample(
            time=0.0,
            state=SampleState.FRESH,
            requests_running=running,
            requests_waiting=waiting,
            kv_cache_usage=usage,
        )
        found = found.then([sample])
    return found


FULL: Look = (32.0, 5.0, 0.3)


def test_a_limit_is_met_again_and_again() -> None:
    assert after([FULL] * (FEWEST_LOOKS - 1)).requests is None
    assert after([FULL] * FEWEST_LOOKS).requests == 32.0


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([(2.0, 1.0, 0.05)] * 100, id="one more prompt is read while two are answered"),
        pytest.param([(float(n % 17), 1.0, 0.1) for n in range(1000)], id="it waited beside any number"),
        pytest.param([(32.0, 5.0, 0.9)] * 100, id="the cache is full"),
        pytest.param([(32.0, 0.0, 0.3)] * 100, id="nothing waits"),
        pytest.param([*[FULL] * 100, (33.0, 0.0, 0.3)], id="one ran more"),
    ],
)
def test_waiting_alone_is_no_limit(looks: list[Look]) -> None:
    assert after(looks).requests is None


def test_a_limit_above_one_that_was_believed_takes_its_place() -> None:
    assert after([*[FULL] * 50, *[(64.0, 1.0, 0.3)] * FEWEST_LOOKS]).requests == 64.0


@given(
    st.lists(
        st.tuples(st.integers(0, 40).map(float), st.integers(0, 3).map(float), st.floats(0, 1)),
        min_size=1,
        max_size=200,
    )
)
def test_what_is_believed_was_never_exceeded(looks: list[Look]) -> None:
    believed = after(looks).requests
    assert believed is None or believed == max(running for running, _, _ in looks)
