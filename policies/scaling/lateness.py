"""The share of requests that are late at a given load: learnt from the target's own counters, a prior elsewhere.

The load is a pressure, (arrivals + backlog ÷ the TTFT objective) ÷ (replicas · capacity): 1 where
`policies.scaling.capacity` holds the replicas to be full. A backlog that is not worked off within the objective makes
everybody late, however few arrive by then: spread over longer, it would teach that a full fleet is late, and lock out
for days what one step did. What the model of capacity leaves out (bursts within a minute, uneven routing, the margins
it takes) is what is learnt here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, isfinite
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.scaling.observation import Distribution, Interval

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
NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True)
class Lateness:
    """Requests by the pressure that they were served at, (BINS,) each, forgetting."""

    late: Array = field(default_factory=lambda: np.zeros(BINS))
    seen: Array = field(default_factory=lambda: np.zeros(BINS))

    def then(self, pressure: float, late: float, seen: float, *, seconds: float, half_life_seconds: float) -> Lateness:
        """With `seen` requests more, `late` of them late, over the last `seconds`."""
        keep = 0.5 ** (seconds / half_life_seconds)
        index = _bin(pressure)
        more = Lateness(self.late * keep, self.seen * keep)
        more.late[index] += late
        more.seen[index] += seen
        return more

    def curve(self) -> Array:
        """Share late at each of PRESSURES: (BINS,), 0 to 1, never falling."""
        weights = self.seen + PRIOR_REQUESTS
        return _rising((self.late + PRIOR_REQUESTS * PRIOR) / weights, weights)


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """Requests by pressure and by the buckets around the objective for time per output token, forgetting.

    With an objective between two edges nobody can tell of those between them who was slow. Half of them would be far
    too many: a request's time per token is a mean over its tokens, so at one pressure all are much alike, and a fleet
    just above the lower edge would be taken for one that is slow half of the time. How many lie beyond either edge
    says how they spread: as a normal distribution does.
    """

    edges_seconds: tuple[float, float] = (0.0, 0.0)
    counts: Array = field(default_factory=lambda: np.zeros((3, BINS)))
    """Slower than the lower edge, slower than the upper one, and all."""

    def then(
        self,
        pressure: float,
        within: Interval,
        finished: float,
        read: Distribution,
        *,
        seconds: float,
        half_life_seconds: float,
    ) -> TokenTimes:
        """With `finished` requests more, so many of them `within` the objective by the buckets around it as `read`.

        Where those are other buckets than before, as with another objective, it begins anew, and with the next ones:
        of a stretch that was read by two pairs of buckets it is open who lies where.
        """
        edges = (read.lower_edge_seconds, read.upper_edge_seconds)
        if edges != self.edges_seconds:
            return TokenTimes(edges)
        counts = self.counts * 0.5 ** (seconds / half_life_seconds)
        counts[:, _bin(pressure)] += (max(0.0, finished - within.low), max(0.0, finished - within.high), finished)
        return TokenTimes(edges, counts)

    def slow_between(self, pressure: float, objective_seconds: float) -> float:
        """Of the requests between the two edges, the share that was slower than the objective; half by default."""
        lower, upper = self.edges_seconds
        if not isfinite(upper) or upper <= lower:
            return 0.5
        # Half a request on either side of each edge: that none of a few was beyond it does not say that none will be.
        over_lower, over_upper, seen = (float(count) for count in self.counts[:, _bin(pressure)])
        at_lower, at_upper = (over_lower + 0.5) / (seen + 1.0), (over_upper + 0.5) / (seen + 1.0)
        if at_lower <= at_upper:
            return 0.5
        begins, ends = NORMAL.inv_cdf(1.0 - at_lower), NORMAL.inv_cdf(1.0 - at_upper)
        place = (objective_seconds - lower) / (upper - lower)
        slow = 1.0 - NORMAL.cdf(begins + place * (ends - begins))
        return min(1.0, max(0.0, (slow - at_upper) / (at_lower - at_upper)))


def _bin(pressure: float) -> int:
    return min(BINS - 1, int(pressure / STEP))


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
