"""What a pod asks of the nodes, for whoever counts how many more like it would fit. No I/O.

What only the scheduler extender refuses, links and memory, is asked of pods that the extender places; of all others
nothing but GPUs, as every scheduler counts them. Else a wish would be cut that nobody stands in the way of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, Final

import orjson

from cluster.gpu_objects import TOUCHED, UnreadableObjectError, seen_pod
from cluster.node_choice import NodeChoice, node_choice
from policies.placement.demand import PodDemand
from policies.placement.models import ModelTable, shipped_models
from policies.placement.reading import LWS_SIZE, RAY_CLUSTER, read_demand

Json = Mapping[str, Any]

OUR_SCHEDULER: Final = "preheat"
"""`schedulerName` of the second scheduler in manifests/scheduler_extender, which asks the extender."""
OUR_ANNOTATIONS: Final = "preheat.dev/"
OUTRANKS_NOBODY: Final = -(2**31)
_READ: Final = (LWS_SIZE, RAY_CLUSTER)
"""Labels and annotations of others that say what a pod asks."""
_ASKED_OF_SPEC: Final = ("containers", "initContainers", "nodeSelector", "affinity", "tolerations", "schedulerName")


@dataclass(frozen=True, slots=True)
class Ask:
    """One that asks for no GPUs has a demand of 0, and fits anywhere as far as is known here."""

    demand: PodDemand
    choice: NodeChoice
    outranks: int
    """Pods of a priority below it give way to this one."""
    pods: int = 1
    """Alike, that make one replica: more than one in a LeaderWorkerSet."""


def ask_of(pod: Json) -> Ask | None:
    """None for what cannot be read."""
    spec, metadata = pod.get("spec") or {}, pod.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    preempts = spec.get("preemptionPolicy") != "Never"
    words = {
        "metadata": {
            "name": "any",
            "labels": {key: value for key, value in (metadata.get("labels") or {}).items() if key in _READ},
            "annotations": {
                key: value
                for key, value in annotations.items()
                if (key.startswith(OUR_ANNOTATIONS) and key != TOUCHED) or key in _READ
            },
        },
        "spec": {name: spec[name] for name in _ASKED_OF_SPEC if spec.get(name) is not None},
    }
    return _read(orjson.dumps(words), int(spec.get("priority") or 0) if preempts else OUTRANKS_NOBODY)


@lru_cache(maxsize=2048)
def _read(words: bytes, outranks: int) -> Ask | None:
    """The pods of a target say the same, and are read once."""
    pod = orjson.loads(words)
    try:
        demand = read_demand(seen_pod(pod), _models())
    except UnreadableObjectError:
        return None
    annotated = any(key.startswith(OUR_ANNOTATIONS) for key in pod["metadata"]["annotations"])
    if pod["spec"].get("schedulerName") != OUR_SCHEDULER and not annotated:
        demand = PodDemand(
            gpus=demand.gpus, resource=demand.resource, tolerates_cordon=demand.tolerates_cordon, allow_unknown=True
        )
    said = pod["metadata"]
    size = said["annotations"].get(LWS_SIZE) or said["labels"].get(LWS_SIZE) or ""
    pods = int(size) if size.isdecimal() and int(size) > 0 else 1
    return Ask(replace(demand, sources={}), node_choice(pod["spec"]), outranks, pods)


@cache
def _models() -> ModelTable:
    return shipped_models()
