"""The share of requests that are late at a given load: learnt from the target's own counters, a prior elsewhere.

The load is a pressure, (arrivals + backlog ÷ the TTFT objective) ÷ (replicas · capacity): 1 where
`policies.scaling.capacity` holds the replicas to be full. A backlog that is not worked off within the objective makes
everybody late, however few arrive by then: spread over longer, it would teach that a full fleet is late, and lock out
for days what one step did. What the model of capacity leaves out (bursts within a minute, uneven routing, the margins
it takes) is what is learnt here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEP: Final = 0.05
BINS: Final = 60
PRESSURES: Final = np.array([(i + 0.5) * STEP for i in range(BINS)])
"""The middles of the bins; the last one also holds whatever lies beyond."""
PRIOR_MIDDLE: Final = 1.35
"""Pressure at which half of the requests are late: full, and the margin κ of 0.7 used up."""
PRIOR_WIDTH: Final = 0.07
PRIOR_REQUESTS: Final = 60.0
"""What the prior weighs in each bin: a minute of one request a second."""
PRIOR: Final[Array] = np.array([1.0 / (1.0 + exp(-(p - PRIOR_MIDDLE) / PRIOR_WIDTH)) for p in PRESSURES.tolist()])


@dataclass(frozen=True, slots=True)
class Lateness:
    """Requests by the pressure that they were served at, (BINS,) each, forgetting."""

    late: Array = field(default_factory=lambda: np.zeros(BINS))
    seen: Array = field(default_factory=lambda: np.zeros(BINS))

    def then(self, pressure: float, late: float, seen: float, *, seconds: float, half_life_seconds: float) -> Lateness:
        """With `seen` requests more, `late` of them late, over the last `seconds`."""
        keep = 0.5 ** (seconds / half_life_seconds)
        index = min(BINS - 1, int(pressure / STEP))
        more = Lateness(self.late * keep, self.seen * keep)
        more.late[index] += late
        more.seen[index] += seen
        return more

    def curve(self) -> Array:
        """Share late at each of PRESSURES: (BINS,), 0 to 1, never falling."""
        weights = self.seen + PRIOR_REQUESTS
        return _rising((self.late + PRIOR_REQUESTS * PRIOR) / weights, weights)


def _rising(values: Array, weights: Array) -> Array:
    """The nearest sequence that never falls: neighbours that do are pooled (isotonic regression)."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many
    for mean, weight in zip(values.tolist(), weights.tolist(), strict=True):
        count = 1
        while blocks and blocks[-1][0] > mean:
            before, heavy, many = blocks.pop()
            mean = (mean * weight + before * heavy) / (weight + heavy)
            weight, count = weight + heavy, count + many
        blocks.append((mean, weight, count))
    return np.concatenate([np.full(count, mean) for mean, _, count in blocks])
