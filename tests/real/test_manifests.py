"""What is shipped for a cluster is taken by a real API server, strictly validated, with the peers' own kinds in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.files import documents
from cluster.floors import ANNOTATION, Floors
from cluster.kubernetes import Cluster
from policies.scaling.resource import ScaleTargetRef
from simulations.policy_files.migrate import REMEDY, migrated
from tests.checkout import ROOT
from tests.manifests.examples import FILES
from tests.parts import crds
from tests.parts.control_plane import ControlPlane
from tests.parts.fixtures import running_control_plane, running_prometheus
from tests.parts.kubernetes_api import ApiError, Json, is_true
from tests.parts.processes import wait_until
from tests.real.autoscaler_process import Autoscaler
from tests.real.custom_resource import Resource
from tests.real.workloads import Workload, deployment, resource

pytestmark = pytest.mark.cluster

MANIFESTS = ROOT / "manifests"
HOME = "preheat-system"
INSTALLED = ("base", "monitoring", "overlays/second-scheduler", "overlays/hpa", "overlays/keda", "overlays/wake")
MIGRATED = sorted((MANIFESTS / "migrate" / "from").glob("*.yaml"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One of its own, for the kinds that it knows would be met by other tests."""
    with running_control_plane(tmp_path_factory.mktemp("manifests") / "control-plane") as running:
        for path in (*crds.generated(), MANIFESTS / "crds" / "vllmautoscalers.yaml"):
            running.kubectl("apply", "--server-side", "-f", path)
        definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        wait_until(
            lambda: all(is_true(each, "Established") for each in running.api.items(definitions)),
            within=60,
            what="all kinds served",
        )
        for name in INSTALLED:
            running.kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", "-k", MANIFESTS / name)
        running.kubectl("create", "namespace", "inference")
        yield running


def apply(cluster: ControlPlane, path: Path) -> list[str]:
    """Of a server that validates strictly and keeps nothing, what it says of each object."""
    return cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-n", "inference", "-f", path).splitlines()


def rendered(cluster: ControlPlane, name: str) -> list[Any]:
    return [each for each in yaml.safe_load_all(cluster.kubectl("kustomize", MANIFESTS / name)) if each]


@pytest.mark.parametrize("name", INSTALLED)
def test_every_object_of_a_kustomization_is_in_the_cluster(cluster: ControlPlane, name: str) -> None:
    found = json.loads(cluster.kubectl("get", "-k", MANIFESTS / name, "-o", "json"))
    assert len(found["items"]) == len(rendered(cluster, name)) > 1


@pytest.mark.parametrize("name", [name for name in INSTALLED if name != "monitoring"])
def test_every_pod_of_ours_keeps_to_the_restricted_standard(cluster: ControlPlane, name: str) -> None:
    pods = f"/api/v1/namespaces/{HOME}/pods"
    wait_until(
        lambda: cluster.api.items(f"/api/v1/namespaces/{HOME}/serviceaccounts"), within=30, what="service accounts"
    )
    deployments = [each for each in rendered(cluster, name) if each["kind"] == "Deployment"]
    assert deployments
    for each in deployments:
        pod = {"metadata": {"name": "tried"}, "spec": each["spec"]["template"]["spec"]}
        cluster.api.request("POST", pods, pod, dryRun="All")
        for container in pod["spec"]["containers"]:
            container["securityContext"] = {**container["securityContext"], "capabilities": {}}
        with pytest.raises(ApiError, match="violates PodSecurity"):
            cluster.api.request("POST", pods, pod, dryRun="All")


@pytest.mark.parametrize(
    ("verb", "group", "resource", "namespace", "may"),
    [
        ("patch", "apps", "deployments/scale", "inference", True),
        ("watch", "autoscaling.preheat.dev", "vllmautoscalers", "inference", True),
        ("update", "coordination.k8s.io", "leases", HOME, True),
        ("update", "coordination.k8s.io", "leases", "kube-system", False),
        ("patch", "apps", "deployments", "inference", False),
        ("get", "", "secrets", HOME, False),
    ],
)
def test_the_autoscaler_may_scale_everywhere_and_hold_its_lease_at_home(
    cluster: ControlPlane, verb: str, group: str, resource: str, namespace: str, may: bool
) -> None:
    resource, _, subresource = resource.partition("/")
    asked = {"verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace}
    spec = {"user": f"system:serviceaccount:{HOME}:preheat-autoscaler", "resourceAttributes": asked}
    review = cluster.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": spec})
    assert review["status"]["allowed"] is may


def test_with_the_rights_of_the_base_and_no_other_it_scales_in_every_namespace(
    cluster: ControlPlane, tmp_path: Path
) -> None:
    """But for the Lease, whose namespace only a pod can know; the rights to it are asked for above."""
    kubeconfig = cluster.kubeconfig_of_service_account(HOME, "preheat-autoscaler")
    with (
        running_prometheus(tmp_path / "prometheus") as prometheus,
        Autoscaler(tmp_path, None, kubeconfig, options=("--no-leader-elect",)) as autoscaler,
    ):
        targets = [Workload(cluster, namespace, deployment("below")) for namespace in ("inference", "default")]
        made = [Resource(cluster.api, resource(target, prometheus, minReplicas=2)) for target in targets]
        for target in targets:
            target.create(1, cold_start_seconds=0)
        for one in made:
            one.create()
        for target in targets:
            wait_until(lambda target=target: target.desired == 2, within=60, what=f"{target.key} at its floor")  # type: ignore[misc]
            wait_until(lambda target=target: target.events(), within=60, what=f"an event on {target.key}")  # type: ignore[misc]
        for one in made:
            wait_until(lambda one=one: one.status.get("conditions"), within=60, what="conditions")  # type: ignore[misc]
        assert not [line for line in autoscaler.lines() if "lacks the right" in line["message"]]


@pytest.mark.parametrize("path", MIGRATED, ids=lambda path: path.stem)
def test_what_people_have_and_what_it_becomes_are_taken(cluster: ControlPlane, tmp_path: Path, path: Path) -> None:
    assert len(apply(cluster, path)) == 1
    made = tmp_path / "made.yaml"
    made.write_text(migrated(documents(path, REMEDY), str(path)))
    (said,) = apply(cluster, made)
    assert said.startswith("vllmautoscaler.autoscaling.preheat.dev/")


@pytest.mark.parametrize(
    "path", ["publish/hpa/hpa.yaml", "publish/keda/scaled-object.yaml", "floor/role.yaml", "wake/waker.yaml"]
)
def test_what_others_follow_us_with_is_taken(cluster: ControlPlane, path: str) -> None:
    assert len(apply(cluster, MANIFESTS / path)) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_object_of_an_example_is_taken(cluster: ControlPlane, path: Path) -> None:
    assert len(apply(cluster, path)) == len(list(yaml.safe_load_all(path.read_text())))


def test_a_field_that_a_peer_does_not_know_is_refused(cluster: ControlPlane, tmp_path: Path) -> None:
    """Else the tests above would see nothing."""
    document = yaml.safe_load((MANIFESTS / "migrate" / "from" / "keda_tpot.yaml").read_text())
    document["spec"]["idleReplicas"] = 0
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(AssertionError, match=r'unknown field "spec\.idleReplicas"'):
        apply(cluster, path)


def test_a_floor_is_raised_on_kedas_own_kind_and_given_back(cluster: ControlPlane) -> None:
    """KEDA itself is not there: what it makes of `minReplicaCount` is its own."""
    document = yaml.safe_load((MANIFESTS / "publish" / "keda" / "scaled-object.yaml").read_text())
    del document["spec"]["minReplicaCount"]
    path = "/apis/keda.sh/v1alpha1/namespaces/inference/scaledobjects"
    cluster.api.create(path, document)
    path = f"{path}/{document['metadata']['name']}"

    async def raised_and_given_back() -> list[Json]:
        client = await Cluster.connect(str(cluster.kubeconfig("admin")))
        try:
            floors = Floors(client.api)
            floor = await floors.of(ScaleTargetRef(name="vllm-llama3-8b"), "inference")
            raised = await floors.set(floor, 3, "inference/llama3-8b")
            seen = cluster.api.get(path)
            await floors.give_back(raised)
            return [seen, cluster.api.get(path)]
        finally:
            await client.close()

    raised, given = asyncio.run(raised_and_given_back())
    assert raised["spec"]["minReplicaCount"] == 3
    assert json.loads(raised["metadata"]["annotations"][ANNOTATION])["original"] is None
    assert "minReplicaCount" not in given["spec"]
    assert ANNOTATION not in given["metadata"].get("annotations", {})
