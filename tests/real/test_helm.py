"""The chart is the kustomize base: rendered by Helm, taken strictly by a real API server, installed and removed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.checkout import ROOT
from tests.parts import build
from tests.parts.control_plane import ControlPlane
from tests.parts.processes import wait_until
from tests.real.custom_resource import install
from tests.real.test_manifests import HOME, MANIFESTS

pytestmark = pytest.mark.cluster

CHART = MANIFESTS / "helm" / "preheat"
ALL = {
    "image": {"repository": "registry.example/preheat", "tag": "1.2.3", "pullPolicy": "Always"},
    "autoscaler": {
        "args": ["--tick=5"],
        "env": [{"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "k8s.cluster.name=here"}],
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
    },
    "publish": {"hpa": {"enabled": True, "caBundle": "QQ=="}, "keda": {"enabled": True}},
    "wake": {"enabled": True},
    "traces": {"endpoint": "http://otel-collector.monitoring:4318"},
    "floor": True,
    "extender": {"clusterIP": "10.96.200.200", "nodeSelector": {"pool": "system"}},
}

Key = tuple[str, str, str]
Documents = dict[Key, Any]


def helm(*words: str | Path, values: object = None) -> subprocess.CompletedProcess[str]:
    command = [build.ensure(build.HELM) / "helm", *words, *(("--values", "-") if values else ())]
    return subprocess.run(
        list(map(str, command)), input=yaml.safe_dump(values), capture_output=True, text=True, timeout=270, check=False
    )


def rendered(control_plane: ControlPlane, values: object = None, *, namespace: str = HOME) -> str:
    version = control_plane.api.get("/version")["gitVersion"]
    where = ("--namespace", namespace, "--kube-version", version)
    done = helm("template", "preheat", CHART, "--include-crds", *where, values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_name(text: str) -> Documents:
    documents = [each for each in yaml.safe_load_all(text) if each]
    found = {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each for each in documents
    }
    assert len(found) == len(documents) > 1
    return found


@pytest.mark.parametrize(
    ("kustomization", "values"),
    [
        ("base", None),
        ("overlays/hpa", {"publish": {"hpa": {"enabled": True}}}),
        ("overlays/keda", {"publish": {"keda": {"enabled": True}}}),
        ("overlays/wake", {"wake": {"enabled": True}}),
    ],
)
def test_the_chart_is_the_kustomization_document_by_document(
    control_plane: ControlPlane, kustomization: str, values: object
) -> None:
    theirs = by_name(control_plane.kubectl("kustomize", MANIFESTS / kustomization))
    del theirs["Namespace", "", HOME]  # which is Helm's to make
    ours = by_name(rendered(control_plane, values))
    assert set(ours) == set(theirs)
    for key, document in theirs.items():
        assert ours[key] == document, key


def test_all_that_it_can_bring_is_taken_under_strict_validation(control_plane: ControlPlane, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(rendered(control_plane, ALL, namespace="default"))
    said = control_plane.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", path)
    assert len(said.splitlines()) == len(by_name(path.read_text()))


def test_the_rights_of_mode_floor_are_those_that_are_shipped(control_plane: ControlPlane) -> None:
    (shipped,) = yaml.safe_load_all((MANIFESTS / "floor" / "role.yaml").read_text())
    made = by_name(rendered(control_plane, {"floor": True}))
    assert made["ClusterRole", "", "preheat-autoscaler-floor"]["rules"] == shipped["rules"]


def test_of_one_namespace_the_rights_and_the_lease_are_there_and_nowhere_else(control_plane: ControlPlane) -> None:
    values = {
        "autoscaler": {"namespace": "inference", "nodes": False},
        "floor": True,
        "extender": {"enabled": False},
    }
    made = by_name(rendered(control_plane, values))
    roles = {(kind, namespace) for kind, namespace, _ in made if "Role" in kind}
    assert roles == {("Role", "inference"), ("RoleBinding", "inference")}
    for (kind, _, _), document in made.items():
        if kind == "RoleBinding":
            assert [subject["namespace"] for subject in document["subjects"]] == [HOME]
    (container,) = made["Deployment", HOME, "preheat-autoscaler"]["spec"]["template"]["spec"]["containers"]
    assert "--namespace=inference" in container["args"]


@pytest.mark.parametrize(
    ("listening", "namespace", "brought"),
    [
        ({"publish": {"hpa": {"enabled": True}}}, "inference", True),
        ({"publish": {"keda": {"enabled": True}}}, "inference", True),
        ({"wake": {"enabled": True}}, "inference", True),
        ({}, "inference", False),
        ({"wake": {"enabled": True}}, HOME, False),  # the Role that is there says so
        ({"wake": {"enabled": True}}, "", False),  # as does the ClusterRole
    ],
)
def test_who_is_asked_may_label_its_own_pod_also_where_it_follows_another_namespace(
    listening: dict[str, object], namespace: str, brought: bool
) -> None:
    values = {"autoscaler": {"namespace": namespace}, **listening}
    where = ("--namespace", HOME, "--kube-version", "1.36.0")
    done = helm("template", "preheat", CHART, *where, values=values)
    assert done.returncode == 0, done.stderr
    made = by_name(done.stdout)
    name = "preheat-autoscaler-label"
    assert (("Role", HOME, name) in made, ("RoleBinding", HOME, name) in made) == (brought, brought)
    if brought:
        shipped = by_name((MANIFESTS / "autoscaler" / "label-role.yaml").read_text())
        assert made["Role", HOME, name] == shipped["Role", HOME, name]
        assert made["RoleBinding", HOME, name] == shipped["RoleBinding", HOME, name]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("autoscaler.replica=3", "replica"),
        ("autoscaler.replicas=0", "replicas"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_its_name(setting: str, says: str) -> None:
    done = helm("template", "preheat", CHART, "--kube-version", "1.36.0", "--set", setting)
    assert done.returncode != 0
    assert says in done.stderr


def test_lint_finds_nothing_to_say() -> None:
    done = helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout + done.stderr


def test_helm_installs_changes_and_removes_it(control_plane: ControlPlane, namespace: str) -> None:
    """On nodes that run nothing: that its pods start is for the image's test to show."""
    install(control_plane)  # the definition may be there already
    where = ("--kubeconfig", control_plane.kubeconfig("admin"), "--namespace", namespace)
    waits = ("--wait", "--timeout", "240s")

    done = helm("install", "preheat", CHART, *where, *waits)
    assert done.returncode == 0, done.stderr
    assert f"preheat doctor --home {namespace}" in done.stdout

    def deployed() -> dict[str, int]:
        found = control_plane.api.items(f"/apis/apps/v1/namespaces/{namespace}/deployments")
        return {each["metadata"]["name"]: each["status"].get("readyReplicas", 0) for each in found}

    # Helm waits for all but those that may be unavailable.
    wait_until(lambda: deployed() == {"preheat-autoscaler": 2, "preheat-extender": 2}, within=60, what="all pods ready")
    changed = helm("upgrade", "preheat", CHART, *where, *waits, values={"autoscaler": {"replicas": 3}})
    assert changed.returncode == 0, changed.stderr
    wait_until(lambda: deployed()["preheat-autoscaler"] == 3, within=60, what="the third replica")
    listed = json.loads(helm("list", *where, "--output", "json").stdout)
    assert [(each["revision"], each["status"]) for each in listed] == [("2", "deployed")]

    gone = helm("uninstall", "preheat", *where, *waits)
    assert gone.returncode == 0, gone.stderr
    assert deployed() == {}
    control_plane.api.get("/apis/autoscaling.preheat.dev/v1alpha1/vllmautoscalers")  # the resources outlive it


def test_the_chart_tells_the_version_of_what_it_installs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'version = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()
