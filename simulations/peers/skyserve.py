"""Our re-implementation of SkyServe's request-rate autoscaler: sky/serve/autoscalers.py of SkyPilot 4b81f5d0.

Defaults from sky/serve/constants.py. It has no default for `target_qps_per_replica` (without one it never scales):
2.5 is what its documentation shows. Its balancer notes the time of each request; here arrivals are rebuilt from the
pods' counters, or read from a router's, so those of the last minute are known to the length of a look.
Without data no requests are counted, as where the balancer reports none: the fleet shrinks to its least.
Left out: spot replicas with on-demand ones in their stead, and rates by kind of GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from policies.scaling.decision import Decision
from policies.scaling.observation import Observation
from simulations.peers import reading
from simulations.peers.parameters import Count, NotNegative, Positive, Setting
from simulations.peers.reading import Bounds, Entries

LABEL = "our re-implementation of SkyServe's autoscaler (sky/serve/autoscalers.py at 4b81f5d0)"
INTERVAL_SECONDS = 20.0
INTERVAL_WITHOUT_REPLICAS_SECONDS = 5.0
QPS_WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class SkyServeState:
    target: int | None = None
    """Its own number; None before the first look."""
    judged_at: float | None = None
    direction: int = 0
    since: float = 0.0
    """When it began to want another number in that direction."""
    arrived: Entries = ()
    previous: Observation | None = None


@dataclass(frozen=True, slots=True)
class SkyServe:
    """One service's `replica_policy`."""

    bounds: Bounds
    target_qps_per_replica: float
    upscale_delay_seconds: float = 300.0
    downscale_delay_seconds: float = 1200.0
    overprovision: int = 0

    @property
    def reads_histograms(self) -> bool:
        return True  # Arrivals are rebuilt from first tokens among others.

    def begin(self) -> SkyServeState:
        return SkyServeState()

    def decide(self, observation: Observation, state: SkyServeState) -> tuple[Decision, SkyServeState]:
        now = observation.time
        arrived = reading.since(state.arrived, now - QPS_WINDOW_SECONDS)
        done = reading.traffic(state.previous, observation)
        if done is not None and done.arrivals:
            arrived = (*arrived, (now, done.arrivals))
        target = self.bounds.clamp(observation.desired) if state.target is None else state.target
        interval = INTERVAL_SECONDS if target else INTERVAL_WITHOUT_REPLICAS_SECONDS
        if not reading.due(now, state.judged_at, interval):
            following = SkyServeState(target, state.judged_at, state.direction, state.since, arrived, observation)
            return reading.answer(observation, self._asked(target), "between two of its turns"), following
        qps = math.fsum(number for _, number in arrived) / QPS_WINDOW_SECONDS
        wish = reading.rounded_up(qps / self.target_qps_per_replica)
        number = self.bounds.clamp(wish)
        direction = (number > target) - (number < target)
        since = state.since if direction == state.direction else now
        # So many turns in a row: the first of them is the turn that began to want it.
        delay = self.upscale_delay_seconds if direction > 0 else self.downscale_delay_seconds
        said = f"{qps:.4g} requests/s over a minute, {self.target_qps_per_replica:g} a replica"
        if direction and (target == 0 or now - since >= delay - INTERVAL_SECONDS - 1e-9):
            target, direction = number, 0
        elif direction:
            said += f", {number} wanted for {now - since:g} s"
        decision = reading.answer(observation, self._asked(target), said, wanted=wish)
        return decision, SkyServeState(target, now, direction, since, arrived, observation)

    def _asked(self, target: int) -> int:
        return target + self.overprovision


def build(
    setting: Setting,
    *,
    qps: Positive = 2.5,
    upscale_delay: NotNegative = 300.0,
    downscale_delay: NotNegative = 1200.0,
    overprovision: Count = 0,
) -> SkyServe:
    """`qps` is `target_qps_per_replica`; `overprovision` comes on top of `max_replicas`, as there."""
    bounds = Bounds(setting.min_replicas, setting.max_replicas)
    return SkyServe(bounds, qps, upscale_delay, downscale_delay, overprovision)
