"""Our re-implementation of the Knative Pod Autoscaler: `Scale` in pkg/autoscaler/scaling/autoscaler.go of 98e5ef9.

Defaults from config/core/configmaps/autoscaler.yaml. What stands in for what cannot be seen here: its queue proxies
report a time-weighted concurrency every second, we have the requests running and waiting at each scrape, so the
panic window of 6 s holds the last look alone where looks are further apart. Requests held where no pod is ready
(its activator counts those) are not shown, only a router's counter is: it wakes a fleet from zero by one replica.
Left out: the activator's burst capacity, which routes and does not scale, and what is another revision's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from policies.scaling.decision import Decision
from policies.scaling.observation import Observation
from simulations.peers import reading
from simulations.peers.parameters import Count, NotNegative, Positive, Setting, Share
from simulations.peers.reading import Bounds, Entries

LABEL = "our re-implementation of Knative's KPA (pkg/autoscaler/scaling/autoscaler.go at 98e5ef9)"
TARGETS = {"concurrency": 100.0, "rps": 200.0}
"""container-concurrency-target-default and requests-per-second-target-default."""


@dataclass(frozen=True, slots=True)
class KpaLaw:
    """The spec of a decider."""

    target: float
    """Of the metric, a replica."""
    panic_threshold: float = 2.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    stable_window_seconds: float = 60.0
    scale_down_delay_seconds: float = 0.0
    activation_scale: int = 1


@dataclass(frozen=True, slots=True)
class KpaMemory:
    """What the autoscaler remembers."""

    panic_at: float | None = None
    """Since when, or until when, it panics; None in stable mode."""
    max_panic: int = 0
    delayed: tuple[tuple[float, int], ...] = ()
    """Wishes of the scale-down delay."""

    @classmethod
    def starting(cls, now: float, ready: int) -> KpaMemory:
        """It begins in panic over more than one pod: without a history it would shrink in ignorance."""
        return cls(now if ready > 1 else None, ready)


def scale(
    law: KpaLaw, memory: KpaMemory, *, now: float, ready: int, stable: float, panic: float
) -> tuple[int, KpaMemory]:
    """Pods wanted for the metric's means over both windows, in all pods together."""
    counted = max(1, ready)
    most = math.ceil(law.max_scale_up_rate * counted)
    least = math.floor(counted / law.max_scale_down_rate)
    for_stable, for_panic = reading.rounded_up(stable / law.target), reading.rounded_up(panic / law.target)
    wanted = min(max(for_stable, least), most)
    in_panic = min(max(for_panic, least), most)
    if law.activation_scale > 1:
        wanted = max(wanted, law.activation_scale) if for_stable > 0 else wanted
        in_panic = max(in_panic, law.activation_scale) if for_panic > 0 else in_panic
    panic_at, max_panic = memory.panic_at, memory.max_panic
    if for_panic / counted >= law.panic_threshold:
        panic_at = now
    elif panic_at is not None and panic_at + law.stable_window_seconds < now:
        panic_at, max_panic = None, 0
    if panic_at is not None:
        wanted = max_panic = max(wanted, in_panic, max_panic)
    delayed: tuple[tuple[float, int], ...] = ()
    if law.scale_down_delay_seconds > 0:
        cutoff = now - law.scale_down_delay_seconds
        delayed = (*(wish for wish in memory.delayed if wish[0] > cutoff), (now, wanted))
        wanted = max(number for _, number in delayed)
    return wanted, KpaMemory(panic_at, max_panic, delayed)


@dataclass(frozen=True, slots=True)
class KpaState:
    memory: KpaMemory | None = None
    """None before the first look."""
    seen: Entries = ()
    """The metric over all ready pods, at each look of the stable window."""
    previous: Observation | None = None
    zero_since: float | None = None


@dataclass(frozen=True, slots=True)
class Kpa:
    """One revision's autoscaler with its bounds."""

    law: KpaLaw
    bounds: Bounds
    metric: Literal["concurrency", "rps"] = "concurrency"
    panic_window_seconds: float = 6.0
    zero_grace_seconds: float = 30.0

    @property
    def reads_histograms(self) -> bool:
        return self.metric == "rps"

    def begin(self) -> KpaState:
        return KpaState()

    def decide(self, observation: Observation, state: KpaState) -> tuple[Decision, KpaState]:
        now, ready = observation.time, len(observation.ready_pods)
        memory = state.memory or KpaMemory.starting(now, ready)
        seen = reading.since(state.seen, now - self.law.stable_window_seconds)
        total = self._total(observation, state.previous)
        if total is not None:
            seen = (*seen, (now, total))
        stable = reading.mean(seen)
        if stable is None:
            return self._without_data(observation, KpaState(memory, seen, observation, state.zero_since), state)
        panic = reading.mean(reading.since(seen, now - self.panic_window_seconds)) or 0.0
        wanted, memory = scale(self.law, memory, now=now, ready=ready, stable=stable, panic=panic)
        mode = "stable" if memory.panic_at is None else "panic"
        said = f"{mode}: {stable:.4g} in the long window, {panic:.4g} in the short, {self.law.target:g} a replica"
        asked, zero_since = self.bounds.clamp(wanted), None
        if asked == 0:
            zero_since = now if state.zero_since is None else state.zero_since
            if now - zero_since < self.zero_grace_seconds:
                asked = min(1, observation.desired)
        decision = reading.answer(observation, asked, said, wanted=wanted)
        return decision, KpaState(memory, seen, observation, zero_since)

    def _without_data(
        self, observation: Observation, following: KpaState, state: KpaState
    ) -> tuple[Decision, KpaState]:
        before = None if state.previous is None else state.previous.arrivals_total
        came = observation.arrivals_total
        if observation.desired == 0 and before is not None and came is not None and came > before:
            return reading.answer(observation, self.bounds.clamp(1), "a request came while none was ready"), following
        return reading.hold(observation, "no data to scale on"), following

    def _total(self, observation: Observation, previous: Observation | None) -> float | None:
        """Over the ready pods; one that shows nothing counts as the mean of those that do, as its scraper has it."""
        pods = observation.ready_pods
        if self.metric == "rps":
            done = reading.traffic(previous, observation)
            return None if done is None or not done.pods or not done.seconds else done.arrivals / done.seconds
        shown = reading.values(pods, reading.IN_FLIGHT)
        return math.fsum(shown) / len(shown) * len(pods) if shown else None


def build(
    setting: Setting,
    *,
    metric: Literal["concurrency", "rps"] = "concurrency",
    target: Positive | None = None,
    utilization: Share = 0.7,
    stable_window: Positive = 60.0,
    panic_window_percentage: Positive = 10.0,
    panic_threshold: Positive = 2.0,
    max_scale_up_rate: Positive = 1000.0,
    max_scale_down_rate: Positive = 2.0,
    scale_down_delay: NotNegative = 0.0,
    activation_scale: Count = 1,
) -> Kpa:
    """`target` is 100 requests at once, or 200 a second, of which a share is used: 70 and 140 by default."""
    law = KpaLaw(
        max(0.01, (TARGETS[metric] if target is None else target) * utilization),
        panic_threshold=panic_threshold,
        max_scale_up_rate=max_scale_up_rate,
        max_scale_down_rate=max_scale_down_rate,
        stable_window_seconds=stable_window,
        scale_down_delay_seconds=scale_down_delay,
        activation_scale=activation_scale,
    )
    # Its panic window is rounded to whole seconds.
    panic_window = max(1.0, float(round(stable_window * panic_window_percentage / 100)))
    bounds = Bounds(setting.min_replicas, setting.max_replicas)
    return Kpa(law, bounds, metric, panic_window)
