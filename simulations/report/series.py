"""A replay as series that a page can hold: as it was where it is short, in equal columns where it is long.

A column shows means, so that the area under what was held is still what it cost, and the range of what was ready.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from policies.scaling.decision import Decision
from simulations.replay import Replay
from simulations.report.charts import Even, Said
from simulations.report.document import clock

MOST_COLUMNS = 720
"""Of one chart: about one for each pixel that is left on a laptop."""
ALL_COLUMNS = 8000
"""Of all policies together: each has a sentence, and the page should be light to send."""
LOAD_STEPS_SECONDS = (30.0, 60.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 21600.0)
LATENCY_STEPS_SECONDS = (60.0, 300.0, 600.0, 1800.0, 3600.0)
MOST_LATENCIES = 2100
"""A week by five minutes."""
SHORT_SECONDS = 4 * 3600.0
"""Up to here latencies are told by the minute."""

WIDEST_STEPS = 4
"""Between two forecasts of one band."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def columns(policies: int) -> int:
    """How many each policy of a page gets."""
    return max(120, min(MOST_COLUMNS, ALL_COLUMNS // max(1, policies)))


@dataclass(frozen=True, slots=True)
class Ticks:
    """A replay's timeline in columns of `per` ticks each."""

    x: Floats
    per: int
    wanted: Floats
    created: Floats
    ready: Floats
    fewest_ready: Ints
    most_ready: Ints
    holding: Floats
    """Created ones and those that drain."""
    waiting: Floats
    said: Said

    def between(self, begin: float, end: float) -> Ticks:
        """Those columns alone, and the one that holds as they begin."""
        first = max(0, int(np.searchsorted(self.x, begin, side="right")) - 1)
        part = slice(first, int(np.searchsorted(self.x, end, side="right")))
        x = self.x[part]
        return Ticks(
            x,
            self.per,
            self.wanted[part],
            self.created[part],
            self.ready[part],
            self.fewest_ready[part],
            self.most_ready[part],
            self.holding[part],
            self.waiting[part],
            Said(x, self.said.sentences[part]),
        )


def ticks(replay: Replay, most: int) -> Ticks:
    """No more than so many columns."""
    timeline, decisions = replay.timeline, replay.decisions
    per = max(1, math.ceil(len(decisions) / most))
    wanted = np.array([each.wanted for each in decisions], dtype=np.float64)
    starts = np.arange(0, len(decisions), per)
    x = timeline.time[starts]
    return Ticks(
        x,
        per,
        means(wanted, per),
        means(timeline.created, per),
        means(timeline.ready, per),
        np.minimum.reduceat(timeline.ready, starts),
        np.maximum.reduceat(timeline.ready, starts),
        means(timeline.created + timeline.draining, per),
        means(timeline.waiting, per),
        Said(x, tuple(_sentence(decisions[at : at + per]) for at in range(0, len(decisions), per))),
    )


def _sentence(decisions: Sequence[Decision]) -> str:
    """Of the greatest change among them, else of the last; with its time where there are several."""
    greatest = max(decisions, key=lambda each: (abs(each.replicas - each.desired), each.time))
    return greatest.sentence if len(decisions) == 1 else f"{clock(greatest.time)}: {greatest.sentence}"


def means(values: NDArray[np.int64] | Floats, per: int) -> Floats:
    """Of each `per` values; the last column may have fewer."""
    starts = np.arange(0, len(values), per)
    return np.asarray(np.add.reduceat(values.astype(np.float64), starts) / np.diff(np.append(starts, len(values))))


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests arriving a second."""

    x: Even
    y: Floats


def arrivals(arrived_at_seconds: Floats) -> Rate:
    """By half a minute, or coarser where that would be too many columns."""
    last = float(arrived_at_seconds[-1])
    step = next((s for s in LOAD_STEPS_SECONDS if last / s <= MOST_COLUMNS), 86400.0)
    edges = _edges(last, step)
    return Rate(Even(0.0, step), np.histogram(arrived_at_seconds, edges)[0] / step)


def _edges(last: float, step: float) -> Floats:
    """Of steps from 0 on, the last of which holds the last arrival."""
    return np.arange(int(last // step) + 2, dtype=np.float64) * step


@dataclass(frozen=True, slots=True)
class Foreseen:
    """Forecasts at the moment each speaks of."""

    x: Floats
    expected: Floats
    upper: Floats


def foreseen(replay: Replay, most: int) -> Foreseen | None:
    """From the expected load to the quantile that was planned for; None of a policy that foresees nothing."""
    found = [d.forecast for d in replay.decisions if d.forecast is not None and d.forecast.time <= replay.end_seconds]
    if not found:
        return None
    found.sort(key=lambda each: each.time)
    per = max(1, math.ceil(len(found) / most))
    expected = np.array([each.expected for each in found])
    upper = np.array([each.upper for each in found])
    starts = np.arange(0, len(found), per)
    middle = means(expected, per)
    x = np.array([each.time for each in found])[starts]
    # A lead time that grows skips moments of which nothing was foreseen: no line may bridge them.
    gaps = np.flatnonzero(np.diff(x) > WIDEST_STEPS * np.median(np.diff(x))) + 1 if len(x) > 1 else np.array([], int)
    return Foreseen(
        np.insert(x, gaps, x[gaps - 1]),
        np.insert(middle, gaps, np.nan),
        np.insert(means(upper, per), gaps, np.nan),
    )


@dataclass(frozen=True, slots=True)
class Load:
    """What a policy saw come, as its forecasts speak of it: means over minutes, in requests/s of the mix then."""

    x: Floats
    y: Floats
    """NaN where it saw nothing."""


def load_told(replay: Replay) -> Load | None:
    """What each look tells, at the instant that it tells of; None of a policy that never tells it."""
    ago = next((each.time - each.came.time for each in replay.decisions if each.came is not None), None)
    if ago is None:
        return None
    return Load(
        np.array([each.time for each in replay.decisions]) - ago,
        np.array([math.nan if each.came is None else each.came.load for each in replay.decisions]),
    )


def load_seen(replay: Replay, most: int) -> Load | None:
    """The mean of what was seen in each of no more than so many columns, from the first that was."""
    told = load_told(replay)
    if told is None:
        return None
    first = int(np.argmin(np.isnan(told.y)))
    x, seen = told.x[first:], told.y[first:]
    per = max(1, math.ceil(len(seen) / most))
    known = means((~np.isnan(seen)).astype(np.float64), per)
    sums = means(np.nan_to_num(seen), per)
    y = np.divide(sums, known, out=np.full(len(sums), np.nan), where=known > 0)
    return Load(x[::per].copy(), y)  # a page writes no array with gaps


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of the requests that arrived in each step; NaN where none did, or none was answered."""

    x: Even
    ttft_seconds: Floats
    tpot_seconds: Floats
    missed: Floats
    """Share, 0 to 1, of all that arrived."""


def latencies(replay: Replay, percentile: float) -> Latencies:
    """A percentile of each step, drawn at its middle."""
    arrived = replay.arrived_at_seconds
    step = latency_step(float(arrived[-1]))
    bounds = np.searchsorted(arrived, _edges(float(arrived[-1]), step)).tolist()
    missed = [
        float((~replay.attained[start:stop]).mean()) if stop > start else math.nan for start, stop in pairwise(bounds)
    ]
    return Latencies(
        Even(step / 2, step),
        _percentiles(replay.ttft, bounds, percentile),
        _percentiles(replay.tpot, bounds, percentile),
        np.array(missed),
    )


def latency_step(last_arrival_seconds: float) -> float:
    """A minute in a trace of hours, five minutes in one of days, more in one of weeks."""
    if last_arrival_seconds <= SHORT_SECONDS:
        return LATENCY_STEPS_SECONDS[0]
    return next((s for s in LATENCY_STEPS_SECONDS[1:] if last_arrival_seconds / s <= MOST_LATENCIES), 21600.0)


def _percentiles(values: Floats, bounds: Sequence[int], percentile: float) -> Floats:
    found = []
    for start, stop in pairwise(bounds):
        known = values[start:stop]
        known = known[np.isfinite(known)]
        found.append(float(np.percentile(known, percentile)) if known.size else math.nan)
    return np.array(found)
