"""Arrivals that a router counts: asked for as the user writes it, beside the pods' own counters."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cluster.prometheus_arrivals import LASTING_SECONDS, Arrivals, Process
from cluster.prometheus_queries import TargetPods
from tests.cluster.prometheus_world import OBJECTIVES, World, world
from tests.stand_ins.prometheus import StandInPod
from tests.stand_ins.vllm_pages import page

__all__ = ["world"]


async def test_a_router_may_count_the_arrivals(world: World) -> None:
    world.run("a", page("loaded"))
    router = 'router_requests_total{code="200"} 7\nrouter_requests_total{code="500"} 2\n'
    world.server.pods.append(StandInPod("edge", "router", "10.1.0.1", router))
    pods = world.asked().pods[:1]
    first = await world.look(
        t=TargetPods(pods, OBJECTIVES, arrivals="router_requests_total # all of them"),
        other=TargetPods(pods, OBJECTIVES, arrivals='router_requests_total{code="500"}'),
        none=TargetPods(pods, OBJECTIVES),
    )
    assert first.arrivals_total == 9.0
    assert world.last["other"].arrivals_total == 2.0
    assert world.last["none"].arrivals_total is None
    assert all(reading.problems == () for reading in world.last.values())


async def test_a_router_that_starts_anew_or_comes_up_is_no_flood(world: World) -> None:
    world.run("a", page("loaded"))
    pods = world.asked().pods
    target = TargetPods(pods, OBJECTIVES, arrivals="routed_total")
    routers = [StandInPod("edge", f"router-{n}", f"10.1.0.{n}", "routed_total 1000\n") for n in range(2)]
    world.server.pods += routers
    totals = [(await world.look(target)).arrivals_total]
    for first, second in ((1007, 1001), (3, 1001), (5, None), (5, 1004)):
        for router, counted in zip(routers, (first, second), strict=True):
            router.page = None if counted is None else f"routed_total {counted}\n"
        world.clock.now += 15
        totals.append((await world.look(target)).arrivals_total)
    world.server.pods.append(StandInPod("edge", "router-2", "10.1.0.2", "routed_total 500\n"))
    world.clock.now += 15
    totals.append((await world.look(target)).arrivals_total)
    assert totals == [2000.0, 2008.0, 2011.0, 2013.0, 2016.0, 2016.0]


ROUTER: Process = frozenset({("namespace", "edge"), ("pod", "router-0")})


def totals(process: Process, *counts: float, seconds: float = 15.0) -> list[float]:
    arrivals = Arrivals()
    return [arrivals.add({process: count}, seconds * n) for n, count in enumerate(counts)]


def test_a_router_whose_count_falls_a_little_is_read_from_an_older_scrape() -> None:
    found = totals(ROUTER, 1_000_000, 1_000_030, 1_000_020, 1_000_060)
    assert found == [1_000_000, 1_000_030, 1_000_030, 1_000_060]


def test_a_router_whose_count_falls_to_less_than_half_began_anew() -> None:
    assert totals(ROUTER, 1000, 3, 5) == [1000, 1003, 1005]


def test_a_router_whose_count_stays_lower_is_followed_from_there() -> None:
    counts = [1000.0, *(700.0 + 2 * n for n in range(20))]
    found = totals(ROUTER, *counts)
    assert found == sorted(found)
    assert found[-1] - found[-2] == 2
    held = sum(a == b for a, b in pairwise(found))
    assert held * 15 <= LASTING_SECONDS + 2 * 15


SUM: Process = frozenset()


@pytest.mark.parametrize("process", [SUM, frozenset({("namespace", "edge")})])
def test_a_sum_over_routers_invents_nothing_when_one_of_them_fails_to_be_scraped(process: Process) -> None:
    found = totals(process, 3_000_000, 3_000_020, 1_000_020, 1_000_030, 3_000_070, 3_000_090)
    assert found == [3_000_000, 3_000_020, 3_000_020, 3_000_030, 3_000_070, 3_000_090]


def test_a_sum_over_routers_invents_nothing_when_each_fails_and_comes_back_in_turn() -> None:
    found = totals(SUM, 4_000_000, 2_000_000, 1_000_010, 3_000_020, 4_000_030, seconds=300)
    assert found == [4_000_000, 4_000_000, 4_000_000, 4_000_010, 4_000_030]


def test_a_sum_over_routers_that_began_anew_grows_with_what_comes() -> None:
    """A target at rest wakes by it."""
    assert totals(SUM, 1_000_000, 0, 0, 1, 4) == [1_000_000, 1_000_000, 1_000_000, 1_000_001, 1_000_004]


async def test_arrivals_that_are_no_number_are_unknown_and_said(world: World) -> None:
    world.run("a", page("loaded") + "routed_total NaN\n")
    reading = await world.look(world.asked(arrivals="routed_total"))
    assert reading.arrivals_total is None
    assert len(reading.problems) == 1


async def test_one_wrong_query_for_arrivals_spoils_no_other(world: World) -> None:
    world.run("a", page("loaded"))
    pods = world.asked().pods
    targets = {f"t{n}": TargetPods(pods, OBJECTIVES, arrivals="sum(up)") for n in range(9)}
    targets["wrong"] = TargetPods(pods, OBJECTIVES, arrivals="sum(up")
    await world.look(**targets)
    assert [world.last[f"t{n}"].arrivals_total for n in range(9)] == [1.0] * 9
    assert "sum(up" in world.server.queries, "it is asked as written, for what is wrong with it"
    (problem,) = world.last["wrong"].problems
    assert problem.startswith("prometheus.arrivals (sum(up) could not be read: Prometheus at http://127.0.0.1:")
    assert problem.endswith("refuses the question (HTTP 400, bad_data)")
    before = world.prometheus.connection.errors_by_kind["refused"]
    await world.look(**targets)
    assert world.prometheus.connection.errors_by_kind["refused"] == before, "it is not asked again at once"
    assert world.last["wrong"].problems == (problem,)


async def test_arrivals_without_a_value_are_unknown_and_said(world: World) -> None:
    world.run("a", page("loaded"))
    reading = await world.look(world.asked(arrivals="router_requests_total"))
    assert reading.arrivals_total is None
    assert reading.problems == ("prometheus.arrivals (router_requests_total) could not be read: it has no value now",)
