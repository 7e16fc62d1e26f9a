"""The optional admission policy: of our account only the pod that holds the Lease may write a scale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.control_plane import ControlPlane
from tests.parts.kubernetes_api import Api, ApiError, Json
from tests.parts.processes import wait_until
from tests.real.access import ACCOUNT, apply_shipped, one_writer
from tests.real.workloads import Workload

pytestmark = pytest.mark.cluster

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"


@pytest.fixture
def target(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Workload]:
    apply_shipped(control_plane, tmp_path, namespace)
    target = Workload(control_plane, namespace)
    target.create(1, cold_start_seconds=0)
    with as_pod(control_plane, namespace, "former") as former:
        with one_writer(control_plane):
            yield target
        wait_until(lambda: not refusal(former, target, 1), within=60, what="the policy switched off")


def token_of_pod(control_plane: ControlPlane, namespace: str, pod: str) -> str:
    """What a pod of ours would have, which is made for it."""
    container = {"name": "autoscaler", "image": "preheat"}
    body: Json = {"metadata": {"name": pod}, "spec": {"serviceAccountName": ACCOUNT, "containers": [container]}}
    made = control_plane.api.create(f"/api/v1/namespaces/{namespace}/pods", body)
    bound = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": made["metadata"]["uid"]}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{ACCOUNT}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"boundObjectRef": bound}}
    token: str = control_plane.api.create(path, request)["status"]["token"]
    return token


def as_pod(control_plane: ControlPlane, namespace: str, pod: str) -> Api:
    return Api(control_plane.url, ca=control_plane.ca, token=token_of_pod(control_plane, namespace, pod))


def refusal(api: Api, target: Workload, replicas: int) -> str:
    """What the API server says to a write, "" if it takes it."""
    try:
        api.patch(f"{target.path}/scale", {"spec": {"replicas": replicas}})
    except ApiError as error:
        if error.status not in (403, 422):
            raise
        return str(error)
    return ""


def test_only_the_pod_that_holds_the_lease_writes(control_plane: ControlPlane, target: Workload) -> None:
    namespace = target.namespace
    leases = LEASES.format(namespace)
    with as_pod(control_plane, namespace, "one") as one, as_pod(control_plane, namespace, "two") as two:
        held = {"holderIdentity": "none_1", "leaseDurationSeconds": 8}
        control_plane.api.create(leases, {"metadata": {"name": "preheat-autoscaler"}, "spec": held})
        wait_until(lambda: "held by 'none_1'" in refusal(one, target, 2), within=60, what="the Lease read")

        # Where no Lease is, as before the first start and in everybody else's namespaces, nobody is refused.
        control_plane.api.delete(f"{leases}/preheat-autoscaler")
        wait_until(lambda: not refusal(one, target, 3), within=60, what="the Lease gone")
        assert refusal(control_plane.api, target, 4) == ""

        leads = {"holderIdentity": "one_12345678", "leaseDurationSeconds": 8}
        control_plane.api.create(leases, {"metadata": {"name": "preheat-autoscaler"}, "spec": leads})
        wait_until(lambda: "held by 'one_12345678'" in refusal(two, target, 3), within=60, what="the new Lease read")
        assert refusal(one, target, 2) == ""
        assert target.desired == 2
        assert "pod 'two' does not lead: the Lease is held by 'one_12345678'" in refusal(two, target, 3)
        unbound = control_plane.token_of_service_account(namespace, ACCOUNT)
        with Api(control_plane.url, ca=control_plane.ca, token=unbound) as nobody:
            assert "does not lead" in refusal(nobody, target, 3)
        assert refusal(control_plane.api, target, 4) == "", "others are none of its business"

        control_plane.api.patch(f"{leases}/preheat-autoscaler", {"spec": {"holderIdentity": "two_9"}})
        wait_until(lambda: refusal(one, target, 5), within=60, what="the old holder refused")
        assert refusal(two, target, 6) == ""
        assert target.desired == 6
