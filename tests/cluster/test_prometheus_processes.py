"""Which processes of a pod are missed, how long they are remembered, and what a pod of several shows."""

from __future__ import annotations

import pytest

from cluster.prometheus_processes import FORGOTTEN_AFTER_SECONDS, Processes
from cluster.prometheus_queries import PodAddress, PodIndex, TargetPods
from policies.scaling.observation import SampleState
from tests.cluster.prometheus_world import NOW, OBJECTIVES, World, world
from tests.stand_ins.vllm_pages import page

__all__ = ["world"]

FIRST, SECOND = "10.0.0.1:8000", "10.0.0.1:8001"
BOTH_SCRAPED = {0: {FIRST: True, SECOND: False}}


def index(name: str) -> PodIndex:
    return PodIndex([TargetPods([PodAddress("inference", name, "10.0.0.1")], OBJECTIVES)])


def test_a_process_is_remembered_while_it_is_scraped() -> None:
    processes, pod = Processes(), index("a")
    assert processes.judge(pod, {0: [FIRST, SECOND]}, {}, BOTH_SCRAPED, NOW) == {0: {FIRST, SECOND}}
    assert processes.judge(pod, {0: [FIRST]}, {}, BOTH_SCRAPED, NOW) == {0: {FIRST, SECOND}}
    assert processes.judge(pod, {}, {}, BOTH_SCRAPED, NOW) == {0: {FIRST, SECOND}}
    only_first = {0: {FIRST: True}}
    assert processes.judge(pod, {0: [FIRST]}, {}, only_first, NOW) == {0: {FIRST, SECOND}}, "sums fall by the second's"
    assert processes.judge(pod, {0: [FIRST]}, {}, only_first, NOW) == {0: {FIRST}}
    assert processes.judge(pod, {0: [FIRST]}, {}, BOTH_SCRAPED, NOW) == {0: {FIRST}}, "it was forgotten"
    other = "10.0.0.9:8000"
    assert processes.judge(pod, {0: [other]}, {}, {0: {other: True}}, NOW) == {0: {other}}, "the pod is another"


def test_a_pod_that_is_gone_is_forgotten_and_one_that_a_sweep_does_not_name_is_not() -> None:
    processes = Processes()
    processes.judge(index("a"), {0: [FIRST, SECOND]}, {}, BOTH_SCRAPED, NOW)
    processes.judge(index("b"), {0: [FIRST]}, {}, BOTH_SCRAPED, NOW + 15)
    assert not processes.in_doubt(index("a"), {0: [FIRST]}, BOTH_SCRAPED)
    processes.judge(index("b"), {0: [FIRST]}, {}, BOTH_SCRAPED, NOW + FORGOTTEN_AFTER_SECONDS + 15)
    assert processes.in_doubt(index("a"), {0: [FIRST]}, BOTH_SCRAPED), "what is new is in doubt"
    assert not processes.in_doubt(index("b"), {0: [FIRST]}, BOTH_SCRAPED)


async def test_two_processes_of_one_pod_are_added_up(world: World) -> None:
    for port in (8000, 8001):
        world.run("a", page("loaded"), namespace="inference", pod="a", instance=f"10.0.0.1:{port}")
    sample = (await world.look(world.asked(pods=world.asked().pods[:1]))).samples["a"]
    assert (sample.requests_finished, sample.kv_cache_tokens) == (2 * 489.0, 2 * 8192.0)
    assert sample.ttft is not None
    assert sample.ttft.count == 2 * 489.0


def run_two_processes(world: World) -> TargetPods:
    """One pod, scraped at two ports."""
    for port in (8000, 8001):
        world.run("a", page("loaded"), namespace="inference", pod="a", instance=f"10.0.0.1:{port}")
    return world.asked(pods=world.asked().pods[:1])


async def test_a_pod_of_which_one_process_is_not_scraped_is_neither_whole_nor_idle(world: World) -> None:
    target = run_two_processes(world)
    await world.look(target)
    world.server.pods[1].page = None
    for _ in range(2):
        world.clock.now += 15
        reading = await world.look(target)
        assert reading.samples["a"].state is SampleState.PARTIAL
        assert reading.up == {"a": False}
        assert reading.problems == ("a shows fewer processes of vLLM than before in Prometheus",)
    world.server.pods[1].page = page("loaded")
    world.clock.now += 15
    reading = await world.look(target)
    assert (reading.samples["a"].state, reading.up, reading.problems) == (SampleState.FRESH, {"a": True}, ())


async def test_a_process_whose_page_loses_vllm_is_missed_though_its_scrape_succeeds(world: World) -> None:
    target = run_two_processes(world)
    await world.look(target)
    world.server.pods[1].page = "process_open_fds 7\n"
    world.clock.now += 15
    reading = await world.look(target)
    assert (reading.samples["a"].state, reading.up) == (SampleState.PARTIAL, {"a": False})


async def test_a_process_that_failed_before_the_first_look_is_known_by_its_past(world: World) -> None:
    target = run_two_processes(world)
    world.server.scrape()
    world.server.pods[1].page = None
    for _ in range(2):
        world.clock.now += 15
        assert (await world.look(target)).samples["a"].state is SampleState.PARTIAL
    assert sum("count_over_time" in query for query in world.server.queries) == 1, "of a pod it is asked once"


async def test_while_the_past_of_a_process_cannot_be_read_its_pod_is_not_whole(world: World) -> None:
    target = run_two_processes(world)
    world.server.scrape()
    world.server.pods[1].page = None
    world.server.faults.status, world.server.faults.only_queries_with = 503, "count_over_time"
    for status in (503, 200):
        world.server.faults.status = status
        world.clock.now += 15
        reading = await world.look(target)
        assert reading.samples["a"].state is SampleState.PARTIAL
        assert reading.up == ({} if status == 503 else {"a": False})


async def test_a_process_that_is_not_to_be_scraped_any_more_is_missed_once(world: World) -> None:
    target = run_two_processes(world)
    await world.look(target)
    gone = world.server.pods.pop()
    world.server.store.add({"__name__": "up", **gone.target_labels()}, None, world.clock.now + 15)
    states = []
    for _ in range(3):
        world.clock.now += 15
        states.append((await world.look(target)).samples["a"].state)
    assert states == [SampleState.PARTIAL, SampleState.IDLE, SampleState.IDLE]
    assert (world.last["t"].up, world.last["t"].problems) == ({"a": True}, ())


@pytest.mark.parametrize("shows", [None, "envoy_requests_total 7\n"], ids=["fails", "answers"])
async def test_another_port_of_the_pod_that_never_showed_vllm_is_not_missed(world: World, shows: str | None) -> None:
    world.run("a", page("loaded"))
    world.run("a", shows, namespace="inference", pod="a", instance="10.0.0.1:15020", job="mesh")
    target = world.asked(pods=world.asked().pods[:1])
    for state in (SampleState.FRESH, SampleState.IDLE):
        reading = await world.look(target)
        assert (reading.samples["a"].state, reading.up, reading.problems) == (state, {"a": True}, ())
        world.clock.now += 15


@pytest.mark.parametrize("later", [8000, 8001])
async def test_a_pod_is_as_old_as_the_oldest_of_its_processes(world: World, later: int) -> None:
    for port in (8000, 8001):
        world.run("a", page("loaded"), namespace="inference", pod="a", instance=f"10.0.0.1:{port}")
    world.server.scrape(NOW - 40)
    world.server.scraping = False
    process = {"namespace": "inference", "pod": "a", "instance": f"10.0.0.1:{later}"}
    gauge = {"__name__": "vllm:num_requests_running", "engine": "0", "model_name": "tiny"}
    world.server.store.add({**gauge, **process}, 0.0, NOW - 10)
    assert (await world.look(world.asked(pods=world.asked().pods[:1]))).samples["a"].time == NOW - 40
