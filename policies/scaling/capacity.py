"""How much one replica bears within the objectives, learnt from the target's own counters.

vLLM's step takes t = a + b·n + c·K + d·q seconds with n sequences decoding, K tokens of their context read and q
prompt tokens prefilled (the form that `docs/policies.md` checks on nine published engines). A pod between two
scrapes shows the mean time between tokens, n and q a step, and K, so the four numbers are a least-squares fit,
held near a prior where the traffic does not tell them apart.

A request of p prompt and o output tokens, with k tokens of context in the mean while it is in flight, then costs
w = o·b + o·k·c + p·d seconds of step time beyond the fixed part a. At λ requests/s a share u = λ·w of the time
goes to them, and since a step that is all fixed part takes a, the mean step takes a/(1 - u). The objectives say
how large it may be, so how large u may be:

- time per output token: a/(1 - u) ≤ κ·objective, κ < 1 for what fluctuates around the mean;
- time to first token: prompts queue for the engine behind each other as in M/M/1, P99 = 4.6·s·u/(1 - u), s = p·d + a;
- KV cache: n sequences in flight hold n·k tokens, and n = λ·o·a/(1 - u).

The smallest u binds, and u/w is the replica's capacity in requests/s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import exp, isfinite
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policies.scaling.decision import Binding
from policies.scaling.demand import Activity, PodActivity

FEATURES: Final = 4

PRIOR_RATIOS: Final = (1.0, 0.0039, 5.5e-6, 0.0044)
"""b, c and d as multiples of a: geometric means of nine published engines, 7B to 70B, A40 to H100."""
PRIOR_SPREAD: Final = (0.0, 0.0039, 1.1e-5, 0.0044)
"""How far from them an engine may be without much evidence: as much again, twice that for c, which differs most."""
PRIOR_FIXED_SHARE: Final = 0.25
"""Prior of a, as a share of the objective for time per output token."""
NOISE: Final = 0.1
"""Relative error of one pod's mean step time over `evidence_seconds`."""
LEAST_RUNNING: Final = 0.5
"""A pod with fewer requests in flight tells more of their arrivals than of its step time."""
HARDEST: Final = 0.95
"""Share of its time that an engine can spend on requests, beyond the fixed part of its steps."""
P99_OF_EXPONENTIAL: Final = 4.605
"""ln 100: how far the P99 of an exponential waiting time lies above its mean."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Mean lengths of the requests that arrive now, and the context that one in flight holds, in tokens."""

    prompt_tokens: float
    output_tokens: float
    resident_tokens: float


@dataclass(frozen=True, slots=True)
class MixSums:
    """Sums that forget, from which the present mix is read; ratios of sums, since a mean of ratios is none.

    Prompts are counted when their first token comes, outputs as they are generated, the context as it is held.
    """

    prompt_tokens: float = 0.0
    prompts: float = 0.0
    output_tokens: float = 0.0
    outputs: float = 0.0
    held_tokens: float = 0.0
    running: float = 0.0

    def then(self, done: Activity, *, prompt_seconds: float, output_seconds: float) -> MixSums:
        """With one stretch more; the two durations are the time constants of forgetting."""
        soon, late = exp(-done.seconds / prompt_seconds), exp(-done.seconds / output_seconds)
        holding = sorted((pod.kv_tokens_used, pod.running) for pod in done.pods.values() if pod.kv_tokens_used)
        return MixSums(
            self.prompt_tokens * soon + done.prompt_tokens,
            self.prompts * soon + done.first_tokens,
            self.output_tokens * late + done.generation_tokens,
            self.outputs * late + done.first_tokens,
            self.held_tokens * soon + sum(held for held, _ in holding),
            self.running * soon + sum(running for _, running in holding),
        )

    @property
    def mix(self) -> Mix | None:
        """None before the first request."""
        if self.prompts <= 0 or self.outputs <= 0:
            return None
        prompt = self.prompt_tokens / self.prompts
        output = max(1.0, self.output_tokens / self.outputs)
        resident = self.held_tokens / self.running if self.running > 0 else prompt + output / 2
        return Mix(prompt, output, resident)


@dataclass(frozen=True, slots=True)
class StepTime:
    """t = fixed + decode·n + context·K + prefill·q, seconds."""

    fixed: float
    decode: float
    context: float
    prefill: float

    @classmethod
    def prior(cls, tpot_objective_seconds: float) -> StepTime:
        fixed = PRIOR_FIXED_SHARE * tpot_objective_seconds
        return cls(*(fixed * ratio for ratio in PRIOR_RATIOS))

    def seconds(self, sequences: float, context_tokens: float, prompt_tokens: float) -> float:
        return self.fixed + self.decode * sequences + self.context * context_tokens + self.prefill * prompt_tokens

    def request_seconds(self, mix: Mix) -> float:
        """The w of the module's head."""
        return (
            self.decode * mix.output_tokens
            + self.context * mix.output_tokens * mix.resident_tokens
            + self.prefill * mix.prompt_tokens
        )


@dataclass(frozen=True, slots=True)
class StepTimeFit:
    """Folded evidence of the step time of one pod template: normal equations that forget.

    `gram` (4, 4) and `moment` (4,) sum x·xᵀ/y² and x/y over pods and scrapes, x = (1, n, K, q), y the mean step time.
    """

    template: str
    gram: NDArray[np.float64]
    moment: NDArray[np.float64]
    weight: float
    step_time: StepTime
    """As of the last fit; the prior before it."""
    prior: StepTime

    @classmethod
    def empty(cls, template: str, prior: StepTime) -> StepTimeFit:
        return cls(template, np.zeros((FEATURES, FEATURES)), np.zeros(FEATURES), 0.0, prior, prior)

    def then(
        self, pods: Iterable[PodActivity], *, seconds: float, half_life_seconds: float, evidence_seconds: float
    ) -> StepTimeFit:
        """With what the pods showed over the last `seconds`; `evidence_seconds` of one pod have weight 1."""
        gram, moment, weight = self.gram, self.moment, self.weight
        keep = 0.5 ** (seconds / half_life_seconds)
        rows = [row for pod in pods if (row := _evidence(pod, evidence_seconds)) is not None]
        if not rows:
            return self
        gram, moment, weight = gram * keep, moment * keep, weight * keep
        for y, x, share in rows:
            scaled = np.array(x) / y
            gram = gram + share * np.outer(scaled, scaled)
            moment = moment + share * scaled
            weight += share
        return replace(self, gram=gram, moment=moment, weight=weight)

    def fitted(self) -> StepTimeFit:
        """Solved anew: min Σ ((x·t - y)/(NOISE·y))² + prior, t ≥ 0 (non-negative least squares)."""
        if self.weight <= 0:
            return self
        scale = self.prior.fixed
        # In units of the prior's fixed part, every column is of order one.
        unit = np.array([scale * ratio for ratio in PRIOR_RATIOS])
        gram = self.gram * np.outer(unit, unit) / NOISE**2
        moment = self.moment * unit / NOISE**2
        held = np.array([self.prior.fixed, self.prior.decode, self.prior.context, self.prior.prefill], dtype=np.float64)
        for i in range(1, FEATURES):
            # The prior is on the ratio to the fixed part, which is what engines have in common:
            # (t_i - r_i·t_0)/spread_i = 0, r_i from the prior, in the columns' own units.
            row = np.zeros(FEATURES)
            row[i] = PRIOR_RATIOS[i] / PRIOR_SPREAD[i]
            row[0] = -(held[i] / held[0]) / PRIOR_SPREAD[i]
            gram = gram + np.outer(row, row)
        solution = non_negative_least_squares((gram + 1e-9 * np.eye(FEATURES)).tolist(), moment.tolist())
        found = [value * float(one) for value, one in zip(solution, unit, strict=True)]
        if not all(isfinite(value) for value in found) or found[0] <= 0:
            return self
        return replace(self, step_time=StepTime(*found))


def non_negative_least_squares(gram: Sequence[Sequence[float]], moment: Sequence[float]) -> list[float]:
    """The x ≥ 0 that minimises ½·xᵀ·gram·x - moment·x; `gram` is positive definite, a few numbers wide.

    Every choice of which numbers are above zero is solved, and the best that keeps to it taken: plain arithmetic in
    a fixed order, so that all machines find the same to the last bit, which no linear algebra library promises.
    """
    size = len(moment)
    best, least = [0.0] * size, 0.0
    for count in range(1, size + 1):
        for chosen in combinations(range(size), count):
            values = _solved([[gram[i][j] for j in chosen] for i in chosen], [moment[i] for i in chosen])
            if min(values) < 0:
                continue
            cost = -sum(value * moment[i] for value, i in zip(values, chosen, strict=True)) / 2
            if cost < least:
                least, best = cost, [0.0] * size
                for value, i in zip(values, chosen, strict=True):
                    best[i] = value
    return best


def _solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """By Gaussian elimination; a positive definite matrix needs no pivoting."""
    size = len(right)
    for i in range(size):
        for j in range(i + 1, size):
            share = matrix[j][i] / matrix[i][i]
            for k in range(i, size):
                matrix[j][k] -= share * matrix[i][k]
            right[j] -= share * right[i]
    for i in reversed(range(size)):
        for k in range(i + 1, size):
            right[i] -= matrix[i][k] * right[k]
        right[i] /= matrix[i][i]
    return right


@dataclass(frozen=True, slots=True)
class ReplicaCapacity:
    """What one replica bears, in requests/s of a mix, and which limit says so."""

    requests_per_second: float
    in_flight: float
    """Requests running at that load."""
    binding: Binding
    step_seconds: float
    """Mean step time at that load."""
    hardest_requests_per_second: float
    """Beyond this its queue grows without end."""

    def filled(self, utilisation: float) -> ReplicaCapacity:
        """With as many requests/s as it is planned to take."""
        return replace(self, requests_per_second=self.requests_per_second * utilisation)


def replica_capacity(
    step_time: StepTime,
    mix: Mix,
    *,
    ttft_objective_seconds: float,
    tpot_objective_seconds: float,
    kv_cache_tokens: float | None,
    most_in_flight: float | None,
    tpot_margin: float,
    kv_cache_margin: float,
    greatest_utilisation: float,
) -> ReplicaCapacity:
    """The load at which the first of the objectives' limits is reached."""
    a = step_time.fixed
    w = max(step_time.request_seconds(mix), 1e-9 * a)
    # An engine whose empty step breaks the objective cannot keep it: what is left is to not queue.
    by_tpot = max(0.05, 1.0 - a / (tpot_margin * tpot_objective_seconds))
    service = step_time.prefill * mix.prompt_tokens + a
    by_ttft = ttft_objective_seconds / (ttft_objective_seconds + P99_OF_EXPONENTIAL * service)
    limits = [(by_tpot, Binding.TPOT), (by_ttft, Binding.QUEUE), (greatest_utilisation, Binding.QUEUE)]
    held = []
    if kv_cache_tokens is not None and mix.resident_tokens > 0:
        held.append((kv_cache_margin * kv_cache_tokens / mix.resident_tokens, Binding.KV_CACHE))
    if most_in_flight is not None:
        held.append((most_in_flight, Binding.QUEUE))
    for in_flight, binding in held:
        # n = λ·o·a/(1 - u) with λ = u/w, so u = x/(1 + x), x = n·w/(o·a).
        x = in_flight * w / (max(1.0, mix.output_tokens) * a)
        limits.append((x / (1.0 + x), binding))
    utilisation, binding = min(limits, key=lambda limit: limit[0])
    step_seconds = a / (1.0 - utilisation)
    rate = utilisation / w
    return ReplicaCapacity(rate, rate * mix.output_tokens * step_seconds, binding, step_seconds, max(rate, HARDEST / w))


def _evidence(pod: PodActivity, evidence_seconds: float) -> tuple[float, tuple[float, ...], float] | None:
    """(mean step time, (1, n, K, q), weight) of one pod and scrape; None where it was all but idle."""
    if min(pod.inter_tokens, pod.inter_token_seconds, pod.generation_tokens) <= 0 or pod.running < LEAST_RUNNING:
        return None
    y = pod.inter_token_seconds / pod.inter_tokens
    running = max(1.0, pod.running)
    # Tokens ÷ steps is the mean over all steps between two scrapes; the gauge is only its two ends.
    sequences = pod.generation_tokens / pod.engine_steps if pod.engine_steps else running
    steps = pod.generation_tokens / max(1.0, sequences)
    resident = pod.kv_tokens_used / running if pod.kv_tokens_used is not None else 0.0
    row = (1.0, sequences, sequences * resident, pod.prompt_tokens / steps)
    return y, row, pod.seconds / evidence_seconds
