"""What wakes a target that rests is asked beside the pods, of which there may be none."""

from __future__ import annotations

import pytest

from cluster.prometheus_queries import TargetPods
from tests.cluster.prometheus_world import OBJECTIVES, World, world
from tests.stand_ins.prometheus import StandInPod
from tests.stand_ins.vllm_pages import page

__all__ = ["world"]


def gateway(world: World, text: str) -> StandInPod:
    made = StandInPod("edge", "gateway", "10.1.0.1", text)
    world.server.pods.append(made)
    return made


def resting(wake: str | None, arrivals: str | None = None) -> TargetPods:
    return TargetPods([], OBJECTIVES, arrivals=arrivals, wake=wake)


async def test_a_target_without_pods_is_read_and_nothing_is_wrong_with_that(world: World) -> None:
    made = gateway(world, 'queued{model="a"} 0\nqueued{model="b"} 0\nrouted_total 4\n')
    target = resting("queued", arrivals="routed_total")
    reading = await world.look(target)
    assert (reading.wake, reading.arrivals_total, reading.problems) == (0.0, 4.0, ())
    made.page = 'queued{model="a"} 0\nqueued{model="b"} 2\nrouted_total 5\n'
    world.clock.now += 15
    reading = await world.look(target)
    assert (reading.wake, reading.arrivals_total, reading.problems) == (2.0, 5.0, ())


async def test_beside_others_pods_each_target_has_its_own_answer(world: World) -> None:
    world.run("a", page("loaded"))
    gateway(world, "queued 3\n")
    pods = world.asked().pods[:1]
    await world.look(
        busy=TargetPods(pods, OBJECTIVES, wake="queued"),
        resting=resting("queued * 0"),
        plain=TargetPods(pods, OBJECTIVES),
    )
    assert [world.last[key].wake for key in ("busy", "resting", "plain")] == [3.0, 0.0, None]
    assert all(reading.problems == () for reading in world.last.values())


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("gone", "wake.query (gone) could not be read: it has no value now"),
        ("queued", "wake.query (queued) could not be read: it has no value now"),
        ("sum(queued", "unexpected end of input"),
    ],
    ids=("nothing", "no number", "no query"),
)
async def test_an_answer_that_is_none_is_no_zero(world: World, query: str, said: str) -> None:
    gateway(world, "queued NaN\n")
    reading = await world.look(resting(query))
    assert reading.wake is None
    (problem,) = reading.problems
    assert said in problem
