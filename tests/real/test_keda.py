"""KEDA's own client asks our external scaler, and understands every answer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.parts import build
from tests.parts.control_plane import ControlPlane
from tests.parts.kubernetes_api import Json
from tests.parts.processes import wait_until
from tests.parts.prometheus import Prometheus
from tests.real.autoscaler_process import Autoscaler
from tests.real.simulated_pods import SimulatedPods
from tests.real.workloads import Workload, resource

pytestmark = pytest.mark.cluster

METRIC = "preheat_replicas_published"


def asked(port: int, namespace: str, name: str) -> Json:
    """By the package that KEDA itself asks with."""
    client = build.ensure(build.KEDA_CLIENT) / "keda-client"
    done = subprocess.run(
        [client, f"127.0.0.1:{port}", namespace, name], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    told: Json = json.loads(done.stdout)
    return told


def test_kedas_own_client_reads_the_number_and_the_reason_where_there_is_none(
    control_plane: ControlPlane, prometheus: Prometheus, namespace: str, tmp_path: Path
) -> None:
    """The fewest replicas are five, so that is the number whatever the load."""
    workload = Workload(control_plane, namespace)
    workload.create(2, cold_start_seconds=0)
    document = resource(workload, prometheus, minReplicas=5, maxReplicas=8, mode="Publish")
    autoscaler = Autoscaler(tmp_path, [document], control_plane.kubeconfig("admin"))
    autoscaler.command += ["--keda-port", "0"]
    with SimulatedPods(control_plane, prometheus, namespace), autoscaler:
        (line,) = autoscaler.lines(keda_port=...)
        port = line["keda_port"]
        wait_until(lambda: autoscaler.metric(METRIC, name=workload.name) == 5, within=60, what="a number")
        assert asked(port, namespace, workload.name) == {
            "active": True,
            "streamed": True,
            "targets": {METRIC: 1},
            "metrics": {METRIC: 5},
            "errors": {},
        }
        unknown = asked(port, namespace, "another")
        assert unknown["targets"] == unknown["metrics"] == {}
        assert unknown["errors"]["IsActive"].startswith("NotFound: no VLLMAutoscaler 'another'")
        workload.api.delete(workload.path)
        wait_until(lambda: autoscaler.metric(METRIC, name=workload.name) is None, within=90, what="a stale number")
        stale = asked(port, namespace, workload.name)
        assert (stale["targets"], stale["metrics"], stale["active"]) == ({METRIC: 1}, {}, False)
        assert stale["errors"].keys() == {"IsActive", "StreamIsActive", "GetMetrics"}
        assert all(error.startswith("Unavailable: ") for error in stale["errors"].values())
