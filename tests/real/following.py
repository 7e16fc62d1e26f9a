"""An autoscaler that follows the resources of one namespace, with the shipped rights and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
import requests

from tests.parts.control_plane import ControlPlane
from tests.parts.fixtures import new_namespace, running_prometheus
from tests.parts.kubernetes_api import Json
from tests.parts.prometheus import Prometheus
from tests.real.access import apply_shipped
from tests.real.autoscaler_process import Autoscaler
from tests.real.custom_resource import Resource, give_lease_back, install
from tests.real.simulated_pods import is_terminating
from tests.real.workloads import Workload, deployment, resource


@dataclass
class Followed:
    """A namespace whose resources are followed, with the shipped rights and no other."""

    control_plane: ControlPlane
    prometheus: Prometheus
    namespace: str
    autoscaler: Autoscaler

    def target(self, name: str, replicas: int = 1) -> Workload:
        made = Workload(self.control_plane, self.namespace, deployment(name))
        made.create(replicas, cold_start_seconds=0)
        return made

    def resource(self, target: Workload, name: str = "", prometheus: Json | None = None, **spec: object) -> Resource:
        document = resource(target, self.prometheus, **spec)
        document["metadata"]["name"] = name or target.name
        document["spec"]["prometheus"] |= prometheus or {}
        return Resource(self.control_plane.api, document)

    def settled_pods(self) -> tuple[int] | None:
        """How many pods there are, a GPU each; None while some come or go."""
        pods = self.control_plane.api.items(f"/api/v1/namespaces/{self.namespace}/pods")
        deployments = self.control_plane.api.items(f"/apis/apps/v1/namespaces/{self.namespace}/deployments")
        wanted = sum(each["spec"]["replicas"] for each in deployments)
        at_rest = len(pods) == wanted and not any(map(is_terminating, pods))
        return (len(pods),) if at_rest else None

    def status_writes(self) -> float:
        pages = requests.get(
            f"{self.control_plane.url}/metrics",
            headers=dict(self.control_plane.api.session.headers),
            verify=str(self.control_plane.ca),
            timeout=10,
        ).text
        counted = re.findall(
            r'^apiserver_request_total\{[^}]*resource="vllmautoscalers"[^}]*subresource="status"[^}]*\} (\S+)$',
            pages,
            re.MULTILINE,
        )
        return sum(map(float, counted))


@pytest.fixture(scope="module")
def followed(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    folder = tmp_path_factory.mktemp("followed")
    (folder / "overlay").mkdir()
    install(control_plane)
    with ExitStack() as stack:
        namespace = stack.enter_context(new_namespace(control_plane))
        prometheus = stack.enter_context(running_prometheus(folder / "prometheus"))
        kubeconfig = apply_shipped(control_plane, folder / "overlay", namespace)
        give_lease_back(control_plane.api, namespace)
        process = Autoscaler(
            folder, None, kubeconfig, options=("--namespace", namespace, "--credentials", str(folder.parent))
        )
        yield Followed(control_plane, prometheus, namespace, stack.enter_context(process))
