"""What the peers share: how they read an observation, keep a window of seconds, and answer.

Their laws differ; what they can see does not. A reading is a field of a pod's sample, or several added up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from policies.scaling.decision import Binding, Decision
from policies.scaling.demand import Activity, activity
from policies.scaling.observation import BOOTING, Observation, Pod, PodSample, PodStage

WAITING = ("requests_waiting",)
RUNNING = ("requests_running",)
IN_FLIGHT = ("requests_running", "requests_waiting")
KV_CACHE = ("kv_cache_usage",)
METRICS: Mapping[str, tuple[str, ...]] = {
    "in-flight": IN_FLIGHT,
    "running": RUNNING,
    "waiting": WAITING,
    "kv-cache": KV_CACHE,
}
"""What a policy that scales on any metric may be told to read, by the name it has on the command line."""

Entries = tuple[tuple[float, float], ...]
"""Values with the time each was read, oldest first."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Fewest and most replicas."""

    least: int
    most: int

    def clamp(self, replicas: int) -> int:
        return max(self.least, min(self.most, replicas))


def value(sample: PodSample | None, readings: Sequence[str]) -> float | None:
    """The readings of one pod added up; None where it does not show all of them, as finite numbers."""
    if sample is None:
        return None
    total = 0.0
    for reading in readings:
        number: float | None = getattr(sample, reading)
        if number is None or not math.isfinite(number):
            return None
        total += number
    return total


def values(pods: Iterable[Pod], readings: Sequence[str]) -> list[float]:
    """Of the pods that show it, in their order."""
    found = (value(pod.sample, readings) for pod in pods)
    return [number for number in found if number is not None]


def replicas_there(observation: Observation) -> int:
    """Pods created and not asked to go: what a Deployment's status calls its replicas."""
    return len(observation.pods) - observation.count(PodStage.TERMINATING)


def traffic(previous: Observation | None, observation: Observation) -> Activity | None:
    """What happened since the previous look, rebuilt from the pods' counters; None without one."""
    return activity(previous, observation, hang_ups={}, max_gap_seconds=math.inf)


def since(entries: Entries, cutoff: float) -> Entries:
    """Those read after the cutoff."""
    return tuple(entry for entry in entries if entry[0] > cutoff)


def mean(entries: Entries) -> float | None:
    return math.fsum(number for _, number in entries) / len(entries) if entries else None


def due(now: float, last: float | None, interval_seconds: float) -> bool:
    """Whether an own tick of a peer has passed since it last acted: the first look after each of them counts."""
    if last is None:
        return True
    return math.floor((now + 1e-9) / interval_seconds) > math.floor((last + 1e-9) / interval_seconds)


def rounded_up(number: float) -> int:
    """Without the last digits, where processors differ."""
    return math.ceil(round(number, 9))


def rounded_down(number: float) -> int:
    return math.floor(round(number, 9))


def answer(
    observation: Observation,
    asked: int,
    said: str,
    *,
    wanted: int | None = None,
    binding: Binding = Binding.QUEUE,
    clips: tuple[str, ...] = (),
) -> Decision:
    """A decision of so many replicas; `wanted` is the wish before damping and bounds, where they differ."""
    wish = asked if wanted is None else wanted
    return Decision(
        observation.time,
        asked,
        wish,
        observation.desired,
        Binding.HOLD if asked == observation.desired else binding,
        f"{said}: {wish} wanted, {asked} asked",
        ready=observation.count(PodStage.READY),
        coming=observation.count(*BOOTING),
        clips=clips,
    )


def hold(observation: Observation, why: str) -> Decision:
    """The number in force stands."""
    return answer(observation, observation.desired, why)
