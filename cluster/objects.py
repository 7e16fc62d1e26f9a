"""Kubernetes' JSON in the terms of policies: pods and their stages, workloads, ownership, rollouts. No I/O.

This module alone knows where Kubernetes writes these things. Everything is kept small on purpose: a namespace
of thousands of pods is held in memory, so an object is cut down to what is asked of it as soon as it arrives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from cluster.asks import Ask, ask_of
from cluster.selectors import Selector
from policies.scaling.endings import Ending
from policies.scaling.observation import Pod, PodStage

Json = Mapping[str, Any]

TEMPLATE_LABELS = ("pod-template-hash", "controller-revision-hash")
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
DEPLOYMENT_REVISION = "deployment.kubernetes.io/revision"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
LEADER_LABEL = "leaderworkerset.sigs.k8s.io/worker-index"

LONGEST_START_BELIEVED_SECONDS = 3600.0
"""A pod that was ready before anybody watched shows only its latest turn to ready. The slowest start on record
compiles for 37 min; a longer one is a pod that was unready for a while, and tells nothing of starts."""

# What a generated name is made of: no vowels, no digits that look like letters.
_GENERATED = "[bcdfghjklmnpqrstvwxz2456789]"
# A generated name is cut so that five more characters fit into 63.
_LONGEST_GENERATED_PREFIX = 58


@dataclass(frozen=True, slots=True)
class Controller:
    """The one owner that acts on an object."""

    api_version: str
    kind: str
    name: str
    uid: str

    @property
    def group(self) -> str:
        return group_of(self.api_version)


@dataclass(frozen=True, slots=True)
class WatchedPod:
    """A pod, and what decides whose it is."""

    pod: Pod
    labels: Mapping[str, str]
    controller: Controller | None
    ip: str
    """"" until it has one."""
    first_start: tuple[float | None, float] | None = None
    """When its container started and when it was ready, the first time; None until known."""
    requests: Mapping[str, int] = field(default_factory=dict)
    """Extended resources that it asks for, such as `nvidia.com/gpu`."""
    ask: Ask | None = None
    """What it asks of nodes; None where that cannot be read."""
    seen_from_the_start: bool = False
    """Watched since before its container ran: its first turn to ready is known to be the first."""
    ending: Ending | None = None
    """None of a pod without containers, which only tests have."""
    deletion_cost: int | None = None
    """None where nobody has written one."""


@dataclass(frozen=True, slots=True)
class Workload:
    """An object that leads to pods: a target, or one between a target and its pods."""

    kind: str
    name: str
    uid: str
    resource_version: str
    controller: Controller | None = None
    being_deleted: bool = False
    template: str = ""
    """A ReplicaSet's own template, a StatefulSet's newest; "" where the object does not say."""
    revision: int = 0
    """Of a ReplicaSet: the revision of its Deployment."""
    desired: int | None = None
    """`spec.replicas` where the object is known to say what its scale would; else its scale must be read."""
    selector: Selector | None = None
    rolling: bool = False
    """Its controller is still replacing pods, or has not yet seen the newest spec."""
    replicas_manager: str = ""
    """Whose field `spec.replicas` is, as the API server keeps it; "" where it does not say."""
    gpus: int | None = None
    """That a pod of its template asks for; None where it does not say."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The `scale` subresource, as far as anybody needs it."""

    desired: int
    selector: str
    resource_version: str
    uid: str = ""


@dataclass(frozen=True, slots=True)
class TargetState:
    """A target at one instant: what is asked of it, and the pods that are its own."""

    uid: str
    desired: int
    selector: str
    pods: tuple[Pod, ...]
    """By name; ended pods (Failed, Succeeded) are no supply and not among them."""
    pod_ips: Mapping[str, str] = field(default_factory=dict)
    """Of the pods that have one, by name."""
    template: str = ""
    rolling: bool = False
    pod_name_pattern: str = ""
    """Regular expression of all names its pods ever have; "" when it cannot be told. Has no backslashes."""
    requests: Mapping[str, int] = field(default_factory=dict)
    """Extended resources that its newest pod asks for."""
    ask: Ask | None = None
    """What its newest pod asks of nodes; None without a pod, or where that cannot be read."""
    gpus: int | None = None
    """That one replica takes; None where neither a pod nor the target itself says."""
    replicas_manager: str = ""
    """Who set `desired`, by the name that he gave the API server; "" where that is not known."""
    strangers: int = 0
    """Pods that the selector selects and another controller owns; they are not among `pods`."""


def group_of(api_version: str) -> str:
    group, separator, _ = api_version.partition("/")
    return group if separator else ""


def unix_time(text: str | None) -> float | None:
    """A time as Kubernetes writes it, in unix seconds."""
    return datetime.fromisoformat(text).timestamp() if text else None


def controller_of(metadata: Json) -> Controller | None:
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            return Controller(owner["apiVersion"], owner["kind"], owner["name"], owner["uid"])
    return None


def scale_of(scale: Json) -> Scale:
    """Read a Scale; the API server writes zero replicas by leaving the field out: absent is zero here."""
    metadata = scale["metadata"]
    return Scale(
        desired=(scale.get("spec") or {}).get("replicas") or 0,
        selector=(scale.get("status") or {}).get("selector") or "",
        resource_version=metadata.get("resourceVersion", ""),
        uid=metadata.get("uid", ""),
    )


def pod_of(pod: Json) -> Pod | None:
    """A pod on its own, without memory of what it was before; None once it has ended."""
    watched = watched_pod(pod, None)
    return watched.pod if watched else None


def watched_pod(pod: Json, before: WatchedPod | None) -> WatchedPod | None:
    """The pod as it now is; `before` lends the times of its first start. None once it has ended.

    An ended pod (evicted, out of disk) stays listed for hours while its controller has long replaced it.
    """
    metadata, status = pod["metadata"], pod.get("status") or {}
    if status.get("phase") in ("Failed", "Succeeded"):
        return None
    labels = metadata.get("labels") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    ready = conditions.get("Ready") or {}
    is_ready = ready.get("status") == "True"
    restarts = sum(container.get("restartCount", 0) for container in status.get("containerStatuses") or ())
    created_at = unix_time(metadata.get("creationTimestamp")) or 0.0
    scheduled_at = _turned_true_at(conditions.get("PodScheduled"))
    started_at = _main_container_started_at(pod)
    if before and before.pod.uid != metadata.get("uid"):
        before = None  # a StatefulSet gives a new pod the old one's name
    first_start = before.first_start if before else None
    seen = before.seen_from_the_start if before else started_at is None and restarts == 0
    if first_start is None and is_ready and restarts == 0:
        ready_at = unix_time(ready.get("lastTransitionTime"))
        since = created_at if scheduled_at is None else scheduled_at
        if ready_at and (seen or ready_at - since <= LONGEST_START_BELIEVED_SECONDS):
            first_start = (started_at, ready_at)
    if is_ready and first_start:
        started_at = first_start[0]
    return WatchedPod(
        pod=Pod(
            name=metadata["name"],
            uid=metadata.get("uid", ""),
            stage=_stage_of(pod, conditions, is_ready=is_ready, started=started_at is not None),
            created_at=created_at,
            scheduled_at=scheduled_at,
            started_at=started_at,
            ready_at=first_start[1] if is_ready and first_start else None,
            terminating_at=_terminating_at(metadata),
            template=next((labels[name] for name in TEMPLATE_LABELS if name in labels), ""),
            restarts=restarts,
        ),
        labels=labels,
        controller=controller_of(metadata),
        ip=status.get("podIP") or "",
        first_start=first_start,
        requests=before.requests if before else _extended_requests(pod),
        ask=before.ask if before else ask_of(pod),
        seen_from_the_start=seen,
        ending=before.ending if before else _ending(pod),
        deletion_cost=_deletion_cost(metadata),
    )


def _extended_requests(pod: Json) -> dict[str, int]:
    """Of a resource with a '/' in its name, limit and request are one whole number."""
    total: dict[str, int] = {}
    for container in (pod.get("spec") or {}).get("containers") or ():
        resources = container.get("resources") or {}
        for name, amount in ((resources.get("limits") or {}) | (resources.get("requests") or {})).items():
            if "/" in name and str(amount).isdecimal():
                total[name] = total.get(name, 0) + int(amount)
    return total


_SHUTDOWN_TIMEOUT = re.compile(r"--shutdown[-_]timeout[= ]+([0-9]+(?:[.][0-9]+)?)")


def _ending(pod: Json) -> Ending | None:
    main = _main_container(pod)
    if main is None:
        return None
    started_with = _SHUTDOWN_TIMEOUT.search(" ".join((*(main.get("command") or ()), *(main.get("args") or ()))))
    return Ending(
        # The API server fills in 30 where the user left it out.
        grace_seconds=float(pod["spec"].get("terminationGracePeriodSeconds", 30)),
        has_pre_stop=bool((main.get("lifecycle") or {}).get("preStop")),
        shutdown_timeout_seconds=float(started_with[1]) if started_with else None,
    )


def _deletion_cost(metadata: Json) -> int | None:
    stated = (metadata.get("annotations") or {}).get(DELETION_COST)
    try:
        return None if stated is None else int(stated)
    except ValueError:
        return 0  # as Kubernetes takes it


def _stage_of(pod: Json, conditions: Mapping[str, Json], *, is_ready: bool, started: bool) -> PodStage:
    if pod["metadata"].get("deletionTimestamp"):
        return PodStage.TERMINATING
    if is_ready:
        return PodStage.READY
    if started:
        return PodStage.STARTING
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "True":
        return PodStage.SCHEDULED
    # A gated pod waits for a quota or a queue, without a date, as one waits that no node takes.
    # SchedulerError is no verdict: the scheduler tries again within seconds.
    if scheduled.get("status") == "False" and scheduled.get("reason") in ("Unschedulable", "SchedulingGated"):
        return PodStage.UNSCHEDULABLE
    return PodStage.CREATED


def _turned_true_at(condition: Json | None) -> float | None:
    if condition and condition.get("status") == "True":
        return unix_time(condition.get("lastTransitionTime"))
    return None


def _terminating_at(metadata: Json) -> float | None:
    """When the deletion was asked for: the timestamp itself is when the grace period will be over."""
    over = unix_time(metadata.get("deletionTimestamp"))
    return None if over is None else over - (metadata.get("deletionGracePeriodSeconds") or 0)


def _main_container(pod: Json) -> Json | None:
    """The container that serves, as the spec has it."""
    containers = (pod.get("spec") or {}).get("containers") or ()
    named = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    first = containers[0] if containers else None
    return next((each for each in containers if each["name"] == named), None) if named else first


def _main_container_started_at(pod: Json) -> float | None:
    """When the container that serves began to run; the spec says which it is, as statuses are sorted by name."""
    main = _main_container(pod)
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        if main is not None and container.get("name") == main["name"]:
            running = (container.get("state") or {}).get("running") or {}
            return unix_time(running.get("startedAt"))
    return None


FULLY_READ_KINDS = frozenset({("apps", "Deployment"), ("apps", "StatefulSet")})
"""Group and kind of the objects that say all that their scale says, and how far a rollout is.

Of all others only the metadata is asked for: it tells that they changed and whose they are.
"""


def workload_of(kind: str, workload: Json) -> Workload:
    """Any object but a pod; where it arrived as bare metadata, what its spec and status say stays unknown."""
    metadata = workload["metadata"]
    known = Workload(
        kind=kind,
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        resource_version=metadata.get("resourceVersion", ""),
        controller=controller_of(metadata),
        being_deleted=bool(metadata.get("deletionTimestamp")),
        template=(metadata.get("labels") or {}).get(TEMPLATE_LABELS[0], ""),
        revision=_revision_of(metadata),
        replicas_manager=_replicas_manager(metadata),
    )
    spec, status = workload.get("spec"), workload.get("status") or {}
    if spec is None:
        return known
    replicas = spec.get("replicas")
    return replace(
        known,
        template=status.get("updateRevision", ""),
        # The API server fills in 1 where the user left it out.
        desired=1 if replicas is None else replicas,
        selector=Selector.of_workload(spec.get("selector") or {}),
        rolling=_is_rolling(kind, metadata, spec, status),
        gpus=_gpus_of_template(spec.get("template")),
    )


def _gpus_of_template(template: Json | None) -> int | None:
    ask = ask_of(template) if template else None
    return None if ask is None else ask.demand.gpus


def _replicas_manager(metadata: Json) -> str:
    owners = [
        (entry.get("time") or "", str(entry.get("manager") or ""))
        for entry in metadata.get("managedFields") or ()
        if "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    ]
    return max(owners)[1] if owners else ""


def _revision_of(metadata: Json) -> int:
    text = (metadata.get("annotations") or {}).get(DEPLOYMENT_REVISION, "")
    return int(text) if text.isdecimal() else 0


def _is_rolling(kind: str, metadata: Json, spec: Json, status: Json) -> bool:
    if (status.get("observedGeneration") or 0) < (metadata.get("generation") or 0):
        return True
    updated = status.get("updatedReplicas") or 0
    if kind == "Deployment":
        return updated < (status.get("replicas") or 0)
    strategy = spec.get("updateStrategy") or {}
    if status.get("currentRevision") == status.get("updateRevision") or strategy.get("type") == "OnDelete":
        return False
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    if partition and controller_of(metadata) is None:
        # A user's partition is a canary that may stay for weeks; past it nothing more will move by itself.
        return bool(updated < max(0, (status.get("replicas") or 0) - partition))
    return True


def pod_name_pattern(group: str, kind: str, name: str) -> str:
    """Names of all pods a workload of this kind ever makes; "" where the kind does not fix them.

    Matched as a whole. A dot is written `[.]`, so that the pattern needs no escaping inside a query.
    """
    plain = name.replace(".", "[.]")
    match group, kind:
        case "apps", "Deployment":
            if len(name) + len("-0123456789-") <= _LONGEST_GENERATED_PREFIX:
                return f"{plain}-{_GENERATED}{{1,10}}-{_GENERATED}{{5}}"
            # The generated part of a long name is cut, down to nothing.
            cut = name[:_LONGEST_GENERATED_PREFIX].replace(".", "[.]")
            return f"{cut}(-{_GENERATED}{{0,10}})?-?{_GENERATED}{{5}}"
        case "apps", "ReplicaSet":
            cut = f"{name}-"[:_LONGEST_GENERATED_PREFIX].replace(".", "[.]")
            return f"{cut}{_GENERATED}{{5}}"
        case ("apps", "StatefulSet") | ("leaderworkerset.x-k8s.io", "LeaderWorkerSet"):
            return f"{plain}-[0-9]+"
        case _:
            return ""
