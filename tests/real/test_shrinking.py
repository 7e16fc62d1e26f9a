"""A real controller takes the pods that do least, and a shrink stops where a budget keeps them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.objects import DELETION_COST
from tests.parts.control_plane import ControlPlane
from tests.parts.processes import wait_until
from tests.parts.prometheus import Prometheus
from tests.real.access import apply_shipped
from tests.real.autoscaler_process import Autoscaler
from tests.real.simulated_pods import SimulatedPods
from tests.real.simulated_vllm import Speed
from tests.real.workloads import Workload, resource

pytestmark = pytest.mark.cluster

SLOW = Speed(output_tokens=100_000, kv_cache_tokens=3_200_000)
"""Requests that outlast the test."""


@pytest.fixture
def target(control_plane: ControlPlane, namespace: str) -> Workload:
    """Two pods, and then two more: of equals a controller would take the younger ones."""
    made = Workload(control_plane, namespace)
    made.create(2, cold_start_seconds=0)
    wait_until(lambda: made.ready == 2, within=60, what="two pods")
    return made


@pytest.fixture
def pods(control_plane: ControlPlane, prometheus: Prometheus, target: Workload) -> Iterator[SimulatedPods]:
    with SimulatedPods(control_plane, prometheus, target.namespace, speed=SLOW) as running:
        yield running


def names(target: Workload) -> set[str]:
    return {pod["metadata"]["name"] for pod in target.pods() if "deletionTimestamp" not in pod["metadata"]}


def test_the_pods_that_do_least_are_taken_though_they_are_the_oldest(
    control_plane: ControlPlane, prometheus: Prometheus, target: Workload, pods: SimulatedPods, tmp_path: Path
) -> None:
    old = names(target)
    target.set_by_hand(5)
    wait_until(lambda: target.ready == 5 and len(pods.servers) == 5, within=60, what="five pods")
    young = sorted(names(target) - old)
    for busy, pod in enumerate([*sorted(old), *young]):
        for _ in range(busy):  # 0 and 1 on the old ones, 2 to 4 on the young
            pods.servers[pod].take(time.time())
    prometheus.wait_value("count(vllm:num_requests_running)", 5)
    prometheus.wait_value("sum(vllm:num_requests_running)", 10)
    kubeconfig = apply_shipped(control_plane, tmp_path, target.namespace)
    with Autoscaler(tmp_path / "run", [resource(target, prometheus, maxReplicas=3)], kubeconfig):
        wait_until(lambda: names(target) == set(young), within=60, what=lambda: f"{young}; there are {names(target)}")
    left = [pod["metadata"].get("annotations", {}) for pod in target.pods() if pod["metadata"]["name"] in young]
    assert not [annotations for annotations in left if DELETION_COST in annotations]


def test_a_budget_keeps_what_a_shrink_would_take(
    control_plane: ControlPlane, prometheus: Prometheus, target: Workload, pods: SimulatedPods, tmp_path: Path
) -> None:
    target.set_by_hand(4)
    spec = {"minAvailable": 3, "selector": {"matchLabels": {"app": target.name}}}
    budgets = f"/apis/policy/v1/namespaces/{target.namespace}/poddisruptionbudgets"
    control_plane.api.create(budgets, {"metadata": {"name": "keep"}, "spec": spec})
    pods.bear(0.05)
    prometheus.wait_value("count(vllm:num_requests_running)", 4)
    kubeconfig = apply_shipped(control_plane, tmp_path, target.namespace)
    with Autoscaler(tmp_path / "run", [resource(target, prometheus)], kubeconfig) as autoscaler:
        wait_until(lambda: target.desired < 4, within=120, what="a shrink")
        autoscaler.wait_turns(target.key, 5)
        assert target.desired == 3
        said = " ".join(turn["decision"]["sentence"] for turn in autoscaler.entries(target.key) if turn["decision"])
        assert "held at 3: PodDisruptionBudget 'keep' keeps 3 available" in said
