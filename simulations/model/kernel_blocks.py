"""The KV cache of one replica, compiled: blocks of sequences that decode, and blocks of prompts kept for others.

A prompt's block that the trace names by a hash is held by every running request whose prompt it is part of, once for
all. When the last of them lets go it stays, counted as free, until its room is needed: the least recently held goes
first, of one request its last block first, and room that keeps nothing is used before any that does.
"""

from __future__ import annotations

from simulations.model.kernel import (
    AT_HASHES,
    AT_OFFSETS,
    AT_PARTS,
    BLOCK_SHIFT,
    CONTEXT,
    DECODED,
    DECODING,
    FREE_BLOCKS,
    KEPT_BLOCKS,
    NEWEST,
    OLDEST,
    PART_BLOCKS,
    PART_TOKENS,
    PARTS,
    PHASE,
    Ints,
    compiled,
)


@compiled
def blocks_for(row: Ints, engine: Ints, steps: int) -> int:
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
def blocks_of(engine: Ints, tokens: int) -> int:
    """KV blocks that so many tokens fill or begin."""
    shift = engine[BLOCK_SHIFT]
    return int((tokens + (1 << shift) - 1) >> shift)


@compiled
def steps_that_fit(row: Ints, engine: Ints, steps: int) -> int:
    """The most decode steps, of those wished, for which there are KV blocks; the first always has them."""
    fits, fails = 1, steps + 1
    while fails - fits > 1:
        middle = (fits + fails) >> 1
        if blocks_for(row, engine, middle) <= row[FREE_BLOCKS]:
            fits = middle
        else:
            fails = middle
    return fits


@compiled
def count_decoding(row: Ints, engine: Ints, context: int, sign: int) -> None:
    """Counts a sequence of that context in (1) or out (-1) of those that decode; between iterations."""
    row[DECODING] += sign
    row[CONTEXT] += sign * context
    row[PHASE + ((context - 1 - row[DECODED]) & ((1 << engine[BLOCK_SHIFT]) - 1))] += sign


@compiled
def _unlink(row: Ints, engine: Ints, part: int) -> None:
    """Takes a block of a prompt out of the list of those that nobody holds."""
    before = engine[AT_PARTS] + engine[PARTS]
    after = before + engine[PARTS]
    left, right = row[before + part], row[after + part]
    if left == 0:
        row[OLDEST] = right
    else:
        row[after + left - 1] = right
    if right == 0:
        row[NEWEST] = left
    else:
        row[before + right - 1] = left
    row[KEPT_BLOCKS] -= engine[PART_BLOCKS]


@compiled
def make_room_among_kept(row: Ints, engine: Ints) -> None:
    """Forgets what was held longest ago while more is kept than there are free blocks."""
    while row[KEPT_BLOCKS] > row[FREE_BLOCKS]:
        part = row[OLDEST] - 1
        _unlink(row, engine, part)
        row[engine[AT_PARTS] + part] = 0


@compiled
def found(row: Ints, engine: Ints, index: int, tokens: int) -> int:
    """How many blocks of a prompt are in the cache, from its first on; at least one token is always computed."""
    first, end = engine[engine[AT_OFFSETS] + index], engine[engine[AT_OFFSETS] + index + 1]
    most = min(end - first, (tokens - 1) // engine[PART_TOKENS])
    for at in range(most):
        if row[engine[AT_PARTS] + engine[engine[AT_HASHES] + first + at]] == 0:
            return at
    return int(most)


@compiled
def held_by_others(row: Ints, engine: Ints, index: int, parts: int) -> int:
    """KV blocks of the prompt's first blocks that running requests hold already."""
    first = engine[engine[AT_OFFSETS] + index]
    held = 0
    for at in range(parts):
        if row[engine[AT_PARTS] + engine[engine[AT_HASHES] + first + at]] > 1:
            held += engine[PART_BLOCKS]
    return held


@compiled
def hold(row: Ints, engine: Ints, index: int, start: int, end: int) -> None:
    """Gives a request the KV blocks for its tokens from `start` to `end`, sharing those of its prompt."""
    row[FREE_BLOCKS] -= blocks_of(engine, end) - blocks_of(engine, start)
    if engine[PARTS] == 0:
        return
    first, last = engine[engine[AT_OFFSETS] + index], engine[engine[AT_OFFSETS] + index + 1]
    size = engine[PART_TOKENS]
    for at in range(start // size, min(end // size, last - first)):
        part = engine[engine[AT_HASHES] + first + at]
        holders = row[engine[AT_PARTS] + part]
        if holders == 0:
            holders = 1
        elif holders == 1:
            _unlink(row, engine, part)
        else:
            row[FREE_BLOCKS] += engine[PART_BLOCKS]
        row[engine[AT_PARTS] + part] = holders + 1
    make_room_among_kept(row, engine)


@compiled
def let_go(row: Ints, engine: Ints, index: int, tokens: int) -> None:
    """Takes back the KV blocks of a request with so many tokens computed."""
    row[FREE_BLOCKS] += blocks_of(engine, tokens)
    if engine[PARTS] == 0:
        return
    first, last = engine[engine[AT_OFFSETS] + index], engine[engine[AT_OFFSETS] + index + 1]
    before = engine[AT_PARTS] + engine[PARTS]
    after = before + engine[PARTS]
    for at in range(min(tokens // engine[PART_TOKENS], last - first) - 1, -1, -1):
        part = engine[engine[AT_HASHES] + first + at]
        holders = row[engine[AT_PARTS] + part] - 1
        row[engine[AT_PARTS] + part] = holders
        if holders > 1:
            row[FREE_BLOCKS] -= engine[PART_BLOCKS]
            continue
        row[before + part] = row[NEWEST]
        row[after + part] = 0
        if row[NEWEST] == 0:
            row[OLDEST] = part + 1
        else:
            row[after + row[NEWEST] - 1] = part + 1
        row[NEWEST] = part + 1
        row[KEPT_BLOCKS] += engine[PART_BLOCKS]
