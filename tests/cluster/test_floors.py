"""A floor is raised on the one object that scales the target, and its owner gets back what he had."""

from __future__ import annotations

import pytest

from cluster.api import StatusError
from cluster.errors import NotObservedError, OvertakenError, RefusedError
from cluster.floors import ANNOTATION, Raised
from policies.scaling.resource import ScaleTargetRef
from tests.stand_ins.floors import FloorsStandIn

REF = ScaleTargetRef(name="vllm-llama")
OURS = "inference/llama"


async def test_an_hpa_is_raised_and_given_back_as_it_was() -> None:
    server = FloorsStandIn()
    hpa = server.hpa(fewest=2)
    raised = await server.floors.set(await server.floors.of(REF, "inference"), 5, OURS)
    assert (hpa["spec"]["minReplicas"], raised.fewest, raised.own) == (5, 5, 2)
    assert raised.raised == Raised(2, 5, OURS)
    again = await server.floors.set(raised, 7, OURS)
    assert (hpa["spec"]["minReplicas"], again.own) == (7, 2)
    await server.floors.give_back(again)
    assert hpa["spec"]["minReplicas"] == 2
    assert ANNOTATION not in hpa["metadata"]["annotations"]


async def test_a_scaled_object_that_left_it_out_leaves_it_out_again() -> None:
    server = FloorsStandIn()
    scaled = server.scaled_object(maxReplicaCount=8)
    # KEDA's own HPA is made from it: what is written there would not last.
    owner = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "theirs", "uid": "1", "controller": True}
    server.hpa("keda-hpa-theirs", ownerReferences=[owner])
    floor = await server.floors.of(REF, "inference")
    assert (floor.subject, floor.fewest, floor.most) == ("ScaledObject 'theirs' in namespace 'inference'", 0, 8)
    raised = await server.floors.set(floor, 3, OURS)
    assert scaled["spec"]["minReplicaCount"] == 3
    await server.floors.give_back(raised)
    assert "minReplicaCount" not in scaled["spec"]


async def test_what_the_owner_sets_meanwhile_is_what_he_gets_back() -> None:
    server = FloorsStandIn()
    hpa = server.hpa(fewest=2)
    await server.floors.set(await server.floors.of(REF, "inference"), 5, OURS)
    hpa["spec"]["minReplicas"] = 3
    seen = await server.floors.of(REF, "inference")
    assert (seen.overwritten, seen.own) == (True, 3)
    await server.floors.give_back(await server.floors.set(seen, 6, OURS))
    assert hpa["spec"]["minReplicas"] == 3


async def test_a_write_holds_only_for_the_object_as_it_was_read() -> None:
    server = FloorsStandIn()
    hpa = server.hpa(fewest=2)
    floor = await server.floors.of(REF, "inference")
    server.between = {"minReplicas": 4}
    with pytest.raises(OvertakenError, match="HorizontalPodAutoscaler 'theirs' in namespace 'inference' has changed"):
        await server.floors.set(floor, 5, OURS)
    assert hpa["spec"]["minReplicas"] == 4


async def test_without_one_or_with_several_it_is_refused() -> None:
    server = FloorsStandIn(keda=False)
    server.hpa("of-another")["spec"]["scaleTargetRef"]["name"] = "vllm-other"
    with pytest.raises(RefusedError, match="no HorizontalPodAutoscaler or ScaledObject scales Deployment 'vllm-llama'"):
        await server.floors.of(REF, "inference")
    server.hpa("one")
    server.hpa("two")
    with pytest.raises(RefusedError, match="'one' and HorizontalPodAutoscaler 'two' both scale"):
        await server.floors.of(REF, "inference")


@pytest.mark.parametrize("annotation", ["{", "[]", '{"to": 1}', "7", '{"original": 1, "to": "x", "by": "y"}'])
async def test_an_annotation_that_is_nonsense_is_none(annotation: str) -> None:
    server = FloorsStandIn()
    server.hpa(annotations={ANNOTATION: annotation})
    assert (await server.floors.of(REF, "inference")).raised is None
    assert await server.floors.raised(None) == []


async def test_a_missing_right_is_named_and_a_silent_server_is_not_one() -> None:
    server = FloorsStandIn(keda=False)
    server.refused = StatusError(403, 'User "us" cannot list resource "horizontalpodautoscalers" in API group')
    with pytest.raises(RefusedError, match='lacks the right "list horizontalpodautoscalers"'):
        await server.floors.of(REF, "inference")
    server.refused = StatusError(503, "HTTP 503: not now")
    with pytest.raises(NotObservedError):
        await server.floors.raised("inference")
