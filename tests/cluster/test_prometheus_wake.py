"""What wakes a target that rests is asked beside the pods, of which there may be none."""

from __future__ import annotations

import pytest

from cluster import prometheus_user_queries
from cluster.prometheus_queries import TargetPods, for_each
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
        ("sum(queued", "refuses the question (HTTP 400, bad_data)"),
    ],
    ids=("nothing", "no number", "no query"),
)
async def test_an_answer_that_is_none_is_no_zero(world: World, query: str, said: str) -> None:
    gateway(world, "queued NaN\n")
    reading = await world.look(resting(query))
    assert reading.wake is None
    (problem,) = reading.problems
    assert said in problem


async def test_no_query_answers_in_anothers_name(world: World) -> None:
    gateway(world, "queued 0\n")
    closing = 'queued), "preheat_target", "1", "", "") or label_replace(sum(queued'
    assert for_each(("pod",), {0: closing}).count("preheat_target") == 2, "joined with others, it would"
    await world.look(first=resting(closing), other=resting("queued"))
    assert (world.last["other"].wake, world.last["other"].problems) == (0.0, ())
    assert world.last["first"].wake is None
    (problem,) = world.last["first"].problems
    assert "refuses the question (HTTP 400, bad_data)" in problem
    assert [query for query in world.server.queries if closing in query] == [closing]


async def test_a_query_is_asked_alone_once_and_with_the_others_from_then_on(world: World) -> None:
    gateway(world, "queued 3\nrouted_total 4\n")
    targets = {f"t{n}": resting("queued", arrivals=f"routed_total * {n % 2 + 1}") for n in range(8)}
    made = []
    for _ in range(3):
        before = len(world.server.queries)
        await world.look(**targets)
        made.append([query for query in world.server.queries[before:] if "queued" in query or "routed" in query])
    assert all(reading.wake == 3.0 for reading in world.last.values())
    assert set(made[0][:-1]) == {"queued", "routed_total * 1", "routed_total * 2"}
    assert [len(queries) for queries in made] == [4, 1, 1]
    assert made[2][0].count("queued") == 1, "one text is asked for once, however many targets state it"


async def test_many_new_queries_are_tried_a_few_a_sweep_and_keep_no_known_one_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus_user_queries, "FIRST_ASKED_A_SWEEP", 2)
    gateway(world, "queued 3\n")
    known = resting("queued")
    await world.look(known)
    targets = {f"t{n}": resting(f"queued * {n}") for n in range(4)}
    await world.look(known=known, **targets)
    assert [world.last[key].wake for key in ("known", *targets)] == [3.0, 0.0, 3.0, None, None]
    assert world.last["t3"].problems[0].startswith("wake.query (queued * 3) could not be read: it is new")
    await world.look(known=known, **targets)
    assert [world.last[key].wake for key in ("known", *targets)] == [3.0, 0.0, 3.0, 6.0, 9.0]


async def test_a_query_that_cannot_be_tried_gives_the_next_ones_their_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus_user_queries, "FIRST_ASKED_A_SWEEP", 1)
    gateway(world, "queued 3\nheavy 1\n")
    world.server.faults.status, world.server.faults.only_queries_with = 503, "heavy"
    targets = {"heavy": resting("heavy"), "light": resting("queued")}
    await world.look(**targets)
    assert [world.last[key].wake for key in targets] == [None, None]
    await world.look(**targets)
    assert [world.last[key].wake for key in targets] == [None, 3.0]


async def test_a_hint_on_how_one_query_is_written_costs_no_answer(world: World) -> None:
    gateway(world, "queued 3\n")
    world.server.faults.infos, world.server.faults.remarks_only_with = ("might not be a counter",), "* 2"
    await world.look(hinted=resting("queued * 2"), other=resting("queued"))
    assert [reading.wake for reading in world.last.values()] == [6.0, 3.0]
    assert all(reading.problems == () for reading in world.last.values())
    assert world.prometheus.remarks_made == 1


async def test_a_warning_costs_the_query_that_it_is_meant_for_and_no_other(world: World) -> None:
    gateway(world, "queued 3\n")
    faults = world.server.faults
    faults.warnings, faults.remarks_only_with = ("a store did not answer",), "* 5"
    targets = {f"t{n}": resting(f"queued * {n}") for n in range(9)}
    made = []
    for turn in range(4):
        if turn == 3:
            faults.warnings = ()
        before = len(world.server.queries)
        await world.look(**targets)
        made.append(sum("label_replace" in query for query in world.server.queries[before:]))
        unread = [key for key, reading in world.last.items() if reading.wake is None]
        assert unread == (["t5"] if turn < 3 else [])
    assert made == [7, 2, 2, 2], "once it is known, it is asked apart from the others"
    await world.look(**targets)
    assert sum("label_replace" in query for query in world.server.queries) == sum(made) + 1
    assert world.last["t5"].wake == 15.0


async def test_a_server_that_warns_of_everything_is_not_asked_without_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus_user_queries, "HALVED_A_SWEEP", 4)
    gateway(world, "queued 3\n")
    targets = {f"t{n}": resting(f"queued * {n}") for n in range(16)}
    await world.look(**targets)
    world.server.faults.warnings = ("a store did not answer",)
    before = len(world.server.queries)
    await world.look(**targets)
    assert sum("label_replace" in query for query in world.server.queries[before:]) == 1 + 4
    assert all(reading.wake is None for reading in world.last.values())
    assert world.last["t15"].problems[-1].endswith("could not be read: the server remarks: a store did not answer")
