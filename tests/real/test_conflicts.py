"""One writer: an HPA or a tool beside us is seen, told and yielded to, or overridden, as the resource says."""

from __future__ import annotations

import pytest

from tests.parts.kubernetes_api import Json
from tests.parts.processes import wait_until
from tests.real.following import Followed, followed
from tests.real.workloads import Workload

__all__ = ["followed"]

pytestmark = pytest.mark.cluster


def hpa(target: Workload, name: str) -> str:
    """One without a metric to follow: it keeps still, and is an autoscaler all the same. Its path."""
    collection = f"/apis/autoscaling/v2/namespaces/{target.namespace}/horizontalpodautoscalers"
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    spec: Json = {"scaleTargetRef": target.ref, "minReplicas": 1, "maxReplicas": 9, "metrics": [metric]}
    target.api.create(collection, {"metadata": {"name": name}, "spec": spec})
    return f"{collection}/{name}"


def put_back(target: Workload, replicas: int) -> None:
    """As a GitOps tool applies what stands in its repository."""
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": target.name},
        "spec": {"replicas": replicas},
    }
    content = "application/apply-patch+yaml"
    target.api.request("PATCH", target.path, body, content=content, fieldManager="gitops", force="true")


def test_an_hpa_on_the_same_target_is_yielded_to_until_it_goes(followed: Followed) -> None:
    yielding, overriding = followed.target("yielding"), followed.target("overriding")
    path = hpa(yielding, "theirs")
    hpa(overriding, "theirs-too")
    made = followed.resource(yielding, minReplicas=3).create()
    other = followed.resource(overriding, minReplicas=3, onConflict="Override").create()

    said = made.wait_condition("Conflicted", "True", "OtherAutoscaler")
    assert "HorizontalPodAutoscaler 'theirs' scales it too: delete one of the two" in said["message"]
    made.wait_condition("ScalingActive", "False", "OtherAutoscaler")
    for events in (made.events, yielding.events):
        wait_until(lambda: [e for e in events() if e["reason"] == "Conflicted"], within=30, what="the event")  # noqa: B023
    followed.autoscaler.wait_turns(made.namespace + "/yielding", 2)
    assert yielding.desired == 1

    wait_until(lambda: overriding.desired == 3, within=60, what="what overrides to write")
    other.wait_condition("Conflicted", "True", "OtherAutoscaler")
    other.wait_condition("ScalingActive", "True")

    yielding.api.delete(path)
    wait_until(lambda: yielding.desired == 3, within=60, what="a write where nobody else is left")
    made.wait_condition("Conflicted", "False", "Alone")
    made.delete()
    other.delete()


def test_a_tool_that_puts_replicas_back_is_named_and_yielded_to(followed: Followed) -> None:
    target = followed.target("applied")
    made = followed.resource(target, minReplicas=3).create()
    for _ in range(3):
        wait_until(lambda: target.desired == 3, within=60, what="its floor")
        followed.autoscaler.wait_turns(f"{followed.namespace}/applied", 1)
        put_back(target, 1)
    said = made.wait_condition("Conflicted", "True", "ReplicasPutBack")
    assert "'gitops' keeps putting replicas back to 1: take `replicas` out of what it applies" in said["message"]
    followed.autoscaler.wait_turns(f"{followed.namespace}/applied", 2)
    assert target.desired == 1
    made.delete()


def test_what_is_paused_is_decided_and_not_written(followed: Followed) -> None:
    target = followed.target("paused")
    made = followed.resource(target, minReplicas=3, paused=True).create()
    made.wait_condition("ScalingActive", "False", "Paused")
    made.wait_condition("Ready", "True")
    wait_until(lambda: made.status["replicas"]["wanted"] == 3, within=60, what=lambda: str(made.status))
    assert target.desired == 1
    made.change(paused=False)
    wait_until(lambda: target.desired == 3, within=60, what="its floor, now that it may be written")
    made.wait_condition("ScalingActive", "True")
    made.delete()


def test_a_person_who_scales_by_hand_is_named_until_our_next_write(followed: Followed) -> None:
    target = followed.target("by-hand")
    made = followed.resource(target, maxReplicas=4).create()
    made.wait_condition("Conflicted", "False", "Alone")
    followed.control_plane.kubectl("scale", "deployment", target.name, "-n", target.namespace, "--replicas=3")
    said = made.wait_condition("Conflicted", "False", "ScaledByHand")
    assert said["message"].startswith("'kubectl' scaled from 1 to 3 at ")
    assert said["message"].endswith(", which is respected: decisions are made from it")
    made.wait_condition("ScalingActive", "True")

    made.change(minReplicas=4)
    wait_until(lambda: target.desired == 4, within=60, what="its floor, written from his number")
    made.wait_condition("Conflicted", "False", "Alone")
    made.delete()
