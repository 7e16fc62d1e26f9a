"""How long one engine step takes, and how much an engine holds: the few numbers of a GPU that the fleet runs on.

A step's time is a + b·decoding + c·context + d·prefill + e·X (+ the dense layers' roofline where the numbers
are of that form); it is whole, nothing is added to it. Inside, time is counted in integer picoseconds and each
coefficient is rounded to it once, so that a closed form and a loop over the steps agree to the last bit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

PICOSECONDS = 10**12
"""In a second."""
PS_PER_MS = 10**9

Form = Literal["linear", "roofline"]


class EngineError(ValueError):
    """An engine's numbers cannot be used; the message names the field and the remedy."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """Coefficients of one step, in milliseconds (a token, a sequence, a token pair), as published."""

    a: float
    b: float
    c: float
    d: float
    e: float
    w: float = 0.0
    """Time to stream the weights; with `k` and `q` the roofline of the dense layers. 0: linear."""
    k: float = 0.0
    """Compute time of the dense layers a token."""
    q: float = 1.0


@dataclass(frozen=True, slots=True)
class StepTables:
    """A step's time as profiled: `dense` + decode attention + prefill attention, in ms, all layers together.

    Attention is read at the mean context of the sequences that decode, and at the root of the sum of squares of the
    chunks over the sum of what is cached of them, each rounded up to a column, as Vidur (7d47513) does.
    """

    dense_ms: NDArray[np.float64]
    """By tokens in the step, from 0."""
    decode_ms: NDArray[np.float64]
    """By sequences, from 1, and cached tokens: 0, 64, 128, …"""
    prefill_ms: NDArray[np.float64]
    """By tokens of the chunk, from 1, and cached tokens: 0, 64, 128, …"""
    overhead: float = 0.0
    """Added to attention, as a share of it, where there is more than one sequence or chunk."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One vLLM replica's engine."""

    name: str
    step_ms: StepTime
    kv_tokens: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    gpus: int = 1
    model: str = ""
    source: str = ""
    """Where its numbers come from."""
    vllm: str = ""
    """Of which release of vLLM it tells."""
    error: str = ""
    """By how much its steps miss those it was fitted on."""
    tables: StepTables | None = field(default=None, compare=False, repr=False)
    """What a step takes, where that is told by tables; `step_ms` is then what estimates go by."""

    def __post_init__(self) -> None:
        for limit in ("kv_tokens", "block_size", "max_num_seqs", "max_num_batched_tokens", "gpus"):
            if getattr(self, limit) < 1:
                raise EngineError(f"engine {self.name}: {limit} is {getattr(self, limit)}: it must be at least 1")
        if self.step_ms.a <= 0 and self.step_ms.w <= 0:
            raise EngineError(f"engine {self.name}: step_ms.a is {self.step_ms.a}: a step takes time, give a > 0")
        for part in ("b", "c", "d", "e", "w", "k"):
            if not getattr(self.step_ms, part) >= 0:
                raise EngineError(
                    f"engine {self.name}: step_ms.{part} is {getattr(self.step_ms, part)}: "
                    "more work never takes less time, give a number ≥ 0"
                )
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise EngineError(
                f"engine {self.name}: max_num_batched_tokens ({self.max_num_batched_tokens}) is less than "
                f"max_num_seqs ({self.max_num_seqs}): vLLM refuses that, raise the first or lower the second"
            )
        if self.block_size & (self.block_size - 1):
            raise EngineError(
                f"engine {self.name}: block_size is {self.block_size}: vLLM's blocks are powers of two, 16 by default"
            )
        if self.kv_tokens < self.block_size:
            raise EngineError(
                f"engine {self.name}: kv_tokens ({self.kv_tokens}) holds not one block of {self.block_size}"
            )

    @property
    def kv_blocks(self) -> int:
        return self.kv_tokens // self.block_size

    def coefficients_ps(self) -> tuple[int, int, int, int, int]:
        """a, b, c, d, e in whole picoseconds: rounded here, once, and nowhere else."""
        if self.tables is not None:
            return 0, 0, 0, 0, 0
        s = self.step_ms
        a, b, c, d, e = (round(value * PS_PER_MS) for value in (s.a, s.b, s.c, s.d, s.e))
        return a, b, c, d, e

    def dense_ps(self) -> NDArray[np.int64]:
        """What the dense layers' roofline or table adds to a step of 0, 1, … max_num_batched_tokens tokens."""
        if self.tables is not None:
            return _whole_ps(self.tables.dense_ms[: self.max_num_batched_tokens + 1])
        s = self.step_ms
        tokens = range(self.max_num_batched_tokens + 1)
        if s.w == 0 and s.k == 0:
            return np.zeros(len(tokens), dtype=np.int64)
        times = [(s.w**s.q + (s.k * n) ** s.q) ** (1 / s.q) for n in tokens]
        return np.array([round(time * PS_PER_MS) for time in times], dtype=np.int64)

    def attention_ps(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | tuple[()]:
        """The tables of decode and of prefill attention, where the engine has them."""
        if self.tables is None:
            return ()
        return _whole_ps(self.tables.decode_ms), _whole_ps(self.tables.prefill_ms)

    @property
    def batching_overhead_per_mille(self) -> int:
        return 0 if self.tables is None else round(self.tables.overhead * 1000)

    def with_limits(self, *, max_num_seqs: int | None = None, max_num_batched_tokens: int | None = None) -> Engine:
        """The same engine started with other flags of vLLM."""
        return replace(
            self,
            max_num_seqs=max_num_seqs or self.max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens or self.max_num_batched_tokens,
        )

    def slowed(self, factor: float) -> Engine:
        """One whose steps take so many times as long."""
        step, tables = self.step_ms, self.tables
        if tables is not None:
            dense, decode, prefill = (factor * each for each in (tables.dense_ms, tables.decode_ms, tables.prefill_ms))
            tables = replace(tables, dense_ms=dense, decode_ms=decode, prefill_ms=prefill)
        # All but the exponent are times.
        slowed = {part: factor * getattr(step, part) for part in ("a", "b", "c", "d", "e", "w", "k")}
        return replace(self, name=f"{self.name}, {factor:g} times", step_ms=replace(step, **slowed), tables=tables)


def _whole_ps(ms: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.asarray(np.rint(np.asarray(ms, dtype=np.float64) * PS_PER_MS), dtype=np.int64)


@cache
def _shipped() -> dict[str, Any]:
    text = resources.files("simulations.model").joinpath("engines/shipped.json").read_text(encoding="utf-8")
    engines: dict[str, Any] = json.loads(text)["engines"]
    return engines


def shipped_engines() -> tuple[str, ...]:
    """Names of the engines that come with us."""
    return tuple(_shipped())


def shipped_engine(name: str, *, form: Form = "linear") -> Engine:
    """One of the engines that come with us, its step time in the linear or the roofline form."""
    try:
        entry = _shipped()[name]
    except KeyError:
        raise EngineError(
            f"engine '{name}' is not among those shipped: choose one of {', '.join(shipped_engines())}"
        ) from None
    step = StepTime(**entry["linear"]) if form == "linear" else StepTime(d=0.0, **entry["roofline"])
    missed = entry["error"][form]
    return Engine(
        name,
        step,
        entry["kv_tokens"],
        gpus=entry["gpus"],
        model=entry["model"],
        source=entry["source"],
        vllm=entry["vllm"],
        error=f"{form}: median {missed['median']:.1%}, p95 {missed['p95']:.1%} of a step's time, against the table",
    )
