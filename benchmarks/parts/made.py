"""Traffic that is made: requests that arrive at a rate with a gust in each minute, as long as Azure's conversations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from simulations.traces import Trace, shipped_trace

Array = NDArray[np.float64]


def arrivals(rate: Array, gust_shape: float, rng: Generator) -> Array:
    """When requests come, given how many a second at each second: Poisson's, at some instant of their second.

    A gust is the factor of a minute, gamma of mean 1 and this shape: a coefficient of variation of 1 / √shape.
    """
    gusts = rng.gamma(gust_shape, 1 / gust_shape, len(rate) // 60 + 1)
    arriving = rng.poisson(rate * np.repeat(gusts, 60)[: len(rate)])
    return np.sort(np.repeat(np.arange(len(rate)), arriving) + rng.random(int(arriving.sum())))


def conversations(name: str, arrived: Array, rng: Generator, longer: Callable[[Array], Array] = np.ones_like) -> Trace:
    """Each of a length drawn from what is recorded, its prompt so many times as long."""
    lengths = shipped_trace()
    drawn = rng.integers(0, lengths.requests, len(arrived))
    prompts = lengths.prompt_tokens[drawn] * longer(arrived)
    return Trace.of(name, arrived, prompts.astype(np.int64), lengths.output_tokens[drawn])
