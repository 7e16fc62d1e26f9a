"""Nodes and pods with GPUs, from Kubernetes' JSON in the terms of placement. No I/O.

What comes here was not always checked by an API server: it may be a file, or the body of anybody's request. So
each part is looked at before it is believed, and a part that is not what Kubernetes writes there is named.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cluster.quantities import FACTORS
from policies.placement.demand import Container, SeenPod
from policies.placement.device_annotations import KOORDINATOR_ALLOCATED, held_by_koordinator
from policies.placement.nodes import READ_LABELS
from policies.placement.requested import requested
from policies.placement.supply import SeenNode

Json = Mapping[str, Any]

GPU_DOMAIN: Final = "nvidia.com/"
"""Of the resources that are devices or slices of them."""
NOT_DEVICES: Final = frozenset({"nvidia.com/gpumem", "nvidia.com/gpumem-percentage", "nvidia.com/gpucores"})
"""Shares of a device, as HAMi counts them: they say how much of one is asked, not how many."""
UNSCHEDULABLE_TAINT: Final = "node.kubernetes.io/unschedulable"
READ_NODE_ANNOTATIONS: Final = ("preheat.dev/", "hami.io/", "scheduling.koordinator.sh/")
TOUCHED: Final = "preheat.dev/judged-anew-at"
"""On a pod that waits: when its verdict last turned for the better, which nothing else would tell the scheduler."""

_QUANTITY = re.compile(r"([+-]?\d{1,15})(?:[eE]\+?(\d)|(|k|M|G|T|Ki|Mi|Gi|Ti))")


class UnreadableObjectError(ValueError):
    """A part of a node or a pod is not what Kubernetes writes there; the message names it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which object it is."""

    namespace: str
    """"" for a node."""
    name: str
    uid: str
    resource_version: str

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Waiting:
    """A pod that no node has yet."""

    scheduler: str
    unschedulable: bool
    """A scheduler has looked for a node and found none."""
    touched: str = ""
    """What stands in `TOUCHED`; "" where nothing does."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod is, and what it holds there."""

    node: str
    """"" until it is bound."""
    gpus: Mapping[str, int]
    """By resource; it holds them from the binding to its end. Empty: it needs none."""
    waiting: Waiting | None
    """None once it is bound, and while a gate keeps it from the scheduler."""
    devices: frozenset[int] | None = None
    """Minor numbers of the GPUs it holds; None: nobody says, as is usual."""


def identity(thing: Json) -> Identity:
    metadata = _object(thing.get("metadata"), "metadata")
    name = _text(metadata.get("name"), "metadata.name")
    if not name:
        raise UnreadableObjectError("metadata.name is missing")
    return Identity(
        namespace=_text(metadata.get("namespace"), "metadata.namespace"),
        name=name,
        uid=_text(metadata.get("uid"), "metadata.uid"),
        resource_version=_text(metadata.get("resourceVersion"), "metadata.resourceVersion"),
    )


def seen_node(node: Json) -> SeenNode:
    """About ten fields of some hundred; what pods hold of it is not among them."""
    metadata = _object(node.get("metadata"), "metadata")
    spec = _object(node.get("spec"), "spec")
    status = _object(node.get("status"), "status")
    labels = _texts(metadata.get("labels"), "metadata.labels")
    annotations = _texts(metadata.get("annotations"), "metadata.annotations")
    return SeenNode(
        # Thousands of nodes say the same few words.
        labels={
            sys.intern(key): sys.intern(value)
            for key, value in labels.items()
            if key in _READ_LABELS or key.startswith("nvidia.com/mig-")
        },
        annotations={key: value for key, value in annotations.items() if key.startswith(READ_NODE_ANNOTATIONS)},
        allocatable=_gpus(status.get("allocatable"), "status.allocatable"),
        cordoned=spec.get("unschedulable") is True,
    )


def seen_pod(pod: Json) -> SeenPod:
    """What a pod asks, still in its own words."""
    metadata = _object(pod.get("metadata"), "metadata")
    spec = pod.get("spec")
    if not isinstance(spec, Mapping):
        raise UnreadableObjectError("spec is missing" if spec is None else "spec must be an object")
    return SeenPod(
        containers=tuple(_containers(spec.get("containers"), "spec.containers")),
        init_containers=tuple(_containers(spec.get("initContainers"), "spec.initContainers")),
        labels=_texts(metadata.get("labels"), "metadata.labels"),
        annotations=_texts(metadata.get("annotations"), "metadata.annotations"),
        tolerates_cordon=any(map(_tolerates_cordon, _objects(spec.get("tolerations"), "spec.tolerations"))),
    )


def place_of(pod: Json) -> Place | None:
    """Where a pod is; None once it has ended and holds nothing."""
    spec, status = _object(pod.get("spec"), "spec"), _object(pod.get("status"), "status")
    if status.get("phase") in ("Failed", "Succeeded"):
        return None
    node = _text(spec.get("nodeName"), "spec.nodeName")
    annotations = _texts(_object(pod.get("metadata"), "metadata").get("annotations"), "metadata.annotations")
    waiting = None
    if not node and not spec.get("schedulingGates"):
        scheduled = _condition(status, "PodScheduled")
        waiting = Waiting(
            scheduler=_text(spec.get("schedulerName"), "spec.schedulerName") or "default-scheduler",
            unschedulable=scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable",
            touched=annotations.get(TOUCHED, ""),
        )
    told = annotations.get(KOORDINATOR_ALLOCATED)
    return Place(
        node=sys.intern(node),
        gpus=_requested(spec),
        waiting=waiting,
        devices=None if told is None else held_by_koordinator(told),
    )


def _requested(spec: Json) -> Mapping[str, int]:
    containers = (container for container, _ in _resources(spec.get("containers"), "spec.containers"))
    return requested(containers, _resources(spec.get("initContainers"), "spec.initContainers"))


def _containers(value: Any, where: str) -> Iterator[Container]:
    for number, container in enumerate(_objects(value, where)):
        here = f"{where}[{number}]"
        env: dict[str, str | None] = {}
        for variable in _objects(container.get("env"), f"{here}.env"):
            name = _text(variable.get("name"), f"{here}.env.name")
            env[name] = None if variable.get("valueFrom") else _text(variable.get("value"), f"{here}.env.{name}")
        yield Container(
            name=_text(container.get("name"), f"{here}.name"),
            image=_text(container.get("image"), f"{here}.image"),
            command=_strings(container.get("command"), f"{here}.command"),
            args=_strings(container.get("args"), f"{here}.args"),
            env=env,
            gpus=_asked(container, here),
            is_sidecar=container.get("restartPolicy") == "Always",
        )


def _resources(value: Any, where: str) -> Iterator[tuple[Mapping[str, int], bool]]:
    """Of each container, and whether it is a sidecar."""
    for number, container in enumerate(_objects(value, where)):
        yield _asked(container, f"{where}[{number}]"), container.get("restartPolicy") == "Always"


def _asked(container: Json, where: str) -> Mapping[str, int]:
    """Of devices requests and limits must agree; one of the two may be left out."""
    resources = _object(container.get("resources"), f"{where}.resources")
    limits = _gpus(resources.get("limits"), f"{where}.resources.limits")
    return {**limits, **_gpus(resources.get("requests"), f"{where}.resources.requests")}


def _gpus(value: Any, where: str) -> dict[str, int]:
    found = {}
    for resource, quantity in _object(value, where).items():
        if resource.startswith(GPU_DOMAIN) and resource not in NOT_DEVICES:
            found[sys.intern(resource)] = count_of(quantity, f"{where}[{resource}]")
    return found


def count_of(quantity: Any, where: str) -> int:
    """A whole number as Kubernetes writes one, which is "1k" for 1000; `where` is named if it is none."""
    if isinstance(quantity, int) and not isinstance(quantity, bool):
        return quantity
    read = _QUANTITY.fullmatch(quantity) if isinstance(quantity, str) else None
    if read is None:
        raise UnreadableObjectError(f"{where} is {quantity!r}: it must be a whole number of devices")
    whole, exponent, suffix = read.groups()
    return int(whole) * (10 ** int(exponent) if exponent else FACTORS[suffix])


def _condition(status: Json, kind: str) -> Json:
    conditions = _objects(status.get("conditions"), "status.conditions")
    return next((condition for condition in conditions if condition.get("type") == kind), {})


def _tolerates_cordon(toleration: Json) -> bool:
    key, operator = toleration.get("key"), toleration.get("operator")
    tolerates = key == UNSCHEDULABLE_TAINT or (not key and operator == "Exists")
    return tolerates and toleration.get("effect") in (None, "", "NoSchedule")


def _object(value: Any, where: str) -> Json:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UnreadableObjectError(f"{where} must be an object")
    return value


def _objects(value: Any, where: str) -> Sequence[Json]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise UnreadableObjectError(f"{where} must be a list of objects")
    return value


def _text(value: Any, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnreadableObjectError(f"{where} must be a text")
    return value


def _texts(value: Any, where: str) -> Mapping[str, str]:
    texts = _object(value, where)
    if not all(isinstance(text, str) for text in texts.values()):
        raise UnreadableObjectError(f"{where} must hold texts")
    return texts


def _strings(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UnreadableObjectError(f"{where} must be a list of texts")
    return tuple(value)


_READ_LABELS: Final = frozenset(READ_LABELS)
