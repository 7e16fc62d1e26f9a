"""Which replicas serve now and which are coming, each from its own expected time."""

from __future__ import annotations

from dataclasses import dataclass

from policies.scaling.observation import Observation, Pod, PodStage

STUCK = 2.0
"""A start that has taken this many times the lead time is no supply: it crashes or hangs."""


@dataclass(frozen=True, slots=True)
class Supply:
    """Serving now, and the expected ready times of those that boot, soonest first."""

    ready: int
    coming_at: tuple[float, ...]
    unschedulable: int
    terminating: int
    stuck: int

    @property
    def coming(self) -> int:
        return len(self.coming_at)

    def replicas_at(self, time: float) -> int:
        return self.ready + sum(at <= time for at in self.coming_at)

    def replica_seconds(self, start: float, end: float) -> float:
        """∫ of the replicas serving over [start, end]."""
        return self.ready * (end - start) + sum(max(0.0, end - max(start, at)) for at in self.coming_at)


def supply(now: Observation, *, lead_seconds: float, cold_lead_seconds: float, cold_pull_seconds: float) -> Supply:
    """Ready pods serve; a booting one is expected when its own lead time has passed, or else any moment now.

    The lead times are from when a pod has a node, which may be long after its creation.
    """
    ready = unschedulable = terminating = stuck = 0
    coming: list[float] = []
    for pod in now.pods:
        if pod.stage is PodStage.READY:
            ready += 1
        elif pod.stage is PodStage.UNSCHEDULABLE:
            unschedulable += 1
        elif pod.stage is PodStage.TERMINATING:
            terminating += 1
        else:
            lead = cold_lead_seconds if _pulls(pod, now.time, cold_pull_seconds) else lead_seconds
            begun = pod.created_at if pod.scheduled_at is None else pod.scheduled_at
            if now.time - begun > STUCK * lead:
                stuck += 1
            else:
                coming.append(max(now.time, begun + lead))
    return Supply(ready, tuple(sorted(coming)), unschedulable, terminating, stuck)


def _pulls(pod: Pod, time: float, cold_pull_seconds: float) -> bool:
    """Whether the pod pulls, or has pulled, its image onto a cold node."""
    if pod.scheduled_at is None:
        return False
    return (time if pod.started_at is None else pod.started_at) - pod.scheduled_at > cold_pull_seconds
