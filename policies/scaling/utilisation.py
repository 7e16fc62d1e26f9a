"""How full replicas are planned: the utilisation at which as few requests are late as the objective allows.

No utilisation suits all traffic: calm days bear more than a full replica's worth, steps at a long cold start bear less.
So at each refit the last day is imagined at each of UTILISATIONS: what would have been wished for, been ready a lead
time later, queued and been late. Of what comes out,

- lateness that even the emptiest fleet would have had is nobody's choice: it is set against what the objective allows,
  and never taken for a reason to run emptier still, or a step that nobody foresaw would drive a fleet to its ceiling;
- the rest is scaled by how much of what is imagined late, at the utilisations that were in force, really was late, and
  no single event is heard for more than one can tell;
- days before the last are remembered, fading, and a prior speaks as loud as a day of traffic.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import exp, log, log2, nan
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.scaling.lateness import PRESSURES

Array = NDArray[np.float64]

UTILISATIONS: Final[Array] = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.45, 1.6])
"""In multiples of what `policies.scaling.capacity` calls a full replica."""
USE: Final = 0.41
"""Of the misses that are allowed, how many to aim for: where tomorrow is worse than yesterday, it is by more."""
LEAST_USE: Final = 0.2
"""To aim for at least, whatever could not be helped: beyond that, emptier fleets buy nothing."""
PRIOR_UTILISATION: Final = 1.15
"""Where a replica takes three minutes to start, the objective allows 1 % of misses and replicas are many."""
PRIOR_UNSEEN: Final = 0.17
"""Taken off while nothing was seen of the traffic, and less by the square of what the prior weighs: of a first hour it
is not even known how well it can be foreseen, of a first half day it is."""
PRIOR_PER_DOUBLING: Final = 0.12
"""Taken off where it takes twice as long, for more can happen meanwhile; and again for each time as much."""
PRIOR_ALLOWED: Final = 0.01
PRIOR_PER_MISSES: Final = 0.08
"""Added where the objective allows e times as many misses; half of what lateness itself tells, for the other half is
whether a stricter one can be kept at all."""
PRIOR_LIMITS: Final = (0.7, 1.2)
"""A start that takes no time at all does not make a replica bear more than it can."""
PRIOR_WHOLE: Final = 0.1
"""Of a replica: what rounding up leaves free, as far as it may be counted on. Where few are enough that is much; of a
first hour it is not known, for the load may grow beyond the last of them at any time."""
PRIOR_WHOLE_MOST: Final = 1.3
"""What fleets of one replica and less may be fuller for it, as a factor."""
PRIOR_WIDTH: Final = 0.15
"""The prior's lateness grows by e over this much utilisation."""
PRIOR_LATE: Final = 0.001
"""Share of requests, both late and imagined late, with which their ratio begins at 1."""
EVENT_BINS: Final = 60
"""What is late within half an hour before or after is late of the same event."""
EVENT_USE: Final = 0.5
"""Of the misses aimed for, those that one event is heard for at most: it does not tell how often the like will come."""
MOST_LATE: Final = 0.5
"""Share of the requests between two refits that the ratio counts as late at most, real and imagined: a step that nobody
foresaw, with all late for minutes, tells little of how well ordinary days are imagined."""
TRUTH: Final = (0.05, 2.0)
"""How far that ratio is believed: more readily that what is imagined does not come true, as where a cache of long
answers fills up for minutes before anybody waits, than that all of it is worse."""
UNTIL, LATE, VALUE = 0, 1, 2
"""Of a period between two refits."""
ROUNDING_SECONDS: Final = 1e-6
"""A bin that ends with a period is of that period, on every machine."""


@dataclass(frozen=True, slots=True)
class Imagined:
    """Bins of the past at each of UTILISATIONS: late requests (U, T), all requests (T,)."""

    late: Array
    requests: Array


@dataclass(frozen=True, slots=True)
class Utilisation:
    """The utilisation in force, and what it was found from."""

    value: float = 1.0
    past_late: Array = field(default_factory=lambda: np.zeros(len(UTILISATIONS)))
    """Imagined, of the days before the last one."""
    past_requests: float = 0.0
    past_until: float = 0.0
    late_since: float = 0.0
    """That were late since the last refit; not a number where that is not held against what is imagined."""
    periods: Array = field(default_factory=lambda: np.zeros((0, 3)))
    """One row a refit of the last day, (refits, 3): when, how many were late since the one before, and the utilisation
    that was in force until then."""

    def with_late(self, late: float | None) -> Utilisation:
        """With so many more late; None where the wish is not to blame: no time until the next refit counts then."""
        return replace(self, late_since=self.late_since + (nan if late is None else late))

    def then(
        self,
        imagined: Imagined,
        times: Array,
        *,
        now: float,
        leaving: NDArray[np.bool_],
        keep: float,
        attainment: float,
        prior_requests: float,
        lead_ratio: float,
        mean_replicas: float,
    ) -> Utilisation:
        """Chosen anew, at a refit, which is `now`.

        `times` (T,) is when each bin ends, `leaving` are those that the next refit will not see any more, `keep` is the
        share of what is remembered that stays so from one refit to the next, `lead_ratio` the time that a start takes
        in multiples of that for which the prior is, and `mean_replicas` how many full ones the traffic keeps busy in
        the mean.
        """
        # Of what was before the bins the end of the newest period alone: there the first one begins.
        known = self.periods[max(0, int(np.searchsorted(self.periods[:, UNTIL], times[0])) - 1) :]
        periods = np.vstack((known, (now, self.late_since, self.value)))
        past_late, past_requests = self.past_late * keep, self.past_requests * keep
        requests = float(imagined.requests.sum()) + past_requests + prior_requests
        truth = _truth(imagined, times, periods, keep, PRIOR_LATE * prior_requests)
        allowed, unseen = 1.0 - attainment, prior_requests / requests
        inevitable = float(imagined.late[0].sum() + past_late[0]) * truth / requests
        aim = max(LEAST_USE * allowed, USE * allowed - inevitable)
        heard = _heard(imagined.late, EVENT_USE * aim * requests / truth)
        helped = (heard.sum(axis=1) + past_late) * (truth / requests) - inevitable
        return Utilisation(
            _chosen(helped, aim, unseen * USE * allowed, _prior(allowed, lead_ratio, mean_replicas, unseen)),
            past_late + heard[:, leaving].sum(axis=1),
            past_requests + float(imagined.requests[leaving].sum()),
            max(self.past_until, float(times[leaving].max(initial=0.0))),
            periods=periods,
        )


def _truth(imagined: Imagined, times: Array, periods: Array, keep: float, unsure: float) -> float:
    """How much of what is imagined late really was late, at the utilisations that were in force.

    All that is imagined is imagined as it is now. Had each stretch been held against what was believed of it then, what
    was late of a step would count twice for a day: in the curve of lateness that it taught, and here once more.
    """
    if unsure <= 0:
        return 1.0
    # A bin is of the first period that ends no sooner; where the first period began is not known.
    ends = np.searchsorted(times, periods[:, UNTIL] + ROUNDING_SECONDS, side="right")
    until = np.pad(np.cumsum(imagined.late, axis=1), ((0, 0), (1, 0)))[:, ends]
    values = periods[1:, VALUE].tolist()
    at_value = [float(np.interp(value, UTILISATIONS, at)) for value, at in zip(values, np.diff(until).T, strict=True)]
    most_late = MOST_LATE * np.diff(np.pad(np.cumsum(imagined.requests), (1, 0))[ends])
    told = ~np.isnan(periods[1:, LATE])
    fading = told * keep ** np.arange(len(values))[::-1]
    late = float(fading @ np.minimum(most_late, np.nan_to_num(periods[1:, LATE])))
    imagined_late = float(fading @ np.minimum(most_late, at_value))
    least, most = TRUTH
    return min(most, max(least, (late + unsure) / (imagined_late + unsure)))


def _heard(late: Array, most: float) -> Array:
    """`late` (U, T) with what can be helped of each event, what is late beyond the emptiest, cut to `most` requests."""
    helped = np.maximum(0.0, late - late[0])
    bins = np.arange(late.shape[1])
    until = np.pad(np.cumsum(helped, axis=1), ((0, 0), (1, 0)))
    # Around each bin and not in fixed hours, or what an event is heard for would change with the clock.
    begins, ends = np.maximum(0, bins - EVENT_BINS // 2), np.minimum(len(bins), bins + EVENT_BINS // 2 + 1)
    around = until[:, ends] - until[:, begins]
    return np.asarray(late[0] + helped * (most / np.maximum(around, most)))


def _prior(allowed: float, lead_ratio: float, mean_replicas: float, unseen: float) -> float:
    """The utilisation at which, as far as nothing is known, just so many are late as are aimed for.

    `allowed` is the share of misses that the objective allows, `unseen` what the prior weighs among all that is known.
    """
    emptiest, fullest = PRIOR_LIMITS
    by_lead = -PRIOR_PER_DOUBLING * log2(lead_ratio)
    by_misses = PRIOR_PER_MISSES * log(allowed / PRIOR_ALLOWED)
    one = min(fullest, max(emptiest, PRIOR_UTILISATION - PRIOR_UNSEEN * unseen**2 + by_lead + by_misses))
    whole = min(PRIOR_WHOLE_MOST - 1.0, PRIOR_WHOLE / max(mean_replicas, PRIOR_WHOLE))
    return one * (1.0 + whole * (1.0 - unseen**2))


def _chosen(helped: Array, aim: float, at_middle: float, middle: float) -> float:
    """The fullest at which the lateness that can be helped, `helped` (U,) and the prior's, is what is aimed for.

    The prior's is `at_middle` at the utilisation `middle`; all are shares of the requests.
    """
    prior = [at_middle * exp((u - middle) / PRIOR_WIDTH) for u in UTILISATIONS.tolist()]
    rising = np.maximum.accumulate(helped).tolist()
    logs = [log(max(1e-12, share + expected)) for share, expected in zip(rising, prior, strict=True)]
    return float(np.interp(log(aim), logs, UTILISATIONS))


def imagine(
    foreseen: Array,
    loads: Array,
    curve: Array,
    *,
    capacity: float,
    hardest: float,
    hold_bins: int,
    lead_bins: int,
    fewest: int,
    most: int,
    step_seconds: float,
    ttft_objective_seconds: float,
) -> Imagined:
    """What would have been late at each of UTILISATIONS, had what was foreseen been planned for.

    `foreseen` and `loads` (T,) are requests/s, `curve` the share late at each of PRESSURES; a replica is full at
    `capacity` requests/s and cannot do more than `hardest`.
    """
    full = capacity * UTILISATIONS[:, np.newaxis]
    wished = np.ceil(np.maximum(foreseen, loads) / full - 1e-9)
    ordered = np.clip(_trailing(wished, hold_bins, np.maximum), fewest, most)
    # What a bin shows is known at its end. There is what has been ordered all through the lead time since: what comes
    # takes as long, what goes is gone at once.
    ready = _trailing(ordered, lead_bins + 2, np.minimum)
    walk = np.cumsum((loads - ready * hardest) * step_seconds, axis=1)
    backlog = walk - np.minimum(0.0, np.minimum.accumulate(walk, axis=1))
    pressure = (loads + backlog / ttft_objective_seconds) / (ready * capacity)
    share = np.interp(pressure.ravel(), PRESSURES, curve).reshape(pressure.shape)
    requests = loads * step_seconds
    return Imagined(share * requests, requests)


def _trailing(values: Array, width: int, of: np.ufunc) -> Array:
    """The greatest, or least, of the last `width` values at each place along the last axis."""
    found = values.copy()
    for back in range(1, width):
        of(found[:, back:], values[:, :-back], out=found[:, back:])
    return found
