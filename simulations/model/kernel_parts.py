"""Histograms and queues of the event loop, compiled."""

from __future__ import annotations

import numpy as np

from simulations.model.kernel import (
    BUCKETS,
    EDGES,
    ENTERED,
    FIRST_STEP,
    FOLLOWING,
    GROWTH,
    HISTOGRAM,
    INTER_TOKEN,
    NOWHERE,
    PRECEDING,
    PRIORITY,
    SECOND,
    SUM_PICOSECONDS,
    SUM_SECONDS,
    Ints,
    compiled,
)


@compiled
def add(row: Ints, which: int, picoseconds: int) -> None:
    """Adds to the sum of a histogram."""
    total = row[SUM_PICOSECONDS + which] + picoseconds
    if total >= SECOND:
        row[SUM_SECONDS + which] += total // SECOND
        total %= SECOND
    row[SUM_PICOSECONDS + which] = total


@compiled
def observe(row: Ints, engine: Ints, which: int, value: int, times: int) -> None:
    """Counts `times` observations of `value`."""
    bucket = which * HISTOGRAM
    while engine[EDGES + bucket] < value:
        bucket += 1
    row[BUCKETS + bucket] += times
    add(row, which, value * times)


@compiled
def span(first: int, growth: int, steps: int) -> int:
    """How long that many steps take, each `growth` longer than the one before."""
    return int(first * steps + growth * ((steps * (steps - 1)) >> 1))


@compiled
def observe_stretch(row: Ints, engine: Ints, steps: int, times: int) -> None:
    """Counts `times` tokens for each of the first steps of the stretch under way."""
    first, growth = row[FIRST_STEP], row[GROWTH]
    longest = first + growth * (steps - 1)
    bucket = INTER_TOKEN * HISTOGRAM
    done = 0
    while done < steps:
        while engine[EDGES + bucket] < first + growth * done:
            bucket += 1
        edge = engine[EDGES + bucket]
        within = steps if longest <= edge else (edge - first) // growth + 1
        row[BUCKETS + bucket] += (within - done) * times
        done = within
    add(row, INTER_TOKEN, span(first, growth, steps) * times)


@compiled
def is_later(requests: Ints, one: int, other: int) -> bool:
    """Whether one is served after the other where priorities count: then who came first, then the lower number."""
    if requests[one, PRIORITY] != requests[other, PRIORITY]:
        return bool(requests[one, PRIORITY] > requests[other, PRIORITY])
    if requests[one, ENTERED] != requests[other, ENTERED]:
        return bool(requests[one, ENTERED] > requests[other, ENTERED])
    return one > other


@compiled
def put_after(queue: Ints, head: int, requests: Ints, index: int, before: int) -> None:
    """Puts a request behind the one named, or at the head where that is -1."""
    after = queue[head] if before < 0 else requests[before, FOLLOWING]
    if queue[head + 2] == 0:
        after = -1
    requests[index, PRECEDING] = before
    requests[index, FOLLOWING] = after
    if before < 0:
        queue[head] = index
    else:
        requests[before, FOLLOWING] = index
    if after < 0:
        queue[head + 1] = index
    else:
        requests[after, PRECEDING] = index
    queue[head + 2] += 1


@compiled
def put_last(queue: Ints, head: int, requests: Ints, index: int) -> None:
    put_after(queue, head, requests, index, queue[head + 1] if queue[head + 2] > 0 else -1)


@compiled
def put_by_priority(queue: Ints, head: int, requests: Ints, index: int) -> None:
    before = queue[head + 1] if queue[head + 2] > 0 else -1
    while before >= 0 and is_later(requests, before, index):
        before = requests[before, PRECEDING]
    put_after(queue, head, requests, index, before)


@compiled
def take_out(queue: Ints, head: int, requests: Ints, index: int) -> None:
    """Takes a request out of the queue it is in."""
    before, after = requests[index, PRECEDING], requests[index, FOLLOWING]
    if before < 0:
        queue[head] = after
    else:
        requests[before, FOLLOWING] = after
    if after < 0:
        queue[head + 1] = before
    else:
        requests[after, PRECEDING] = before
    requests[index, PRECEDING] = NOWHERE
    queue[head + 2] -= 1


@compiled
def drawn(seed: int, number: int) -> int:
    """The number-th of the whole numbers 0 … 2³¹ - 1 that follow from a seed: splitmix64 (Steele, Lea, Flood 2014)."""
    z = np.uint64(seed) + np.uint64(number + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return int((z ^ (z >> np.uint64(31))) >> np.uint64(33))
