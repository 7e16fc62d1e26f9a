"""What the tests let the autoscaler scale, and the resource that tells it to."""

from __future__ import annotations

from typing import Any

from tests.parts.control_plane import ControlPlane
from tests.parts.kubernetes_api import Json, is_true
from tests.parts.prometheus import Prometheus
from tests.real.simulated_pods import NAME, is_terminating


def deployment(name: str = NAME) -> Json:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}


def stateful_set(name: str = NAME) -> Json:
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name}


# Longer than the 5 s in which Prometheus takes up new targets: a pod is scraped by the time that it serves.
COLD_START_SECONDS = 6


def pods_of(
    app: str, replicas: int, *, cold_start_seconds: float = COLD_START_SECONDS, drain_seconds: float = 1
) -> Json:
    """The spec that a Deployment and a StatefulSet share."""
    labels = {"app": app}
    annotations = {"cold-start": f"{cold_start_seconds}s", "drain": f"{drain_seconds}s"}
    container = {"name": "vllm", "image": "vllm/vllm-openai:v0.32.0", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    return {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": {"containers": [container]},
        },
    }


class Workload:
    """One scalable thing of a namespace, by its path in the API; its pods' app is its name."""

    def __init__(self, control_plane: ControlPlane, namespace: str, ref: Json | None = None) -> None:
        self.api = control_plane.api
        self.namespace = namespace
        self.ref = ref = ref or deployment()
        self.collection = f"/apis/{ref['apiVersion']}/namespaces/{namespace}/{ref['kind'].lower()}s"
        self.path = f"{self.collection}/{self.name}"

    @property
    def name(self) -> str:
        name: str = self.ref["name"]
        return name

    @property
    def key(self) -> str:
        """Of its VLLMAutoscaler."""
        return f"{self.namespace}/{self.name}"

    def create(self, replicas: int, **more: Any) -> None:
        """A Deployment or a StatefulSet; its pods take `more` from `pods_of`."""
        spec = pods_of(self.name, replicas, **more)
        if self.ref["kind"] == "StatefulSet":
            spec["podManagementPolicy"] = "Parallel"
        body = {"apiVersion": self.ref["apiVersion"], "kind": self.ref["kind"], "metadata": {"name": self.name}}
        self.api.create(self.collection, body | {"spec": spec})

    @property
    def desired(self) -> int:
        replicas: int = self.api.get(f"{self.path}/scale")["spec"].get("replicas", 0)
        return replicas

    def set_by_hand(self, replicas: int) -> None:
        self.api.patch(f"{self.path}/scale", {"spec": {"replicas": replicas}})

    def pods(self) -> list[Json]:
        return self.api.items(f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=f"app={self.name}")

    @property
    def ready(self) -> int:
        return sum(is_true(pod, "Ready") and not is_terminating(pod) for pod in self.pods())

    def events(self) -> list[Json]:
        """Those on the workload itself that Preheat wrote, oldest first."""
        found = self.api.items(
            f"/api/v1/namespaces/{self.namespace}/events",
            fieldSelector=f"involvedObject.name={self.name},involvedObject.kind={self.ref['kind']}",
        )
        ours = [event for event in found if event["reportingComponent"] == "preheat"]
        return sorted(ours, key=lambda event: event["firstTimestamp"])


def resource(target: Workload, prometheus: Prometheus, **spec: Any) -> Json:
    """A VLLMAutoscaler for it; times as short as a test wants them."""
    return {
        "apiVersion": "autoscaling.preheat.dev/v1alpha1",
        "kind": "VLLMAutoscaler",
        "metadata": {"name": target.name, "namespace": target.namespace},
        "spec": {
            "scaleTargetRef": target.ref,
            "maxReplicas": 6,
            "objectives": {"ttftSeconds": 1, "tpotSeconds": 0.075, "attainment": 0.9},
            "coldStartSeconds": COLD_START_SECONDS,
            "prometheus": {"url": prometheus.url},
            "behavior": {"scaleDown": {"windowSeconds": 5}},
            **spec,
        },
    }
