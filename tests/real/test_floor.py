"""A real HPA goes where mode Floor lifts it, ahead of its own metric, and comes back when it is let go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.floors import ANNOTATION
from tests.checkout import ROOT
from tests.parts.control_plane import ControlPlane
from tests.parts.kubernetes_api import Json
from tests.parts.metrics_api import serving_metrics
from tests.parts.processes import wait_until
from tests.parts.prometheus import Prometheus
from tests.real.access import apply_shipped, grant
from tests.real.autoscaler_process import Autoscaler, preheat
from tests.real.simulated_pods import SimulatedPods
from tests.real.workloads import Workload, resource

pytestmark = pytest.mark.cluster


class Theirs:
    """A Deployment under an HPA of two to eight replicas, whose own metric always asks for one."""

    def __init__(self, control_plane: ControlPlane, namespace: str) -> None:
        self.workload = Workload(control_plane, namespace)
        self.api = control_plane.api
        self.workload.create(2, cold_start_seconds=0)
        collection = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
        self.path = f"{collection}/theirs"
        target = {"type": "AverageValue", "averageValue": "1"}
        spec = {
            "scaleTargetRef": self.workload.ref,
            "minReplicas": 2,
            "maxReplicas": 8,
            "metrics": [{"type": "External", "external": {"metric": {"name": "queue"}, "target": target}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        }
        self.api.create(collection, {"metadata": {"name": "theirs"}, "spec": spec})

    @property
    def fewest(self) -> int:
        fewest: int = self.api.get(self.path)["spec"]["minReplicas"]
        return fewest

    @property
    def note(self) -> Json:
        note: Json = json.loads(self.api.get(self.path)["metadata"].get("annotations", {}).get(ANNOTATION, "{}"))
        return note

    def leave(self, fewest: int, note: Json) -> None:
        """As the program leaves it when it ends."""
        annotations = {ANNOTATION: json.dumps(note)}
        self.api.patch(self.path, {"metadata": {"annotations": annotations}, "spec": {"minReplicas": fewest}})

    def reaches(self, replicas: int, fewest: int) -> None:
        def there() -> bool:
            return (self.fewest, self.workload.desired) == (fewest, replicas)

        what = f"{replicas} replicas, {fewest} of them the fewest"
        wait_until(there, within=90, what=lambda: f"{what}; now {self.fewest}, {self.workload.desired}")


@pytest.fixture
def theirs(control_plane: ControlPlane, namespace: str) -> Iterator[Theirs]:
    with serving_metrics(control_plane, lambda question: ("1",)):
        yield Theirs(control_plane, namespace)


def test_an_hpa_is_lifted_held_over_a_restart_and_given_back(
    control_plane: ControlPlane, prometheus: Prometheus, theirs: Theirs, tmp_path: Path
) -> None:
    """The fewest that ours allows are five, so that is its floor whatever the load."""
    workload = theirs.workload
    (tmp_path / "overlay").mkdir()
    kubeconfig = apply_shipped(control_plane, tmp_path / "overlay", workload.namespace)
    rules = yaml.safe_load((ROOT / "manifests" / "floor" / "role.yaml").read_text())["rules"]
    grant(control_plane, workload.namespace, rules, to_namespace=workload.namespace, name="floor")

    @contextmanager
    def running(name: str, **spec: Any) -> Iterator[Autoscaler]:
        with Autoscaler(tmp_path / name, [resource(workload, prometheus, **spec)], kubeconfig) as autoscaler:
            yield autoscaler

    with SimulatedPods(control_plane, prometheus, workload.namespace):
        theirs.reaches(2, fewest=2)
        with running("first", mode="Floor", minReplicas=5):
            theirs.reaches(5, fewest=5)
            assert theirs.note == {"original": 2, "to": 5, "by": workload.key}
            assert "FloorSet" in {event["reason"] for event in workload.events()}
        assert theirs.fewest == 5
        with running("second", mode="Floor", minReplicas=5) as autoscaler:
            assert theirs.note["original"] == 2
            wait_until(lambda: autoscaler.metric("preheat_replicas_floor") == 5, within=60, what="its gauge")
        told = preheat("release", workload.key, "--kubeconfig", kubeconfig)
        assert (
            told.stdout == f"HorizontalPodAutoscaler 'theirs' in namespace '{workload.namespace}': minReplicas 5 → 2\n"
        )
        theirs.reaches(2, fewest=2)
        again = preheat("release", "--namespace", workload.namespace, "--kubeconfig", kubeconfig)
        assert again.stdout == f"nothing is raised in namespace '{workload.namespace}'\n"
        file = tmp_path / "targets.yaml"
        file.write_text(yaml.safe_dump(resource(workload, prometheus, mode="Floor")))

        def has_two() -> bool:
            checked = preheat("check", file, "--kubeconfig", kubeconfig)
            assert checked.returncode == 0, checked.stderr
            return f"'theirs' in namespace '{workload.namespace}' has minReplicas 2\n" in checked.stdout

        # A scrape that timed out on a busy machine leaves nothing to be seen, as the check then rightly says.
        wait_until(has_two, within=60, what="a check that finds their pods scraped")
        theirs.leave(4, {"original": 2, "to": 4, "by": workload.key})
        with running("third", mode="Shadow") as autoscaler:
            autoscaler.wait_line("has its minReplicas 2 back", within=60)
            theirs.reaches(2, fewest=2)
            assert theirs.note == {}
        writers = {each["manager"] for each in workload.api.get(workload.path)["metadata"]["managedFields"]}
        assert "preheat" not in writers
