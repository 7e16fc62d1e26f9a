"""Our re-implementation of Ray Serve's default policy: python/ray/serve/autoscaling_policy.py of 00590c4.

Defaults from serve/config.py. Its loop of 0.1 s counts how often a wish was repeated; here the delays are kept in
seconds, so the wish is carried out at the first look after the delay. Requests ongoing are those that vLLM runs or
has waiting, meaned over the looks of the look-back period. A pod that shows nothing counts as no requests, as a
replica does there whose reports stopped: without any data a fleet shrinks to its least after the delay.
Left out: requests held at the proxies where no replica runs; a router's counter wakes a fleet from zero instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from policies.scaling.decision import Decision
from policies.scaling.observation import Observation
from simulations.peers import reading
from simulations.peers.parameters import NotNegative, Positive, Setting
from simulations.peers.reading import Bounds, Entries

LABEL = "our re-implementation of Ray Serve's autoscaling (serve/autoscaling_policy.py at 00590c4)"


def desired_replicas(ongoing: float, running: int, *, target: float, up_factor: float, down_factor: float) -> int:
    """What the requests ask for, moved from the running number by the factor of that direction."""
    raw = ongoing / target
    factor = up_factor if raw > running else down_factor
    scaled = reading.rounded_up(running + factor * (raw - running))
    if reading.rounded_up(raw) < running and scaled == running:
        return scaled - 1  # A factor below 1 would otherwise never let it shrink.
    return scaled


@dataclass(frozen=True, slots=True)
class RayServeState:
    seen: Entries = ()
    direction: int = 0
    """1 while it wants more than was asked, -1 while fewer."""
    since: float = 0.0
    """When it began to want that."""
    arrivals_total: float | None = None


@dataclass(frozen=True, slots=True)
class RayServe:
    """One deployment's `autoscaling_config`."""

    bounds: Bounds
    target_ongoing_requests: float = 2.0
    look_back_seconds: float = 30.0
    upscale_delay_seconds: float = 30.0
    downscale_delay_seconds: float = 600.0
    to_zero_delay_seconds: float = 600.0
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0

    @property
    def reads_histograms(self) -> bool:
        return False

    def begin(self) -> RayServeState:
        return RayServeState()

    def decide(self, observation: Observation, state: RayServeState) -> tuple[Decision, RayServeState]:
        now, target = observation.time, observation.desired
        running = len(observation.ready_pods)
        now_ongoing = math.fsum(reading.values(observation.ready_pods, reading.IN_FLIGHT))
        seen = (*reading.since(state.seen, now - self.look_back_seconds), (now, now_ongoing))
        came = observation.arrivals_total
        if running == 0:
            following = RayServeState(seen, arrivals_total=came)
            woken = came is not None and came > (state.arrivals_total or 0.0)
            if woken and target == 0:
                wake = self.bounds.clamp(math.ceil(self.upscaling_factor))
                return reading.answer(observation, wake, "a request came while none was running"), following
            return reading.hold(observation, "no replica runs yet"), following
        ongoing = reading.mean(seen) or 0.0
        wish = desired_replicas(
            ongoing,
            running,
            target=self.target_ongoing_requests,
            up_factor=self.upscaling_factor,
            down_factor=self.downscaling_factor,
        )
        bounded = self.bounds.clamp(wish)
        if bounded < target and target > 1:
            bounded = max(1, bounded)  # To none only from one.
        direction = (bounded > target) - (bounded < target)
        since = state.since if direction == state.direction else now
        said = f"{ongoing:.4g} requests ongoing, {self.target_ongoing_requests:g} a replica"
        if direction and now - since >= self._delay(direction, target) - 1e-9:
            decision = reading.answer(observation, bounded, said, wanted=wish)
            return decision, RayServeState(seen, arrivals_total=came)
        waits = f"{said}, for {now - since:g} s" if direction else said
        decision = reading.answer(observation, target, waits, wanted=wish)
        return decision, RayServeState(seen, direction, since, came)

    def _delay(self, direction: int, target: int) -> float:
        if direction > 0:
            return self.upscale_delay_seconds
        return self.to_zero_delay_seconds if target == 1 else self.downscale_delay_seconds


def build(
    setting: Setting,
    *,
    target: Positive = 2.0,
    look_back: Positive = 30.0,
    upscale_delay: NotNegative = 30.0,
    downscale_delay: NotNegative = 600.0,
    upscaling_factor: Positive = 1.0,
    downscaling_factor: Positive = 1.0,
) -> RayServe:
    """`target` is `target_ongoing_requests`."""
    return RayServe(
        Bounds(setting.min_replicas, setting.max_replicas),
        target,
        look_back,
        upscale_delay,
        downscale_delay,
        downscale_delay,
        upscaling_factor,
        downscaling_factor,
    )
