"""Our re-implementation of the load scaling of NVIDIA Dynamo's planner: core/load_scaling.py at 0c6da1e, aggregated.

By static thresholds ("throughput", its default, and "latency") or by estimated latencies ("sla"); one replica up or
down a turn, none while a scaling is in progress or not every engine reports. Its engines publish each forward pass;
here a pod shows its KV-cache use, its queue and its counters, so prompt tokens in the queue are the waiting requests
times the mean prompt, no decode is ever queued, and a sample of the step model is the mean step between two looks,
its time the mean time between tokens. Its GPU budget (8 by default) is `max_replicas` here.
Without data it holds. Left out: prefill and decode apart, prefix-cache hits, speculative tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from policies.scaling.decision import Binding, Decision
from policies.scaling.observation import Observation
from simulations.model.engine import Engine
from simulations.peers import reading
from simulations.peers.dynamo_model import Sample, StepModel, profiled, ttft_seconds
from simulations.peers.parameters import NotNegative, Setting
from simulations.peers.reading import Bounds

LABEL = "our re-implementation of NVIDIA Dynamo's planner, load scaling (core/load_scaling.py at 0c6da1e)"
INTERVAL_SECONDS = 5.0
AVERAGED_SAMPLES = 64

Target = Literal["throughput", "latency", "sla"]
THRESHOLDS = {"throughput": (1.0, 0.6), "latency": (0.4, 0.1)}
"""Up where any engine's use of the KV cache is above, down where all are below."""


def by_use(uses: list[float], replicas: int, target: Literal["throughput", "latency"]) -> int:
    """One up, one down or as it is."""
    up, down = THRESHOLDS[target]
    if any(use > up for use in uses):
        return replicas + 1
    return replicas - 1 if replicas > 1 and all(use < down for use in uses) else replicas


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What one engine has to do, in tokens."""

    kv_tokens: float
    queued_prefill_tokens: float


@dataclass(frozen=True, slots=True)
class Means:
    """Running means of what its steps were like: of each, the last values, as many as samples are kept."""

    prompts: tuple[float, ...] = ()
    contexts: tuple[float, ...] = ()
    prefills: tuple[float, ...] = ()
    """Prompt tokens a step."""

    def with_step(self, prompt: float, context: float, prefill: float) -> Means:
        return Means(
            *(
                _kept(past, new)
                for past, new in zip(
                    (self.prompts, self.contexts, self.prefills), (prompt, context, prefill), strict=True
                )
            )
        )


def _kept(past: tuple[float, ...], new: float) -> tuple[float, ...]:
    """The idle time before the first traffic is not counted."""
    return (*past, new)[-AVERAGED_SAMPLES:] if past or new else past


def average(numbers: tuple[float, ...]) -> float:
    return math.fsum(numbers) / len(numbers) if numbers else 0.0


def by_latency(
    loads: list[EngineLoad],
    replicas: int,
    *,
    model: StepModel,
    means: Means,
    engine: Engine,
    ttft_objective: float,
    itl_objective: float,
    sensitivity: float,
) -> int | None:
    """One up where every engine breaks an objective; one down where the others could bear its load; None unknown."""
    fit = model.fit()
    if fit is None or not loads:
        return None
    prompt, context, prefill = average(means.prompts), average(means.contexts), average(means.prefills)
    budget = engine.max_num_batched_tokens

    def ttft(load: EngineLoad, queue_scale: float, kv_scale: float) -> float:
        return ttft_seconds(
            fit,
            queued_prefill_tokens=load.queued_prefill_tokens * queue_scale,
            mean_prompt=prompt,
            budget=budget,
            kv_tokens=load.kv_tokens * kv_scale,
        )

    if all(ttft(load, 1.0, 1.0) > ttft_objective for load in loads):
        return replicas + 1
    if all(fit.wall_seconds(prefill, load.kv_tokens + context) > itl_objective for load in loads):
        return replicas + 1
    if replicas <= 1:
        return replicas
    more = replicas / (replicas - 1)
    for load in loads:
        own = ttft(load, 0.0, more)
        room = (ttft_objective - own) * sensitivity
        if room <= 0 or ttft(load, more, more) - own >= room:
            return replicas
        kept = (load.kv_tokens + load.queued_prefill_tokens) * more
        if int(kept) >= engine.kv_tokens or fit.wall_seconds(prefill, kept + context) >= itl_objective * sensitivity:
            return replicas
    return replicas - 1


@dataclass(frozen=True, slots=True)
class DynamoLoadState:
    model: StepModel
    means: Means = Means()
    judged_at: float | None = None
    previous: Observation | None = None


@dataclass(frozen=True, slots=True)
class DynamoLoad:
    """The fast loop of the planner."""

    bounds: Bounds
    engine: Engine
    ttft_objective_seconds: float
    itl_objective_seconds: float
    target: Target = "throughput"
    down_sensitivity: float = 0.8
    profile: bool = True
    """Whether the step model begins with a sweep before deployment, as its throughput scaling demands."""

    @property
    def reads_histograms(self) -> bool:
        return True

    def begin(self) -> DynamoLoadState:
        return DynamoLoadState(profiled(self.engine) if self.profile else StepModel())

    def decide(self, observation: Observation, state: DynamoLoadState) -> tuple[Decision, DynamoLoadState]:
        return self.decide_over(observation, state, floor=self.bounds.least)

    def decide_over(
        self, observation: Observation, state: DynamoLoadState, *, floor: int
    ) -> tuple[Decision, DynamoLoadState]:
        """With a number that it may not go below, which its slow loop sets."""
        now, replicas = observation.time, observation.desired
        if not reading.due(now, state.judged_at, INTERVAL_SECONDS):
            return reading.hold(observation, "between two of its turns"), state
        state = replace(self.learnt(observation, state), judged_at=now)
        loads = self._loads(observation, average(state.means.prompts))
        if len(observation.ready_pods) != replicas:
            return reading.hold(observation, "scaling in progress"), state
        if loads is None or not loads:
            return reading.hold(observation, "not every engine reports"), state
        if self.target == "sla":
            wish = by_latency(
                loads,
                replicas,
                model=state.model,
                means=state.means,
                engine=self.engine,
                ttft_objective=self.ttft_objective_seconds,
                itl_objective=self.itl_objective_seconds,
                sensitivity=self.down_sensitivity,
            )
            said = "by estimated latencies"
        else:
            uses = [(load.kv_tokens + load.queued_prefill_tokens) / self.engine.kv_tokens for load in loads]
            wish = by_use(uses, replicas, self.target)
            said = f"KV cache used and queued for: {min(uses):.3f} to {max(uses):.3f} of it"
        if wish is None:
            wish, said = replicas, "the step model has too little data"
        asked = self.bounds.clamp(max(wish, floor))
        return reading.answer(observation, asked, said, wanted=wish, binding=Binding.KV_CACHE), state

    def learnt(self, observation: Observation, state: DynamoLoadState) -> DynamoLoadState:
        """One mean step of each pod more."""
        done = reading.traffic(state.previous, observation)
        model, means = state.model, state.means
        if done is not None:
            for name in sorted(done.pods):
                each = done.pods[name]
                if not each.engine_steps or not each.inter_tokens or each.kv_tokens_used is None:
                    continue
                prefill = each.prompt_tokens / each.engine_steps
                wall = each.inter_token_seconds / each.inter_tokens
                model = model.with_sample(Sample(prefill, each.kv_tokens_used, wall))
                prompt = each.prompt_tokens / each.first_tokens if each.first_tokens else average(means.prompts)
                context = each.kv_tokens_used / each.running if each.running else 0.0
                means = means.with_step(prompt, context, prefill)
        return replace(state, model=model, means=means, previous=observation)

    def _loads(self, observation: Observation, prompt: float) -> list[EngineLoad] | None:
        loads = []
        for pod in observation.ready_pods:
            usage, waiting = reading.value(pod.sample, reading.KV_CACHE), reading.value(pod.sample, reading.WAITING)
            if usage is None or waiting is None:
                return None
            loads.append(EngineLoad(usage * self.engine.kv_tokens, waiting * prompt))
        return loads


def build(
    setting: Setting,
    *,
    target: Target = "throughput",
    down_sensitivity: NotNegative = 0.8,
    profile: bool = True,
) -> DynamoLoad:
    """`target` is `optimization_target`; the objectives are the replay's, read by "sla" alone."""
    return DynamoLoad(
        Bounds(max(1, setting.min_replicas), setting.max_replicas),
        setting.engine,
        setting.objectives.ttft_seconds,
        setting.objectives.tpot_seconds,
        target,
        down_sensitivity,
        profile,
    )
