"""A fleet's arrays, and the few ways in which they change from outside the event loop: start, removal, time.

Everything here is in picoseconds and slots; `simulations.model.fleet` speaks of seconds and pods.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.vllm_metrics import INTER_TOKEN_EDGES, QUEUE_EDGES, TPOT_EDGES, TTFT_EDGES
from simulations.model import kernel, kernel_fleet
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions, ConditionsError, Router
from simulations.model.engine import PICOSECONDS, Engine
from simulations.model.kernel import Ints
from simulations.traces.trace import Trace

HISTOGRAM_EDGES = (TTFT_EDGES, TPOT_EDGES, INTER_TOKEN_EDGES, QUEUE_EDGES)
"""In the order of the event loop's histograms."""


def picoseconds(seconds: float) -> int:
    """To the microsecond, which is as finely as traces and clocks are told here."""
    return round(seconds * 1e6) * 10**6


ROUTERS: dict[Router, int] = {
    "least-outstanding": kernel.LEAST_OUTSTANDING,
    "round-robin": kernel.ROUND_ROBIN,
    "random": kernel.RANDOM,
    "two-choices": kernel.TWO_CHOICES,
}


def engine_numbers(engine: Engine, parts: PromptParts | None = None, *, by_priority: bool = False) -> Ints:
    """An engine, and the blocks of the prompts that it may keep, as the event loop reads them."""
    dense = engine.dense_ps()
    tables = engine.attention_ps()
    pieces = [dense, *(table.ravel() for table in tables)]
    if parts is not None:
        pieces += [parts.offsets, parts.named]
    ends = kernel.DENSE + np.cumsum([len(piece) for piece in pieces])
    numbers = np.zeros(ends[-1], dtype=np.int64)
    numbers[kernel.DENSE :] = np.concatenate(pieces)
    numbers[[kernel.A, kernel.B, kernel.C, kernel.D, kernel.E]] = engine.coefficients_ps()
    numbers[kernel.BLOCKS] = engine.kv_blocks
    numbers[kernel.BLOCK_SHIFT] = engine.block_size.bit_length() - 1
    numbers[kernel.MAX_SEQUENCES] = engine.max_num_seqs
    numbers[kernel.MAX_TOKENS] = engine.max_num_batched_tokens
    numbers[kernel.AT_RUNNING] = kernel.PHASE + engine.block_size
    numbers[kernel.AT_FINISH] = numbers[kernel.AT_RUNNING] + engine.max_num_seqs
    numbers[kernel.AT_PARTS] = numbers[kernel.AT_FINISH] + engine.max_num_seqs
    numbers[kernel.BY_PRIORITY] = by_priority
    numbers[kernel.AT_DECODE] = -1
    if tables:
        numbers[[kernel.AT_DECODE, kernel.AT_PREFILL]] = ends[:2]
        numbers[kernel.LAST_COLUMN] = tables[0].shape[1] - 1
        numbers[kernel.OVERHEAD] = engine.batching_overhead_per_mille
    if parts is not None:
        numbers[kernel.PARTS] = parts.different
        numbers[kernel.PART_TOKENS] = parts.tokens
        numbers[kernel.PART_BLOCKS] = parts.tokens // engine.block_size
        numbers[[kernel.AT_OFFSETS, kernel.AT_HASHES]] = ends[-3:-1]
    edges = numbers[kernel.EDGES : kernel.DENSE].reshape(len(HISTOGRAM_EDGES), kernel.HISTOGRAM)
    # Each row is closed by an edge that nothing exceeds.
    edges[:] = kernel.NEVER
    for row, seconds in zip(edges, HISTOGRAM_EDGES, strict=True):
        row[: len(seconds)] = [picoseconds(edge) for edge in seconds]
    return numbers


def engines_of(engine: Engine, trace: Trace, conditions: Conditions) -> Ints:
    """The engine and the one that a rollout brings, one a row, as the event loop reads them."""
    engines = [engine]
    if conditions.rollout is not None:
        engines.append(_exchangeable(engine, conditions.rollout.engine))
    parts = prompt_parts(trace, engine) if conditions.prefix_cache else None
    each = [engine_numbers(one, parts, by_priority=conditions.scheduling == "priority") for one in engines]
    rows = np.zeros((len(each), max(map(len, each))), dtype=np.int64)
    for row, numbers in zip(rows, each, strict=True):
        row[: len(numbers)] = numbers
    return rows


def _exchangeable(engine: Engine, new: Engine) -> Engine:
    """The new one, which must hold what the old one holds: which prompts are refused, no policy decides."""
    for setting in ("kv_tokens", "block_size", "gpus"):
        before, after = getattr(engine, setting), getattr(new, setting)
        if before != after:
            raise ConditionsError(
                f"the rollout's engine {new.name} has {setting} {after}, {engine.name} has {before}: "
                "replicas of one fleet differ in step times and vLLM's limits only, give it the same"
            )
    return new


@dataclass(frozen=True, slots=True)
class PromptParts:
    """Blocks of prompts that a replica may keep: whole ones only, each known by a small number."""

    tokens: int
    offsets: Ints
    named: Ints
    different: int


def prompt_parts(trace: Trace, engine: Engine) -> PromptParts:
    """What a prefix cache could find of a trace."""
    blocks = trace.prompt_blocks
    if blocks is None:
        raise ConditionsError(
            f"trace {trace.name} does not tell the blocks of its prompts, which prefix_cache needs: "
            "give one with block hashes, or leave prefix_cache off"
        )
    if blocks.tokens_per_block % engine.block_size:
        raise ConditionsError(
            f"trace {trace.name} has blocks of {blocks.tokens_per_block} tokens, which prefix_cache needs to be "
            f"whole KV blocks of {engine.block_size}: give the engine another block_size"
        )
    whole = blocks.within(trace.prompt_tokens // blocks.tokens_per_block * blocks.tokens_per_block)
    different, named = np.unique(whole.hashes, return_inverse=True)
    return PromptParts(blocks.tokens_per_block, whole.offsets, named.astype(np.int64), max(1, different.size))


class Servers:
    """The replicas that serve one trace, on one engine or on two where a rollout brings another."""

    def __init__(self, trace: Trace, engine: Engine, conditions: Conditions | None = None, *, slots: int = 16) -> None:
        """Of the conditions those count that concern requests: router, clients, scheduling, prefix cache, engines."""
        self.trace = trace
        self.engine = engine
        told = Conditions(Constant(0)) if conditions is None else conditions
        self._engines = engines_of(engine, trace, told)
        self._fleet = self._fleet_numbers(told)
        self._now = 0
        self._make_rows(slots)
        room = engine.kv_blocks * engine.block_size - trace.prompt_tokens.astype(np.int64) + 1
        self.requests = np.full((trace.requests, kernel.REQUEST), -1, dtype=np.int64)
        """One row a request, in order of arrival; the columns are the event loop's."""
        self.requests[:, kernel.ARRIVAL] = np.rint(trace.arrived_at_seconds * 1e6)
        self.requests[:, kernel.ARRIVAL] *= 10**6
        self.requests[:, kernel.PROMPT] = trace.prompt_tokens
        self.requests[:, kernel.GOAL] = np.minimum(trace.output_tokens, np.maximum(room, 1))
        self.requests[:, kernel.GENERATED] = 0
        self.requests[:, kernel.PRECEDING] = kernel.NOWHERE
        self.requests[:, kernel.FATE] = kernel.UNSEEN
        self.requests[:, kernel.PRIORITY] = 0
        if told.scheduling == "priority":
            if trace.priorities is None:
                raise ConditionsError(
                    f"trace {trace.name} has no priorities, which scheduling by priority needs: "
                    "give a column `priority`, or leave scheduling at fcfs"
                )
            self.requests[:, kernel.PRIORITY] = trace.priorities

    @staticmethod
    def _fleet_numbers(conditions: Conditions) -> Ints:
        patience = conditions.client_timeout_seconds
        attempts = 0 if patience is None else 1 + conditions.client_retries
        numbers = np.zeros(kernel.FLEET + attempts, dtype=np.int64)
        numbers[kernel.ROUTER] = ROUTERS[conditions.router]
        numbers[kernel.SEED] = conditions.seed
        numbers[kernel.ATTEMPTS] = attempts
        numbers[kernel.PATIENCE] = 0 if patience is None else picoseconds(patience)
        return numbers

    def _make_rows(self, slots: int) -> None:
        width = (self._engines[:, kernel.AT_PARTS] + 3 * self._engines[:, kernel.PARTS]).max()
        self.numbers = np.zeros((slots, width), dtype=np.int64)
        """One row a slot; the columns are the event loop's."""
        self._due = np.full(slots, kernel.NEVER, dtype=np.int64)
        self._load = np.full(slots, kernel.NEVER, dtype=np.int64)

    def advance(self, until: int) -> None:
        """Everything up to and at `until`."""
        self._now = until
        kernel_fleet.advance(self._fleet, self.numbers, self._due, self._load, self.requests, self._engines, until)

    def kill(self, slot: int, now: int) -> None:
        """Takes a replica away at once; what it held begins anew elsewhere."""
        kernel_fleet.kill(self._fleet, self.numbers, self._due, self._load, self.requests, self._engines, slot, now)

    def start(self, ready_at: int, version: int = 0) -> int:
        """A replica that takes requests from `ready_at` on, on the first engine or the rollout's (1); says its slot."""
        free = np.flatnonzero(self.numbers[:, kernel.STATE] == kernel.FREE_SLOT)
        if free.size == 0:
            numbers, due, load = self.numbers, self._due, self._load
            self._make_rows(2 * len(numbers))
            self.numbers[: len(numbers)] = numbers
            self._due[: len(numbers)] = due
            self._load[: len(numbers)] = load
            return self.start(ready_at, version)
        slot = int(free[0])
        row = self.numbers[slot]
        row[:] = 0
        row[kernel.STATE] = kernel.BOOTING
        row[kernel.VERSION] = version
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
        row = self.numbers[slot]
        engine = self._engines[row[kernel.VERSION]]
        return int(kernel_fleet.blocks_in_use(row, engine, self._now)) / self.engine.kv_blocks

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
    def hang_ups(self) -> int:
        """Clients that lost patience, each as often as it did."""
        return int(self._fleet[kernel.ALL_HANG_UPS])

    @property
    def requeued(self) -> int:
        """Requests that began anew since their replica was killed, each as often as it happened."""
        return int(self._fleet[kernel.REQUEUED])

    @property
    def cut_short(self) -> NDArray[np.bool_]:
        """Requests whose answer ends where the KV cache does, as it would at a model's longest context."""
        return np.asarray(self.requests[:, kernel.GOAL] < self.trace.output_tokens)

    def is_idle(self) -> bool:
        """Whether every request has arrived and none is held anywhere."""
        return self.arrived == self.trace.requests and self.at_gateway == 0 and self.in_hand() == (0, 0)

    def in_hand(self) -> tuple[int, int]:
        """Requests that wait at replicas and that run."""
        waiting, running = kernel_fleet.in_hand(self.numbers, self.slots_used)
        return waiting, running

    def any_gone(self) -> bool:
        """Whether a replica is gone whose slot was not given back."""
        return bool(kernel_fleet.any_gone(self.numbers, self.slots_used))

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
