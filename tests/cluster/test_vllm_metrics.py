"""What is read of vLLM's pages, against pages that a real vLLM 0.32.0 served."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import vllm_metrics
from cluster.vllm_metrics import edges_around, sample_of_page
from policies.scaling.observation import Distribution, PodSample, SampleState
from policies.scaling.resource import Objectives
from tests.stand_ins import vllm_pages
from tests.stand_ins.vllm_pages import page, showing, without

OBJECTIVES = Objectives(ttft_seconds=2.0, tpot_seconds=0.1, attainment=0.99)
NEWEST = {
    **vllm_metrics.GAUGES,
    **vllm_metrics.COUNTERS,
    **vllm_metrics.DISTRIBUTIONS,
    "kv_cache_usage": vllm_metrics.KV_CACHE_USAGE,
    "kv_cache_tokens": vllm_metrics.CACHE_CONFIG,
    "waiting_by_reason": vllm_metrics.WAITING_BY_REASON,
    "http_requests_ended": vllm_metrics.HTTP_REQUESTS,
}


def sample(text: str, objectives: Objectives = OBJECTIVES) -> PodSample:
    found = sample_of_page(text, objectives, time=7.0)
    assert found is not None
    return found.sample


def names(text: str) -> dict[str, str]:
    found = sample_of_page(text, OBJECTIVES, time=7.0)
    assert found is not None
    return dict(found.names)


def test_a_page_under_load_is_read_whole() -> None:
    assert sample(page("loaded")) == PodSample(
        time=7.0,
        state=SampleState.FRESH,
        requests_running=0.0,
        requests_waiting=0.0,
        waiting_by_reason=(("capacity", 0.0), ("deferred", 0.0)),
        kv_cache_usage=0.0,
        kv_cache_tokens=8192.0,
        prompt_tokens=138094.0,
        generation_tokens=34277.0,
        requests_finished=489.0,
        http_requests_ended=489.0,
        preemptions=0.0,
        engine_steps=6574.0,
        ttft=Distribution(164.27897572517395, 489.0, 1.0, 442.0, 2.5, 489.0),
        tpot=Distribution(5.551093783538895, 489.0, 0.1, 489.0, 0.1, 489.0),
        inter_token=Distribution(387.1238179500001, 33788.0, 0.1, 33541.0, 0.1, 33541.0),
        queue_time=Distribution(102.31300296199743, 489.0, 2.0, 489.0, 2.0, 489.0),
    )


@pytest.mark.parametrize(
    ("name", "finished", "prompt_tokens", "generation_tokens", "capacity"),
    [("idle", 0.0, 0.0, 0.0, 131072.0), ("some", 24.0, 144.0, 4800.0, 524288.0)],
)
def test_the_other_recorded_pages_are_read_too(
    name: str, finished: float, prompt_tokens: float, generation_tokens: float, capacity: float
) -> None:
    seen = sample(page(name))
    assert (seen.requests_finished, seen.prompt_tokens) == (finished, prompt_tokens)
    assert (seen.generation_tokens, seen.kv_cache_tokens) == (generation_tokens, capacity)
    assert seen.ttft is not None
    assert seen.ttft.count == finished
    assert seen.state is SampleState.FRESH


def test_before_the_first_request_the_http_layer_shows_nothing_and_that_is_not_zero() -> None:
    assert sample(page("idle")).http_requests_ended is None


@pytest.mark.parametrize("name", ["some", "loaded"])
def test_todays_vllm_shows_the_newest_name_of_every_field(name: str) -> None:
    assert names(page(name)) == {field: candidates[0] for field, candidates in NEWEST.items()}


def test_an_older_release_is_read_by_its_own_names() -> None:
    old = vllm_pages.of_older_release(page("loaded"))
    seen, today = sample(old), sample(page("loaded"))
    assert seen == replace(today, tpot=today.inter_token, waiting_by_reason=())
    assert names(old)["kv_cache_usage"] == "vllm:gpu_cache_usage_perc"
    assert names(old)["tpot"] == names(old)["inter_token"] == "vllm:time_per_output_token_seconds"


def test_underscores_for_colons_change_nothing_but_the_names_found() -> None:
    renamed = vllm_pages.with_underscores(page("loaded"))
    assert sample(renamed) == sample(page("loaded"))
    assert names(renamed)["ttft"] == "vllm_time_to_first_token_seconds"


def test_the_newest_of_two_names_wins() -> None:
    both = showing(page("loaded"), kv_cache_usage_perc=0.25) + "vllm:gpu_cache_usage_perc 0.75\n"
    assert sample(both).kv_cache_usage == 0.25
    assert names(both)["kv_cache_usage"] == "vllm:kv_cache_usage_perc"


def test_engines_are_added_up_and_kv_use_is_the_highest() -> None:
    one = showing(page("loaded"), num_requests_running=3, num_requests_waiting=2, kv_cache_usage_perc=0.5)
    two = vllm_pages.with_two_engines(one).replace(
        'vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.5',
        'vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.75',
    )
    seen, single = sample(two), sample(one)
    assert (seen.requests_running, seen.requests_waiting, seen.kv_cache_usage) == (6.0, 4.0, 0.75)
    assert seen.kv_cache_tokens == 2 * 8192.0
    assert seen.generation_tokens == 2 * 34277.0
    assert seen.ttft is not None
    assert single.ttft is not None
    assert (seen.ttft.count, seen.ttft.lower_count) == (2 * single.ttft.count, 2 * single.ttft.lower_count)


def test_waiting_is_told_by_reason() -> None:
    waiting = page("loaded").replace('reason="deferred"} 0.0', 'reason="deferred"} 4.0')
    assert sample(waiting).waiting_by_reason == (("capacity", 0.0), ("deferred", 4.0))


def test_only_posts_that_generate_are_requests() -> None:
    text = page("loaded")
    for method, handler in (("GET", "/v1/models"), ("POST", "/v1/load_lora_adapter"), ("POST", "/tokenize")):
        text += f'http_requests_total{{handler="{handler}",method="{method}",status="2xx"}} 50\n'
    text += 'http_requests_total{handler="/v1/chat/completions",method="POST",status="5xx"} 11\n'
    assert sample(text).http_requests_ended == 489.0 + 11.0


def test_the_size_of_the_kv_cache_is_blocks_by_block_size_where_tokens_are_not_said() -> None:
    text = page("loaded").replace('kv_cache_size_tokens="8192"', 'kv_cache_size_tokens="None"')
    assert sample(text).kv_cache_tokens == 256 * 32


@pytest.mark.parametrize(
    ("objective", "edges", "counts"),
    [
        (2.0, (1.0, 2.5), (442.0, 489.0)),
        (2.5, (2.5, 2.5), (489.0, 489.0)),
        (0.0005, (0.0, 0.001), (0.0, 0.0)),
        (9999.0, (2560.0, math.inf), (489.0, 489.0)),
    ],
)
def test_a_share_is_known_between_the_two_edges_around_the_objective(
    objective: float, edges: tuple[float, float], counts: tuple[float, float]
) -> None:
    ttft = sample(page("loaded"), OBJECTIVES.model_copy(update={"ttft_seconds": objective})).ttft
    assert ttft is not None
    assert (ttft.lower_edge_seconds, ttft.upper_edge_seconds) == edges
    assert (ttft.lower_count, ttft.upper_count) == counts


def test_without_its_buckets_a_share_lies_anywhere() -> None:
    lines = [line for line in page("loaded").splitlines() if "time_to_first_token_seconds_bucket" not in line]
    assert sample("\n".join(lines) + "\n").ttft == Distribution(164.27897572517395, 489.0, 0.0, 0.0, math.inf, 489.0)


@pytest.mark.parametrize("number", ["NaN", "+Inf"])
@pytest.mark.parametrize(
    "series",
    ["num_requests_waiting", "kv_cache_usage_perc", "generation_tokens_total", "time_to_first_token_seconds_sum"],
)
def test_what_is_not_a_number_is_none_and_said(series: str, number: str) -> None:
    seen = sample(showing(page("loaded"), **{series: number}))
    assert seen.state is SampleState.NOT_A_NUMBER
    fields = (seen.requests_waiting, seen.kv_cache_usage, seen.generation_tokens, seen.ttft)
    assert fields.count(None) == 1


def test_a_missing_family_is_none_and_the_rest_is_read() -> None:
    seen = sample(without(page("loaded"), "kv_cache_usage_perc", "request_queue_time_seconds"))
    assert seen.kv_cache_usage is None
    assert seen.queue_time is None
    assert seen.requests_finished == 489.0


def test_a_page_of_something_else_is_no_sample() -> None:
    assert sample_of_page("# TYPE up gauge\nup 1\nprocess_cpu_seconds_total 3\n", OBJECTIVES, 1.0) is None


@pytest.mark.parametrize(
    ("family", "edges"),
    [
        ("vllm:time_to_first_token_seconds", vllm_metrics.TTFT_EDGES),
        ("vllm:request_time_per_output_token_seconds", vllm_metrics.TPOT_EDGES),
        ("vllm:inter_token_latency_seconds", vllm_metrics.INTER_TOKEN_EDGES),
        ("vllm:request_queue_time_seconds", vllm_metrics.QUEUE_EDGES),
        ("vllm:e2e_request_latency_seconds", vllm_metrics.E2E_EDGES),
    ],
)
def test_the_edges_that_simulations_use_are_vllms_own(family: str, edges: tuple[float, ...]) -> None:
    labels = [
        float(labels["le"])
        for name, labels, _ in vllm_metrics.page_series(page("loaded"))
        if name == f"{family}_bucket" and labels["le"] != "+Inf"
    ]
    assert tuple(labels) == edges


def test_every_label_that_vllm_gives_to_what_is_read_is_known_as_its_own() -> None:
    given_labels = {
        label
        for name, labels, _ in vllm_metrics.page_series(page("loaded"))
        if name in vllm_metrics.known_names() - {*vllm_metrics.CACHE_CONFIG}
        for label in labels
    }
    assert given_labels == {*vllm_metrics.ENGINE_LABELS}


@given(
    st.floats(1e-4, 1e4),
    st.lists(st.floats(1e-3, 1e3), unique=True, max_size=12),
)
def test_the_edges_around_an_objective_hold_it_and_no_other_edge(objective: float, edges: list[float]) -> None:
    lower, upper = edges_around(objective, edges)
    assert lower <= objective <= upper
    assert lower == 0.0 or lower in edges
    assert math.isinf(upper) or upper in edges
    assert not any(lower < edge < upper for edge in edges)
    assert (lower == upper) == (objective in edges)


@pytest.mark.parametrize(
    ("found", "meant"),
    [
        ("vllm_requests_running", "vllm:num_requests_running"),
        ("vllm_pending_requests", "vllm:num_requests_waiting"),
        ("gpu_cache_usage_ratio", "vllm:kv_cache_usage_perc"),
        ("request_latency_p99", "vllm:e2e_request_latency_seconds"),
        ("waiting_requests", "vllm:num_requests_waiting"),
        ("ray_vllm_num_requests_waiting", "vllm:num_requests_waiting"),
        ("sglang:num_queue_reqs", "vllm:num_requests_waiting"),
    ],
)
def test_a_name_that_is_meant_for_one_of_ours_is_recognised(found: str, meant: str) -> None:
    others = ["up", "go_gc_duration_seconds", "node_memory_MemFree_bytes", "container_cpu_usage_seconds_total"]
    assert vllm_metrics.look_alikes([*others, found]) == ((found, meant),)


def test_what_is_one_of_ours_does_not_merely_look_alike() -> None:
    assert vllm_metrics.look_alikes(sorted(vllm_metrics.known_names())) == ()
