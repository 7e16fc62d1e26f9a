"""Who else scales: the HorizontalPodAutoscalers of a namespace, KEDA's among them, by the target they name."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.api import Api, Counters, Pace
from cluster.objects import controller_of, group_of
from cluster.watch import Watch
from policies.scaling.resource import ScaleTargetRef


@dataclass(frozen=True, slots=True)
class Rival:
    """Another autoscaler, as a person would look for it."""

    kind: str
    name: str
    target: Hashable
    """Group, kind and name of what it scales."""

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}'"


def rival_of(hpa: Mapping[str, Any], before: Rival | None = None) -> Rival:
    """The HPA, or the ScaledObject that KEDA made it for."""
    ref = hpa["spec"]["scaleTargetRef"]
    target = (group_of(ref.get("apiVersion") or ""), ref["kind"], ref["name"])
    owner = controller_of(hpa["metadata"])
    if owner and owner.kind == "ScaledObject":
        return Rival(owner.kind, owner.name, target)
    return Rival("HorizontalPodAutoscaler", hpa["metadata"]["name"], target)


def target_key(ref: ScaleTargetRef) -> Hashable:
    return group_of(ref.api_version), ref.kind, ref.name


def rivals_watch(api: Api, namespace: str, pace: Pace, counters: Counters) -> Watch[Rival]:
    """Every HPA of the namespace, found by what it scales."""
    return Watch(
        api,
        f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers",
        subject=f"horizontalpodautoscalers in namespace '{namespace}'",
        read=rival_of,
        keys_of=lambda rival: (rival.target,),
        pace=pace,
        counters=counters,
    )
