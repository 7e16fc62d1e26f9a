"""A fleet's arrays, and the few ways in which they change from outside the event loop: start, removal, time.

Everything here is in picoseconds and slots; `simulations.fleet` speaks of seconds and pods.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.vllm_metrics import INTER_TOKEN_EDGES, QUEUE_EDGES, TPOT_EDGES, TTFT_EDGES
from simulations import kernel
from simulations.engine import PICOSECONDS, Engine
from simulations.kernel import Ints
from simulations.traces.trace import Trace

HISTOGRAM_EDGES = (TTFT_EDGES, TPOT_EDGES, INTER_TOKEN_EDGES, QUEUE_EDGES)
"""In the order of the event loop's histograms."""


def picoseconds(seconds: float) -> int:
    """To the microsecond, which is as finely as traces and clocks are told here."""
    return round(seconds * 1e6) * 10**6


def engine_numbers(engine: Engine) -> Ints:
    """An engine as the event loop reads it."""
    dense = engine.dense_ps()
    numbers = np.zeros(kernel.DENSE + len(dense), dtype=np.int64)
    numbers[[kernel.A, kernel.B, kernel.C, kernel.D, kernel.E]] = engine.coefficients_ps()
    numbers[kernel.BLOCKS] = engine.kv_blocks
    numbers[kernel.BLOCK_SHIFT] = engine.block_size.bit_length() - 1
    numbers[kernel.MAX_SEQUENCES] = engine.max_num_seqs
    numbers[kernel.MAX_TOKENS] = engine.max_num_batched_tokens
    numbers[kernel.AT_RUNNING] = kernel.PHASE + engine.block_size
    numbers[kernel.AT_FINISH] = kernel.PHASE + engine.block_size + engine.max_num_seqs
    edges = numbers[kernel.EDGES : kernel.DENSE].reshape(len(HISTOGRAM_EDGES), kernel.HISTOGRAM)
    # Each row is closed by an edge that nothing exceeds.
    edges[:] = kernel.NEVER
    for row, seconds in zip(edges, HISTOGRAM_EDGES, strict=True):
        row[: len(seconds)] = [picoseconds(edge) for edge in seconds]
    numbers[kernel.DENSE :] = dense
    return numbers


class Servers:
    """The replicas of one engine that serve one trace."""

    def __init__(self, trace: Trace, engine: Engine, *, slots: int = 16) -> None:
        self.trace = trace
        self.engine = engine
        self._engine = engine_numbers(engine)
        self._fleet = np.zeros(kernel.FLEET, dtype=np.int64)
        self._make_rows(slots)
        room = engine.kv_blocks * engine.block_size - trace.prompt_tokens.astype(np.int64) + 1
        self.requests = np.full((trace.requests, kernel.REQUEST), -1, dtype=np.int64)
        """One row a request, in order of arrival; the columns are the event loop's."""
        self.requests[:, kernel.ARRIVAL] = np.rint(trace.arrived_at_seconds * 1e6)
        self.requests[:, kernel.ARRIVAL] *= 10**6
        self.requests[:, kernel.PROMPT] = trace.prompt_tokens
        self.requests[:, kernel.GOAL] = np.minimum(trace.output_tokens, np.maximum(room, 1))
        self.requests[:, kernel.GENERATED] = 0
        self.requests[:, kernel.FATE] = kernel.UNSEEN

    def _make_rows(self, slots: int) -> None:
        width = kernel.PHASE + self.engine.block_size + 2 * self.engine.max_num_seqs
        self.numbers = np.zeros((slots, width), dtype=np.int64)
        """One row a slot; the columns are the event loop's."""
        self._due = np.full(slots, kernel.NEVER, dtype=np.int64)
        self._load = np.full(slots, kernel.NEVER, dtype=np.int64)

    def advance(self, until: int) -> None:
        """Everything up to and at `until`."""
        kernel.advance(self._fleet, self.numbers, self._due, self._load, self.requests, self._engine, until)

    def start(self, ready_at: int) -> int:
        """A replica that takes requests from `ready_at` on; says its slot."""
        free = np.flatnonzero(self.numbers[:, kernel.STATE] == kernel.FREE_SLOT)
        if free.size == 0:
            numbers, due, load = self.numbers, self._due, self._load
            self._make_rows(2 * len(numbers))
            self.numbers[: len(numbers)] = numbers
            self._due[: len(numbers)] = due
            self._load[: len(numbers)] = load
            return self.start(ready_at)
        slot = int(free[0])
        row = self.numbers[slot]
        row[:] = 0
        row[kernel.STATE] = kernel.BOOTING
        row[kernel.READY_AT] = ready_at
        row[kernel.PARTIAL] = -1
        row[kernel.NEXT_FINISH] = kernel.NEVER
        row[kernel.FREE_BLOCKS] = self.engine.kv_blocks
        self._due[slot] = self._load[slot] = kernel.NEVER
        self._fleet[kernel.SLOTS] = max(int(self._fleet[kernel.SLOTS]), slot + 1)
        return slot

    def remove(self, slot: int, now: int) -> None:
        """Takes no more requests; gone at once when it holds none, else when the last is answered."""
        row = self.numbers[slot]
        busy = row[kernel.RUNNING] + row[kernel.WAITING] > 0
        row[kernel.STATE] = kernel.DRAINING if busy else kernel.GONE
        row[kernel.GONE_AT] = now
        self._load[slot] = kernel.NEVER

    def free(self, slot: int) -> None:
        """Gives back the slot of a replica that is gone."""
        self.numbers[slot, kernel.STATE] = kernel.FREE_SLOT

    def buckets(self, slot: int, which: int) -> Ints:
        """Observations by bucket, not cumulative."""
        start = kernel.BUCKETS + which * kernel.HISTOGRAM
        return self.numbers[slot, start : start + kernel.HISTOGRAM]

    def sum_seconds(self, slot: int, which: int) -> float:
        row = self.numbers[slot]
        return float(row[kernel.SUM_SECONDS + which]) + float(row[kernel.SUM_PICOSECONDS + which]) / PICOSECONDS

    def kv_cache_usage(self, slot: int) -> float:
        """Share of the KV blocks held, 0…1."""
        return int(kernel.blocks_in_use(self.numbers[slot], self._engine)) / self.engine.kv_blocks

    @property
    def slots_used(self) -> int:
        """Slots that were ever in use."""
        return int(self._fleet[kernel.SLOTS])

    @property
    def arrived(self) -> int:
        """Requests that have come so far."""
        return int(self._fleet[kernel.NEXT_ARRIVAL])

    @property
    def at_gateway(self) -> int:
        """Requests held for want of a ready replica."""
        return int(self._fleet[kernel.GATEWAY])

    @property
    def refused(self) -> int:
        """Requests whose prompt is larger than the KV cache."""
        return int(self._fleet[kernel.REFUSALS])

    @property
    def cut_short(self) -> NDArray[np.bool_]:
        """Requests whose answer ends where the KV cache does, as it would at a model's longest context."""
        return np.asarray(self.requests[:, kernel.GOAL] < self.trace.output_tokens)

    def is_idle(self) -> bool:
        """Whether every request has arrived and none is held anywhere."""
        held = self.numbers[:, kernel.RUNNING] + self.numbers[:, kernel.WAITING]
        return self.arrived == self.trace.requests and self.at_gateway == 0 and not held.any()

    def time_to_first_token_ps(self) -> Ints:
        """From arrival, gateway included; -1 for requests without a first token."""
        first = self.requests[:, kernel.FIRST]
        return np.where(first >= 0, first - self.requests[:, kernel.ARRIVAL], -1)

    def time_per_output_token_ps(self) -> Ints:
        """A finished request's mean after its first token, rounded up; 0 for one token; -1 if not finished."""
        goal, last = self.requests[:, kernel.GOAL], self.requests[:, kernel.LAST]
        took = np.where(goal > 1, last - self.requests[:, kernel.FIRST], 0)
        done = self.requests[:, kernel.FATE] == kernel.DONE
        return np.where(done, -(-took // np.maximum(goal - 1, 1)), -1)
