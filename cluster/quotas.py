"""What the ResourceQuotas of a namespace leave for more pods of a target, before any of them is asked for.

Counted is what a GPU pod is refused for: pods, and extended resources such as `requests.nvidia.com/gpu`. A quota with
a scope may not concern the target's pods, and is left to speak for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cluster.api import Api, Counters, Pace
from cluster.gpu_objects import UnreadableObjectError, count_of
from cluster.watch import Watch
from policies.scaling.observation import Room

_PREFIX = "requests."
_PODS = ("pods", "count/pods")


@dataclass(frozen=True, slots=True)
class Quota:
    """What may be used and what is, by the quota's own names."""

    name: str
    hard: Mapping[str, int]
    used: Mapping[str, int]
    """What is not in it is not known."""


def quota_of(thing: Mapping[str, Any], before: Quota | None = None) -> Quota | None:
    """A ResourceQuota as far as it is counted here; None where it has a scope."""
    spec, status = thing.get("spec") or {}, thing.get("status") or {}
    if spec.get("scopes") or spec.get("scopeSelector"):
        return None
    return Quota(thing["metadata"]["name"], _counted(status.get("hard")), _counted(status.get("used")))


def _counted(amounts: Mapping[str, str] | None) -> dict[str, int]:
    found = {}
    for name, amount in (amounts or {}).items():
        if name in _PODS or (name.startswith(_PREFIX) and "/" in name):
            with suppress(UnreadableObjectError):
                found[name] = count_of(amount, name)
    return found


def room(quotas: Iterable[Quota], existing: int, requests: Mapping[str, int]) -> Room | None:
    """How many pods like these there may be in all; `existing` are counted as used. None where nothing says."""
    found = [
        _left(quota.name, name, hard, quota.used.get(name), existing, each)
        for quota in quotas
        for name, hard in quota.hard.items()
        if (each := 1 if name in _PODS else requests.get(name.removeprefix(_PREFIX), 0))
    ]
    return min(found, key=lambda each: (each.replicas, each.reason), default=None)


def _left(quota: str, name: str, hard: int, used: int | None, existing: int, each: int) -> Room:
    if used is None:
        return Room(existing, f"quota '{quota}' does not tell how many of {hard} {name} are used")
    left = max(0, hard - used)
    return Room(existing + left // each, f"quota '{quota}' has {left} of {hard} {name} left")


def quotas_watch(api: Api, namespace: str, pace: Pace, counters: Counters) -> Watch[Quota]:
    """Every ResourceQuota of the namespace that is counted."""
    return Watch(
        api,
        f"/api/v1/namespaces/{namespace}/resourcequotas",
        subject=f"resourcequotas in namespace '{namespace}'",
        read=quota_of,
        pace=pace,
        counters=counters,
    )
