"""A resource of mode Floor goes only with nothing left raised, and raises nothing that its end would leave behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autoscaler.controller import FINALIZER
from cluster.errors import ClusterError, NotObservedError, OvertakenError, RefusedError
from cluster.floors import ANNOTATION
from tests.stand_ins.autoscalers import KEY, Following
from tests.stand_ins.floors import FloorsStandIn


def raised(original: int = 2, to: int = 6) -> dict[str, Any]:
    """Of an HPA whose floor this resource has raised."""
    return {"fewest": to, "annotations": {ANNOTATION: json.dumps({"original": original, "to": to, "by": KEY})}}


async def test_it_goes_when_what_it_raised_is_given_back() -> None:
    server = FloorsStandIn()
    theirs = server.hpa(**raised())
    async with Following(server) as following:
        await following.apply(mode="Floor")
        assert following.finalizers == (FINALIZER,)
        assert len(following.begun) == 1
        await following.delete()
        assert not following.is_there
        assert theirs["spec"]["minReplicas"] == 2


async def test_one_whose_spec_cannot_be_read_any_more_gives_back_all_the_same() -> None:
    server = FloorsStandIn()
    theirs = server.hpa(**raised())
    schedule = [{"start": "0 8 * * *", "end": "0 9 * * *", "timeZone": "Europe/Berln", "minReplicas": 2}]
    async with Following(server) as following:
        await following.apply(mode="Floor")
        await following.apply(mode="Floor", schedule=schedule)
        assert [reason for reason, _ in following.said] == ["InvalidSpec"]
        await following.delete()
        assert not following.is_there
        assert theirs["spec"]["minReplicas"] == 2


async def test_all_that_it_raised_is_given_back_before_it_goes() -> None:
    server = FloorsStandIn()
    theirs = server.hpa(**raised()), server.hpa("theirs-before", **raised(3)), server.scaled_object()
    theirs[2]["spec"]["minReplicaCount"] = 6
    theirs[2]["metadata"]["annotations"] = raised(1)["annotations"]
    others = server.hpa("others", fewest=6, annotations={ANNOTATION: '{"original": 1, "to": 6, "by": "inference/b"}'})
    async with Following(server) as following:
        await following.apply(mode="Floor")
        await following.delete()
        assert not following.is_there
        assert [each["spec"].get("minReplicas") for each in theirs] == [2, 3, None]
        assert theirs[2]["spec"]["minReplicaCount"] == 1
        assert others["spec"]["minReplicas"] == 6


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (RefusedError("the right is missing", right="patch vllmautoscalers"), "MissingRight"),
        (NotObservedError("nobody answers"), "Refused"),
    ],
)
async def test_no_turn_begins_before_the_finalizer_is_set(refusal: ClusterError, reason: str) -> None:
    async with Following(FloorsStandIn()) as following:
        following.refusal = refusal
        await following.apply(mode="Floor")
        await following.look()
        assert following.begun == []
        assert following.ready == ("False", reason, f"its finalizer cannot be set: {refusal}")
        following.refusal = None
        await following.look()
        assert following.finalizers == (FINALIZER,)
        assert len(following.begun) == 1


async def test_one_that_somebody_has_changed_meanwhile_begins_when_the_newer_one_is_seen() -> None:
    async with Following(FloorsStandIn()) as following:
        following.refusal = OvertakenError("was changed meanwhile")
        await following.apply(mode="Floor")
        assert following.begun == []
        following.refusal = None
        await following.apply(mode="Floor", maxReplicas=9)
        assert [each.spec.max_replicas for each in following.begun] == [9]
