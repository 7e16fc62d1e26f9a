"""A resource of mode Floor goes only when what it raised is given back, also where nobody leads as it is deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from autoscaler.controller import FINALIZER
from tests.checkout import ROOT
from tests.parts.control_plane import ControlPlane
from tests.parts.kubernetes_api import ApiError
from tests.parts.processes import wait_until
from tests.parts.prometheus import Prometheus
from tests.real.access import apply_shipped, grant
from tests.real.autoscaler_process import Autoscaler
from tests.real.custom_resource import Resource, give_lease_back, install
from tests.real.test_conflicts import hpa
from tests.real.workloads import Workload, resource

pytestmark = pytest.mark.cluster


def test_a_floor_is_given_back_before_its_resource_goes(
    control_plane: ControlPlane, prometheus: Prometheus, namespace: str, tmp_path: Path
) -> None:
    install(control_plane)
    (tmp_path / "overlay").mkdir()
    kubeconfig = apply_shipped(control_plane, tmp_path / "overlay", namespace)
    rules = yaml.safe_load((ROOT / "manifests" / "floor" / "role.yaml").read_text())["rules"]
    grant(control_plane, namespace, rules, to_namespace=namespace, name="floor")
    target = Workload(control_plane, namespace)
    target.create(1, cold_start_seconds=0)
    theirs = hpa(target, "theirs")
    api = control_plane.api
    made = Resource(api, resource(target, prometheus, mode="Floor", minReplicas=3)).create()

    def fewest() -> int:
        return int(api.get(theirs)["spec"]["minReplicas"])

    def is_gone() -> bool:
        try:
            api.get(made.path)
        except ApiError as error:
            return error.status == 404
        return False

    give_lease_back(api, namespace)
    options = ("--namespace", namespace)
    with Autoscaler(tmp_path / "first", None, kubeconfig, options=options):
        wait_until(lambda: fewest() == 3, within=90, what="the floor raised")
        assert api.get(made.path)["metadata"]["finalizers"] == [FINALIZER]
    made.delete()
    assert not is_gone()
    assert fewest() == 3
    with Autoscaler(tmp_path / "second", None, kubeconfig, options=options):
        wait_until(is_gone, within=90, what="the resource gone")
        assert fewest() == 1
