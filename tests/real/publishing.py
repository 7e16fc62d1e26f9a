"""The metrics API as the cluster meets it: registered by what is shipped, asked through the API server."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import trustme
import yaml

from tests.checkout import ROOT
from tests.parts.control_plane import ControlPlane
from tests.parts.kubernetes_api import Api, ApiError, Json, condition
from tests.parts.metrics_api import EXTERNAL, SERVICES
from tests.parts.processes import wait_until
from tests.real.access import ACCOUNT

MANIFESTS = ROOT / "manifests" / "publish" / "hpa"
HOME = "preheat-system"
SERVICE = "preheat-metrics-api"
PATH = f"{SERVICES}/{EXTERNAL[1]}.{EXTERNAL[0]}"


def shipped(name: str) -> list[Json]:
    return [cast("Json", document) for document in yaml.safe_load_all((MANIFESTS / name).read_text())]


def hpa(namespace: str, target: str, number_of: str, **spec: Any) -> Json:
    """The shipped one, of this target."""
    (document,) = shipped("hpa.yaml")
    document["metadata"] = {"name": target, "namespace": namespace}
    document["spec"]["scaleTargetRef"]["name"] = target
    document["spec"]["metrics"][0]["external"]["metric"]["selector"]["matchLabels"]["name"] = number_of
    document["spec"] |= spec
    return document


def certificate(folder: Path, *, ends: datetime | None = None) -> tuple[Path, Path, bytes]:
    """Of the metrics API's service: certificate, key, and its authority in PEM."""
    authority = trustme.CA()
    made = authority.issue_cert(f"{SERVICE}.{HOME}.svc", "localhost", not_after=ends)
    folder.mkdir(exist_ok=True)
    made.private_key_pem.write_to_path(folder / "tls.key")
    (folder / "tls.crt").write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    return folder / "tls.crt", folder / "tls.key", authority.cert_pem.bytes()


def is_created(api: Api, namespace: str) -> bool:
    """Whether it could be made: one of its name may still be on its way out."""
    try:
        api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    except ApiError as error:
        if error.status != 409:
            raise
        return False
    return True


@contextmanager
def account(control_plane: ControlPlane) -> Iterator[Path]:
    """The autoscaler's in its own namespace, with the rights that are shipped for the metrics API; its kubeconfig."""
    api = control_plane.api
    wait_until(lambda: is_created(api, HOME), within=120, what=f"room for {HOME}, which another test had before")
    api.create(f"/api/v1/namespaces/{HOME}/serviceaccounts", {"metadata": {"name": ACCOUNT}})
    control_plane.kubectl("apply", "-f", MANIFESTS / "access.yaml")
    try:
        yield control_plane.kubeconfig_of_service_account(HOME, ACCOUNT)
    finally:
        control_plane.kubectl("delete", "-f", MANIFESTS / "access.yaml")
        api.delete(f"/api/v1/namespaces/{HOME}")


@contextmanager
def registered(control_plane: ControlPlane, port: int, authority: bytes, *, is_trusted: bool = True) -> Iterator[None]:
    """The shipped APIService, with a service that leads to this machine; from when the API server has judged it."""
    api = control_plane.api
    service = {"metadata": {"name": SERVICE}, "spec": {"type": "ExternalName", "externalName": "localhost"}}
    api.create(f"/api/v1/namespaces/{HOME}/services", service)
    (document,) = shipped("api-service.yaml")
    document["spec"]["service"]["port"] = port
    document["spec"]["caBundle"] = base64.b64encode(authority).decode()
    api.request("POST", SERVICES, document, fieldValidation="Strict")
    try:
        judged = "True" if is_trusted else "False"
        wait_until(
            lambda: availability(api.get(PATH)) == judged, within=60, what=lambda: f"judged: {api.get(PATH)['status']}"
        )
        yield
    finally:
        api.delete(PATH)
        api.delete(f"/api/v1/namespaces/{HOME}/services/{SERVICE}")


def availability(service: Json) -> str:
    """True, False, or empty before anybody has looked."""
    said: str = condition(service, "Available").get("status", "")
    return said
