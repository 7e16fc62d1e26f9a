"""The shipped Role is enough, and each right in it is needed: without it Preheat says which one is missing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.parts.control_plane import ControlPlane
from tests.parts.fixtures import new_namespace, running_prometheus
from tests.parts.kubernetes_api import Json
from tests.parts.processes import wait_until
from tests.parts.prometheus import Prometheus
from tests.real.access import ACCOUNT, apply_shipped, grant, shipped_role
from tests.real.autoscaler_process import Autoscaler, preheat
from tests.real.simulated_pods import SimulatedPods
from tests.real.workloads import Workload, deployment, resource, stateful_set

pytestmark = pytest.mark.cluster

COMMON = [
    ("list", "", "pods"),
    ("watch", "", "pods"),
    ("create", "", "events"),
    ("patch", "", "events"),
    ("list", "", "resourcequotas"),
    ("watch", "", "resourcequotas"),
    ("list", "autoscaling", "horizontalpodautoscalers"),
    ("watch", "autoscaling", "horizontalpodautoscalers"),
    ("list", "policy", "poddisruptionbudgets"),
    ("watch", "policy", "poddisruptionbudgets"),
]
OF_A_DEPLOYMENT = [
    *COMMON,
    ("list", "apps", "deployments"),
    ("watch", "apps", "deployments"),
    ("list", "apps", "replicasets"),
    ("watch", "apps", "replicasets"),
    ("get", "apps", "deployments/scale"),
    ("patch", "apps", "deployments/scale"),
    ("patch", "", "pods"),
]
OF_A_STATEFUL_SET = [
    *COMMON,
    ("list", "apps", "statefulsets"),
    ("watch", "apps", "statefulsets"),
    ("get", "apps", "statefulsets/scale"),
    ("patch", "apps", "statefulsets/scale"),
]
# Proven in test_resources_followed.py: a file needs none of them.
OF_RESOURCES = [
    ("list", "autoscaling.preheat.dev", "vllmautoscalers"),
    ("watch", "autoscaling.preheat.dev", "vllmautoscalers"),
    ("patch", "autoscaling.preheat.dev", "vllmautoscalers/status"),
]
# Proven in test_leadership.py.
OF_LEADING = [(verb, "coordination.k8s.io", "leases") for verb in ("get", "create", "update")]
TAKEN_AWAY = [(deployment(), *right) for right in OF_A_DEPLOYMENT] + [
    (stateful_set(), *right) for right in OF_A_STATEFUL_SET if right not in COMMON
]
BEFORE_A_SHRINK = [("list", "policy", "poddisruptionbudgets"), ("patch", "", "pods")]
# Met by itself while the autoscaler runs; the others only by a collision, an event that repeats, or a shrink.
LATER = [("patch", "", "events"), ("watch", "policy", "poddisruptionbudgets"), *BEFORE_A_SHRINK]
MET_AT_ONCE = [case for case in TAKEN_AWAY if case[1:] not in LATER and case[1] != "get"]


def without(verb: str, group: str, resource_: str) -> list[Json]:
    """The shipped rules less one right."""
    rules: list[Json] = []
    for rule in copy.deepcopy(shipped_role()["rules"]):
        if group in rule["apiGroups"] and resource_ in rule["resources"]:
            others = [name for name in rule["resources"] if name != resource_]
            rules += [{**rule, "resources": others}] if others else []
            verbs = [each for each in rule["verbs"] if each != verb]
            rules += [{**rule, "resources": [resource_], "verbs": verbs}] if verbs else []
        else:
            rules.append(rule)
    return rules


def test_the_shipped_role_holds_the_rights_below_and_no_other() -> None:
    shipped = {
        (verb, group, resource_)
        for rule in shipped_role()["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource_ in rule["resources"]
    }
    assert shipped == {*OF_A_DEPLOYMENT, *OF_A_STATEFUL_SET, *OF_RESOURCES, *OF_LEADING}


@pytest.fixture(scope="module")
def a_prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with running_prometheus(tmp_path_factory.mktemp("rights") / "prometheus") as running:
        yield running


@dataclass(frozen=True)
class CutDown:
    """A target a case of `TAKEN_AWAY`, and the account that lacks that right in the target's namespace."""

    targets: list[Workload]
    kubeconfig: Path


@pytest.fixture(scope="module")
def cut_down(control_plane: ControlPlane) -> Iterator[CutDown]:
    with ExitStack() as stack:
        home = stack.enter_context(new_namespace(control_plane))
        control_plane.api.create(f"/api/v1/namespaces/{home}/serviceaccounts", {"metadata": {"name": ACCOUNT}})
        targets = []
        for ref, verb, group, resource_ in TAKEN_AWAY:
            target = Workload(control_plane, stack.enter_context(new_namespace(control_plane)), ref)
            target.create(1, cold_start_seconds=0)
            rules = without(verb, group, resource_)
            grant(control_plane, target.namespace, rules, to_namespace=home, name="cut-down")
            targets.append(target)
        for target in targets:
            wait_until(lambda target=target: target.ready == 1, within=60, what=f"{target.key} ready")  # type: ignore[misc]
        yield CutDown(targets, control_plane.kubeconfig_of_service_account(home, ACCOUNT))


def test_check_names_each_right_that_is_missing(cut_down: CutDown, a_prometheus: Prometheus, tmp_path: Path) -> None:
    file = tmp_path / "targets.yaml"
    file.write_text(yaml.safe_dump_all(resource(target, a_prometheus) for target in cut_down.targets))
    checked = preheat("check", file, "--kubeconfig", cut_down.kubeconfig)
    assert checked.returncode == 2, checked.stderr
    for target, (_, verb, group, resource_) in zip(cut_down.targets, TAKEN_AWAY, strict=True):
        told = [line for line in checked.stderr.splitlines() if f"{target.namespace}/" in line]
        assert len(told) == 1, told
        assert f"the right to {verb} {resource_} in namespace '{target.namespace}' is missing" in told[0]
        assert f'apiGroups: ["{group}"], resources: ["{resource_}"], verbs: ["{verb}"]' in told[0]


def test_the_autoscaler_names_the_right_it_misses_and_touches_nothing(
    cut_down: CutDown, a_prometheus: Prometheus, tmp_path: Path
) -> None:
    """Each target is below its floor, so there is something to write and to tell."""
    resources = [resource(target, a_prometheus, minReplicas=2) for target in cut_down.targets]
    with Autoscaler(tmp_path, resources, cut_down.kubeconfig) as autoscaler:
        for target, case in zip(cut_down.targets, TAKEN_AWAY, strict=True):
            _, verb, _, resource_ = case
            if case in MET_AT_ONCE:
                line = autoscaler.wait_line(f'lacks the right "{verb} {resource_}"', within=40)
                assert "add it to its Role" in line["message"]
            if case[1:] in BEFORE_A_SHRINK:
                wait_until(lambda target=target: target.desired == 2, within=40, what=f"{target.key} at its floor")  # type: ignore[misc]
            elif verb == "list" or (verb == "patch" and resource_ != "events"):
                assert target.desired == 1
            elif verb != "watch":  # what a first list showed may still be acted on
                wait_until(lambda target=target: target.desired == 2, within=40, what=f"{target.key} at its floor")  # type: ignore[misc]


def test_with_the_shipped_role_alone_nothing_is_missing(
    control_plane: ControlPlane, a_prometheus: Prometheus, namespace: str, tmp_path: Path
) -> None:
    targets = [Workload(control_plane, namespace, ref) for ref in (deployment("one"), stateful_set("two"))]
    for target in targets:
        target.create(1, cold_start_seconds=0)
    with ExitStack() as stack:
        for target in targets:
            stack.enter_context(SimulatedPods(control_plane, a_prometheus, namespace, app=target.name))
        a_prometheus.wait_value("count(vllm:num_requests_running)", 2)
        kubeconfig = apply_shipped(control_plane, tmp_path, namespace)
        file = tmp_path / "targets.yaml"
        file.write_text(yaml.safe_dump_all(resource(target, a_prometheus) for target in targets))
        checked = preheat("check", file, "--kubeconfig", kubeconfig)
        assert checked.returncode == 0, checked.stderr
