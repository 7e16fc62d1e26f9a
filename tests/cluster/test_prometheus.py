"""What a sweep makes of the pods of its targets, and what it does when the server shows less than all of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from cluster.prometheus_queries import PodAddress, TargetPods
from cluster.vllm_metrics import sample_of_page
from policies.scaling.observation import PodSample, SampleState
from policies.scaling.resource import PrometheusLabels
from tests.cluster.prometheus_world import NOW, OBJECTIVES, World, world
from tests.stand_ins import vllm_pages
from tests.stand_ins.prometheus import StandInPod
from tests.stand_ins.vllm_pages import page, showing, without

__all__ = ["world"]


def by_page(text: str) -> PodSample:
    found = sample_of_page(text, OBJECTIVES, NOW)
    assert found is not None
    return found.sample


@pytest.mark.parametrize("name", ["idle", "some", "loaded"])
async def test_a_pod_is_seen_through_the_server_as_on_its_own_page(world: World, name: str) -> None:
    world.run("a", page(name))
    reading = await world.look()
    assert reading.samples == {"a": by_page(page(name))}
    assert reading.problems == ()
    assert reading.up == {"a": True}
    assert reading.model_name == "tiny"


async def test_the_objective_on_an_edge_is_asked_for_by_one_bucket(world: World) -> None:
    world.run("a", page("loaded"))
    exact = OBJECTIVES.model_copy(update={"ttft_seconds": 2.5})
    reading = await world.look(world.asked(objectives=exact))
    ttft = reading.samples["a"].ttft
    assert ttft is not None
    assert ttft.lower_edge_seconds == ttft.upper_edge_seconds == 2.5


async def test_only_the_buckets_around_each_objective_are_asked_for(world: World) -> None:
    world.run("a", page("loaded"))
    await world.look()
    asked = [query for query in world.server.queries if "le=~" in query]
    assert any('le=~"1\\\\.0|2\\\\.5"' in query for query in asked)
    assert not any("7680" in query or "0.001" in query for query in asked)


async def test_targets_with_objectives_of_their_own_share_the_queries(world: World) -> None:
    world.run("a", page("loaded"))
    world.run("b", page("loaded"))
    pods = world.asked().pods
    strict = OBJECTIVES.model_copy(update={"ttft_seconds": 0.3})
    await world.look(x=TargetPods(pods[:1], OBJECTIVES), y=TargetPods(pods[1:], strict))
    loose_ttft, strict_ttft = (world.last[key].samples[pod].ttft for key, pod in (("x", "a"), ("y", "b")))
    assert loose_ttft is not None
    assert strict_ttft is not None
    assert (loose_ttft.lower_edge_seconds, loose_ttft.upper_edge_seconds) == (1.0, 2.5)
    assert (strict_ttft.lower_edge_seconds, strict_ttft.upper_edge_seconds) == (0.25, 0.5)


async def test_a_hundred_targets_cost_no_more_requests_than_one(world: World) -> None:
    world.run("a", page("loaded"))
    await world.look()
    first = world.prometheus.connection.requests_made
    pods = world.asked().pods
    await world.look(**{f"t{n}": TargetPods(pods, OBJECTIVES) for n in range(100)})
    assert world.prometheus.connection.requests_made - first < first <= 20


@pytest.mark.parametrize(
    "labels",
    [
        {"namespace": "inference", "pod": "a", "instance": "10.9.9.9:8000"},
        {"kubernetes_namespace": "inference", "kubernetes_pod_name": "a", "instance": "10.9.9.9:8000"},
        {"instance": "10.0.0.1:8000"},
        {"instance": "10.0.0.1"},
        {"instance": "10.0.0.1:8000", "namespace": "inference"},
    ],
)
async def test_a_series_joins_its_pod_in_each_of_the_ways(world: World, labels: dict[str, str]) -> None:
    world.run("a", page("loaded"), **labels)
    reading = await world.look()
    assert reading.samples["a"] == by_page(page("loaded"))
    assert reading.dropped_series == 0


async def test_labels_that_the_user_names_win(world: World) -> None:
    named = {"exported_namespace": "inference", "exported_pod": "a", "namespace": "monitoring", "pod": "exporter-0"}
    world.run("a", page("loaded"), **named)
    plain = await world.look()
    assert plain.samples["a"].state is SampleState.ABSENT
    labels = PrometheusLabels(namespace="exported_namespace", pod="exported_pod")
    reading = await world.look(world.asked(labels=labels))
    assert reading.samples["a"] == by_page(page("loaded"))


async def test_series_of_dead_pods_are_dropped_and_counted(world: World) -> None:
    world.run("a", page("loaded"))
    world.run("dead", page("loaded"))
    reading = await world.look(world.asked(pods=world.asked().pods[:1]))
    assert set(reading.samples) == {"a"}
    assert reading.samples["a"] == by_page(page("loaded"))
    assert reading.dropped_series == world.prometheus.dropped_series > 0
    assert world.prometheus.dropped_series_total == world.prometheus.dropped_series


async def test_a_pod_is_not_taken_for_a_dead_one_that_had_its_ip(world: World) -> None:
    world.run("a", page("loaded"), namespace="inference", pod="dead", instance="10.0.0.1:8000")
    assert (await world.look()).samples["a"].state is SampleState.ABSENT


async def test_an_ip_that_two_pods_share_joins_neither(world: World) -> None:
    world.run("a", page("loaded"), instance="10.0.0.1:8000")
    shared = [PodAddress("inference", name, "10.0.0.1") for name in ("a", "b")]
    reading = await world.look(TargetPods(shared, OBJECTIVES))
    assert {sample.state for sample in reading.samples.values()} == {SampleState.ABSENT}
    assert reading.dropped_series > 0


async def test_what_others_run_elsewhere_is_not_read(world: World) -> None:
    world.run("a", page("loaded"))
    world.run("z", page("loaded"), namespace="others", pod="z", instance="10.0.0.2:8000")
    await world.look(world.asked(pods=world.asked().pods[:1]))
    heavy = [query for query in world.server.queries if "_sum" in query]
    assert heavy
    assert all('namespace=~"inference"' in query for query in heavy)


async def test_a_pod_scraped_by_two_jobs_is_counted_once(world: World) -> None:
    for job in ("pod-monitor", "service-monitor"):
        world.run("a", page("loaded"), namespace="inference", pod="a", instance="10.0.0.1:8000", job=job)
    reading = await world.look(world.asked(pods=world.asked().pods[:1]))
    assert reading.samples["a"] == by_page(page("loaded"))


async def test_a_sweep_speaks_of_one_instant_though_scrapes_fall_into_it(world: World) -> None:
    scrapes = count(1)

    def moving() -> str:
        number = next(scrapes)
        return showing(page("loaded"), generation_tokens_total=number, time_to_first_token_seconds_count=number)

    world.server.pods.append(StandInPod("inference", "a", "10.0.0.1", moving))
    world.server.clock = lambda: NOW + next(scrapes)
    world.server.faults.delay_seconds, world.server.faults.only_queries_with = 0.3, "_sum"
    sample = (await world.look()).samples["a"]
    assert sample.ttft is not None
    assert sample.generation_tokens == sample.ttft.count


async def test_two_engines_of_one_process_are_added_up_and_kv_use_is_the_highest(world: World) -> None:
    text = vllm_pages.with_two_engines(showing(page("loaded"), kv_cache_usage_perc=0.5))
    text = text.replace('kv_cache_usage_perc{engine="1",model_name="tiny"} 0.5', 'kv_cache_usage_perc{engine="1"} 0.75')
    world.run("a", text)
    assert (await world.look()).samples["a"] == by_page(text)
    assert by_page(text).kv_cache_usage == 0.75


async def test_old_and_new_releases_side_by_side_are_each_read_by_their_names(world: World) -> None:
    old, renamed = vllm_pages.of_older_release(page("some")), vllm_pages.with_underscores(page("loaded"))
    world.run("new", page("loaded"))
    world.run("old", old)
    world.run("renamed", renamed)
    reading = await world.look()
    assert reading.samples == {"new": by_page(page("loaded")), "old": by_page(old), "renamed": by_page(renamed)}
    assert reading.names["kv_cache_usage"] == (
        "vllm:gpu_cache_usage_perc",
        "vllm:kv_cache_usage_perc",
        "vllm_kv_cache_usage_perc",
    )


async def test_a_pod_without_series_is_absent_and_not_zero(world: World) -> None:
    world.run("a", page("loaded"))
    world.run("booting", None)
    reading = await world.look()
    assert reading.samples["booting"] == PodSample(None, SampleState.ABSENT)
    assert reading.up == {"a": True, "booting": False}
    assert reading.problems == ()


async def test_an_empty_server_is_a_problem_and_every_pod_absent(world: World) -> None:
    world.run("a", page("loaded"))
    world.server.scraping = False
    reading = await world.look()
    assert reading.samples["a"].state is SampleState.ABSENT
    assert reading.problems == (f"Prometheus at {world.server.url} has no series of vLLM now",)


async def test_a_server_restarted_empty_is_blind_and_then_sees_again(world: World) -> None:
    world.run("a", page("loaded"))
    assert (await world.look()).samples["a"].state is SampleState.FRESH
    world.server.restart_empty()
    world.server.scraping = False
    assert (await world.look()).samples["a"].state is SampleState.ABSENT
    world.server.scraping = True
    world.clock.now += 15
    reading = await world.look()
    assert reading.samples["a"].state is SampleState.FRESH
    assert reading.problems == ()


@pytest.mark.parametrize(
    "series",
    ["num_requests_running", "kv_cache_usage_perc", "prompt_tokens_total", "time_to_first_token_seconds_count"],
)
async def test_nan_is_said_and_never_a_number(world: World, series: str) -> None:
    text = showing(page("loaded"), **{series: "NaN"})
    world.run("a", text)
    reading = await world.look()
    assert reading.samples["a"].state is SampleState.NOT_A_NUMBER
    assert reading.samples["a"] == by_page(text)
    assert reading.problems == ("a shows a value that is not a finite number in Prometheus",)


@pytest.mark.parametrize("kind", ["warnings", "infos"])
async def test_a_remark_of_the_server_makes_samples_partial(world: World, kind: str) -> None:
    world.run("a", page("loaded"))
    setattr(world.server.faults, kind, ("a store did not answer",))
    reading = await world.look()
    assert reading.samples["a"] == replace(by_page(page("loaded")), state=SampleState.PARTIAL)
    assert reading.problems == (f"Prometheus at {world.server.url} remarks: a store did not answer",)
    assert world.prometheus.remarks_made > 0
    setattr(world.server.faults, kind, ())
    assert (await world.look()).samples["a"].state is not SampleState.PARTIAL


@pytest.mark.parametrize(
    ("part", "lost"),
    [
        ("prompt_tokens_total", "prompt_tokens"),
        ("_sum", "ttft"),
        ("first_token_seconds_count", "ttft"),
        ("cache_config_info", "kv_cache_tokens"),
    ],
)
async def test_a_part_that_fails_leaves_the_rest_and_makes_it_partial(world: World, part: str, lost: str) -> None:
    world.run("a", page("loaded"))
    world.server.faults.status, world.server.faults.only_queries_with = 503, part
    reading = await world.look()
    sample = reading.samples["a"]
    assert sample.state is SampleState.PARTIAL
    assert getattr(sample, lost) is None
    assert len(reading.problems) == 1
    assert "HTTP 503" in reading.problems[0]


async def test_a_pod_that_lacks_what_every_vllm_shows_is_partial_as_long_as_it_does(world: World) -> None:
    world.run("a", without(page("loaded"), "kv_cache_usage_perc"))
    for _ in range(2):
        reading = await world.look()
        assert reading.samples["a"].state is SampleState.PARTIAL
        assert reading.problems == (
            "a shows no kv cache usage (vllm:kv_cache_usage_perc or vllm:gpu_cache_usage_perc) in Prometheus",
        )


async def test_a_pod_that_stops_showing_something_is_partial(world: World) -> None:
    world.run("a", page("loaded"))
    await world.look()
    world.server.pods[0].page = without(page("loaded"), "num_preemptions")
    world.clock.now += 15
    reading = await world.look()
    assert reading.samples["a"].state is SampleState.PARTIAL
    assert reading.problems == ("a shows no preemptions (vllm:num_preemptions_total) in Prometheus",)


async def test_idle_needs_a_look_before_and_counters_that_stand_still(world: World) -> None:
    world.run("a", page("loaded"))
    states = [(await world.look()).samples["a"].state]
    world.clock.now += 15
    states.append((await world.look()).samples["a"].state)
    world.clock.now += 15
    world.server.pods[0].page = showing(page("loaded"), generation_tokens_total=34278)
    states.append((await world.look()).samples["a"].state)
    assert states == [SampleState.FRESH, SampleState.IDLE, SampleState.FRESH]


async def test_a_pod_whose_scrape_fails_is_not_idle_though_nothing_moves(world: World) -> None:
    world.run("a", page("loaded"))
    await world.look()
    world.server.scraping = False
    world.clock.now += 15
    world.server.store.add({"__name__": "up", **world.server.pods[0].target_labels()}, 0.0, world.clock.now)
    reading = await world.look()
    assert reading.up == {"a": False}
    assert reading.samples["a"].state is SampleState.FRESH


async def test_a_pod_that_cannot_be_scraped_any_more_is_absent_not_idle(world: World) -> None:
    world.run("a", page("loaded"))
    await world.look()
    world.server.pods[0].page = None
    world.clock.now += 15
    reading = await world.look()
    assert reading.samples["a"].state is SampleState.ABSENT


async def test_the_names_a_server_has_are_told_and_what_looks_like_them(world: World) -> None:
    world.run("a", "vllm_pending_requests 3\nnode_load1 0.5\n")
    assert await world.prometheus.vllm_series() == ()
    assert await world.prometheus.look_alikes() == (("vllm_pending_requests", "vllm:num_requests_waiting"),)
    world.run("b", page("loaded"))
    world.clock.now += 15
    names = await world.prometheus.vllm_series()
    assert "vllm:kv_cache_usage_perc" in names
    assert "vllm:gpu_cache_usage_perc" not in names
    edges = await world.prometheus.edges()
    assert (2.5, "2.5") in edges["vllm:time_to_first_token_seconds_bucket"]


async def test_any_query_may_be_asked(world: World) -> None:
    world.run("a", page("loaded"))
    assert await world.prometheus.query("sum by (pod) (up)") == [({"pod": "a"}, 1.0)]
