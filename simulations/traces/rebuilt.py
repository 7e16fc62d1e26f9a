"""A trace made of what servers counted: as many requests, of such lengths and in such minutes, as there were.

Counters tell how many requests came in each bin and how many tokens there were, histograms how long prompts and
outputs were; when in its bin a request came, where in its bucket its length lies and which prompt went with which
output they do not tell. That is drawn, the same for the same seed on any machine: sums that decide are of whole
numbers. The histograms are kept to a request, and the tokens of each hour as far as the histograms let them be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from math import floor, fsum, isfinite
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from policies.scaling.demand import LoadBin
from simulations.traces.trace import Trace, TraceError

STRETCH_SECONDS: Final = 300.0
# Tokens are counted when they are made, a request when it begins: over an hour the two are of the same requests.
PERIOD_SECONDS: Final = 3600.0
# Where in its bucket a length lies, in steps of a 2^20th of it.
STEPS: Final = 1 << 20
# So many tokens more or less than were counted are told.
TOLD_SHARE: Final = 0.01
GAPS_TOLD: Final = 3

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Lengths(Protocol):
    """How many requests of what length were done: `counts` is stretches of five minutes × buckets, NaN unknown."""

    @property
    def edges(self) -> Sequence[float]: ...
    @property
    def counts(self) -> Floats: ...


class Traffic(Protocol):
    """What was counted between two moments in unix seconds; bins neither overlap nor cross five minutes."""

    @property
    def name(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def bins(self) -> Sequence[LoadBin]: ...
    @property
    def prompts(self) -> Lengths | None: ...
    @property
    def outputs(self) -> Lengths | None: ...
    @property
    def problems(self) -> Sequence[str]: ...


def rebuilt(traffic: Traffic, *, seed: int = 0) -> Trace:
    """The trace; its time 0 is the traffic's start, and its notes say what the counters left out."""
    between = f"between {_clock(traffic.start)} and {_clock(traffic.end)} UTC"
    bins = traffic.bins
    arrived = _whole(np.array([each.arrivals_per_second * each.seconds for each in bins]))
    count = int(arrived.sum())
    if not count:
        seen = "no request came" if bins else "nothing was counted"
        raise TraceError(
            f"{traffic.name}: {seen} {between}: look at target, from and to, "
            "and name the pods by pods=REGEX where no Deployment or StatefulSet makes them"
        )
    rng = np.random.default_rng(seed)
    starts = np.array([each.start - traffic.start for each in bins])
    seconds = np.array([each.seconds for each in bins])
    of_bin = np.repeat(np.arange(len(bins)), arrived)
    times = np.sort(starts[of_bin] + seconds[of_bin] * rng.random(count))
    notes = [*traffic.problems, *_gaps(traffic)]
    prompt_tokens = np.array([each.prompt_tokens_per_second for each in bins]) * seconds
    output_tokens = np.array([each.generation_tokens_per_second for each in bins]) * seconds
    prompts = _drawn(f"{traffic.name}: prompt", times, starts, prompt_tokens, traffic.prompts, rng, notes)
    outputs = _drawn(f"{traffic.name}: output", times, starts, output_tokens, traffic.outputs, rng, notes)
    notes.append(f"{traffic.name}: which prompt went with which output is not recorded: they are drawn apart")
    return Trace.of(
        traffic.name,
        np.round(times, 6),
        prompts,
        outputs,
        source=f"rebuilt from the counters of {traffic.name} {between}",
        notes=tuple(notes),
    )


def _whole(expected: Floats) -> Ints:
    """Whole numbers that add up to the same, within a half, from the first to any."""
    return np.diff(np.floor(np.cumsum(expected) + 0.5), prepend=0.0).astype(np.int64)


def _clock(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")


def _gaps(traffic: Traffic) -> Iterator[str]:
    """The longest stretches of which nothing is known, and how much it is in all."""
    ends = [traffic.start, *(each.start + each.seconds for each in traffic.bins)]
    begins = [*(each.start for each in traffic.bins), traffic.end]
    gaps = [(begin - end, end, begin) for end, begin in zip(ends, begins, strict=True) if begin - end > 0.5]
    gaps.sort(key=lambda gap: -gap[0])
    for long, end, begin in gaps[:GAPS_TOLD]:
        yield (
            f"{traffic.name}: nothing is known from {_clock(end)} to {_clock(begin)} UTC ({long / 60:g} min): "
            "nobody comes then in the trace"
        )
    if len(gaps) > GAPS_TOLD:
        total = sum(gap[0] for gap in gaps) / 60
        yield f"{traffic.name}: of {len(gaps)} gaps these are the longest; all together are {total:g} min"


def _drawn(
    title: str,
    times: Floats,
    starts: Floats,
    tokens: Floats,
    recorded: Lengths | None,
    rng: np.random.Generator,
    notes: list[str],
) -> Ints:
    """A length for each request: of the histogram of its five minutes, and of the tokens of its hour."""
    bounds = _buckets(times, recorded, rng)
    if bounds is None:
        notes.append(f"{title} lengths have no histogram there: each request has the mean of its hour")
    places = rng.integers(0, STEPS, times.size)
    lengths = np.zeros(times.size, dtype=np.int64)
    left = 0.0
    hours = (times // PERIOD_SECONDS).astype(np.int64)
    of_hour = np.bincount((starts // PERIOD_SECONDS).astype(np.int64), tokens)
    for hour in range(len(of_hour)):
        first, last = np.searchsorted(hours, (hour, hour + 1))
        left += float(of_hour[hour])
        if last > first:
            span = slice(first, last)
            total = floor(left + 0.5)
            if bounds is None:
                lengths[span] = np.maximum(_whole(np.full(last - first, total / (last - first))), 1)
            else:
                lengths[span] = _within(bounds[0][span], bounds[1][span], places[span], total)
            left -= int(lengths[span].sum())
    counted = float(tokens.sum())
    if abs(left) > TOLD_SHARE * max(counted, 1.0):
        more = "more" if left > 0 else "fewer"
        notes.append(
            f"{title} tokens, {counted:.0f} by their counter, were {abs(left):.0f} {more} than the lengths in the "
            "histogram's buckets can add up to: the trace keeps to the histogram"
        )
    return lengths


def _buckets(times: Floats, recorded: Lengths | None, rng: np.random.Generator) -> tuple[Ints, Ints] | None:
    """The shortest and the longest that each request may be; None where there is no histogram to tell."""
    if recorded is None or len(recorded.edges) < 2:
        return None
    known = np.nan_to_num(recorded.counts)
    overall = known.sum(axis=0)
    if overall.sum() < 1:
        return None
    below = np.floor([0.0, *recorded.edges[:-1]]).astype(np.int64)
    # What is beyond the last edge is at most twice as long.
    edges = [edge if isfinite(edge) else 2.0 * before for edge, before in zip(recorded.edges, below, strict=True)]
    above = np.maximum(np.floor(edges).astype(np.int64), below + 1)
    buckets = np.zeros(times.size, dtype=np.int64)
    owed = np.zeros(len(overall))
    stretches = (times // STRETCH_SECONDS).astype(np.int64)
    ends = np.searchsorted(stretches, np.arange(len(known)), side="right")
    first = 0
    for shares, last in zip(known, ends.tolist(), strict=True):
        if last > first:
            # Of fewer than a request that is done, as of none, nothing can be said.
            shares = shares if shares.sum() >= 1 else overall
            owed += (last - first) * shares / fsum(shares.tolist())
            chosen = _shared_out(owed, last - first)
            owed -= chosen
            buckets[first:last] = rng.permutation(np.repeat(np.arange(len(chosen)), chosen))
            first = last
    return (below + 1)[buckets], above[buckets]


def _shared_out(owed: Floats, count: int) -> Ints:
    """So many requests over the buckets, each as near to what it is owed as the others allow."""
    chosen = np.floor(np.maximum(owed, 0.0)).astype(np.int64)
    while (short := count - int(chosen.sum())) > 0:
        chosen[np.argsort(chosen - owed, kind="stable")[:short]] += 1
    while (over := int(chosen.sum()) - count) > 0:
        most = np.argsort(owed - chosen, kind="stable")
        chosen[most[chosen[most] > 0][:over]] -= 1
    return chosen


def _within(lowest: Ints, highest: Ints, places: Ints, total: int) -> Ints:
    """Lengths that add up to the total, or come as near as they may, each drawn to its place between its bounds."""
    widths = highest - lowest
    spare = min(max(total - int(lowest.sum()), 0), int(widths.sum()))
    drawn = widths * places
    as_drawn, at_most = int(drawn.sum()) / STEPS, int(widths.sum())
    # All are drawn out, or all drawn in, by the same share of what they may be.
    if spare <= as_drawn:
        more = drawn / STEPS * (spare / as_drawn if as_drawn else 0.0)
    else:
        more = drawn / STEPS + (widths - drawn / STEPS) * ((spare - as_drawn) / (at_most - as_drawn))
    lengths: Ints = np.clip(lowest + _whole(more), lowest, highest)
    return lengths
