"""Mode Floor raises what somebody's HPA never goes below, ahead of need, and gives it back after."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest

from autoscaler.endings import Endings
from autoscaler.events import Announcement
from autoscaler.floor import LOOK_SECONDS, METRIC, FloorKeeper, level_of
from autoscaler.gpu_budgets import GpuBudgets
from autoscaler.loop import Outcome, Turn
from autoscaler.nodes import Nodes
from autoscaler.publish.numbers import PublishedNumbers
from autoscaler.servers import Servers
from autoscaler.service import Service
from autoscaler.targets import Targets
from autoscaler.telemetry import Telemetry
from cluster.api import StatusError
from cluster.floors import ANNOTATION
from cluster.kubernetes import Cluster
from policies.scaling.decision import Binding, Decision
from tests.autoscaler.worlds import EMPTY, START, resource
from tests.stand_ins.floors import FloorsStandIn

DECIDED = Decision(START, 5, 5, 3, Binding.FORECAST, "as the test says")


def decided(replicas: int, desired: int, binding: Binding = Binding.FORECAST) -> Turn:
    made = replace(DECIDED, replicas=replicas, wanted=replicas, desired=desired, binding=binding)
    return Turn(EMPTY, Outcome.SHADOWED, None, made)


def targets(server: FloorsStandIn) -> Targets:
    """Of a service that takes no turns."""
    service = Service((), Telemetry("0"), tick_seconds=15)
    floors, cluster = FloorKeeper(server.floors), cast("Cluster", None)
    others = Endings(cluster), cast("Nodes", None), GpuBudgets(), 15
    return Targets(cluster, Servers(), service, PublishedNumbers(), floors, *others)


class Story:
    """An HPA of two to ten replicas, and who keeps its floor."""

    def __init__(self) -> None:
        self.server = FloorsStandIn()
        self.hpa = self.server.hpa(fewest=2, most=10)
        self.now = 0.0
        self.start()

    def start(self) -> None:
        """The program, or another replica of it, begins."""
        self.keeper = FloorKeeper(self.server.floors, clock=lambda: self.now)
        self.resource = resource(mode="Floor")
        self.pass_on = self.keeper.add(self.resource)

    async def turn(self, turn: Turn) -> Announcement:
        self.now += LOOK_SECONDS
        said = await self.pass_on(turn)
        assert said is not None
        return said

    @property
    def fewest(self) -> int:
        return int(self.hpa["spec"]["minReplicas"])

    @property
    def is_marked(self) -> bool:
        return ANNOTATION in self.hpa["metadata"].get("annotations", {})


async def test_it_is_raised_ahead_of_need_and_given_back_after() -> None:
    story = Story()
    said = await story.turn(decided(5, 3))
    assert (said.reason, story.fewest, story.is_marked) == ("FloorSet", 5, True)
    assert said.message == (
        "sets minReplicas of HorizontalPodAutoscaler 'theirs' in namespace 'inference' from 2 to 5: as the test says"
    )
    assert (await story.turn(decided(4, 6))).reason == "FloorSet"
    assert story.fewest == 4
    said = await story.turn(decided(2, 4))
    assert (said.reason, story.fewest, story.is_marked) == ("FloorSet", 2, False)
    assert "its minReplicas 2 back, from 4" in said.message
    assert (await story.turn(decided(1, 2))).reason == ""
    assert story.fewest == 2


async def test_it_goes_no_higher_than_their_ceiling() -> None:
    story = Story()
    await story.turn(decided(15, 8))
    assert story.fewest == 10


async def test_another_replica_takes_it_over_and_holds_it_until_it_sees() -> None:
    story = Story()
    await story.turn(decided(6, 3))
    story.start()
    assert (await story.turn(decided(6, 6, Binding.HOLD))).reason == ""
    assert story.fewest == 6
    await story.turn(decided(3, 6))
    assert story.fewest == 3
    await story.turn(decided(1, 3))
    assert (story.fewest, story.is_marked) == (2, False)


async def test_what_their_own_autoscaler_reached_is_no_floor_of_ours() -> None:
    """A shrink that is held for want of sight holds what they made of it."""
    story = Story()
    await story.turn(decided(8, 8, Binding.HOLD))
    assert (story.fewest, story.is_marked) == (2, False)
    assert level_of(decided(8, 8, Binding.HOLD)) is None
    assert level_of(decided(6, 8, Binding.HOLD)) == 6
    assert level_of(Turn(EMPTY, Outcome.BLIND, problem="dark")) is None


async def test_a_turn_that_saw_nothing_touches_nothing_and_speaks_for_itself() -> None:
    story = Story()
    await story.turn(decided(6, 3))
    assert await story.pass_on(Turn(EMPTY, Outcome.BLIND, problem="dark", kind="prometheus")) is None
    assert story.fewest == 6


async def test_a_floor_that_is_as_it_should_be_costs_a_look_a_minute_and_no_write() -> None:
    story = Story()
    await story.turn(decided(5, 3))
    story.server.calls.clear()
    story.now -= LOOK_SECONDS - 1
    assert (await story.turn(decided(5, 5))).reason == ""
    assert story.server.calls == []
    await story.turn(decided(5, 5))
    assert {method for method, _ in story.server.calls} == {"GET"}


async def test_an_owner_who_sets_it_meanwhile_is_told_of_and_gets_his_own_back() -> None:
    story = Story()
    await story.turn(decided(5, 3))
    story.hpa["spec"]["minReplicas"] = 3
    said = await story.turn(decided(5, 3))
    assert said.message.startswith("somebody set it to 3 meanwhile, which is given back later; sets minReplicas")
    assert story.fewest == 5
    await story.turn(decided(1, 5))
    assert story.fewest == 3


async def test_what_another_resource_raised_is_left_to_it() -> None:
    story = Story()
    await story.turn(decided(5, 3))
    other = FloorKeeper(story.server.floors)
    said = await other.add(resource("other", mode="Floor", scaleTargetRef={"name": "vllm-llama"}))(decided(7, 3))
    assert said is not None
    assert said.reason == "FloorRefused"
    assert "is raised by inference/llama" in said.message
    assert story.fewest == 5


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (StatusError(403, 'User "us" cannot list resource "x"'), "MissingRight"),
        (StatusError(503, "x"), "FloorUnanswered"),
    ],
)
async def test_what_cannot_be_read_or_written_is_told_and_tried_again(status: StatusError, reason: str) -> None:
    story = Story()
    story.server.refused = status
    said = await story.turn(decided(5, 3))
    assert (said.reason, said.is_warning) == (reason, True)
    assert [*story.keeper.gauges()] == []
    story.server.refused = None
    story.now -= LOOK_SECONDS - 1
    assert (await story.turn(decided(5, 3))).reason == "FloorSet"
    assert [*story.keeper.gauges()] == [(METRIC, ("inference", "llama"), 5)]


async def test_of_another_mode_it_is_given_back() -> None:
    story = Story()
    await story.turn(decided(5, 3))
    assert await story.keeper.give_back("inference/other") == []
    (given,) = await story.keeper.give_back("inference/llama")
    assert given.name == "theirs"
    assert (story.fewest, story.is_marked) == (2, False)
    assert await story.keeper.give_back("inference/llama") == []


async def test_of_the_target_that_it_had_before_it_is_given_back() -> None:
    story = Story()
    await story.turn(decided(1, 1))  # the namespace was listed with nothing raised
    assert not await story.keeper.give_back("inference/llama")
    await story.turn(decided(5, 3))
    now = story.server.hpa("of-b", fewest=2)
    now["spec"]["scaleTargetRef"]["name"] = "vllm-b"
    story.now += 1
    moved = resource(mode="Floor", scaleTargetRef={"name": "vllm-b"})
    story.keeper.remove("inference/llama")
    story.pass_on = story.keeper.add(moved)
    await story.turn(decided(4, 2))
    assert (story.fewest, now["spec"]["minReplicas"]) == (5, 4)
    given = await story.keeper.give_back("inference/llama", but_of=moved.spec.scale_target_ref)
    assert [floor.name for floor in given] == ["theirs"]
    assert (story.fewest, now["spec"]["minReplicas"]) == (2, 4)


async def test_a_resource_that_begins_gives_back_what_it_raised_for_another_target() -> None:
    story = Story()
    await story.turn(decided(5, 3))
    begun = targets(story.server)
    begun.begin(resource(mode="Floor", scaleTargetRef={"name": "vllm-b"}))
    async with asyncio.timeout(10):
        while story.is_marked:  # noqa: ASYNC110  # what another process reads of the object has no event
            await asyncio.sleep(0)
    assert story.fewest == 2


async def test_while_it_is_paused_nothing_is_written() -> None:
    story = Story()
    await story.turn(decided(5, 3))
    paused = story.keeper.add(resource(mode="Floor", paused=True))
    assert await paused(decided(8, 5)) is not None
    assert story.fewest == 5
