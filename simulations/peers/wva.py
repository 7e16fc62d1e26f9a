"""Our re-implementation of llm-d's Workload Variant Autoscaler, b08b1c7 (v0.5), for a single variant.

Both of its saturation analyzers: V1 (internal/saturation/analyzer.go; spare KV cache and queue, one replica a time)
and V2 (internal/engines/analyzers/saturation_v2, pipeline/cost_aware_optimizer.go; tokens in use against the tokens
a replica holds), which is the default since 0.9. Both read each pod's peak of the last minute and write a number
that an HPA follows as an External metric, with the chart's stabilisation of 240 s both ways and 10 pods in 150 s,
and with the HPA's tolerance: from ten replicas on, one more or less is not followed.
What stands in for what cannot be seen: mean prompt and answer lengths of 5 minutes come from the fleet's token and
request counters, not from each pod's histograms; requests queued in a router are not shown.
Without data it keeps its last number (its "safety net"), else the present one. Left out: variants and their costs,
GPU limits, scaling to zero, the queueing model of October 2025.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from policies.scaling.decision import Decision
from policies.scaling.observation import Observation
from simulations.model.engine import Engine
from simulations.peers import reading
from simulations.peers.hpa import Behavior, Hpa, HpaState, RatePolicy, Rules
from simulations.peers.parameters import NotNegative, Positive, Setting, Share

LABEL = "our re-implementation of llm-d's WVA (saturation V1 and V2 at b08b1c7) over Kubernetes HPA (v1.36.3)"
INTERVAL_SECONDS = 30.0
PEAK_WINDOW_SECONDS = 60.0
LENGTH_WINDOW_SECONDS = 300.0
REMEMBERED_CAPACITIES = 10
"""Per bucket of answer lengths."""
BUCKETS = ((100.0, "short"), (500.0, "medium"), (math.inf, "long"))


@dataclass(frozen=True, slots=True)
class Peak:
    """One pod's highest readings of the window."""

    kv_cache_usage: float
    waiting: float
    kv_cache_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The saturation scaling config."""

    kv_cache: float = 0.80
    queue: float = 5.0
    kv_spare: float = 0.1
    """V1 grows below so much spare KV cache, or…"""
    queue_spare: float = 3.0
    """…below so much spare queue."""
    scale_up: float = 0.85
    """V2 grows above this use of what is there and coming."""
    scale_down: float = 0.70


def by_spare(peaks: list[Peak], thresholds: Thresholds) -> int:
    """V1: 1 where the pods that are not saturated have too little left, -1 where one fewer still has enough."""
    fine = [p for p in peaks if p.kv_cache_usage < thresholds.kv_cache and p.waiting < thresholds.queue]
    count = len(fine)

    def short(pods: int) -> bool:
        kv = thresholds.kv_cache - math.fsum(p.kv_cache_usage for p in fine) / pods
        queue = thresholds.queue - math.fsum(p.waiting for p in fine) / pods
        return round(kv, 9) < thresholds.kv_spare or round(queue, 9) < thresholds.queue_spare

    if not fine or short(count):
        return 1
    return -1 if count >= 2 and not short(count - 1) else 0


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean tokens of a prompt and of an answer; 0 until known."""

    prompt: float = 0.0
    answer: float = 0.0

    @property
    def bucket(self) -> str:
        return next(name for below, name in BUCKETS if self.answer < below)


def derived_capacity(engine: Engine, lengths: Lengths) -> int:
    """Tokens that an engine started so holds in a steady state; 0 where the lengths are not known."""
    if lengths.answer <= 0:
        return 0
    budget, total = engine.max_num_batched_tokens, lengths.prompt + lengths.answer
    sequences = min(budget * lengths.answer / total, float(engine.max_num_seqs))
    return int(sequences * (lengths.prompt + lengths.answer / 2))


@dataclass(frozen=True, slots=True)
class Capacity:
    """V2's sums over the pods that show their metrics."""

    demand: float
    """Tokens in use, and those of the prompts that wait."""
    each: float
    """What one replica holds: the median."""
    observed: tuple[float, ...]
    """Tokens in use where the queue showed that no more fits."""


def by_tokens(
    peaks: list[Peak], lengths: Lengths, thresholds: Thresholds, engine: Engine, remembered: tuple[float, ...]
) -> Capacity | None:
    """V2's capacity: what fits in the KV cache or what the queue showed to be too much; None without a KV size."""
    demand, each, observed = 0.0, [], list(remembered)
    for peak in peaks:
        if peak.kv_cache_tokens <= 0:
            continue
        in_use = int(peak.kv_cache_usage * peak.kv_cache_tokens)
        demand += in_use + int(peak.waiting) * int(lengths.prompt)
        by_memory = int(peak.kv_cache_tokens * thresholds.kv_cache)
        if peak.waiting >= int(thresholds.queue) and in_use > 0:
            by_compute = in_use
            observed = [*observed, float(in_use)][-REMEMBERED_CAPACITIES:]
        elif observed:
            by_compute = int(math.fsum(observed) / len(observed))
        else:
            by_compute = derived_capacity(engine, lengths) or by_memory
        each.append(min(by_memory, by_compute))
    if not each:
        return None
    each.sort()
    middle = len(each) // 2
    median = each[middle] if len(each) % 2 else (each[middle - 1] + each[middle]) // 2
    return Capacity(demand, float(median), tuple(observed))


def replicas_for(capacity: Capacity, current: int, ready: int, thresholds: Thresholds) -> int:
    """V2's target of a single variant: what lacks rounded up, what is spare rounded down, one kept."""
    if capacity.each <= 0:
        return current
    required = capacity.demand / thresholds.scale_up - current * capacity.each
    spare = ready * capacity.each - capacity.demand / thresholds.scale_down
    if required > 0:
        return current + reading.rounded_up(required / capacity.each)
    if spare > 0:
        return max(min(1, current), current - reading.rounded_down(spare / capacity.each))
    return current


@dataclass(frozen=True, slots=True)
class WvaState:
    hpa: HpaState
    judged_at: float | None = None
    desired: int | None = None
    """What it last wrote for the HPA to follow."""
    looks: tuple[tuple[float, Mapping[str, Peak]], ...] = ()
    work: tuple[tuple[float, tuple[float, float, float, float]], ...] = ()
    """Prompt tokens, first tokens, generated tokens and finished requests of each look."""
    remembered: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    previous: Observation | None = None


@dataclass(frozen=True, slots=True)
class Wva:
    """One VariantAutoscaling and the HPA behind it."""

    hpa: Hpa
    engine: Engine
    analyzer: Literal["v1", "v2"] = "v2"
    thresholds: Thresholds = Thresholds()

    @property
    def reads_histograms(self) -> bool:
        return self.analyzer == "v2"  # First tokens are counted there.

    def begin(self) -> WvaState:
        return WvaState(self.hpa.begin())

    def decide(self, observation: Observation, state: WvaState) -> tuple[Decision, WvaState]:
        now = observation.time
        state = self._seen(observation, state)
        if reading.due(now, state.judged_at, INTERVAL_SECONDS):
            state = replace(self._judged(observation, state), judged_at=now)
        written = state.desired

        def propose(seen: Observation) -> tuple[int, str] | None:
            if written is None:
                return None
            number, _ = self.hpa.for_total(seen, written * 1000, 1.0)
            return number, f"{self.analyzer} has {written} written"

        decision, hpa = self.hpa.follow(observation, state.hpa, propose)
        return decision, replace(state, hpa=hpa)

    def _seen(self, observation: Observation, state: WvaState) -> WvaState:
        now = observation.time
        look: dict[str, Peak] = {}
        for pod in observation.ready_pods:
            usage, waiting = reading.value(pod.sample, reading.KV_CACHE), reading.value(pod.sample, reading.WAITING)
            if usage is not None and waiting is not None and pod.sample is not None:
                look[pod.name] = Peak(usage, waiting, pod.sample.kv_cache_tokens or 0.0)
        looks = (*(entry for entry in state.looks if entry[0] > now - PEAK_WINDOW_SECONDS), (now, look))
        work = state.work
        if self.analyzer == "v2":
            work = tuple(entry for entry in work if entry[0] > now - LENGTH_WINDOW_SECONDS)
            done = reading.traffic(state.previous, observation)
            if done is not None:
                each = (done.prompt_tokens, done.first_tokens, done.generation_tokens, done.finished)
                work = (*work, (now, each))
        return replace(state, looks=looks, work=work, previous=observation)

    def _judged(self, observation: Observation, state: WvaState) -> WvaState:
        peaks = self._peaks(observation, state)
        current, ready = reading.replicas_there(observation), len(observation.ready_pods)
        if not peaks:
            return replace(state, desired=current if state.desired is None else state.desired)
        if self.analyzer == "v1":
            if state.desired is not None and state.desired != current:
                return state  # Its last wish was not carried out yet.
            step = by_spare(peaks, self.thresholds) if len(peaks) == current else 0
            return replace(state, desired=max(1, current + step))
        lengths = self._lengths(state)
        remembered = state.remembered.get(lengths.bucket, ())
        capacity = by_tokens(peaks, lengths, self.thresholds, self.engine, remembered)
        if capacity is None:
            return replace(state, desired=current if state.desired is None else state.desired)
        desired = replicas_for(capacity, current, ready, self.thresholds)
        return replace(state, desired=desired, remembered={**state.remembered, lengths.bucket: capacity.observed})

    def _peaks(self, observation: Observation, state: WvaState) -> list[Peak]:
        """Of the pods ready now that showed their metrics within the window."""
        peaks: list[Peak] = []
        for pod in observation.ready_pods:
            shown = [look[pod.name] for _, look in state.looks if pod.name in look]
            if shown:
                usage, waiting = max(p.kv_cache_usage for p in shown), max(p.waiting for p in shown)
                peaks.append(Peak(usage, waiting, shown[-1].kv_cache_tokens))
        return peaks

    def _lengths(self, state: WvaState) -> Lengths:
        prompt, begun, generated, finished = (math.fsum(each[which] for _, each in state.work) for which in range(4))
        return Lengths(prompt / begun if begun else 0.0, generated / finished if finished else 0.0)


def build(
    setting: Setting,
    *,
    analyzer: Literal["v1", "v2"] = "v2",
    stabilization: NotNegative = 240.0,
    kv_threshold: Share = 0.80,
    queue_threshold: Positive = 5.0,
    kv_spare: Share = 0.1,
    queue_spare: NotNegative = 3.0,
    up_threshold: Share = 0.85,
    down_boundary: Share = 0.70,
) -> Wva:
    """`stabilization` is the HPA's, both ways."""
    rules = Rules((RatePolicy(10, 150.0),), stabilization)
    hpa = Hpa((), setting.min_replicas, setting.max_replicas, Behavior(rules, rules))
    thresholds = Thresholds(kv_threshold, queue_threshold, kv_spare, queue_spare, up_threshold, down_boundary)
    return Wva(hpa, setting.engine, analyzer, thresholds)
