"""No more is asked for than fits on the nodes that there are; a node more, and the rest is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.parts.control_plane import ControlPlane
from tests.parts.processes import wait_until
from tests.parts.prometheus import Prometheus
from tests.real.access import ACCOUNT, MANIFESTS, apply_shipped
from tests.real.autoscaler_process import Autoscaler, preheat
from tests.real.custom_resource import Resource, give_lease_back, install
from tests.real.workloads import Workload, pods_of, resource

pytestmark = pytest.mark.cluster

ROLE = "preheat-autoscaler-nodes"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def rules() -> list[dict[str, object]]:
    role, _ = yaml.safe_load_all((MANIFESTS / "nodes" / "cluster-role.yaml").read_text())
    found: list[dict[str, object]] = role["rules"]
    return found


def bind_nodes(control_plane: ControlPlane, namespace: str) -> None:
    """The shipped ClusterRole, for the account of this namespace."""
    control_plane.api.create(f"{RBAC}/clusterroles", {"metadata": {"name": f"{ROLE}-{namespace}"}, "rules": rules()})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"{ROLE}-{namespace}"}
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}
    binding = {"metadata": {"name": f"{ROLE}-{namespace}"}, "roleRef": reference, "subjects": [subject]}
    control_plane.api.create(f"{RBAC}/clusterrolebindings", binding)


class Pool:
    """Nodes of four GPUs with a label of their own."""

    def __init__(self, control_plane: ControlPlane, name: str) -> None:
        self.control_plane = control_plane
        self.label = {"pool": name}
        self.names: list[str] = []

    def add(self) -> None:
        name = f"{self.label['pool']}-{len(self.names)}"
        self.control_plane.add_node(name, gpus=4, labels=self.label)
        self.names.append(name)


@pytest.fixture
def pool(control_plane: ControlPlane, namespace: str) -> Iterator[Pool]:
    made = Pool(control_plane, f"pool-{namespace}")
    yield made
    for name in made.names:
        control_plane.api.delete(f"/api/v1/nodes/{name}")


def tensor_parallel(target: Workload, replicas: int, pool: Pool) -> None:
    """A Deployment whose pods take two GPUs each, on nodes of the pool."""
    spec = pods_of(target.name, replicas, cold_start_seconds=0)
    pods = spec["template"]["spec"]
    pods["nodeSelector"] = pool.label
    pods["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "2"
    body = {"apiVersion": target.ref["apiVersion"], "kind": target.ref["kind"], "metadata": {"name": target.name}}
    target.api.create(target.collection, body | {"spec": spec})


def test_what_no_node_takes_is_told_and_asked_for_when_a_node_comes(
    control_plane: ControlPlane, prometheus: Prometheus, namespace: str, pool: Pool, tmp_path: Path
) -> None:
    """With the shipped rights and no other."""
    install(control_plane)
    pool.add()
    pool.add()
    target = Workload(control_plane, namespace)
    tensor_parallel(target, 1, pool)
    wait_until(lambda: target.ready == 1, within=60, what="the first pod")
    kubeconfig = apply_shipped(control_plane, tmp_path, namespace)
    bind_nodes(control_plane, namespace)
    give_lease_back(control_plane.api, namespace)
    made = Resource(control_plane.api, resource(target, prometheus, minReplicas=6)).create()
    with Autoscaler(tmp_path / "run", None, kubeconfig, options=("--namespace", namespace)) as autoscaler:
        said = made.wait_condition("ScalingLimited", "True", "NoNodeFits")
        assert "cut from 6 to 4: " in said["message"]
        assert "more now, each with 2 nvidia.com/gpu" in said["message"]
        wait_until(lambda: target.ready == 4, within=60, what="as many as fit")
        autoscaler.wait_turns(target.key, 3)
        assert target.desired == len(target.pods()) == 4
        found = preheat("doctor", "--kubeconfig", control_plane.kubeconfig("admin"), "--namespace", namespace).stdout
        assert "of its 6 maxReplicas there are 4, and nodes take 0 more now" in found
        pool.add()
        wait_until(lambda: target.ready == 6, within=60, what="all, with a node more")
        made.wait_condition("ScalingLimited", "False")
