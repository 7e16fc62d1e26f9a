"""The event loop of a whole fleet of vLLM engines, compiled: it alone knows how an iteration is put together.

An iteration of vLLM V1: the running sequences first, in order of admission, each one token, a prompt in chunks
within the token budget; then waiting requests, first come first served and none overtaken, each admitted when
its whole prompt fits in the free KV blocks; when a running sequence finds no block, the last admitted is put
back to the head of the queue and computed anew. No admission in an iteration that put one back.

Iterations between two events (an arrival at this replica, a finish, the last free block) only decode: their
number is found in closed form, for the context grows by one token a sequence and step. Time is in integer
picoseconds; nothing is rounded here, so the closed form equals the loop over the steps to the last bit
(`tests/simulations/reference.py` is that loop).

At one instant: iterations end first, then replicas become ready, then requests arrive, then iterations start.

All state is in a few arrays of 64-bit integers, a row a replica and a row a request, for a compiled function
pays for every array it is handed; the names below are their columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., object])

NEVER = 2**62
SECOND = 10**12

# A replica's state.
FREE_SLOT, BOOTING, READY, DRAINING, GONE = 0, 1, 2, 3, 4
# What its engine does: nothing; about to start an iteration; a stretch of pure decode; one with prefill.
IDLE, PENDING, STRETCH, MIXED = 0, 1, 2, 3
# A request's fate.
UNSEEN, HELD, DONE, REFUSED = 0, 1, 2, 3

# A replica's columns. Times in picoseconds; NEXT_FINISH and `finish` count decode steps, as DECODED does.
STATE, DOING, START, STEPS, FIRST_STEP, GROWTH, RUNNING, DECODING, CONTEXT, DECODED, NEXT_FINISH = range(11)
PARTIAL, PARTIAL_DONE, FREE_BLOCKS, HEAD, TAIL, WAITING, READY_AT, GONE_AT = range(11, 19)
PROMPT_TOKENS, GENERATION_TOKENS, FINISHED, PREEMPTIONS, ENGINE_STEPS = range(19, 24)
# Sums of the four histograms, each in whole seconds and picoseconds: 64 bits hold 106 days of waiting only.
SUM_SECONDS, SUM_PICOSECONDS = 24, 28
# Then the four histograms, then the decoding sequences by where in its block each one's next token falls,
# then the running requests in order of admission, then the step count at which each is done.
TTFT, TPOT, INTER_TOKEN, QUEUE = 0, 1, 2, 3
HISTOGRAM = 24
BUCKETS = 32
PHASE = BUCKETS + 4 * HISTOGRAM

# A request's columns. Times are -1 for what has not happened; GENERATED is what it had when last put back, LAST
# its last token where it was put back or is done, ENTERED when a replica took it into its queue.
ARRIVAL, PROMPT, GOAL, GENERATED, FOLLOWING, ENTERED, SCHEDULED, FIRST, LAST, FATE, REPLICA = range(11)
REQUEST = 11

# The engine: coefficients of a step, limits, columns in a replica's row, bucket edges, time of the dense layers.
A, B, C, D, E, BLOCKS, BLOCK_SHIFT, MAX_SEQUENCES, MAX_TOKENS, AT_RUNNING, AT_FINISH = range(11)
EDGES = 16
DENSE = EDGES + 4 * HISTOGRAM

# The fleet.
NEXT_ARRIVAL, GATEWAY_HEAD, GATEWAY_TAIL, GATEWAY, SLOTS, REFUSALS = range(6)
FLEET = 6


def compiled(function: F) -> F:
    """Compiled at its first call and kept on disk, so that the second run starts at once."""
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


@compiled
def _add(row: Ints, which: int, picoseconds: int) -> None:
    total = row[SUM_PICOSECONDS + which] + picoseconds
    if total >= SECOND:
        row[SUM_SECONDS + which] += total // SECOND
        total %= SECOND
    row[SUM_PICOSECONDS + which] = total


@compiled
def _observe(row: Ints, engine: Ints, which: int, value: int, times: int) -> None:
    """Counts `times` observations of `value`."""
    bucket = which * HISTOGRAM
    while engine[EDGES + bucket] < value:
        bucket += 1
    row[BUCKETS + bucket] += times
    _add(row, which, value * times)


@compiled
def _span(first: int, growth: int, steps: int) -> int:
    """How long that many steps take, each `growth` longer than the one before."""
    return int(first * steps + growth * ((steps * (steps - 1)) >> 1))


@compiled
def _observe_stretch(row: Ints, engine: Ints, steps: int, times: int) -> None:
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
    _add(row, INTER_TOKEN, _span(first, growth, steps) * times)


@compiled
def _blocks_for(row: Ints, engine: Ints, steps: int) -> int:
    """KV blocks that the next decode steps will ask for."""
    shift = engine[BLOCK_SHIFT]
    inside = (1 << shift) - 1
    blocks = (steps >> shift) * row[DECODING]
    at = -row[DECODED]
    for _ in range(steps & inside):
        blocks += row[PHASE + (at & inside)]
        at -= 1
    return int(blocks)


@compiled
def _blocks_of(engine: Ints, tokens: int) -> int:
    """KV blocks that so many tokens fill or begin."""
    shift = engine[BLOCK_SHIFT]
    return int((tokens + (1 << shift) - 1) >> shift)


@compiled
def _count_decoding(row: Ints, engine: Ints, context: int, sign: int) -> None:
    """Counts a sequence of that context in (1) or out (-1) of those that decode; between iterations."""
    row[DECODING] += sign
    row[CONTEXT] += sign * context
    row[PHASE + ((context - 1 - row[DECODED]) & ((1 << engine[BLOCK_SHIFT]) - 1))] += sign


@compiled
def _find_next_finish(row: Ints, engine: Ints) -> None:
    soonest = NEVER
    finish = engine[AT_FINISH]
    for at in range(finish, finish + row[DECODING]):
        soonest = min(soonest, row[at])
    row[NEXT_FINISH] = soonest


@compiled
def _put_back_last(row: Ints, requests: Ints, engine: Ints, now: int) -> None:
    """Preempts the last admitted: its blocks are free, its tokens will be computed anew."""
    last = row[RUNNING] - 1
    at = row[engine[AT_RUNNING] + last]
    request = requests[at]
    if at == row[PARTIAL]:
        cached = row[PARTIAL_DONE]
        row[PARTIAL] = -1
    else:
        generated = request[GOAL] - (row[engine[AT_FINISH] + last] - row[DECODED])
        request[GENERATED] = generated
        request[LAST] = now
        cached = request[PROMPT] + generated - 1
        _count_decoding(row, engine, cached + 1, -1)
    row[FREE_BLOCKS] += _blocks_of(engine, cached)
    row[RUNNING] = last
    request[FOLLOWING] = row[HEAD]
    if row[WAITING] == 0:
        row[TAIL] = at
    row[HEAD] = at
    row[WAITING] += 1
    row[PREEMPTIONS] += 1


@compiled
def _make_room(row: Ints, requests: Ints, engine: Ints, now: int) -> None:
    """Gives each decoding sequence, in order of admission, its block, putting back the last while none is free."""
    inside = (1 << engine[BLOCK_SHIFT]) - 1
    given = 0
    at = 0
    while at < row[DECODING]:
        request = requests[row[engine[AT_RUNNING] + at]]
        generated = request[GOAL] - (row[engine[AT_FINISH] + at] - row[DECODED])
        if (request[PROMPT] + generated - 1) & inside == 0:
            while row[FREE_BLOCKS] == given and row[RUNNING] > at:
                _put_back_last(row, requests, engine, now)
            given += 1
        at += 1
    _find_next_finish(row, engine)


@compiled
def _steps_that_fit(row: Ints, engine: Ints, steps: int) -> int:
    """The most decode steps, of those wished, for which there are KV blocks; the first always has them."""
    fits, fails = 1, steps + 1
    while fails - fits > 1:
        middle = (fits + fails) >> 1
        if _blocks_for(row, engine, middle) <= row[FREE_BLOCKS]:
            fits = middle
        else:
            fails = middle
    return fits


@compiled
def _start(row: Ints, requests: Ints, engine: Ints) -> int:
    """Puts together the next iteration, and as many like it as nothing can disturb; says when the last ends."""
    now = row[START]
    put_back = row[PREEMPTIONS]
    reserved = _blocks_for(row, engine, 1)
    if reserved > row[FREE_BLOCKS]:
        _make_room(row, requests, engine, now)
        reserved = _blocks_for(row, engine, 1)
    decoding = row[DECODING]
    budget = engine[MAX_TOKENS] - decoding
    prefill = 0
    pairs = 0
    if row[PARTIAL] >= 0:
        request = requests[row[PARTIAL]]
        cached = row[PARTIAL_DONE]
        target = request[PROMPT] + request[GENERATED]
        chunk = min(target - cached, budget)
        blocks = _blocks_of(engine, cached + chunk) - _blocks_of(engine, cached)
        if blocks > row[FREE_BLOCKS] - reserved:
            _put_back_last(row, requests, engine, now)
        else:
            row[FREE_BLOCKS] -= blocks
            budget -= chunk
            prefill += chunk
            pairs += chunk * (2 * cached + chunk)
            row[PARTIAL_DONE] = cached + chunk
            if cached + chunk == target:
                row[PARTIAL] = -1
    if row[PREEMPTIONS] == put_back:
        while row[WAITING] > 0 and budget > 0 and row[RUNNING] < engine[MAX_SEQUENCES]:
            at = row[HEAD]
            request = requests[at]
            target = request[PROMPT] + request[GENERATED]
            if _blocks_of(engine, target) > row[FREE_BLOCKS] - reserved:
                break
            row[HEAD] = request[FOLLOWING]
            row[WAITING] -= 1
            if request[SCHEDULED] < 0:
                request[SCHEDULED] = now
            chunk = min(target, budget)
            row[FREE_BLOCKS] -= _blocks_of(engine, chunk)
            budget -= chunk
            prefill += chunk
            pairs += chunk * chunk
            row[engine[AT_RUNNING] + row[RUNNING]] = at
            row[RUNNING] += 1
            if chunk < target:
                row[PARTIAL] = at
                row[PARTIAL_DONE] = chunk
    first = (
        engine[A]
        + engine[B] * decoding
        + engine[C] * row[CONTEXT]
        + engine[D] * prefill
        + ((engine[E] * pairs) >> 1)
        + engine[DENSE + decoding + prefill]
    )
    growth = engine[C] * decoding
    steps = 1
    if prefill > 0:
        row[DOING] = MIXED
    else:
        row[DOING] = STRETCH
        if row[PREEMPTIONS] == put_back:
            steps = row[NEXT_FINISH] - row[DECODED]
            if decoding * ((steps >> engine[BLOCK_SHIFT]) + 1) > row[FREE_BLOCKS]:
                steps = _steps_that_fit(row, engine, steps)
    row[STEPS] = steps
    row[FIRST_STEP] = first
    row[GROWTH] = growth
    return int(now + _span(first, growth, steps))


@compiled
def _decode_steps(row: Ints, engine: Ints, steps: int) -> None:
    """Books the first steps of what is under way, for all sequences that decode."""
    row[ENGINE_STEPS] += steps
    decoding = row[DECODING]
    if decoding > 0:
        row[FREE_BLOCKS] -= _blocks_for(row, engine, steps)
        _observe_stretch(row, engine, steps, decoding)
        row[DECODED] += steps
        row[CONTEXT] += decoding * steps
        row[GENERATION_TOKENS] += decoding * steps


@compiled
def _end(row: Ints, requests: Ints, engine: Ints, now: int) -> int:
    """Books what ends now: tokens, first tokens, finished requests, whose number is returned."""
    _decode_steps(row, engine, row[STEPS])
    if row[DOING] == MIXED:
        prefilled = row[RUNNING] - (1 if row[PARTIAL] >= 0 else 0)
        for at in range(row[DECODING], prefilled):
            request = requests[row[engine[AT_RUNNING] + at]]
            generated = request[GENERATED]
            if generated == 0:
                request[FIRST] = now
                _observe(row, engine, TTFT, now - request[ENTERED], 1)
                row[PROMPT_TOKENS] += request[PROMPT]
            else:
                _observe(row, engine, INTER_TOKEN, now - request[LAST], 1)
            row[GENERATION_TOKENS] += 1
            finish = row[DECODED] + request[GOAL] - generated - 1
            row[engine[AT_FINISH] + at] = finish
            row[NEXT_FINISH] = min(row[NEXT_FINISH], finish)
            _count_decoding(row, engine, request[PROMPT] + generated + 1, 1)
    finished = 0
    if row[NEXT_FINISH] == row[DECODED]:
        finished = _take_out_finished(row, requests, engine, now)
    row[START] = now
    if row[RUNNING] + row[WAITING] > 0:
        row[DOING] = PENDING
    else:
        row[DOING] = IDLE
        if row[STATE] == DRAINING:
            row[STATE] = GONE
            row[GONE_AT] = now
    return finished


@compiled
def _take_out_finished(row: Ints, requests: Ints, engine: Ints, now: int) -> int:
    running = engine[AT_RUNNING]
    finish = engine[AT_FINISH]
    kept = 0
    decoding = row[DECODING]
    for at in range(row[RUNNING]):
        index = row[running + at]
        if at < decoding and row[finish + at] == row[DECODED]:
            request = requests[index]
            goal = request[GOAL]
            cached = request[PROMPT] + goal - 1
            _count_decoding(row, engine, cached + 1, -1)
            row[FREE_BLOCKS] += _blocks_of(engine, cached)
            request[LAST] = now
            request[FATE] = DONE
            took = now - request[FIRST]
            _observe(row, engine, TPOT, (took + goal - 2) // (goal - 1) if goal > 1 else 0, 1)
            _observe(row, engine, QUEUE, request[SCHEDULED] - request[ENTERED], 1)
        else:
            row[running + kept] = index
            row[finish + kept] = row[finish + at]
            kept += 1
    finished = row[RUNNING] - kept
    row[FINISHED] += finished
    row[RUNNING] = kept
    _find_next_finish(row, engine)
    return int(finished)


@compiled
def _run(row: Ints, due: Ints, load: Ints, r: int, requests: Ints, engine: Ints, now: int) -> None:
    """Brings one replica up to `now`; an iteration that would start at `now` starts later."""
    at = due[r]
    while at <= now:
        if row[DOING] == PENDING:
            at = _start(row, requests, engine)
        else:
            finished = _end(row, requests, engine, at)
            if row[STATE] == READY:
                load[r] -= finished
            at = at + 1 if row[DOING] == PENDING else NEVER
    due[r] = at


@compiled
def _cut_stretch(row: Ints, now: int) -> int:
    """Ends a stretch with the step under way at `now`, so that the next iteration sees who came; says when."""
    first, growth, most = row[FIRST_STEP], row[GROWTH], row[STEPS]
    wait = now - row[START]
    if growth > 0:
        half = 0.5 * growth
        slope = first - half
        steps = int((np.sqrt(slope * slope + 4.0 * half * wait) - slope) / growth)
    else:
        steps = wait // first
    steps = max(1, min(steps, most))
    # The square root is a float: the exact step is at most a few away.
    while steps < most and _span(first, growth, steps) < wait:
        steps += 1
    while steps > 1 and _span(first, growth, steps - 1) >= wait:
        steps -= 1
    row[STEPS] = steps
    return int(row[START] + _span(first, growth, steps))


@compiled
def _settle(row: Ints, engine: Ints, now: int) -> None:
    """Books the whole steps of a stretch that have ended by `now`; the one under way becomes its first."""
    steps = row[STEPS]
    _cut_stretch(row, now + 1)
    ended = row[STEPS] - 1
    if ended > 0:
        _decode_steps(row, engine, ended)
        row[START] += _span(row[FIRST_STEP], row[GROWTH], ended)
        row[FIRST_STEP] += row[GROWTH] * ended
    row[STEPS] = steps - ended


@compiled
def _hand_over(
    fleet: Ints, rows: Ints, due: Ints, load: Ints, requests: Ints, engine: Ints, index: int, now: int
) -> bool:
    """Gives a request to the ready replica that holds the fewest, the lowest slot among equals."""
    best = -1
    least = NEVER
    for r in range(fleet[SLOTS]):
        if due[r] <= now:
            _run(rows[r], due, load, r, requests, engine, now)
        if load[r] < least:
            least = load[r]
            best = r
    if best < 0:
        return False
    row = rows[best]
    requests[index, ENTERED] = now
    requests[index, REPLICA] = best
    if row[WAITING] == 0:
        row[HEAD] = index
    else:
        requests[row[TAIL], FOLLOWING] = index
    row[TAIL] = index
    row[WAITING] += 1
    load[best] += 1
    if row[DOING] == IDLE:
        row[DOING] = PENDING
        row[START] = now
        due[best] = now + 1
    elif row[DOING] == STRETCH and row[WAITING] == 1 and row[RUNNING] < engine[MAX_SEQUENCES]:
        due[best] = _cut_stretch(row, now)
    return True


@compiled
def _next_ready(fleet: Ints, rows: Ints) -> int:
    soonest = NEVER
    for r in range(fleet[SLOTS]):
        if rows[r, STATE] == BOOTING:
            soonest = min(soonest, rows[r, READY_AT])
    return soonest


@compiled
def advance(fleet: Ints, rows: Ints, due: Ints, load: Ints, requests: Ints, engine: Ints, until: int) -> None:
    """Everything up to and at `until`, and the steps of stretches under way that have ended by then."""
    ready = _next_ready(fleet, rows)
    while True:
        index = fleet[NEXT_ARRIVAL]
        come = requests[index, ARRIVAL] if index < len(requests) else NEVER
        if min(come, ready) > until:
            break
        if ready <= come:
            for r in range(fleet[SLOTS]):
                if rows[r, STATE] == BOOTING and rows[r, READY_AT] <= ready:
                    rows[r, STATE] = READY
                    load[r] = 0
            while fleet[GATEWAY] > 0:
                _hand_over(fleet, rows, due, load, requests, engine, fleet[GATEWAY_HEAD], ready)
                fleet[GATEWAY_HEAD] = requests[fleet[GATEWAY_HEAD], FOLLOWING]
                fleet[GATEWAY] -= 1
            ready = _next_ready(fleet, rows)
            continue
        fleet[NEXT_ARRIVAL] = index + 1
        if requests[index, PROMPT] > engine[BLOCKS] << engine[BLOCK_SHIFT]:
            requests[index, FATE] = REFUSED
            fleet[REFUSALS] += 1
            continue
        requests[index, FATE] = HELD
        if not _hand_over(fleet, rows, due, load, requests, engine, index, come):
            if fleet[GATEWAY] == 0:
                fleet[GATEWAY_HEAD] = index
            else:
                requests[fleet[GATEWAY_TAIL], FOLLOWING] = index
            fleet[GATEWAY_TAIL] = index
            fleet[GATEWAY] += 1
    for r in range(fleet[SLOTS]):
        if due[r] <= until:
            _run(rows[r], due, load, r, requests, engine, until)
        if rows[r, DOING] == STRETCH:
            _settle(rows[r], engine, until)


@compiled
def blocks_in_use(row: Ints, engine: Ints) -> int:
    """KV blocks held, those of the iteration under way included."""
    used = engine[BLOCKS] - row[FREE_BLOCKS]
    if row[DOING] == STRETCH or row[DOING] == MIXED:
        used += _blocks_for(row, engine, 1)
    return int(used)
