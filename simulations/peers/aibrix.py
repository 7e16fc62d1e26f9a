"""Our re-implementation of AIBrix's PodAutoscaler, pkg/controller/podautoscaler of e3e10f9, in two readings.

*As coded* (algorithm/{apa,kpa}.go, metrics/{client,fetcher}.go, the controller): a ready pod whose metric cannot be
read counts as 0; the mean over the pods is not multiplied by their number in its KPA; the spec's replicas count as
serving while they boot; and while it shrinks it takes the *lowest* recommendation of the cooldown window.
*As documented* (docs/source/features/autoscaling/metric-based-autoscaling.rst): "KPA: it is from Knative", so the
metric over all pods, and panic never shrinks; a cooldown is a stabilisation window as the HPA has one; a pod that
cannot be read is left out.
`guard` adds what came later, pull request 2671: replicas not ready count as 0 when growing and as on target when
shrinking. Defaults from context/context.go; the metric and target are those of the documentation's example.
Left out: several metrics, schedules, roles, and the GPU optimiser, which needs profiles taken beforehand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from policies.scaling.decision import Binding, Decision
from policies.scaling.observation import Observation
from simulations.peers import reading
from simulations.peers.parameters import NotNegative, Positive, Setting
from simulations.peers.reading import Bounds, Entries

LABEL = "our re-implementation of AIBrix's PodAutoscaler (pkg/controller/podautoscaler at e3e10f9), as coded"
LABEL_DOCUMENTED = "our re-implementation of AIBrix's PodAutoscaler (its documentation at e3e10f9), as documented"
INTERVAL_SECONDS = 10.0

Algorithm = Literal["apa", "kpa"]
Metric = Literal["kv-cache", "in-flight", "running", "waiting"]


@dataclass(frozen=True, slots=True)
class AibrixLaw:
    """The scaling context, as its annotations set it."""

    target: float
    """Of the metric, a pod."""
    max_scale_up_rate: float = 2.0
    max_scale_down_rate: float = 2.0
    tolerance_up: float = 0.1
    tolerance_down: float = 0.1
    panic_threshold: float = 2.0

    def most(self, replicas: int) -> int:
        return max(1, math.ceil(self.max_scale_up_rate * replicas))

    def least(self, replicas: int) -> int:
        return math.floor(replicas / self.max_scale_down_rate)

    def outside(self, metric: float) -> bool:
        """Whether the metric leaves the band around its target."""
        ratio = metric / self.target
        return ratio > 1.0 + self.tolerance_up or ratio < 1.0 - self.tolerance_down


def apa(law: AibrixLaw, replicas: int, per_pod: float) -> int:
    """As many as the mean of a pod asks for, at most doubled or halved."""
    if not law.outside(per_pod):
        return replicas
    wanted = reading.rounded_up(replicas * (per_pod / law.target))
    if per_pod > law.target:
        # Only here it does not keep one pod at least, so that none stays none.
        return min(wanted, math.ceil(law.max_scale_up_rate * replicas))
    return max(wanted, law.least(replicas))


def kpa(law: AibrixLaw, replicas: int, stable: float, panic: float) -> int:
    """As coded: the metric's mean over its target is a number of pods, and nothing is remembered of a panic."""
    in_panic = stable <= 0 or panic / stable > law.panic_threshold
    wishes = []
    for metric in (stable, panic):
        wish = reading.rounded_up(metric / law.target) if law.outside(metric) else replicas
        wishes.append(min(max(wish, law.least(replicas)), law.most(replicas)))
    return max(wishes) if in_panic else wishes[0]


@dataclass(frozen=True, slots=True)
class AibrixState:
    judged_at: float | None = None
    seen: Entries = ()
    """The metric's mean over the pods, at each look of the longer window."""
    recommended: tuple[tuple[float, int], ...] = ()
    panic_at: float | None = None
    """As documented only."""
    most_in_panic: int = 0


@dataclass(frozen=True, slots=True)
class Aibrix:
    """One PodAutoscaler with one pod metric."""

    law: AibrixLaw
    bounds: Bounds
    as_documented: bool
    algorithm: Algorithm = "apa"
    readings: tuple[str, ...] = reading.KV_CACHE
    stable_window_seconds: float = 180.0
    panic_window_seconds: float = 60.0
    up_cooldown_seconds: float = 0.0
    down_cooldown_seconds: float = 300.0
    guard: bool = False

    @property
    def reads_histograms(self) -> bool:
        return False

    def begin(self) -> AibrixState:
        return AibrixState()

    def decide(self, observation: Observation, state: AibrixState) -> tuple[Decision, AibrixState]:
        now, replicas = observation.time, observation.desired
        if not reading.due(now, state.judged_at, INTERVAL_SECONDS):
            return reading.hold(observation, "between two of its turns"), state
        seen = reading.since(state.seen, now - self.stable_window_seconds)
        shown = self._mean(observation)
        if shown is not None:
            seen = (*seen, (now, shown))
        stable = reading.mean(seen)
        panic = reading.mean(reading.since(seen, now - self.panic_window_seconds))
        if stable is None or panic is None:
            following = AibrixState(now, seen, state.recommended, state.panic_at, state.most_in_panic)
            return reading.hold(observation, "no pod shows the metric"), following
        panic_at, most_in_panic = state.panic_at, state.most_in_panic
        if self.algorithm == "apa":
            wish = apa(self.law, replicas, stable)
        elif not self.as_documented:
            wish = kpa(self.law, replicas, stable, panic)
        else:
            wish, panic_at, most_in_panic = self._knative(observation, stable, panic, state)
        recommendation = self.bounds.clamp(wish)
        if self.guard:
            recommendation = self._guarded(observation, recommendation, stable, panic)
        asked, recommended = self._damped(now, replicas, recommendation, state)
        said = f"{stable:.4g} a pod over {self.stable_window_seconds:g} s, {self.law.target:g} is the target"
        binding = Binding.KV_CACHE if self.readings == reading.KV_CACHE else Binding.QUEUE
        decision = reading.answer(observation, self.bounds.clamp(asked), said, wanted=wish, binding=binding)
        return decision, AibrixState(now, seen, recommended, panic_at, most_in_panic)

    def _mean(self, observation: Observation) -> float | None:
        """Over the ready pods, which alone are asked."""
        pods = observation.ready_pods
        shown = reading.values(pods, self.readings)
        if self.as_documented:
            return math.fsum(shown) / len(shown) if shown else None
        return math.fsum(shown) / len(pods) if pods else None

    def _knative(
        self, observation: Observation, stable: float, panic: float, state: AibrixState
    ) -> tuple[int, float | None, int]:
        """As documented: over all ready pods, and a panic lasts until the longer window is through without one."""
        now, ready = observation.time, max(1, len(observation.ready_pods))
        wishes = []
        for metric in (stable, panic):
            wish = reading.rounded_up(metric * ready / self.law.target) if self.law.outside(metric) else ready
            wishes.append(min(max(wish, self.law.least(ready)), self.law.most(ready)))
        panic_at, most = state.panic_at, state.most_in_panic
        if panic > stable * self.law.panic_threshold:
            panic_at = now
        elif panic_at is not None and panic_at + self.stable_window_seconds < now:
            panic_at, most = None, 0
        if panic_at is None:
            return wishes[0], None, 0
        most = max(most, *wishes)
        return most, panic_at, most

    def _guarded(self, observation: Observation, recommendation: int, stable: float, panic: float) -> int:
        """Pull request 2671: what is not ready yet counts as nothing to grow by, and as on target to shrink by."""
        replicas = observation.desired
        ready = min(len(observation.ready_pods), replicas)
        if ready == replicas or recommendation == replicas or replicas == 0:
            return recommendation
        target = self.law.target
        metric = stable
        if self.algorithm == "kpa" and (stable <= 0 or panic / stable > self.law.panic_threshold):
            metric = panic
        if recommendation > replicas:
            diluted = metric * ready / replicas
            share = diluted / target * (replicas if self.algorithm == "apa" else 1)
            return min(recommendation, max(replicas, reading.rounded_up(share)))
        load = (metric * ready + target * (replicas - ready)) / target
        return max(recommendation, min(replicas, reading.rounded_up(load)))

    def _damped(
        self, now: float, replicas: int, recommendation: int, state: AibrixState
    ) -> tuple[int, tuple[tuple[float, int], ...]]:
        longest = max(self.up_cooldown_seconds, self.down_cooldown_seconds)
        kept = (*(wish for wish in state.recommended if wish[0] > now - longest), (now, recommendation))
        if recommendation == replicas:
            return replicas, kept
        up = recommendation > replicas
        cutoff = now - (self.up_cooldown_seconds if up else self.down_cooldown_seconds)
        window = [number for at, number in kept if at > cutoff] or [recommendation]
        if not self.as_documented:
            return (max(window) if up else min(window)), kept
        # As the HPA does: up no higher than the lowest wish of the window, down no lower than the highest.
        return (max(replicas, min(window)) if up else min(replicas, max(window))), kept


def build(
    setting: Setting,
    *,
    documented: bool = False,
    algorithm: Algorithm = "apa",
    metric: Metric = "kv-cache",
    target: Positive = 0.5,
    stable_window: Positive = 180.0,
    panic_window: Positive = 60.0,
    panic_threshold: Positive = 2.0,
    up_cooldown: NotNegative = 0.0,
    down_cooldown: NotNegative = 300.0,
    up_tolerance: NotNegative = 0.1,
    down_tolerance: NotNegative = 0.1,
    guard: bool = False,
) -> Aibrix:
    """As coded, unless `documented`."""
    law = AibrixLaw(target, tolerance_up=up_tolerance, tolerance_down=down_tolerance, panic_threshold=panic_threshold)
    return Aibrix(
        law,
        Bounds(setting.min_replicas, setting.max_replicas),
        documented,
        algorithm,
        reading.METRICS[metric],
        stable_window,
        panic_window,
        up_cooldown,
        down_cooldown,
        guard,
    )
