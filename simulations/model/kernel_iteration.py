"""One replica's iterations, compiled: this file alone knows how vLLM V1 puts one together.

The running sequences first, in order of admission, each one token, a prompt in chunks within the token budget; then
waiting requests, first come first served and none overtaken, each admitted when its whole prompt fits in the free KV
blocks; when a running sequence finds no block, the last admitted is put back to the head of the queue and computed
anew. No admission in an iteration that put one back. By priority, the queue is in its order, and the one put back is
that which the queue would serve last.

Iterations between two events (an arrival at this replica, a finish, the last free block) only decode: their
number is found in closed form, for the context grows by one token a sequence and step. Nothing is rounded here, so
the closed form equals the loop over the steps to the last bit. With tables for attention each step is its own.
"""

from __future__ import annotations

import numpy as np

from simulations.model.kernel import (
    ABANDONED,
    AT_DECODE,
    AT_FINISH,
    AT_PREFILL,
    AT_RUNNING,
    BLOCK_SHIFT,
    BY_PRIORITY,
    CACHE_HITS,
    CACHE_QUERIES,
    CONTEXT,
    DECODED,
    DECODING,
    DENSE,
    DOING,
    DONE,
    DRAINING,
    ENGINE_STEPS,
    ENTERED,
    FATE,
    FINISHED,
    FIRST,
    FIRST_STEP,
    FREE_BLOCKS,
    GENERATED,
    GENERATION_TOKENS,
    GOAL,
    GONE,
    GONE_AT,
    GROWTH,
    HEAD,
    IDLE,
    INTER_TOKEN,
    LAST,
    LAST_COLUMN,
    MAX_SEQUENCES,
    MAX_TOKENS,
    MIXED,
    NEVER,
    NEXT_FINISH,
    OVERHEAD,
    PART_TOKENS,
    PARTIAL,
    PARTIAL_DONE,
    PARTS,
    PENDING,
    PREEMPTIONS,
    PROMPT,
    PROMPT_TOKENS,
    QUEUE,
    READY,
    RUNNING,
    SCHEDULED,
    START,
    STATE,
    STEPS,
    STRETCH,
    TABLE_SHIFT,
    TPOT,
    TTFT,
    WAITING,
    A,
    B,
    C,
    D,
    E,
    Ints,
    compiled,
)
from simulations.model.kernel_blocks import (
    blocks_for,
    blocks_of,
    count_decoding,
    found,
    held_by_others,
    hold,
    let_go,
    make_room_among_kept,
    steps_that_fit,
)
from simulations.model.kernel_parts import (
    is_later,
    observe,
    observe_stretch,
    put_after,
    put_by_priority,
    span,
    take_out,
)


@compiled
def _find_next_finish(row: Ints, engine: Ints) -> None:
    soonest = NEVER
    finish = engine[AT_FINISH]
    for at in range(finish, finish + row[DECODING]):
        soonest = min(soonest, row[at])
    row[NEXT_FINISH] = soonest


@compiled
def _next_to_put_back(row: Ints, requests: Ints, engine: Ints) -> int:
    """Its place among the running."""
    running = engine[AT_RUNNING]
    last = row[RUNNING] - 1
    if engine[BY_PRIORITY] == 0:
        return int(last)
    worst = 0
    for at in range(1, last + 1):
        if is_later(requests, row[running + at], row[running + worst]):
            worst = at
    return worst


@compiled
def _put_back(row: Ints, requests: Ints, engine: Ints, place: int, now: int) -> None:
    """Preempts a running request: its blocks are free, its tokens will be computed anew."""
    running, finish = engine[AT_RUNNING], engine[AT_FINISH]
    at = row[running + place]
    request = requests[at]
    if at == row[PARTIAL]:
        cached = row[PARTIAL_DONE]
        row[PARTIAL] = -1
    else:
        generated = request[GOAL] - (row[finish + place] - row[DECODED])
        request[GENERATED] = generated
        request[LAST] = now
        cached = request[PROMPT] + generated - 1
        count_decoding(row, engine, cached + 1, -1)
    let_go(row, engine, at, cached)
    for behind in range(place, row[RUNNING] - 1):
        row[running + behind] = row[running + behind + 1]
        row[finish + behind] = row[finish + behind + 1]
    row[RUNNING] -= 1
    if engine[BY_PRIORITY] == 0:
        put_after(row, HEAD, requests, at, -1)
    else:
        put_by_priority(row, HEAD, requests, at)
    row[PREEMPTIONS] += 1


@compiled
def _needs_block(row: Ints, requests: Ints, engine: Ints, place: int) -> bool:
    """Whether a decoding sequence's next token begins a block."""
    request = requests[row[engine[AT_RUNNING] + place]]
    generated = request[GOAL] - (row[engine[AT_FINISH] + place] - row[DECODED])
    return bool((request[PROMPT] + generated - 1) & ((1 << engine[BLOCK_SHIFT]) - 1) == 0)


@compiled
def _make_room(row: Ints, requests: Ints, engine: Ints, now: int) -> None:
    """Gives each decoding sequence, in order of admission, its block, putting back others while none is free."""
    given = 0
    at = 0
    while at < row[DECODING]:
        if _needs_block(row, requests, engine, at):
            itself = False
            while row[FREE_BLOCKS] == given and not itself:
                place = _next_to_put_back(row, requests, engine)
                if place < at:
                    given -= 1 if _needs_block(row, requests, engine, place) else 0
                    at -= 1
                    _put_back(row, requests, engine, place, now)
                else:
                    itself = place == at
                    _put_back(row, requests, engine, place, now)
            if itself:
                continue
            given += 1
        at += 1
    _find_next_finish(row, engine)


@compiled
def _continue_prompt(row: Ints, requests: Ints, engine: Ints, reserved: int, now: int) -> int:
    """The next chunk of the prompt under way, its blocks taken; 0 where it had to be put back."""
    index = row[PARTIAL]
    request = requests[index]
    cached = row[PARTIAL_DONE]
    target = request[PROMPT] + request[GENERATED]
    chunk = min(target - cached, engine[MAX_TOKENS] - row[DECODING])
    blocks = blocks_of(engine, cached + chunk) - blocks_of(engine, cached)
    if blocks > row[FREE_BLOCKS] - reserved:
        while row[PARTIAL] >= 0 and blocks > row[FREE_BLOCKS] - reserved:
            _put_back(row, requests, engine, _next_to_put_back(row, requests, engine), now)
            reserved = blocks_for(row, engine, 1)
        _find_next_finish(row, engine)
        if row[PARTIAL] < 0:
            return 0
    hold(row, engine, index, cached, cached + chunk)
    row[PARTIAL_DONE] = cached + chunk
    if cached + chunk == target:
        row[PARTIAL] = -1
    return int(chunk)


@compiled
def _step_time(row: Ints, engine: Ints, prefill: int, pairs: int, chunks: int, squares: int, cached: int) -> int:
    """One step: 2·X is `pairs`; `squares` and `cached` are sums over the chunks, as the tables are read by them."""
    decoding = row[DECODING]
    dense = engine[DENSE + decoding + prefill]
    if engine[AT_DECODE] < 0:
        return int(
            engine[A]
            + engine[B] * decoding
            + engine[C] * row[CONTEXT]
            + engine[D] * prefill
            + ((engine[E] * pairs) >> 1)
            + dense
        )
    columns = engine[LAST_COLUMN] + 1
    round_up = (1 << TABLE_SHIFT) - 1
    took = engine[A] + dense
    if decoding > 0:
        column = min((row[CONTEXT] // decoding + round_up) >> TABLE_SHIFT, engine[LAST_COLUMN])
        attention = engine[engine[AT_DECODE] + (decoding - 1) * columns + column]
        took += attention + (attention * engine[OVERHEAD] // 1000 if decoding > 1 else 0)
    if prefill > 0:
        chunk = int(np.rint(np.sqrt(squares)))
        column = min(cached >> TABLE_SHIFT, engine[LAST_COLUMN])
        attention = engine[engine[AT_PREFILL] + (chunk - 1) * columns + column]
        took += attention + (attention * engine[OVERHEAD] // 1000 if chunks > 1 else 0)
    return int(took)


@compiled
def start(row: Ints, requests: Ints, engine: Ints) -> int:
    """Puts together the next iteration, and as many like it as nothing can disturb; says when the last ends."""
    now = row[START]
    put_back = row[PREEMPTIONS]
    reserved = blocks_for(row, engine, 1)
    if reserved > row[FREE_BLOCKS]:
        _make_room(row, requests, engine, now)
        reserved = blocks_for(row, engine, 1)
    round_up = (1 << TABLE_SHIFT) - 1
    prefill = 0
    pairs = 0
    chunks = 0
    squares = 0
    rounded = 0
    if row[PARTIAL] >= 0:
        cached = row[PARTIAL_DONE]
        chunk = _continue_prompt(row, requests, engine, reserved, now)
        if chunk > 0:
            prefill = chunk
            pairs = chunk * (2 * cached + chunk)
            chunks = 1
            squares = chunk * chunk
            rounded = (cached + round_up) & ~round_up
    decoding = row[DECODING]
    if row[PREEMPTIONS] == put_back:
        budget = engine[MAX_TOKENS] - decoding - prefill
        while row[WAITING] > 0 and budget > 0 and row[RUNNING] < engine[MAX_SEQUENCES]:
            at = row[HEAD]
            request = requests[at]
            target = request[PROMPT] + request[GENERATED]
            blocks = blocks_of(engine, target)
            cached = 0
            if engine[PARTS] > 0:
                parts = found(row, engine, at, target)
                blocks -= held_by_others(row, engine, at, parts)
                cached = parts * engine[PART_TOKENS]
            if blocks > row[FREE_BLOCKS] - reserved:
                break
            take_out(row, HEAD, requests, at)
            if request[SCHEDULED] < 0:
                request[SCHEDULED] = now
                row[CACHE_QUERIES] += request[PROMPT]
                row[CACHE_HITS] += cached
            chunk = min(target - cached, budget)
            if cached > 0:
                hold(row, engine, at, 0, cached)
            hold(row, engine, at, cached, cached + chunk)
            budget -= chunk
            prefill += chunk
            pairs += chunk * (2 * cached + chunk)
            chunks += 1
            squares += chunk * chunk
            rounded += (cached + round_up) & ~round_up
            row[engine[AT_RUNNING] + row[RUNNING]] = at
            row[RUNNING] += 1
            if cached + chunk < target:
                row[PARTIAL] = at
                row[PARTIAL_DONE] = cached + chunk
    first = _step_time(row, engine, prefill, pairs, chunks, squares, rounded)
    growth = engine[C] * decoding
    steps = 1
    if prefill > 0:
        row[DOING] = MIXED
    else:
        row[DOING] = STRETCH
        if row[PREEMPTIONS] == put_back and engine[AT_DECODE] < 0:
            steps = row[NEXT_FINISH] - row[DECODED]
            if decoding * ((steps >> engine[BLOCK_SHIFT]) + 1) > row[FREE_BLOCKS]:
                steps = steps_that_fit(row, engine, steps)
    row[STEPS] = steps
    row[FIRST_STEP] = first
    row[GROWTH] = growth
    return int(now + span(first, growth, steps))


@compiled
def decode_steps(row: Ints, engine: Ints, steps: int) -> None:
    """Books the first steps of what is under way, for all sequences that decode."""
    row[ENGINE_STEPS] += steps
    decoding = row[DECODING]
    if decoding > 0:
        row[FREE_BLOCKS] -= blocks_for(row, engine, steps)
        if engine[PARTS] > 0:
            make_room_among_kept(row, engine)
        observe_stretch(row, engine, steps, decoding)
        row[DECODED] += steps
        row[CONTEXT] += decoding * steps
        row[GENERATION_TOKENS] += decoding * steps


@compiled
def _end_prompts(row: Ints, requests: Ints, engine: Ints, now: int) -> None:
    """Books the first tokens of prompts computed in full, and drops those whose client hung up meanwhile."""
    running, finish = engine[AT_RUNNING], engine[AT_FINISH]
    partial = row[PARTIAL]
    if partial < -1:
        let_go(row, engine, ABANDONED - partial, row[PARTIAL_DONE])
        row[PARTIAL] = -1
        row[RUNNING] -= 1
    kept = row[DECODING]
    for at in range(kept, row[RUNNING] - (1 if partial >= 0 else 0)):
        index = row[running + at]
        if index < 0:
            let_go(row, engine, ABANDONED - index, requests[ABANDONED - index, PROMPT])
            continue
        request = requests[index]
        generated = request[GENERATED]
        if generated == 0:
            request[FIRST] = now
            observe(row, engine, TTFT, now - request[ENTERED], 1)
            row[PROMPT_TOKENS] += request[PROMPT]
        else:
            observe(row, engine, INTER_TOKEN, now - request[LAST], 1)
        row[GENERATION_TOKENS] += 1
        done_at = row[DECODED] + request[GOAL] - generated - 1
        row[running + kept] = index
        row[finish + kept] = done_at
        row[NEXT_FINISH] = min(row[NEXT_FINISH], done_at)
        count_decoding(row, engine, request[PROMPT] + generated + 1, 1)
        kept += 1
    if partial >= 0:
        row[running + kept] = partial
        kept += 1
    row[RUNNING] = kept


@compiled
def _end(row: Ints, requests: Ints, engine: Ints, now: int) -> int:
    """Books what ends now: tokens, first tokens, finished requests, whose number is returned."""
    decode_steps(row, engine, row[STEPS])
    if row[DOING] == MIXED:
        _end_prompts(row, requests, engine, now)
    finished = 0
    if row[NEXT_FINISH] == row[DECODED]:
        finished = _take_out_finished(row, requests, engine, now)
    row[START] = now
    row[DOING] = PENDING
    rest(row, now)
    return finished


@compiled
def rest(row: Ints, now: int) -> None:
    """Of a replica between two iterations: without work it idles, and is gone if it was to go."""
    if row[RUNNING] + row[WAITING] == 0:
        row[DOING] = IDLE
        if row[STATE] == DRAINING:
            row[STATE] = GONE
            row[GONE_AT] = now


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
            count_decoding(row, engine, cached + 1, -1)
            let_go(row, engine, index, cached)
            request[LAST] = now
            request[FATE] = DONE
            took = now - request[FIRST]
            observe(row, engine, TPOT, (took + goal - 2) // (goal - 1) if goal > 1 else 0, 1)
            observe(row, engine, QUEUE, request[SCHEDULED] - request[ENTERED], 1)
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
def run(row: Ints, due: Ints, load: Ints, r: int, requests: Ints, engine: Ints, now: int) -> None:
    """Brings one replica up to `now`; an iteration that would start at `now` starts later."""
    at = due[r]
    while at <= now:
        if row[DOING] == PENDING:
            at = start(row, requests, engine)
        else:
            finished = _end(row, requests, engine, at)
            if row[STATE] == READY:
                load[r] -= finished
            at = at + 1 if row[DOING] == PENDING else NEVER
    due[r] = at


@compiled
def cut_stretch(row: Ints, now: int) -> int:
    """Ends a stretch with the step under way at `now`, so that the next iteration sees who came; says when."""
    first, growth, most = row[FIRST_STEP], row[GROWTH], row[STEPS]
    wait = now - row[START]
    if wait == 0:
        # Settled in the instant between two of its steps: the second is put together after all that comes now.
        row[DOING] = PENDING
        return int(now + 1)
    if growth > 0:
        half = 0.5 * growth
        slope = first - half
        steps = int((np.sqrt(slope * slope + 4.0 * half * wait) - slope) / growth)
    else:
        steps = wait // first
    steps = max(1, min(steps, most))
    # The square root is a float: the exact step is at most a few away.
    while steps < most and span(first, growth, steps) < wait:
        steps += 1
    while steps > 1 and span(first, growth, steps - 1) >= wait:
        steps -= 1
    row[STEPS] = steps
    return int(row[START] + span(first, growth, steps))


@compiled
def settle(row: Ints, engine: Ints, now: int) -> None:
    """Books the whole steps of a stretch that have ended by `now`; the one under way becomes its first."""
    steps = row[STEPS]
    cut_stretch(row, now + 1)
    ended = row[STEPS] - 1
    if ended > 0:
        decode_steps(row, engine, ended)
        row[START] += span(row[FIRST_STEP], row[GROWTH], ended)
        row[FIRST_STEP] += row[GROWTH] * ended
    row[STEPS] = steps - ended
