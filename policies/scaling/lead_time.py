"""How long a replica takes from created to ready, learnt from the target's own pods.

A start on a node that must first pull the image is a different thing from one that need not, so the two are kept
apart: the stage scheduled → started tells which one a start was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from policies.scaling.observation import Pod, PodStage

FEWEST = 3
"""Starts to have seen before they are believed over what the user configured."""
KEPT = 24
"""Recent starts remembered: a fleet's image, node pool and model change, so the old ones mislead."""

_PARAMETERS = re.compile(r"(\d+(?:\.\d+)?)\s*[bB](?![a-zA-Z])")


@dataclass(frozen=True, slots=True)
class Start:
    """One pod's way to ready, in seconds; `pulled` is None where the container's start is unknown."""

    uid: str
    created_at: float
    total_seconds: float
    pull_seconds: float | None


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
        # The order of pods in an answer means nothing; that of their creation does.
        kept = (*self.starts, *sorted(new, key=lambda start: (start.created_at, start.uid)))[-KEPT:]
        return LeadTime(kept, seen)

    def seconds(
        self,
        *,
        configured_seconds: float | None,
        prior_seconds: float,
        cold_pull_seconds: float,
        cold: bool | None = None,
    ) -> float:
        """P90 from created to ready; of cold or warm nodes only, where `cold` says so and enough were seen."""
        if len(self.starts) < FEWEST:
            return prior_seconds if configured_seconds is None else configured_seconds
        alike = [
            start.total_seconds
            for start in self.starts
            if cold is None or start.pull_seconds is None or (start.pull_seconds > cold_pull_seconds) is cold
        ]
        if len(alike) < FEWEST:
            alike = [start.total_seconds for start in self.starts]
        alike.sort()
        return alike[ceil(0.9 * len(alike)) - 1]


def prior_seconds(model_name: str, *, base_seconds: float, seconds_per_billion: float) -> float:
    """A guess from the model's size as its name tells it, 8 billion parameters where it does not."""
    found = _PARAMETERS.search(model_name)
    return base_seconds + seconds_per_billion * (float(found.group(1)) if found else 8.0)


def _start_of(pod: Pod) -> Start | None:
    if pod.stage is not PodStage.READY or pod.ready_at is None or pod.restarts or pod.ready_at < pod.created_at:
        return None
    pulled = None
    if pod.scheduled_at is not None and pod.started_at is not None:
        pulled = pod.started_at - pod.scheduled_at
    return Start(pod.uid or pod.name, pod.created_at, pod.ready_at - pod.created_at, pulled)
