"""Whoever does not let his pods end what they do is told so before a shrink shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.parts.control_plane import ControlPlane
from tests.parts.processes import wait_until
from tests.parts.prometheus import Prometheus
from tests.real.autoscaler_process import preheat
from tests.real.simulated_pods import SimulatedPods
from tests.real.workloads import Workload, resource

pytestmark = pytest.mark.cluster


def test_check_tells_what_a_shrink_would_cut_off(
    control_plane: ControlPlane, prometheus: Prometheus, namespace: str, tmp_path: Path
) -> None:
    """Requests take 4 s; the pods have 1 s."""
    target = Workload(control_plane, namespace)
    target.create(0, cold_start_seconds=0)
    target.api.patch(target.path, {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}})
    target.set_by_hand(1)
    file = tmp_path / "targets.yaml"
    file.write_text(yaml.safe_dump(resource(target, prometheus)))
    with SimulatedPods(control_plane, prometheus, namespace) as pods:
        pods.bear(2.0)
        wait_until(lambda: pods.truth.finished > 4, within=90, what="requests that ended")
        prometheus.wait_value("sum(increase(vllm:e2e_request_latency_seconds_count[1h])) > bool 2", 1)
        told = preheat("check", file, "--kubeconfig", control_plane.kubeconfig("admin"))
    assert told.returncode == 0, told.stderr
    about = [line for line in told.stdout.splitlines() if line.startswith(f"{target.key}: ")]
    assert any(
        "terminationGracePeriodSeconds is 1, and one request of a hundred takes longer" in line for line in about
    )
    assert any("its container has no preStop" in line for line in about)
    assert any("without --shutdown-timeout" in line for line in about)
