"""Kubernetes objects as an API server shows them, in as few words as the tests need."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]

NAMESPACE = "inference"
START = 1_760_000_000.0


def stamp(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _object(api_version: str, kind: str, name: str, owner: Object | None, labels: dict[str, str]) -> Object:
    metadata: Object = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"{kind}/{name}",
        "creationTimestamp": stamp(START),
        "labels": labels,
        "generation": 1,
    }
    if owner is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "controller": True,
            }
        ]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def deployment(name: str = "vllm-a", replicas: int = 2, owner: Object | None = None) -> Object:
    return {
        **_object("apps/v1", "Deployment", name, owner, {"app": name}),
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}},
        "status": {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas},
    }


def replica_set(owner: Object, template: str = "6b7c8d9f4", revision: int = 1) -> Object:
    name = owner["metadata"]["name"]
    made = _object("apps/v1", "ReplicaSet", f"{name}-{template}", owner, {"app": name, "pod-template-hash": template})
    made["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": str(revision)}
    return made


def stateful_set(name: str = "vllm-s", replicas: int = 2, owner: Object | None = None, **status: Any) -> Object:
    return {
        **_object("apps/v1", "StatefulSet", name, owner, {"app": name}),
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}},
        "status": {
            "observedGeneration": 1,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "currentRevision": f"{name}-1",
            "updateRevision": f"{name}-1",
            **status,
        },
    }


def custom(
    kind: str, name: str, *, api_version: str = "example.dev/v1", replicas: int | None = 2, selector: str | None = None
) -> Object:
    """A custom resource whose scale points to `.spec.replicas` and `.status.selector`."""
    return {
        **_object(api_version, kind, name, None, {}),
        "spec": {} if replicas is None else {"replicas": replicas},
        "status": {} if selector is None else {"selector": selector},
    }


def pod(
    owner: Object,
    name: str,
    *,
    labels: dict[str, str] | None = None,
    created: float = START,
    unschedulable: str | None = None,
    scheduled: float | None = None,
    started: float | None = None,
    ready: float | None = None,
    flapped: float | None = None,
    deleted: float | None = None,
    grace: int = 30,
    restarts: int = 0,
    phase: str | None = None,
    ip: str | None = None,
) -> Object:
    """A pod as far as the times given; `flapped` is when its Ready turned false again."""
    made = _object("v1", "Pod", name, owner, {**owner["metadata"]["labels"], **(labels or {})})
    made["metadata"]["creationTimestamp"] = stamp(created)
    if deleted is not None:
        made["metadata"]["deletionTimestamp"] = stamp(deleted + grace)
        made["metadata"]["deletionGracePeriodSeconds"] = grace
    conditions: list[Object] = []
    if unschedulable is not None:
        conditions.append(_condition("PodScheduled", False, created, unschedulable))
    if scheduled is not None:
        conditions.append(_condition("PodScheduled", True, scheduled))
        is_ready = ready is not None and flapped is None
        conditions.append(_condition("Ready", is_ready, flapped or ready or scheduled))
    made["spec"] = {"containers": [{"name": "vllm"}, {"name": "a-sidecar"}]}
    made["status"] = {"phase": phase or ("Running" if started else "Pending"), "conditions": conditions}
    if scheduled is not None:
        running = {"running": {"startedAt": stamp(started)}} if started is not None else {"waiting": {}}
        made["status"]["containerStatuses"] = [
            {"name": "a-sidecar", "restartCount": 0, "state": {"running": {"startedAt": stamp(scheduled + 1)}}},
            {"name": "vllm", "restartCount": restarts, "state": running},
        ]
    if ip is not None:
        made["status"]["podIP"] = ip
    return made


def ready_pod(owner: Object, name: str, *, at: float = START, **more: Any) -> Object:
    """Created at `at`, scheduled 1 s, started 5 s and ready 60 s later."""
    return pod(owner, name, created=at, scheduled=at + 1, started=at + 5, ready=at + 60, **more)


def _condition(type_: str, status: bool, at: float, reason: str | None = None) -> Object:
    condition: Object = {"type": type_, "status": str(status), "lastTransitionTime": stamp(at)}
    if reason is not None:
        condition["reason"] = reason
    return condition
