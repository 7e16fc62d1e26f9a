"""The doctor on a real chain: well from one end to the other, then with one link after another spoilt."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.manifests.examples import engines
from tests.parts.control_plane import ControlPlane
from tests.parts.kubernetes_api import Json
from tests.parts.processes import wait_until
from tests.parts.prometheus import Prometheus
from tests.real.autoscaler_process import preheat
from tests.real.custom_resource import collection, install
from tests.real.simulated_pods import SimulatedPods
from tests.real.workloads import Workload, resource

pytestmark = pytest.mark.cluster


def deployment(name: str, replicas: int) -> Json:
    """The first example's pods, on kwok's nodes."""
    template: Json = copy.deepcopy(next(made for path, _, made in engines() if path.stem == "8b-a10"))
    template["metadata"] = {"labels": {"app": name}, "annotations": {"cold-start": "0s", "drain": "0s"}}
    template["spec"]["volumes"] = [{"name": each["name"], "emptyDir": {}} for each in template["spec"]["volumes"]]
    del template["spec"]["nodeSelector"], template["spec"]["topologySpreadConstraints"]
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"metadata": {"name": name}, "spec": spec}


@dataclass
class Chain:
    control_plane: ControlPlane
    target: Workload

    def told(self, *, user: str = "admin") -> list[tuple[str, str]]:
        """Level and sentence of each line."""
        kubeconfig = self.control_plane.kubeconfig(user)
        options = ("--kubeconfig", kubeconfig, "--namespace", self.target.namespace, "--tick", "2", "--json")
        done = preheat("doctor", *options)
        assert done.returncode in (0, 2), done.stderr
        found = json.loads(done.stdout)
        assert found["failed"] is (done.returncode == 2)
        return [(line["level"], f"{line['about']}: {line['sentence']}") for line in found["findings"]]

    def ill(self) -> list[str]:
        return [sentence for level, sentence in self.told() if level != "ok"]


@pytest.fixture
def chain(control_plane: ControlPlane, prometheus: Prometheus, namespace: str) -> Iterator[Chain]:
    install(control_plane)
    target = Workload(control_plane, namespace)
    control_plane.api.create(target.collection, deployment(target.name, 2))
    with SimulatedPods(control_plane, prometheus, namespace) as pods:
        wait_until(lambda: target.ready == 2, within=60, what="both ready")
        pods.bear(2.0)
        prometheus.wait_value("count(vllm:num_requests_running offset 8s)", 2, within=60)
        control_plane.api.create(
            collection(namespace),
            resource(target, prometheus),
        )
        yield Chain(control_plane, target)


def test_a_chain_that_is_whole_and_each_link_that_is_not(chain: Chain) -> None:
    refused = chain.told(user="nobody")
    assert any("resources: could not be looked at" in sentence for _, sentence in refused)
    assert all(sentence.endswith("run this as somebody who may") for level, sentence in refused if level == "warn")

    found = chain.told()
    well = [sentence for level, sentence in found if level == "ok"]
    for said in (
        "is Kubernetes v1.36",
        "VLLMAutoscaler of autoscaling.preheat.dev/v1alpha1 is served",
        "names of series that are known as vLLM's",
        "vLLM pods are scraped at least every",
        "asks for 2 replicas, 2 pods are ready",
        "each of 2 ready pods has a fresh sample",
        "nobody else scales it",
        "nodes have GPUs for all that maxReplicas allows",
        "its probes let it load as long as it takes",
        "its pods have time to end what they do",
    ):
        assert any(said in sentence for sentence in well), f"{said} is not in {found}"
    assert ["nobody leads" in sentence for level, sentence in found if level != "ok"] == [True]

    api, namespace = chain.control_plane.api, chain.target.namespace
    api.create(f"/api/v1/namespaces/{namespace}/resourcequotas", quota())
    metric: dict[str, Any] = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    hpa = {
        "metadata": {"name": "other"},
        "spec": {"scaleTargetRef": chain.target.ref, "minReplicas": 2, "maxReplicas": 2, "metrics": [metric]},
    }
    api.create(f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers", hpa)
    ill = chain.ill()
    for said in (
        "HPA other scales it too, and is yielded to: delete it",
        "quota 'gpus' has 2 of 4 requests.nvidia.com/gpu left, room for 4 replicas, and maxReplicas is 6",
    ):
        assert any(said in sentence for sentence in ill), f"{said} is not in {ill}"

    api.patch(f"{collection(namespace)}/{chain.target.name}", {"spec": {"mode": "Publish"}})
    assert any("mode is Publish and nobody follows" in sentence for sentence in chain.ill())
    external = {
        "metric": {"name": "preheat_replicas_published"},
        "target": {"type": "AverageValue", "averageValue": "1"},
    }
    path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/other"
    api.patch(path, {"spec": {"metrics": [{"type": "External", "external": external}]}})
    ill = chain.ill()
    for said in ("HPA other tolerates 10 %", "external.metrics.k8s.io/v1beta1 is not registered"):
        assert any(said in sentence for sentence in ill), f"{said} is not in {ill}"


def quota() -> Json:
    return {"metadata": {"name": "gpus"}, "spec": {"hard": {"requests.nvidia.com/gpu": "4"}}}
