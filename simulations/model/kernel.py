"""The numbers that the event loop works on, and how its functions are compiled.

All state is in a few arrays of 64-bit integers, a row a replica and a row a request, for a compiled function
pays for every array it is handed; the names below are their columns. Time is in integer picoseconds.

`kernel_parts` counts and queues, `kernel_blocks` keeps the KV cache, `kernel_iteration` runs one replica and
`kernel_fleet` all of them. `tests/simulations/reference.py` is their judge, equal to the last bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
F = TypeVar("F", bound=Callable[..., object])

NEVER = 2**62
SECOND = 10**12

# A replica's state.
FREE_SLOT, BOOTING, READY, DRAINING, GONE = 0, 1, 2, 3, 4
# What its engine does: nothing; about to start an iteration; a stretch of pure decode; one with prefill.
IDLE, PENDING, STRETCH, MIXED = 0, 1, 2, 3
# A request's fate.
UNSEEN, HELD, DONE, REFUSED, HUNG_UP = 0, 1, 2, 3, 4
# To which replica a request goes.
LEAST_OUTSTANDING, ROUND_ROBIN, RANDOM, TWO_CHOICES = 0, 1, 2, 3

# A replica's columns. Times in picoseconds; NEXT_FINISH and `finish` count decode steps, as DECODED does.
STATE, DOING, START, STEPS, FIRST_STEP, GROWTH, RUNNING, DECODING, CONTEXT, DECODED, NEXT_FINISH = range(11)
PARTIAL, PARTIAL_DONE, FREE_BLOCKS, HEAD, TAIL, WAITING, READY_AT, GONE_AT = range(11, 19)
PROMPT_TOKENS, GENERATION_TOKENS, FINISHED, PREEMPTIONS, ENGINE_STEPS, HANG_UPS = range(19, 25)
# The prefix cache: prompt tokens looked for and found, free blocks that still hold some, the ends of their list.
CACHE_QUERIES, CACHE_HITS, KEPT_BLOCKS, OLDEST, NEWEST = range(25, 30)
# Which of the fleet's engines it runs.
VERSION = 30
# Sums of the four histograms, each in whole seconds and picoseconds: 64 bits hold 106 days of waiting only.
SUM_SECONDS, SUM_PICOSECONDS = 31, 35
# Then the four histograms, then the decoding sequences by where in its block each one's next token falls,
# then the running requests in order of admission, then the step count at which each is done, then of each
# block of prompts how many running requests hold it (plus 1, 0: not in the cache) and its list's neighbours.
TTFT, TPOT, INTER_TOKEN, QUEUE = 0, 1, 2, 3
HISTOGRAM = 24
BUCKETS = 39
PHASE = BUCKETS + 4 * HISTOGRAM

# A request's columns. Times are -1 for what has not happened; GENERATED is what it had when last put back, LAST
# its last token where it was put back or is done, ENTERED when a replica took it into its queue.
ARRIVAL, PROMPT, GOAL, GENERATED, FOLLOWING, PRECEDING, ENTERED, SCHEDULED, FIRST, LAST, FATE, REPLICA, PRIORITY = (
    range(13)
)
REQUEST = 13
# PRECEDING of a request that is in no queue.
NOWHERE = -2
# A request whose client hung up while its prompt is computed stands among the running as this less its number.
ABANDONED = -2

# What never changes of an engine: coefficients of a step, limits, columns in a replica's row, where the tables begin.
A, B, C, D, E, BLOCKS, BLOCK_SHIFT, MAX_SEQUENCES, MAX_TOKENS, AT_RUNNING, AT_FINISH, BY_PRIORITY = range(12)
# Blocks of prompts: how many there are, tokens and KV blocks of one, columns of a row, where whose are told.
PARTS, PART_TOKENS, PART_BLOCKS, AT_PARTS, AT_OFFSETS, AT_HASHES = range(12, 18)
# The tables of attention, where they stand for the coefficients: -1 or the place; last column; overhead in 1/1000.
AT_DECODE, AT_PREFILL, LAST_COLUMN, OVERHEAD = range(18, 22)
EDGES = 24
DENSE = EDGES + 4 * HISTOGRAM
TABLE_SHIFT = 6
"""A column of the attention tables is 64 cached tokens."""

# The fleet. The first three columns of a queue are its head, its tail and its length, here as in a replica's row.
NEXT_ARRIVAL, GATEWAY_HEAD, GATEWAY_TAIL, GATEWAY, SLOTS, REFUSALS, ROUTER, TURN, SEED, DRAWS = range(10)
ATTEMPTS, PATIENCE, ALL_HANG_UPS, REQUEUED = range(10, 14)
# Then, for each attempt of a client, the first request whose patience with it is still to be looked at.
FLEET = 14


@cache
def _sources() -> str:
    """Changes when any of the compiled files does."""
    texts = sorted(Path(__file__).parent.glob("kernel*.py"))
    return hashlib.sha256(b"".join(text.read_bytes() for text in texts)).hexdigest()[:12]


def compiled(function: F) -> F:
    """Compiled at its first call and kept on disk, so that the second run starts at once.

    Where nothing can be written it is compiled anew in each process. What is kept goes by the function's own file
    alone; the name makes it go by all files whose functions are compiled into each other.
    """
    function.__qualname__ = f"{function.__name__}-{_sources()}"
    # Nothing here makes an array; without counting who holds those of the caller it is three times as fast.
    compile_: Any = partial(numba.njit, nogil=True, error_model="numpy", _nrt=False)
    try:
        return cast(F, compile_(cache=True)(function))
    except RuntimeError:
        return cast(F, compile_()(function))
