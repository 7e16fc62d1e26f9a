"""The load in the unit that binds: the work that is done, told in requests of the present mix.

Arriving requests are not the work of this minute: one with a long answer is worked on for minutes, and one prompt is
thirty times another. What vLLM does is seen in its counters: prompt tokens read and tokens generated, each at its cost
in step time. Where the fleet is full (requests wait, or tokens come slower than promised) what is done is what it can
do and not what came, less while a backlog grows and more while it is worked off: so there the arrivals count.

What was done in the past is reckoned with the prompts of then. An hour of long ones would else be remembered as light:
its answers as if they had been read from a short context, and its arrivals, where all was full, as short requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.scaling.capacity import Mix, StepTime
from policies.scaling.series import (
    ARRIVALS,
    GENERATION_TOKENS,
    MOST_UNSEEN,
    PROMPT_TOKENS,
    PROMPTS,
    SATURATED_SECONDS,
    SECONDS,
    Series,
)

Array = NDArray[np.float64]

PRIOR_PROMPTS: Final = 100.0
"""Of the present mix: what it weighs where few tell of the prompts of then."""


@dataclass(frozen=True, slots=True)
class Work:
    """What tokens cost, in requests of the present mix."""

    mix: Mix
    mix_seconds: float
    """Over which lengths are averaged."""
    per_prompt_token: float
    per_output_token: float
    per_context_token: float
    """What each output token costs more for each token that prompts are longer."""

    @classmethod
    def of(cls, step_time: StepTime, mix: Mix, *, mix_seconds: float) -> Work:
        request = step_time.request_seconds(mix)
        if request <= 0:
            return cls(mix, mix_seconds, 0.0, 1.0 / mix.output_tokens, 0.0)
        context = step_time.context * mix.resident_tokens
        output = step_time.decode + context
        # What a request holds grows with its length, of which half the answer is there in the mean.
        longer = context / (mix.prompt_tokens + mix.output_tokens / 2)
        return cls(mix, mix_seconds, step_time.prefill / request, output / request, longer / request)

    def requests(self, sums: Array, longer: Array | float = 0.0) -> Array:
        """Requests' worth of work, (rows,), of sums by the columns of a `Series`, (rows, COLUMNS).

        `longer` are the tokens by which prompts were longer then than they are now.
        """
        output = self.per_output_token + self.per_context_token * longer
        request = 1.0 + (self.per_prompt_token + self.per_context_token * self.mix.output_tokens) * longer
        done = sums[:, PROMPT_TOKENS] * self.per_prompt_token + sums[:, GENERATION_TOKENS] * output
        with np.errstate(divide="ignore", invalid="ignore"):
            full = np.where(sums[:, SECONDS] > 0, sums[:, SATURATED_SECONDS] / sums[:, SECONDS], 0.0)
        return np.asarray(done + np.minimum(1.0, full) * (sums[:, ARRIVALS] * request - done))

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
            rates = self.requests(sums, self._longer(sums, series.step_seconds)) / seconds
        return np.where(seconds >= MOST_UNSEEN * series.step_seconds, rates, np.nan)

    def _longer(self, sums: Array, step_seconds: float) -> Array:
        """Tokens by which the prompts of late were longer at each bin than those of the present mix."""
        width = max(1, round(self.mix_seconds / step_seconds))
        until = np.pad(np.cumsum(sums[:, [PROMPTS, PROMPT_TOKENS]], axis=0), ((width, 0), (0, 0)))
        prompts, tokens = (until[width:] - until[:-width]).T
        return np.asarray((tokens - prompts * self.mix.prompt_tokens) / (prompts + PRIOR_PROMPTS))
