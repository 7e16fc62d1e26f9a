"""Our re-implementation of the Kubernetes HorizontalPodAutoscaler, pkg/controller/podautoscaler of v1.36.3.

Pods metrics with the rules for pending and missing pods, External metrics by AverageValue, the stabilisation
windows and rate policies of `behavior`, and the older rules that hold where no `behavior` is given. Metric
values are whole thousandths, as the controller handles them, and its float arithmetic is kept as it is.
Left out: CPU and memory, metrics of objects, scaling from zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from policies.scaling.decision import Binding, Decision
from policies.scaling.observation import Observation, Pod, PodStage

LABEL = "our re-implementation of Kubernetes HPA (pkg/controller/podautoscaler, version read: v1.36.3)"
DOWNSCALE_WINDOW_SECONDS = 300.0
"""kube-controller-manager --horizontal-pod-autoscaler-downscale-stabilization."""
PENDING = (PodStage.CREATED, PodStage.UNSCHEDULABLE, PodStage.SCHEDULED)

Proposal = tuple[int, str] | None
"""What a metric alone would have, and why; None where it cannot be computed."""


class Select(StrEnum):
    """Which of several rate policies counts."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """At most so many pods, or so many per cent, within a period."""

    value: int
    period_seconds: float
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """One direction of `behavior`."""

    policies: tuple[RatePolicy, ...]
    window_seconds: float
    select: Select = Select.MAX


@dataclass(frozen=True, slots=True)
class Behavior:
    """`behavior`, with the defaults of what it leaves out; without one the older rules hold."""

    up: Rules = Rules((RatePolicy(4, 15), RatePolicy(100, 15, percent=True)), 0.0)
    down: Rules = Rules((RatePolicy(100, 15, percent=True),), DOWNSCALE_WINDOW_SECONDS)


@dataclass(frozen=True, slots=True)
class PodsMetric:
    """A mean over the pods, `type: Pods` with `averageValue`."""

    readings: tuple[str, ...]
    """Fields of a pod's sample, added up."""
    target: float


@dataclass(frozen=True, slots=True)
class ExternalAverageMetric:
    """One number for the whole target, a share of it a pod: `type: External` with `averageValue`."""

    readings: tuple[str, ...]
    target: float


@dataclass(frozen=True, slots=True)
class HpaState:
    """What the controller remembers of one HPA."""

    synced_at: float = -math.inf
    recommendations: tuple[tuple[float, int], ...] = ()
    """Raw ones, with their times, as old as the longest window."""
    added: tuple[tuple[float, int], ...] = ()
    removed: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Hpa:
    """One HorizontalPodAutoscaler with one metric."""

    metric: PodsMetric | ExternalAverageMetric
    min_replicas: int
    max_replicas: int
    behavior: Behavior | None = None
    tolerance_up: float = 0.1
    tolerance_down: float = 0.1
    sync_seconds: float = 15.0

    @property
    def reads_histograms(self) -> bool:
        return False

    def begin(self) -> HpaState:
        return HpaState()

    def decide(self, observation: Observation, state: HpaState) -> tuple[Decision, HpaState]:
        """One pass of the controller; between two passes the number in force stands."""
        return self.follow(observation, state, self._proposal)

    def follow(
        self, observation: Observation, state: HpaState, propose: Callable[[Observation], Proposal]
    ) -> tuple[Decision, HpaState]:
        """A pass in which somebody else says what the metrics would have: those who put an HPA behind theirs."""
        now, current = observation.time, observation.desired
        if now < state.synced_at + self.sync_seconds - 1e-9:
            return self._decision(observation, current, current, "between two syncs"), state
        added, removed = state.added, state.removed
        # The first it records is the number it finds, so that a new HPA does not shrink before its window is through.
        recommendations = ((now, current),) if math.isinf(state.synced_at) else state.recommendations
        state = replace(state, recommendations=recommendations)
        if current > self.max_replicas or current < self.min_replicas:
            wanted = number = min(max(current, self.min_replicas), self.max_replicas)
            said = f"{current} is outside {self.min_replicas}…{self.max_replicas}"
        else:
            proposal = propose(observation)
            if proposal is None:
                said = "no pod shows the metric"
                state = HpaState(now, recommendations, added, removed)
                return self._decision(observation, current, current, said), state
            wanted, said = proposal
            number = self._normalised(now, current, wanted, state)
            recommendations = self._kept(now, recommendations, wanted)
        if number > current:
            added = (*_since(now - self._longest_period(), added), (now, number - current))
        elif number < current:
            removed = (*_since(now - self._longest_period(), removed), (now, current - number))
        state = HpaState(now, recommendations, added, removed)
        return self._decision(observation, wanted, number, said), state

    def _decision(self, observation: Observation, wanted: int, number: int, said: str) -> Decision:
        sentence = f"{said}: {wanted} wanted"
        if number > wanted:
            sentence += f", {number} kept: what was wanted lately, and the bounds"
        elif number < wanted:
            sentence += f", {number} allowed: bounds and rate policies"
        ready = observation.count(PodStage.READY)
        coming = observation.count(PodStage.CREATED, PodStage.SCHEDULED, PodStage.STARTING)
        held = Binding.HOLD if number == observation.desired else Binding.QUEUE
        return Decision(
            observation.time, number, wanted, observation.desired, held, sentence, ready=ready, coming=coming
        )

    def _proposal(self, observation: Observation) -> Proposal:
        if isinstance(self.metric, ExternalAverageMetric):
            return self._external(observation, self.metric)
        return self._pods(observation, self.metric)

    def _external(self, observation: Observation, metric: ExternalAverageMetric) -> tuple[int, str]:
        usage = 0
        for pod in observation.pods:
            usage += _milli(pod, metric.readings) or 0
        return self.for_total(observation, usage, metric.target)

    def for_total(self, observation: Observation, total_milli: int, target: float) -> tuple[int, str]:
        """Of an External metric with `averageValue`: `target` of the total a replica, in thousandths."""
        target_milli = round(target * 1000)
        status_replicas = len(observation.pods) - observation.count(PodStage.TERMINATING)
        said = f"{total_milli / 1000:g} in all, {target:g} a replica"
        if status_replicas and self._within(total_milli / (target_milli * status_replicas)):
            return status_replicas, said
        return math.ceil(total_milli / target_milli), said

    def _pods(self, observation: Observation, metric: PodsMetric) -> Proposal:
        current = observation.desired
        target = round(metric.target * 1000)
        values: dict[str, int] = {}
        unready: list[str] = []
        missing: list[str] = []
        for pod in observation.pods:
            if pod.stage is PodStage.TERMINATING:
                continue
            if pod.stage in PENDING:
                unready.append(pod.name)
                continue
            value = _milli(pod, metric.readings)
            if value is None:
                missing.append(pod.name)
            else:
                values[pod.name] = value
        if not values:
            return None
        mean = sum(values.values()) // len(values)
        said = f"{_named(metric.readings)} {mean / 1000:g} a pod over {len(values)}, {metric.target:g} is the target"
        ratio = mean / target
        with_unready = bool(unready) and ratio > 1.0
        if not with_unready and not missing:
            return (current if self._within(ratio) else math.ceil(ratio * len(values))), said
        if ratio != 1.0:
            values.update(dict.fromkeys(missing, target if ratio < 1.0 else 0))
        if with_unready:
            values.update(dict.fromkeys(unready, 0))
        new_ratio = sum(values.values()) // len(values) / target
        if self._within(new_ratio) or (ratio < 1.0 < new_ratio) or (new_ratio < 1.0 < ratio):
            return current, said
        wanted = math.ceil(new_ratio * len(values))
        if (new_ratio < 1.0 and wanted > current) or (new_ratio > 1.0 and wanted < current):
            return current, said
        return wanted, said

    def _within(self, ratio: float) -> bool:
        return 1.0 - self.tolerance_down <= ratio <= 1.0 + self.tolerance_up

    def _normalised(self, now: float, current: int, wanted: int, state: HpaState) -> int:
        """The wish, damped and bounded."""
        if self.behavior is None:
            past = (n for at, n in state.recommendations if at >= now - DOWNSCALE_WINDOW_SECONDS)
            highest = max([wanted, *past])
            ceiling = min(self.max_replicas, max(2 * current, 4))
            return min(max(highest, self.min_replicas), ceiling)
        up, down = self.behavior.up, self.behavior.down
        least = min([wanted, *(n for at, n in state.recommendations if at > now - up.window_seconds)])
        most = max([wanted, *(n for at, n in state.recommendations if at > now - down.window_seconds)])
        number = min(max(current, least), most)
        if number > current:
            ceiling = min(self.max_replicas, max(current, _limit(now, current, state, up, 1)))
            return min(number, ceiling)
        if number < current:
            floor = max(self.min_replicas, min(current, _limit(now, current, state, down, -1)))
            return max(number, floor)
        return number

    def _kept(self, now: float, past: tuple[tuple[float, int], ...], wanted: int) -> tuple[tuple[float, int], ...]:
        window = DOWNSCALE_WINDOW_SECONDS
        if self.behavior is not None:
            window = max(self.behavior.up.window_seconds, self.behavior.down.window_seconds)
        return (*_since(now - window, past), (now, wanted))

    def _longest_period(self) -> float:
        behavior = self.behavior or Behavior()
        return max((p.period_seconds for p in (*behavior.up.policies, *behavior.down.policies)), default=0.0)


def _named(readings: tuple[str, ...]) -> str:
    return " + ".join(reading.replace("_", " ") for reading in readings)


def _milli(pod: Pod, readings: tuple[str, ...]) -> int | None:
    """The sum of a pod's readings in thousandths; None where it does not show all of them."""
    if pod.sample is None:
        return None
    total = 0.0
    for reading in readings:
        value: float | None = getattr(pod.sample, reading)
        if value is None or not math.isfinite(value):
            return None
        total += value
    return math.ceil(total * 1000)


def _since(cutoff: float, entries: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
    return tuple(entry for entry in entries if entry[0] >= cutoff)


def _limit(now: float, current: int, state: HpaState, rules: Rules, direction: int) -> int:
    """How far the rate policies let the number go."""
    if rules.select is Select.DISABLED:
        return current
    limits = []
    for policy in rules.policies:
        cutoff = now - policy.period_seconds
        added = sum(n for at, n in state.added if at > cutoff)
        removed = sum(n for at, n in state.removed if at > cutoff)
        start = current - added + removed
        if not policy.percent:
            limits.append(start + direction * policy.value)
        elif direction > 0:
            limits.append(math.ceil(start * (1 + policy.value / 100)))
        else:
            limits.append(int(start * (1 - policy.value / 100)))
    farthest = (rules.select is Select.MAX) == (direction > 0)
    return max(limits) if farthest else min(limits)
