"""No more is asked for than fits on the nodes that there are; a node more, and the rest is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster.errors import ClusterError
from cluster.kubernetes import Cluster
from tests.parts.control_plane import ControlPlane
from tests.parts.kubernetes_api import Json
from tests.parts.processes import wait_until
from tests.parts.prometheus import Prometheus
from tests.real.access import ACCOUNT, MANIFESTS, apply_shipped
from tests.real.autoscaler_process import Autoscaler, preheat
from tests.real.custom_resource import Resource, give_lease_back, install
from tests.real.workloads import Workload, pods_of, resource

pytestmark = pytest.mark.cluster

ROLE = "preheat-autoscaler-nodes"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


RIGHTS = [("list", "nodes"), ("watch", "nodes"), ("list", "pods"), ("watch", "pods"), ("list", "configmaps")]


def shipped_rules() -> list[Json]:
    role, _ = yaml.safe_load_all((MANIFESTS / "nodes" / "cluster-role.yaml").read_text())
    found: list[Json] = role["rules"]
    return found


def without(verb: str, plural: str) -> list[Json]:
    """The shipped rules less one right."""
    return [
        {**rule, "resources": [resource_], "verbs": verbs}
        for rule in shipped_rules()
        for resource_ in rule["resources"]
        if (verbs := [each for each in rule["verbs"] if (each, resource_) != (verb, plural)])
    ]


def bind_nodes(control_plane: ControlPlane, namespace: str, allowed: list[Json], account: str = ACCOUNT) -> None:
    """A ClusterRole with these rules, for an account of this namespace."""
    name = f"{ROLE}-{namespace}-{account}"
    control_plane.api.create(f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": allowed})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
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
    bind_nodes(control_plane, namespace, shipped_rules())
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


async def missed(kubeconfig: Path) -> str:
    """What stands in the way of seeing nodes, once something does."""
    cluster = await Cluster.connect(str(kubeconfig))
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    await cluster.node_autoscalers.name()
                    await cluster.gpu_nodes.whole()
                except ClusterError as error:
                    return str(error)
                if problems := [str(watch.problem) for watch in cluster.gpu_nodes.watches if watch.problem]:
                    return "; ".join(problems)
                await asyncio.sleep(0.05)
    finally:
        await cluster.close()


def test_each_right_to_see_nodes_is_needed_and_no_other(control_plane: ControlPlane, namespace: str) -> None:
    shipped = {(verb, name) for rule in shipped_rules() for verb in rule["verbs"] for name in rule["resources"]}
    assert shipped == set(RIGHTS)
    for number, (verb, plural) in enumerate(RIGHTS):
        account = f"cut-down-{number}"
        control_plane.api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": account}})
        bind_nodes(control_plane, namespace, without(verb, plural), account)
        kubeconfig = control_plane.kubeconfig_of_service_account(namespace, account)
        said = f'lacks the right "{verb} {plural}"'
        # What was granted is known to the API server a moment later.
        wait_until(lambda: said in asyncio.run(missed(kubeconfig)), within=60, what=said)  # noqa: B023
