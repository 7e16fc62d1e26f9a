"""What every node is told about a pod, with the numbers that a scheduler's event has no room for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from policies.gpu_memory import GIB
from policies.placement.demand import PodDemand
from policies.placement.policy import judge
from policies.placement.remedies import memory_sentence
from policies.placement.settings import PlacementSettings
from policies.placement.supply import NodeFacts
from policies.placement.verdict import Verdict

_BYTES: Final = "_bytes"


def explanation(
    pod: str, demand: PodDemand, nodes: Mapping[str, NodeFacts], settings: PlacementSettings
) -> dict[str, Any]:
    """The pod's demand as it was read, and each node's verdict with what it was made from."""
    return {
        "pod": pod,
        "demand": told(demand),
        "nodes": [_node(name, nodes[name], demand, settings) for name in sorted(nodes)],
    }


def _node(name: str, has: NodeFacts, demand: PodDemand, settings: PlacementSettings) -> dict[str, Any]:
    verdict = judge(demand, has, settings)
    said = said_of(demand, has, verdict, settings) if demand.gpus else None
    return {"node": name, **told_verdict(verdict), "memorySaid": said, "has": told(has)}


def said_of(demand: PodDemand, has: NodeFacts, verdict: Verdict, settings: PlacementSettings) -> str:
    """What it needs of each device, what that has, and what would make it fit: a sentence."""
    memory = next((s.memory_bytes for s in has.slices if s.resource == demand.resource), has.memory_bytes_per_gpu)
    return memory_sentence(demand, verdict, memory, settings)


def told_verdict(verdict: Verdict) -> dict[str, Any]:
    """For people: GiB, and words."""
    needs, has = verdict.needs_bytes_per_gpu, verdict.has_bytes_per_gpu
    return {
        "passes": verdict.fits,
        "reason": verdict.reason,
        "preemptionMayHelp": verdict.resolvable,
        "score": verdict.score,
        "links": verdict.links,
        "memory": verdict.memory,
        "needsGiBPerGpu": None if needs is None else round(needs / GIB, 2),
        "hasGiBPerGpu": None if has is None else round(has / GIB, 2),
        "notes": verdict.notes,
    }


def told(thing: PodDemand | NodeFacts) -> dict[str, Any]:
    """Its fields by name; bytes as GiB; unknown is null."""
    shown: dict[str, Any] = {}
    for field in fields(thing):
        value = getattr(thing, field.name)
        if _BYTES in field.name and isinstance(value, int):
            shown[field.name.replace(_BYTES, "_gib")] = round(value / GIB, 2)
        else:
            shown[field.name] = value
    return shown
