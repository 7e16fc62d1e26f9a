"""Our re-implementation of the Kubernetes HorizontalPodAutoscaler, pkg/controller/podautoscaler of v1.36.3.

Pods metrics with the rules for pending and missing pods, External metrics by Value and AverageValue, several of
them together (replica_calculator.go), the stabilisation windows and rate policies of `behavior`, and the older rules
that hold where no `behavior` is given (horizontal.go). Metric values are whole thousandths, as the controller
handles them, and its float arithmetic is kept as it is. The real controller's decisions are kept in tests/data/hpa,
and this gives the same, sync by sync.
Left out: CPU and memory, metrics of objects, the HPAScaleToZero gate (alpha and off by default).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from policies.scaling.decision import Binding, Decision
from policies.scaling.observation import BOOTING, Observation, Pod, PodStage

LABEL = "our re-implementation of Kubernetes HPA (pkg/controller/podautoscaler, version read: v1.36.3)"
DOWNSCALE_WINDOW_SECONDS = 300.0
"""kube-controller-manager --horizontal-pod-autoscaler-downscale-stabilization."""
PENDING = (PodStage.CREATED, PodStage.UNSCHEDULABLE, PodStage.SCHEDULED)
OVERFLOWN = 2**63 - 1
MOST_REPLICAS = 2**31 - 1

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
    nothing_is_zero: bool = False
    """What its server answers where no pod shows the metric: 0, as KEDA's does, or nothing."""


@dataclass(frozen=True, slots=True)
class ExternalValueMetric:
    """One number for the whole target, to be kept at the target: `type: External` with `value`."""

    readings: tuple[str, ...]
    target: float
    nothing_is_zero: bool = False


Metric = PodsMetric | ExternalAverageMetric | ExternalValueMetric

Entries = tuple[tuple[float, int], ...]
"""Numbers with their times; not always in order of time, see `_stored`."""


@dataclass(frozen=True, slots=True)
class HpaState:
    """What the controller remembers of one HPA."""

    synced_at: float = -math.inf
    recommendations: Entries = ()
    """Raw ones."""
    added: Entries = ()
    removed: Entries = ()


@dataclass(frozen=True, slots=True)
class Hpa:
    """One HorizontalPodAutoscaler."""

    metrics: tuple[Metric, ...]
    min_replicas: int
    max_replicas: int
    behavior: Behavior | None = None
    tolerance_up: float = 0.1
    tolerance_down: float = 0.1
    sync_seconds: float = 15.0
    downscale_window_seconds: float = DOWNSCALE_WINDOW_SECONDS
    """Of the older rules; with a `behavior` it says its own."""

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
        # The first it records is the number it finds, so that a new HPA does not shrink before its window is through.
        recommendations = ((now, current),) if math.isinf(state.synced_at) else state.recommendations
        state = replace(state, synced_at=now, recommendations=recommendations)
        if current == 0:
            said = "scaling is disabled at zero replicas"
            return self._decision(observation, current, current, said), state
        if current > self.max_replicas or current < self.min_replicas:
            wanted = number = min(max(current, self.min_replicas), self.max_replicas)
            said = f"{current} is outside {self.min_replicas}…{self.max_replicas}"
        else:
            proposal = propose(observation)
            if proposal is None:
                said = "a metric cannot be read, and no other is above its target"
                return self._decision(observation, current, current, said), state
            wanted, said = proposal
            number = self._normalised(now, current, wanted, state)
            state = replace(state, recommendations=self._recommended(now, wanted, state.recommendations))
        return self._decision(observation, wanted, number, said), self._rescaled(now, current, number, state)

    def _decision(self, observation: Observation, wanted: int, number: int, said: str) -> Decision:
        sentence = f"{said}: {wanted} wanted"
        if number > wanted:
            sentence += f", {number} kept: what was wanted lately, and the bounds"
        elif number < wanted:
            sentence += f", {number} allowed: bounds and rate policies"
        ready = observation.count(PodStage.READY)
        coming = observation.count(*BOOTING)
        held = Binding.HOLD if number == observation.desired else Binding.QUEUE
        return Decision(
            observation.time, number, wanted, observation.desired, held, sentence, ready=ready, coming=coming
        )

    def _proposal(self, observation: Observation) -> Proposal:
        return self.greatest(observation, [self._of(metric, observation) for metric in self.metrics])

    def greatest(self, observation: Observation, proposals: Sequence[Proposal]) -> Proposal:
        """Of several metrics; where one of them cannot be read, the others may not shrink the target."""
        valid = [proposal for proposal in proposals if proposal is not None]
        best = max(valid, key=lambda proposal: proposal[0], default=None)
        if best is None or (len(valid) < len(proposals) and best[0] < observation.desired):
            return None
        return best

    def _of(self, metric: Metric, observation: Observation) -> Proposal:
        shown = {pod.name: _milli(pod, metric.readings) for pod in observation.pods}
        values = {name: value for name, value in shown.items() if value is not None}
        if isinstance(metric, PodsMetric):
            return self.for_pods(observation, values, metric.target, _named(metric.readings))
        if not values and not metric.nothing_is_zero:
            return None
        total = sum(values.values())
        if isinstance(metric, ExternalAverageMetric):
            return self.for_total(observation, total, metric.target)
        return self.for_value(observation, total, metric.target)

    def for_total(self, observation: Observation, total_milli: int, target: float) -> tuple[int, str]:
        """Of an External metric with `averageValue`: `target` of the total a replica, in thousandths."""
        target_milli = _target_milli(target)
        status_replicas = len(observation.pods) - observation.count(PodStage.TERMINATING)
        said = f"{total_milli / 1000:g} in all, {target:g} a replica"
        if total_milli < 0:  # the controller takes a sum below zero for one that overflowed
            total_milli = OVERFLOWN
        if status_replicas and self._within(total_milli / (target_milli * status_replicas)):
            return status_replicas, said
        return min(MOST_REPLICAS, math.ceil(total_milli / target_milli)), said

    def for_value(self, observation: Observation, total_milli: int, target: float) -> Proposal:
        """Of an External metric with `value`: the ready pods, those that drain included, times total over target."""
        ratio = total_milli / _target_milli(target)
        said = f"{total_milli / 1000:g} in all, {target:g} is the target"
        if self._within(ratio):
            return observation.desired, said
        if not observation.pods:
            return None
        return min(MOST_REPLICAS, math.ceil(ratio * sum(_is_ready(pod) for pod in observation.pods))), said

    def for_pods(self, observation: Observation, values_milli: Mapping[str, int], target: float, name: str) -> Proposal:
        """Of a Pods metric, in thousandths by the pods that show it."""
        current = observation.desired
        target_milli = _target_milli(target)
        living = [pod for pod in observation.pods if pod.stage is not PodStage.TERMINATING]
        unready = [pod.name for pod in living if pod.stage in PENDING]
        missing = [pod.name for pod in living if pod.stage not in PENDING and pod.name not in values_milli]
        values = {
            pod.name: values_milli[pod.name] for pod in living if pod.stage not in PENDING and pod.name in values_milli
        }
        if not values:
            return None
        mean = sum(values.values()) // len(values)
        said = f"{name} {mean / 1000:g} a pod over {len(values)}, {target:g} is the target"
        ratio = mean / target_milli
        with_unready = bool(unready) and ratio > 1.0
        if not with_unready and not missing:
            return (current if self._within(ratio) else math.ceil(ratio * len(values))), said
        if ratio != 1.0:
            values.update(dict.fromkeys(missing, target_milli if ratio < 1.0 else 0))
        if with_unready:
            values.update(dict.fromkeys(unready, 0))
        new_ratio = sum(values.values()) // len(values) / target_milli
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
            past = (n for at, n in state.recommendations if at >= now - self.downscale_window_seconds)
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

    def _recommended(self, now: float, wanted: int, past: Entries) -> Entries:
        window = self.downscale_window_seconds
        if self.behavior is not None:
            window = max(self.behavior.up.window_seconds, self.behavior.down.window_seconds)
        return _stored(past, now, wanted, window)

    def _rescaled(self, now: float, before: int, after: int, state: HpaState) -> HpaState:
        if self.behavior is None or before == after:
            return state
        if after > before:
            return replace(state, added=_stored(state.added, now, after - before, _longest(self.behavior.up)))
        return replace(state, removed=_stored(state.removed, now, before - after, _longest(self.behavior.down)))


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
    return math.ceil(round(total * 1000, 6))  # 0.07 is 70 thousandths, and 0.07 * 1000 a little more


def _target_milli(target: float) -> int:
    """In whole thousandths as a Kubernetes quantity gives them: rounded up, and no more than 64 bits hold."""
    return max(1, math.ceil(round(min(target * 1000, OVERFLOWN), 6)))


def _is_ready(pod: Pod) -> bool:
    """As the controller counts for a `value`: whether the pod is on its way out it does not ask."""
    return pod.stage is PodStage.READY or (pod.stage is PodStage.TERMINATING and pod.ready_at is not None)


def _stored(entries: Entries, now: float, number: int, keep_seconds: float) -> Entries:
    """With a new one, in the place of the last that is older than that; other outdated ones stay where they are.

    Scale-downs outdated by their own periods may so still count in a longer period of the way up, until replaced.
    """
    outdated = [place for place, (at, _) in enumerate(entries) if at < now - keep_seconds]
    if not outdated:
        return (*entries, (now, number))
    place = outdated[-1]
    return (*entries[:place], (now, number), *entries[place + 1 :])


def _longest(rules: Rules) -> float:
    return max((policy.period_seconds for policy in rules.policies), default=0.0)


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
