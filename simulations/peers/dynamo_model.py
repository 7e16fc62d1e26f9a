"""How NVIDIA Dynamo's planner estimates a step: wall time = a + b·prefill tokens + c·KV tokens, by least squares.

Our re-implementation of core/perf_model/{base,agg}.py at 439d645 and 518a702 (ai-dynamo/dynamo), for aggregated
engines. At most 64 samples are kept, evenly over a grid of 4×4 cells of what was ever seen: the oldest of the fullest
cell goes first. A fit with a negative slope is refused, for more work never takes less time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from simulations.model.engine import Engine

MOST_SAMPLES = 64
LEAST_SAMPLES = 5
CELLS_PER_AXIS = 4
PROFILED_PROMPT, PROFILED_ANSWER = 3000, 150
"""The planner's own default request, of which its profile is made."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One step, or the mean step of a stretch."""

    prefill_tokens: float
    kv_tokens: float
    wall_seconds: float


@dataclass(frozen=True, slots=True)
class Fit:
    fixed: float
    per_prefill_token: float
    per_kv_token: float

    def wall_seconds(self, prefill_tokens: float, kv_tokens: float) -> float:
        return max(1e-6, self.fixed + self.per_prefill_token * prefill_tokens + self.per_kv_token * kv_tokens)


@dataclass(frozen=True, slots=True)
class StepModel:
    """The samples kept, and the greatest reach that they ever had."""

    samples: tuple[Sample, ...] = ()
    least: tuple[float, float] = (math.inf, math.inf)
    most: tuple[float, float] = (-math.inf, -math.inf)

    def with_sample(self, sample: Sample) -> Self:
        """One more, and one fewer of the fullest cell where there are too many."""
        if sample.wall_seconds <= 0:
            return self
        x = (sample.prefill_tokens, sample.kv_tokens)
        least = (min(self.least[0], x[0]), min(self.least[1], x[1]))
        most = (max(self.most[0], x[0]), max(self.most[1], x[1]))
        samples = (*self.samples, sample)
        if len(samples) > MOST_SAMPLES:
            cells: dict[tuple[int, int], list[int]] = {}
            for place, each in enumerate(samples):
                cell = (
                    _cell(each.prefill_tokens, least[0], most[0]),
                    _cell(each.kv_tokens, least[1], most[1]),
                )
                cells.setdefault(cell, []).append(place)
            oldest = max(cells.values(), key=len)[0]
            samples = samples[:oldest] + samples[oldest + 1 :]
        return type(self)(samples, least, most)

    def fit(self) -> Fit | None:
        """None of too few samples, of samples all alike, or where a slope comes out negative."""
        count = len(self.samples)
        if count < LEAST_SAMPLES:
            return None
        p, k, y = (
            math.fsum(each) / count
            for each in zip(*((s.prefill_tokens, s.kv_tokens, s.wall_seconds) for s in self.samples), strict=True)
        )
        rows = [(s.prefill_tokens - p, s.kv_tokens - k, s.wall_seconds - y) for s in self.samples]
        pp, kk, pk, py, ky = (
            math.fsum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (1, 1), (0, 1), (0, 2), (1, 2))
        )
        # The least squares of least size, as its library has them, where an axis does not vary or both go together.
        together = pp * kk - pk * pk
        if together > 1e-9 * pp * kk:
            slopes = (kk * py - pk * ky) / together, (pp * ky - pk * py) / together
        elif pp + kk > 0:
            along = (py + ky) / (pp + kk + 2 * pk) if pp and kk else 0.0
            slopes = (py / pp if pp and not kk else along, ky / kk if kk and not pp else along)
        else:
            return None
        if min(slopes) < 0:
            return None
        return Fit(y - slopes[0] * p - slopes[1] * k, *slopes)


def _cell(value: float, least: float, most: float) -> int:
    if most <= least:
        return 0
    return min(CELLS_PER_AXIS - 1, int((value - least) / (most - least) * CELLS_PER_AXIS))


def profiled(engine: Engine) -> StepModel:
    """What its sweep before deployment would have measured: the engine's own steps, over its whole range."""
    model = StepModel()
    context = PROFILED_PROMPT + PROFILED_ANSWER / 2
    most_kv = min(float(engine.kv_tokens), engine.max_num_seqs * context)
    for i in range(CELLS_PER_AXIS):
        for j in range(CELLS_PER_AXIS):
            kv = most_kv * i / (CELLS_PER_AXIS - 1)
            decoding = int(kv / context)
            prefill = (engine.max_num_batched_tokens - decoding) * j // (CELLS_PER_AXIS - 1)
            if decoding or prefill:
                model = model.with_sample(Sample(prefill, kv, _step_seconds(engine, decoding, kv, prefill)))
    return model


def _step_seconds(engine: Engine, decoding: int, kv_tokens: float, prefill: int) -> float:
    s = engine.step_ms
    dense = (s.w**s.q + (s.k * (decoding + prefill)) ** s.q) ** (1 / s.q) if s.w or s.k else 0.0
    linear = s.a + s.b * decoding + s.c * kv_tokens + s.d * prefill + s.e * prefill * prefill / 2
    return (linear + dense) / 1000


def ttft_seconds(fit: Fit, *, queued_prefill_tokens: float, mean_prompt: float, budget: int, kv_tokens: float) -> float:
    """Of a request that comes now: the queue and its own prompt, a budget's worth a step, decodes beside it."""
    remaining = queued_prefill_tokens + mean_prompt
    total = 0.0
    while remaining > 0:
        total += fit.wall_seconds(min(remaining, budget), kv_tokens)
        remaining -= budget
    return total


def best_requests_per_second(
    fit: Fit,
    engine: Engine,
    *,
    prompt: float,
    answer: float,
    mean_prompt: float,
    ttft_objective: float,
    itl_objective: float,
) -> float:
    """Of one engine: the greatest batch whose steps keep both objectives; of one sequence where none does.

    `prompt` and `answer` are forecast; a request's own prompt takes as long as the mean one seen so far.
    """
    if prompt <= 0 or answer <= 0:
        return 0.0
    context, budget = prompt + answer / 2, engine.max_num_batched_tokens
    most = min(max(1, int(engine.kv_tokens / max(1.0, context))), engine.max_num_seqs, budget - 1)
    while most > 1 and prompt / (budget - most) > answer:
        most -= 1  # Beyond it prompts come in more slowly than answers go out.
    best = 0.0
    for batch in range(1, max(1, most) + 1):
        kv = batch * context
        prefill = min(batch * prompt / max(1.0, answer), float(budget))
        wall = fit.wall_seconds(prefill, kv)
        ttft = ttft_seconds(
            fit, queued_prefill_tokens=int(prefill), mean_prompt=mean_prompt, budget=budget, kv_tokens=int(kv)
        )
        if wall > itl_objective or ttft > ttft_objective:
            return best or 1 / (answer * wall)
        best = batch / (answer * wall)
    return best
