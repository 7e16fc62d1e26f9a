"""The load in the unit that binds: the work that is done, told in requests of the present mix.

Arriving requests are not the work of this minute: one with a long answer is worked on for minutes, and one prompt is
thirty times another. What vLLM does is seen in its counters: prompt tokens read and tokens generated, each at its cost
in step time. Where the fleet is full (requests wait, or tokens come slower than promised) what is done is what it can
do and not what came, less while a backlog grows and more while it is worked off: so there the arrivals count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.scaling.capacity import Mix, StepTime
from policies.scaling.series import (
    ARRIVALS,
    GENERATION_TOKENS,
    MOST_UNSEEN,
    PROMPT_TOKENS,
    SATURATED_SECONDS,
    SECONDS,
    Series,
)

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Work:
    """What tokens cost, in requests of the present mix."""

    per_prompt_token: float
    per_output_token: float

    @classmethod
    def of(cls, step_time: StepTime, mix: Mix) -> Work:
        request = step_time.request_seconds(mix)
        output = step_time.decode + step_time.context * mix.resident_tokens
        if request <= 0:
            return cls(0.0, 1.0 / mix.output_tokens)
        return cls(step_time.prefill / request, output / request)

    def requests(self, sums: Array) -> Array:
        """Requests' worth of work, (rows,), of sums by the columns of a `Series`, (rows, COLUMNS)."""
        done = sums[:, PROMPT_TOKENS] * self.per_prompt_token + sums[:, GENERATION_TOKENS] * self.per_output_token
        with np.errstate(divide="ignore", invalid="ignore"):
            full = np.where(sums[:, SECONDS] > 0, sums[:, SATURATED_SECONDS] / sums[:, SECONDS], 0.0)
        return np.asarray(done + np.minimum(1.0, full) * (sums[:, ARRIVALS] - done))

    def requests_of(self, sums: Sequence[float]) -> float:
        """`requests` of one row, in a tenth of the time that arrays of one take."""
        done = sums[PROMPT_TOKENS] * self.per_prompt_token + sums[GENERATION_TOKENS] * self.per_output_token
        full = min(1.0, sums[SATURATED_SECONDS] / sums[SECONDS]) if sums[SECONDS] > 0 else 0.0
        return done + full * (sums[ARRIVALS] - done)

    def rates(self, series: Series) -> Array:
        """Requests' worth of work a second in each bin, NaN where too little of it was seen."""
        sums = series.sums.astype(np.float64)
        seconds = sums[:, SECONDS]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(seconds >= MOST_UNSEEN * series.step_seconds, self.requests(sums) / seconds, np.nan)
