"""`controller.kubernetes.io/pod-deletion-cost`: which pods a ReplicaSet takes first when it shrinks.

Ours are below any that a person would write, so they are known again, also by the next leader. Where somebody else
writes costs, his stand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cluster.api import MERGE_PATCH, Api, StatusError, meaning
from cluster.objects import DELETION_COST, WatchedPod

OURS: Final = -1_000_000_000
"""Every cost of ours is this or less; Kubernetes takes 32 bits."""
HONOURED_BY: Final = frozenset({("apps", "Deployment"), ("apps", "ReplicaSet")})
"""Group and kind. A StatefulSet takes the highest ordinal, a LeaderWorkerSet the highest group: there it is no use."""


def changes(pods: Iterable[WatchedPod], victims: Sequence[str]) -> Mapping[str, int | None]:
    """What is to be written on which pod, None to take it off, so that exactly these are taken first, in this order.

    Nothing where the costs are somebody else's.
    """
    there = {watched.pod.name: watched.deletion_cost for watched in pods}
    if any(cost is not None and cost > OURS for cost in there.values()):
        return {}
    wanted = {name: OURS - len(victims) + place for place, name in enumerate(victims)}
    return {name: wanted.get(name) for name, cost in there.items() if cost != wanted.get(name)}


async def write(api: Api, namespace: str, costs: Mapping[str, int | None]) -> None:
    """At once on all of them; a pod that is gone needs none."""
    await asyncio.gather(*(_write(api, namespace, pod, cost) for pod, cost in costs.items()))


async def _write(api: Api, namespace: str, pod: str, cost: int | None) -> None:
    annotations = {DELETION_COST: None if cost is None else str(cost)}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
    body = {"metadata": {"annotations": annotations}}
    try:
        await api.call("PATCH", path, body=body, content_type=MERGE_PATCH, leader_only=True)
    except StatusError as error:
        if error.status != 404:
            raise meaning(error, f"the deletion cost of pod '{pod}' in namespace '{namespace}'") from error
