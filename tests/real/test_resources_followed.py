"""`preheat autoscaler` follows the resources of a cluster: live, each on its own, told on the object itself."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.parts.fixtures import new_namespace, running_prometheus
from tests.parts.kubernetes_api import Json
from tests.parts.processes import wait_until
from tests.real.access import ACCOUNT, grant
from tests.real.autoscaler_process import Autoscaler
from tests.real.custom_resource import Resource, collection
from tests.real.following import Followed, followed
from tests.real.simulated_pods import SimulatedPods
from tests.real.test_rights import OF_RESOURCES, without
from tests.real.workloads import Workload, deployment, resource

__all__ = ["followed"]

pytestmark = pytest.mark.cluster


def test_a_resource_is_taken_up_changed_and_let_go_of(followed: Followed) -> None:
    target = followed.target("living")
    with SimulatedPods(followed.control_plane, followed.prometheus, followed.namespace, app="living"):
        made = followed.resource(target, minReplicas=2).create()
        wait_until(lambda: target.desired == 2, within=60, what="its floor")
        ready = made.wait_condition("Ready", "True")
        assert ready["observedGeneration"] == 1
        made.wait_condition("MetricsAvailable", "True", "Fresh")
        made.wait_condition("ScalingActive", "True")
        made.wait_condition("Learning", "True")
        wait_until(lambda: made.status["replicasSummary"] == "2/2/2", within=60, what=lambda: str(made.status))
        newest = made.status["lastDecisions"][0]
        assert (newest["before"], newest["after"], newest["reason"]) == (1, 2, "floor")
        for events in (made.events, target.events):
            wait_until(lambda: "Rescaled" in [each["reason"] for each in events()], within=30, what="the event")  # noqa: B023

        made.change(minReplicas=3)
        wait_until(lambda: target.desired == 3, within=60, what="its new floor")
        changed = made.wait_condition("Ready", "True")
        wait_until(lambda: made.status["observedGeneration"] == 2, within=60, what=lambda: str(made.status))
        assert changed["lastTransitionTime"] == ready["lastTransitionTime"], "it was ready all the while"

        made.delete()
        followed.autoscaler.wait_line("let go of", target=made.namespace + "/living")
        target.set_by_hand(1)  # below what was its floor: nobody is there to mind
        assert target.desired == 1


def test_what_is_wrong_is_said_on_the_object_and_concerns_no_other(followed: Followed) -> None:
    well = followed.target("well")
    cases: dict[str, tuple[Resource, str, str]] = {
        "file": (
            followed.resource(well, "file", prometheus={"url": "http://h", "bearerTokenFile": "/nowhere/token"}),
            "InvalidSpec",
            "spec.prometheus.bearerTokenFile: /nowhere/token: is not below ",
        ),
        "no-target": (
            followed.resource(followed.target("other"), "no-target", scaleTargetRef=deployment("othe")),
            "TargetNotFound",
            "does not exist: did you mean 'other'?",
        ),
        "no-scale": (
            followed.resource(well, "no-scale", scaleTargetRef={"apiVersion": "v1", "kind": "Pod", "name": "x"}),
            "Refused",
            "has no scale subresource",
        ),
        "no-kind": (
            followed.resource(well, "no-kind", scaleTargetRef={"apiVersion": "x.dev/v1", "kind": "Y", "name": "x"}),
            "Refused",
            "does not serve x.dev/v1",
        ),
        "no-prometheus": (
            followed.resource(followed.target("blind"), prometheus={"url": "http://127.0.0.1:9"}),
            "MetricsUnavailable",
            "refuses connections",
        ),
    }
    served = followed.resource(well).create()
    for made, _, _ in cases.values():
        made.create()
    second = followed.resource(well, "well-again").create()
    with SimulatedPods(followed.control_plane, followed.prometheus, followed.namespace, app="well"):
        for made, reason, sentence in cases.values():
            said = made.wait_condition("Ready", "False", reason)
            assert sentence in said["message"]
            wait_until(made.events, within=30, what="an event that says so")
        said = second.wait_condition("Conflicted", "True", "SameTarget")
        assert f"{followed.namespace}/well scales Deployment 'well' already" in said["message"]
        served.wait_condition("Ready", "True")
        served.wait_condition("MetricsAvailable", "True")
        served.delete()
        second.wait_condition("Ready", "True", within=90)
        second.wait_condition("Conflicted", "False")
    for made in (second, *(made for made, _, _ in cases.values())):
        made.delete()


def test_an_expired_certificate_of_its_prometheus_is_told_in_a_sentence(followed: Followed, tmp_path: Path) -> None:
    target = followed.target("expired", replicas=2)
    ended = datetime(2001, 1, 1, tzinfo=UTC)
    with running_prometheus(tmp_path / "prometheus", tls=True, certificate_ends=ended) as prometheus:
        made = followed.resource(target, prometheus={"url": prometheus.url, "caFile": str(prometheus.ca)}).create()
        said = made.wait_condition("Ready", "False", "MetricsUnavailable")
        assert said["message"] == (
            f"Prometheus at {prometheus.url} shows a certificate that is not trusted (certificate has expired): "
            "renew it, or set the clocks right"
        )
        followed.autoscaler.wait_turns(made.namespace + "/expired", 2)
        assert target.desired == 2
        made.delete()


def test_a_fleet_at_rest_has_its_status_written_seldom(followed: Followed) -> None:
    target = followed.target("resting")
    with SimulatedPods(followed.control_plane, followed.prometheus, followed.namespace, app="resting"):
        made = followed.resource(target).create()
        made.wait_condition("MetricsAvailable", "True")
        key = f"{followed.namespace}/resting"
        followed.autoscaler.wait_turns(key, 2)
        before = followed.status_writes()
        followed.autoscaler.wait_turns(key, 5)
        assert followed.status_writes() - before <= 2
        made.delete()


def test_what_a_quota_does_not_allow_is_told_and_not_asked_for(followed: Followed) -> None:
    quotas = f"/api/v1/namespaces/{followed.namespace}/resourcequotas"
    api = followed.control_plane.api
    gpus = "requests.nvidia.com/gpu"
    (others,) = wait_until(lambda: followed.settled_pods(), within=60, what="the pods of the other tests at rest")
    api.create(quotas, {"metadata": {"name": "four-gpus"}, "spec": {"hard": {gpus: str(others + 4)}}})
    wait_until(
        lambda: gpus in api.get(f"{quotas}/four-gpus").get("status", {}).get("used", {}), within=60, what="its count"
    )
    target = followed.target("bounded")
    made = followed.resource(target, minReplicas=6).create()
    said = made.wait_condition("ScalingLimited", "True", "QuotaExhausted")
    assert f"cut from 6 to 4: quota 'four-gpus' has 3 of {others + 4} {gpus} left" in said["message"]
    wait_until(lambda: target.desired == 4, within=60, what="as many as there may be")
    followed.autoscaler.wait_turns(f"{followed.namespace}/bounded", 3)
    assert target.desired == 4
    api.delete(f"{quotas}/four-gpus")
    wait_until(lambda: target.desired == 6, within=60, what="its floor, where nothing forbids it")
    said = made.wait_condition("ScalingLimited", "Unknown", "NodesUnseen")
    assert "lacks the right" in said["message"], "those of a namespace show no nodes"
    made.delete()


def test_two_share_a_budget_of_gpus(followed: Followed) -> None:
    """Each would have four by its calendar."""
    always = [{"start": f"0 {hour} * * *", "end": f"59 {hour} * * *", "minReplicas": 4} for hour in range(24)]
    always += [{"start": "58 * * * *", "end": "2 * * * *", "minReplicas": 4}]
    targets = [followed.target(name) for name in ("shares", "too")]
    budget = {"name": "five", "maxGpus": 5}
    made = [followed.resource(each, schedule=always, budget=budget).create() for each in targets]
    wait_until(lambda: sum(each.desired for each in targets) == 5, within=60, what="five GPUs taken")
    for each in made:
        assert "budget 'five' " in each.wait_condition("ScalingLimited", "True", "BudgetExhausted")["message"]
    for target in targets:
        followed.autoscaler.wait_turns(target.key, 3)
    assert sum(each.desired for each in targets) == 5
    for each in made:
        each.change(budget={"name": "five", "maxGpus": 7})
    wait_until(lambda: sum(each.desired for each in targets) == 7, within=60, what="seven GPUs taken")
    made[0].delete()
    wait_until(lambda: targets[1].desired == 4, within=60, what="all of its floor, with nobody beside it")
    made[1].delete()


def test_only_so_many_pods_wait_for_a_node_as_may(followed: Followed) -> None:
    target = followed.target("homeless")
    nowhere = {"spec": {"template": {"spec": {"nodeSelector": {"there-is": "none"}}}}}
    target.api.patch(target.path, nowhere)
    made = followed.resource(target, minReplicas=5, maxUnschedulable=2).create()
    said = made.wait_condition("ScalingLimited", "True", "Unschedulable")
    assert "fit on no node" in said["message"]
    wait_until(lambda: target.desired in (2, 3), within=60, what=lambda: f"few that wait, not {target.desired}")
    made.delete()


def test_fifty_at_once_and_the_api_server_restarted_among_them(followed: Followed) -> None:
    targets = [Workload(followed.control_plane, followed.namespace, deployment(f"many-{n}")) for n in range(50)]
    for target in targets:
        target.create(0, cold_start_seconds=0)
    made = [followed.resource(target).create() for target in targets[:25]]
    followed.control_plane.stop_api_server()
    followed.control_plane.start_api_server()
    made += [followed.resource(target).create() for target in targets[25:]]
    for target in targets:
        wait_until(lambda: target.desired == 1, within=120, what=f"{target.name} at its floor")  # noqa: B023
    for each in made:
        each.wait_condition("Ready", "True", within=120)
    collected = followed.control_plane.api.items(collection(followed.namespace))
    assert len([each for each in collected if each["metadata"]["name"].startswith("many-")]) == 50
    for each, target in zip(made, targets, strict=True):
        each.delete()
        target.set_by_hand(0)


@pytest.mark.parametrize("right", OF_RESOURCES, ids=lambda right: f"{right[0]} {right[2]}")
def test_each_right_on_resources_is_needed(followed: Followed, right: tuple[str, str, str], tmp_path: Path) -> None:
    with new_namespace(followed.control_plane) as namespace:
        api = followed.control_plane.api
        api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": ACCOUNT}})
        grant(followed.control_plane, namespace, without(*right), to_namespace=namespace, name="cut-down")
        target = Workload(followed.control_plane, namespace, deployment("cut"))
        target.create(1, cold_start_seconds=0)
        document: Json = resource(target, followed.prometheus)
        Resource(api, document).create()
        kubeconfig = followed.control_plane.kubeconfig_of_service_account(namespace, ACCOUNT)
        with Autoscaler(tmp_path, None, kubeconfig, options=("--namespace", namespace)) as autoscaler:
            line = autoscaler.wait_line(f'lacks the right "{right[0]} {right[2]}"', within=60)
            assert "add it to its Role" in line["message"]
