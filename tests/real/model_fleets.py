"""A kind of somebody else's: a custom resource with a `scale` subresource, and the controller behind it.

Each ModelFleet owns a Deployment of the same name and keeps it at its own number of replicas, as an operator of
models does; so its pods are two owners away from it.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import requests

from tests.parts.control_plane import ControlPlane
from tests.parts.kubernetes_api import Api, ApiError, Json
from tests.parts.processes import wait_until
from tests.real.workloads import Workload, pods_of

GROUP, VERSION, PLURAL = "test.preheat.dev", "v1", "modelfleets"

DEFINITION: Json = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"{PLURAL}.{GROUP}"},
    "spec": {
        "group": GROUP,
        "names": {"kind": "ModelFleet", "plural": PLURAL, "singular": "modelfleet"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": VERSION,
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
                            "status": {
                                "type": "object",
                                "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}},
                            },
                        },
                    }
                },
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector",
                    },
                },
            }
        ],
    },
}

# What a Role needs beside the shipped one, as manifests/autoscaler/role.yaml says.
RULES: list[Json] = [
    {"apiGroups": [GROUP], "resources": [PLURAL], "verbs": ["list", "watch"]},
    {"apiGroups": [GROUP], "resources": [f"{PLURAL}/scale"], "verbs": ["get", "patch"]},
]


def model_fleet(name: str) -> Json:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "ModelFleet", "name": name}


class ModelFleets:
    """The controller of one ModelFleet, from `with` to its end."""

    def __init__(self, control_plane: ControlPlane, target: Workload, *, replicas: int = 1) -> None:
        self._api = control_plane.api_as("admin")  # a connection of its own: this is another thread
        self._target = target
        self._replicas = replicas
        self._inner = Workload(control_plane, target.namespace, {**model_fleet(target.name), **_DEPLOYMENT})
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="controller of ModelFleets")

    def __enter__(self) -> Self:
        define(self._api)
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "ModelFleet", "metadata": {"name": self._target.name}}
        made = self._api.create(self._target.collection, body | {"spec": {"replicas": self._replicas}})
        owner = {**model_fleet(self._target.name), "uid": made["metadata"]["uid"], "controller": True}
        inner = {"metadata": {"name": self._inner.name, "ownerReferences": [owner]}}
        self._api.create(self._inner.collection, {**inner, "spec": pods_of(self._target.name, self._replicas)})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._api.session.close()

    def _run(self) -> None:
        while not self._stopping.wait(0.25):
            try:
                self._reconcile()
            except (ApiError, requests.RequestException):
                continue  # as controllers do: again in a moment

    def _reconcile(self) -> None:
        fleet, inner = self._api.get(self._target.path), self._api.get(self._inner.path)
        wanted, ready = fleet["spec"]["replicas"], inner["status"].get("readyReplicas", 0)
        if inner["spec"]["replicas"] != wanted:
            self._api.patch(self._inner.path, {"spec": {"replicas": wanted}})
        status = {"replicas": ready, "selector": f"app={self._target.name}"}
        if fleet.get("status") != status:
            self._api.patch(f"{self._target.path}/status", {"status": status})


_DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment"}


def define(api: Api) -> None:
    """The kind, once a cluster."""
    try:
        api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", DEFINITION)
    except ApiError as error:
        if error.status != 409:
            raise

    def served() -> bool:
        try:
            return bool(api.get(f"/apis/{GROUP}/{VERSION}"))
        except ApiError:
            return False

    wait_until(served, within=30, what="the new kind is served")
