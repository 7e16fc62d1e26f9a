"""What we read of vLLM is what the recorded release says, or marked as an older name; no vLLM is needed for this.

`make test-vllm` compares the records with the real server.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest

from cluster import vllm_metrics
from tests.checkout import ROOT

DATA = ROOT / "tests" / "data"
METRICS: dict[str, dict[str, Any]] = json.loads((DATA / "vllm_metric_names.json").read_text())["metrics"]
POST_ROUTES: list[str] = json.loads((DATA / "vllm_metric_names.json").read_text())["post_routes"]
OPTIONS: list[dict[str, Any]] = json.loads((DATA / "vllm_options.json").read_text())["options"]

READ: dict[str, tuple[tuple[str, ...], str]] = {
    **{field: (names, "gauge") for field, names in vllm_metrics.GAUGES.items()},
    **{field: (names, "counter") for field, names in vllm_metrics.COUNTERS.items()},
    **{field: (names, "histogram") for field, names in vllm_metrics.DISTRIBUTIONS.items()},
    "kv_cache_usage": (vllm_metrics.KV_CACHE_USAGE, "gauge"),
    "waiting_by_reason": (vllm_metrics.WAITING_BY_REASON, "gauge"),
    "kv_cache_tokens": (vllm_metrics.CACHE_CONFIG, "gauge"),
    "http_requests_ended": (vllm_metrics.HTTP_REQUESTS, "counter"),
}
"""By field of a pod's sample: the names it is read from, and the type that the newest must have."""

EDGES = {
    "vllm:time_to_first_token_seconds": vllm_metrics.TTFT_EDGES,
    "vllm:request_time_per_output_token_seconds": vllm_metrics.TPOT_EDGES,
    "vllm:inter_token_latency_seconds": vllm_metrics.INTER_TOKEN_EDGES,
    "vllm:e2e_request_latency_seconds": vllm_metrics.E2E_EDGES,
    "vllm:request_queue_time_seconds": vllm_metrics.QUEUE_EDGES,
}


def recorded(series: str) -> dict[str, Any] | None:
    """The metric that a series belongs to: of a histogram's `_count` the histogram."""
    return METRICS.get(series) or METRICS.get(series.removesuffix("_count"))


@pytest.mark.parametrize("field", READ)
def test_the_newest_name_of_every_reading_is_one_that_the_recorded_vllm_shows(field: str) -> None:
    (newest, *_), kind = READ[field]
    metric = recorded(newest)
    assert metric is not None, f"{newest} is not recorded"
    # A histogram's count is a counter as well as part of it.
    assert metric["type"] in (kind, "histogram" if newest.endswith("_count") else kind)


@pytest.mark.parametrize("field", READ)
def test_a_name_that_the_recorded_vllm_does_not_show_comes_after_those_it_does(field: str) -> None:
    """Newest first is how older names are marked: an older one must never win over one that is there."""
    names = [name for name in READ[field][0] if ":" in name or not name.startswith("vllm_")]
    shown = [recorded(name) is not None for name in names]
    assert all(before or not after for before, after in pairwise(shown)), dict(zip(names, shown, strict=True))


@pytest.mark.parametrize("field", READ)
def test_every_other_spelling_is_a_colon_written_as_an_underscore(field: str) -> None:
    names = READ[field][0]
    colons = {name.replace(":", "_", 1) for name in names if ":" in name}
    assert {name for name in names if ":" not in name and name.startswith("vllm_")} <= colons


@pytest.mark.parametrize("name", EDGES)
def test_bucket_edges_are_those_of_the_recorded_vllm(name: str) -> None:
    assert list(EDGES[name]) == METRICS[name]["bucket_edges"]


def test_the_labels_that_set_readings_apart_are_recorded_ones() -> None:
    for series in (*vllm_metrics.known_names(), *vllm_metrics.HTTP_REQUESTS):
        metric = recorded(series)
        if metric is not None and not series.endswith("_info"):
            assert set(metric["labels"]) <= {*vllm_metrics.ENGINE_LABELS}, series
    assert set(vllm_metrics.CACHE_CONFIG_LABELS) <= set(METRICS[vllm_metrics.CACHE_CONFIG[0]]["labels"])
    assert vllm_metrics.REASON_LABEL in METRICS[vllm_metrics.WAITING_BY_REASON[0]]["labels"]


def test_requests_are_counted_on_routes_that_a_server_has() -> None:
    # Those of speech are there only where a model of speech is served; the recorded model writes.
    written = {route for route in vllm_metrics.HTTP_HANDLERS if "/audio/" not in route}
    assert written <= set(POST_ROUTES)


def test_every_look_alike_is_told_a_name_that_the_recorded_vllm_shows() -> None:
    assert [meant for meant in vllm_metrics.MISTAKEN.values() if recorded(meant) is None] == []


def test_the_record_of_metrics_is_of_a_server_that_was_idle_and_then_loaded() -> None:
    assert METRICS["vllm:request_success_total"]["shown_when_idle"]
    assert not METRICS["http_requests_total"]["shown_when_idle"]
    for metric in METRICS.values():
        edges = metric.get("bucket_edges", [])
        assert edges == sorted(edges)
        assert all(math.isfinite(edge) for edge in edges)


def test_the_record_of_options_names_each_once_with_all_that_is_known_of_it() -> None:
    names = [option["name"] for option in OPTIONS]
    assert len(names) == len(set(names)) > 200
    assert all(set(option) == {"name", "aliases", "type", "values", "choices", "default"} for option in OPTIONS)
    by_name = {option["name"]: option for option in OPTIONS}
    assert by_name["--max-num-seqs"]["type"] == "int"
    assert by_name["--kv-cache-memory-bytes"]["type"] == "human_readable_int or None"
    assert by_name["--tensor-parallel-size"] == {
        "name": "--tensor-parallel-size",
        "aliases": ["-tp"],
        "type": "int",
        "values": "1",
        "choices": [],
        "default": "1",
    }
    assert by_name["--enforce-eager"]["aliases"] == ["--no-enforce-eager"]
