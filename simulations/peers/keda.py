"""Our re-implementation of KEDA, pkg/scaling/executor of main at 8b4f083 (after 2.20), with the HPA that it drives.

It decides itself between none (or the idle number) and some, at its polling interval; above that it serves the sum
to an HPA as an External metric by AverageValue, which knows nothing of pending pods. A query that answers nothing is
0 (`ignoreNullValues` is true by default), so a metric of the pods, which is not there at zero replicas, never wakes
a fleet; a router's counter of arrivals, where one is shown, does. The threshold and the metric by default are those
of the chart of vLLM's production stack, its query summed over the pods.
Fallback, modifiers, cron and several triggers are in `simulations.policy_files.keda_law`, for ScaledObjects of a file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from policies.scaling.decision import Decision
from policies.scaling.observation import Observation
from simulations.peers import reading
from simulations.peers.hpa import ExternalAverageMetric, Hpa, HpaState
from simulations.peers.parameters import NotNegative, Positive, Setting
from simulations.peers.reading import Bounds

LABEL = "our re-implementation of KEDA (pkg/scaling/executor at 8b4f083) over Kubernetes HPA (v1.36.3)"


@dataclass(frozen=True, slots=True)
class KedaState:
    hpa: HpaState
    polled_at: float | None = None
    active_at: float | None = None
    """When its trigger was last active."""
    arrivals_total: float | None = None


@dataclass(frozen=True, slots=True)
class Keda:
    """One ScaledObject with one trigger."""

    hpa: Hpa
    """Its least is one replica at least."""
    bounds: Bounds
    readings: tuple[str, ...] = reading.WAITING
    activation_threshold: float = 0.0
    polling_seconds: float = 30.0
    cooldown_seconds: float = 300.0
    idles_at_zero: bool = False
    """`idleReplicaCount: 0`, the only value it supports."""

    @property
    def reads_histograms(self) -> bool:
        return False

    def begin(self) -> KedaState:
        return KedaState(self.hpa.begin())

    def decide(self, observation: Observation, state: KedaState) -> tuple[Decision, KedaState]:
        now = observation.time
        following = state
        if reading.due(now, state.polled_at, self.polling_seconds):
            active = self._is_active(observation, state)
            following = KedaState(state.hpa, now, now if active else state.active_at, observation.arrivals_total)
            if active and observation.desired == 0:
                wake = max(1, self.bounds.least)
                return reading.answer(observation, wake, "the trigger is active again"), following
            if not active and self._may_rest(now, following):
                return reading.answer(observation, 0, "the trigger was inactive for its cooldown"), following
        if observation.desired == 0:
            return reading.hold(observation, "the trigger is inactive"), following
        decision, hpa = self.hpa.decide(observation, state.hpa)
        return decision, KedaState(hpa, following.polled_at, following.active_at, following.arrivals_total)

    def _is_active(self, observation: Observation, state: KedaState) -> bool:
        came = observation.arrivals_total
        if observation.desired == 0 and came is not None:
            return came > (state.arrivals_total or 0.0)
        return math.fsum(reading.values(observation.pods, self.readings)) > self.activation_threshold

    def _may_rest(self, now: float, state: KedaState) -> bool:
        if self.bounds.least > 0 and not self.idles_at_zero:
            return False
        return state.active_at is None or state.active_at + self.cooldown_seconds < now


def build(
    setting: Setting,
    *,
    metric: Literal["waiting", "in-flight", "running", "kv-cache"] = "waiting",
    threshold: Positive = 5.0,
    activation: NotNegative = 0.0,
    polling: Positive = 30.0,
    cooldown: NotNegative = 300.0,
    idle_at_zero: bool = False,
) -> Keda:
    """`threshold` of the sum over all pods a replica."""
    readings = reading.METRICS[metric]
    served = ExternalAverageMetric(readings, threshold, nothing_is_zero=True)
    return Keda(
        Hpa((served,), max(1, setting.min_replicas), setting.max_replicas),
        Bounds(setting.min_replicas, setting.max_replicas),
        readings,
        activation,
        polling,
        cooldown,
        idle_at_zero,
    )
