"""How long a replica takes from created to ready, learnt from the target's own pods.

A start on a node that must first pull the image is a different thing from one that need not, so the two are kept
apart: the stage scheduled → started tells which one a start was. And an hour without GPUs is one event, however many
pods waited for its end: it does not tell what starts take.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import TypeVar

from policies.scaling.observation import Pod, PodStage

FEWEST = 3
"""Starts to have seen before they are believed over what the user configured."""
KEPT = 24
"""Recent starts remembered: a fleet's image, node pool and model change, so the old ones mislead."""

T = TypeVar("T", float, None)

_PARAMETERS = re.compile(r"(\d+(?:\.\d+)?)\s*[bB](?![a-zA-Z])")


@dataclass(frozen=True, slots=True)
class Start:
    """One pod's way to ready, in seconds; what was not seen is None."""

    uid: str
    created_at: float
    total_seconds: float
    wait_seconds: float | None
    """Until it had a node."""
    pull_seconds: float | None
    """From there until its container started."""

    @property
    def boot_seconds(self) -> float:
        """Once it had a node."""
        return self.total_seconds - (self.wait_seconds or 0.0)

    def waited_with(self, other: Start, least_seconds: float) -> bool:
        """Whether both waited for a node at one time, and each for longer than that."""
        one, two = self.wait_seconds or 0.0, other.wait_seconds or 0.0
        at_one_time = self.created_at < other.created_at + two and other.created_at < self.created_at + one
        return at_one_time and min(one, two) > least_seconds


@dataclass(frozen=True, slots=True)
class LeadTime:
    """What was measured of starts, newest last."""

    starts: tuple[Start, ...] = ()
    seen: frozenset[str] = frozenset()
    """Pods that exist and are accounted for, so that none counts twice."""

    def then(self, pods: Iterable[Pod]) -> LeadTime:
        """With every pod that is ready for the first time; a pod that restarted tells nothing of a start."""
        pods = tuple(pods)
        new = [start for pod in pods if (start := _start_of(pod)) is not None and start.uid not in self.seen]
        here = frozenset(pod.uid or pod.name for pod in pods)
        seen = (self.seen & here) | frozenset(start.uid for start in new)
        starts = self.starts
        # The order of pods in an answer means nothing; that of their creation does.
        for start in sorted(new, key=lambda start: (start.created_at, start.uid)):
            starts = _with(starts, start)
        return LeadTime(starts[-KEPT:], seen)

    def seconds(self, unmeasured_seconds: T) -> float | T:
        """P90 from created to ready; `unmeasured_seconds` until enough starts were seen."""
        if len(self.starts) < FEWEST:
            return unmeasured_seconds
        return _p90([start.total_seconds for start in self.starts])

    def boot_seconds(self, unmeasured_seconds: float, *, cold: bool, cold_pull_seconds: float) -> float:
        """P90 from when a pod has its node: of those that pulled their image there, or that need not.

        Of all, where too few of that kind were seen.
        """
        if len(self.starts) < FEWEST:
            return unmeasured_seconds
        alike = [
            start.boot_seconds
            for start in self.starts
            if start.pull_seconds is None or (start.pull_seconds > cold_pull_seconds) is cold
        ]
        return _p90(alike if len(alike) >= FEWEST else [start.boot_seconds for start in self.starts])


def prior_seconds(model_name: str, *, base_seconds: float, seconds_per_billion: float) -> float:
    """A guess from the model's size as its name tells it, 8 billion parameters where it does not."""
    found = _PARAMETERS.search(model_name)
    return base_seconds + seconds_per_billion * (float(found.group(1)) if found else 8.0)


def _start_of(pod: Pod) -> Start | None:
    if pod.stage is not PodStage.READY or pod.ready_at is None or pod.restarts or pod.ready_at < pod.created_at:
        return None
    waited = pulled = None
    if pod.scheduled_at is not None:
        waited = pod.scheduled_at - pod.created_at
        pulled = None if pod.started_at is None else pod.started_at - pod.scheduled_at
    return Start(pod.uid or pod.name, pod.created_at, pod.ready_at - pod.created_at, waited, pulled)


def _with(starts: tuple[Start, ...], start: Start) -> tuple[Start, ...]:
    """With one more; of those that waited together, for longer than replicas boot, the longest alone."""
    together = [start]
    if len(starts) >= FEWEST:
        boot = median(each.boot_seconds for each in starts)
        together += [each for each in starts if each.waited_with(start, boot)]
    longest = max(together, key=lambda each: each.total_seconds)
    return (*(each for each in starts if each not in together), longest)


def _p90(seconds: list[float]) -> float:
    return sorted(seconds)[ceil(0.9 * len(seconds)) - 1]
