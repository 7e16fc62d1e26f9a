"""Whom a shrink should take: the pods whose end costs least, so that what they do is not lost.

A controller takes pods that are not ready before any that is. Of the ready ones those go that have the fewest
requests, then the emptiest KV cache, then the youngest, whose prefix cache has learnt least.
"""

from __future__ import annotations

from math import inf

from policies.scaling.observation import Observation, Pod, PodStage


def victims(seen: Observation, removed: int) -> tuple[str, ...]:
    """Names of the ready pods that should go when so many replicas are removed, the first to go first."""
    going_anyway = sum(pod.stage not in (PodStage.READY, PodStage.TERMINATING) for pod in seen.pods)
    return tuple(pod.name for pod in sorted(seen.ready_pods, key=_cost)[: max(0, removed - going_anyway)])


def _cost(pod: Pod) -> tuple[float, float, float, str]:
    sample = pod.sample
    if sample is None or sample.requests_running is None:
        # What it does is not known, so it may be much.
        return inf, inf, -pod.created_at, pod.name
    requests = sample.requests_running + (sample.requests_waiting or 0.0)
    return requests, sample.kv_cache_usage or 0.0, -pod.created_at, pod.name
