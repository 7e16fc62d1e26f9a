"""`VLLMAutoscaler` objects on the real API server."""

from __future__ import annotations

import yaml

from policies.scaling.resource import API_VERSION
from tests.checkout import ROOT
from tests.parts.control_plane import ControlPlane
from tests.parts.kubernetes_api import Api, ApiError, Json, condition, is_true
from tests.parts.processes import wait_until

CRD = ROOT / "manifests" / "crds"


def install(control_plane: ControlPlane) -> None:
    """`kubectl apply -k manifests/crds`, and until the kind is served; a second time is fine."""
    control_plane.kubectl("apply", "-k", CRD)
    name = yaml.safe_load((CRD / "vllmautoscalers.yaml").read_text())["metadata"]["name"]

    definition = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    wait_until(
        lambda: is_true(control_plane.api.get(definition), "Established"), within=60, what="the kind VLLMAutoscaler"
    )
    wait_until(lambda: _is_listed(control_plane.api), within=60, what="its collection")


def _is_listed(api: Api) -> bool:
    try:
        api.get(f"/apis/{API_VERSION}/vllmautoscalers")
    except ApiError:
        return False
    return True


def collection(namespace: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{namespace}/vllmautoscalers"


def give_lease_back(api: Api, namespace: str) -> None:
    """As a predecessor that ended well leaves it: whoever leads next need not keep still first."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    spec = {"holderIdentity": "", "leaseDurationSeconds": 1}
    api.create(path, {"metadata": {"name": "preheat-autoscaler"}, "spec": spec})


def refusal(api: Api, document: Json) -> str:
    """What the API server says against it under strict validation, "" if nothing; nothing is kept."""
    path = collection(document["metadata"]["namespace"])
    try:
        api.request("POST", path, document, dryRun="All", fieldValidation="Strict")
    except ApiError as error:
        if error.status not in (400, 422):
            raise
        return str(error)
    return ""


class Resource:
    """One object of its namespace, and what is said on it."""

    def __init__(self, api: Api, document: Json) -> None:
        self.api = api
        self.namespace: str = document["metadata"]["namespace"]
        self.name: str = document["metadata"]["name"]
        self.path = f"{collection(self.namespace)}/{self.name}"
        self.document = document

    def create(self) -> Resource:
        self.api.create(collection(self.namespace), self.document)
        return self

    def change(self, **spec: object) -> None:
        self.api.patch(self.path, {"spec": spec})

    def delete(self) -> None:
        self.api.delete(self.path)

    @property
    def status(self) -> Json:
        found: Json = self.api.get(self.path).get("status", {})
        return found

    def condition(self, type_: str) -> Json:
        """Empty while it is not there."""
        return condition(self.api.get(self.path), type_)

    def wait_condition(self, type_: str, status: str, reason: str = "", *, within: float = 60) -> Json:
        def as_wished() -> Json | None:
            found = self.condition(type_)
            return found if found.get("status") == status and reason in ("", found["reason"]) else None

        return wait_until(
            as_wished, within=within, what=lambda: f"{type_} {status} {reason} on {self.name}: {self.status}"
        )

    def events(self) -> list[Json]:
        found = self.api.items(
            f"/api/v1/namespaces/{self.namespace}/events",
            fieldSelector=f"involvedObject.name={self.name},involvedObject.kind=VLLMAutoscaler",
        )
        return sorted(found, key=lambda event: str(event["firstTimestamp"]))
