"""The names vLLM gives its metrics, and how a pod's readings become a `PodSample`.

Nothing else in the repository spells a metric. Every field of `PodSample` has its candidate names, newest
first: what V1 says today, the same with the underscore that exporters put for the colon (they forbid it in
names), then what older releases said. The newest that a pod shows wins, pod by pod, so a fleet in the middle
of an upgrade is read whole.

A reading is keyed by (series name, label value): ("vllm:num_requests_running", ""), a bucket by its `le`, a
waiting reason by its `reason`. Several engines of one pod are already added up, KV use being the highest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from policies.scaling.observation import Distribution, PodSample, SampleState
from policies.scaling.resource import Objectives

Key = tuple[str, str]
"""A series name and the one label value that sets it apart: `le` of a bucket, `reason` of a wait, else ""."""

Edges = Mapping[str, Sequence[tuple[float, str]]]
"""By bucket series name: the finite bucket edges, ascending, each with its spelling as a label."""


def _spelt(*names: str) -> tuple[str, ...]:
    """Each name, and after it the same as exporters spell it that know no colon."""
    return tuple(spelling for name in names for spelling in (name, name.replace(":", "_", 1)))


# Which field of PodSample is read from which name, newest first. Values of several engines are added up.
GAUGES: Final[Mapping[str, tuple[str, ...]]] = {
    "requests_running": _spelt("vllm:num_requests_running"),
    "requests_waiting": _spelt("vllm:num_requests_waiting"),
}
COUNTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "prompt_tokens": _spelt("vllm:prompt_tokens_total"),
    "generation_tokens": _spelt("vllm:generation_tokens_total"),
    # All reasons together. An aborted request is in none of them: vLLM has no count of those.
    "requests_finished": _spelt("vllm:request_success_total"),
    "preemptions": _spelt("vllm:num_preemptions_total"),
    # The histogram is called …_tokens_total; its count is one an engine step.
    "engine_steps": _spelt("vllm:iteration_tokens_total_count"),
}
KV_CACHE_USAGE: Final = _spelt("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
"""0…1 in spite of its name; of several engines the highest."""
WAITING_BY_REASON: Final = _spelt("vllm:num_requests_waiting_by_reason")
REASON_LABEL: Final = "reason"
CACHE_CONFIG: Final = _spelt("vllm:cache_config_info")
"""Always 1; what it says is in its labels. Keyed here by CACHE_TOKENS, with the tokens of all engines."""
CACHE_CONFIG_LABELS: Final = ("kv_cache_size_tokens", "num_gpu_blocks", "block_size")
HTTP_REQUESTS: Final = ("http_requests_total",)
"""Counted by the HTTP layer when a request ends in any way; POST to one of HTTP_HANDLERS only."""
# The routes that lead to a generation; tokenising or loading an adapter is no request of this kind.
HTTP_HANDLERS: Final = (
    *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
    *("/v1/audio/transcriptions", "/v1/audio/translations"),
)
DISTRIBUTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "ttft": _spelt("vllm:time_to_first_token_seconds"),
    # A release that does not say a request's mean time per token says the time between two tokens.
    "tpot": _spelt(
        "vllm:request_time_per_output_token_seconds",
        "vllm:inter_token_latency_seconds",
        "vllm:time_per_output_token_seconds",
    ),
    "inter_token": _spelt("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    "queue_time": _spelt("vllm:request_queue_time_seconds"),
}
LENGTHS: Final[Mapping[str, tuple[str, ...]]] = {
    "prompt": _spelt("vllm:request_prompt_tokens"),
    "generation": _spelt("vllm:request_generation_tokens"),
}
"""Histograms of the tokens of requests that are done; a past is rebuilt from them."""
# A whole request's times: what people's own autoscalers read, and no field of PodSample holds.
REQUEST_TIMES: Final[Mapping[str, tuple[str, ...]]] = {
    "end_to_end": _spelt("vllm:e2e_request_latency_seconds"),
    "inference": _spelt("vllm:request_inference_time_seconds"),
    "prefill": _spelt("vllm:request_prefill_time_seconds"),
    "decode": _spelt("vllm:request_decode_time_seconds"),
}
FINISHED_REASONS: Final = ("stop", "length", "abort", "error", "repetition")
"""Label values of requests_finished, each there from the start."""
ENGINE_LABELS: Final = (
    "engine",
    "model_name",
    "finished_reason",
    "reason",
    "handler",
    "method",
    "status",
    "le",
)
"""The labels vLLM itself gives: series that differ in others only are one reading, scraped twice."""

TTFT_EDGES: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TPOT_EDGES: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
INTER_TOKEN_EDGES: Final = TPOT_EDGES
E2E_EDGES: Final = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
QUEUE_EDGES: Final = E2E_EDGES


def edges_around(objective: float, edges: Iterable[float]) -> tuple[float, float]:
    """The greatest edge ≤ the objective (0 if there is none) and the smallest ≥ it (inf if there is none)."""
    lower, upper = 0.0, math.inf
    for edge in edges:
        if lower < edge <= objective:
            lower = edge
        if objective <= edge < upper:
            upper = edge
    return lower, upper


def objective_of(distribution: str, objectives: Objectives) -> float:
    """The objective whose two buckets are read; time in the queue is part of the time to first token."""
    if distribution in ("ttft", "queue_time"):
        return objectives.ttft_seconds
    return objectives.tpot_seconds


def near_edges(edges: Edges, objectives: Objectives) -> Edges:
    """Of every bucket series only the edges that its objective lies on or between: all that `read` looks for."""
    found: dict[str, list[tuple[float, str]]] = {}
    for field in DISTRIBUTIONS:
        objective = objective_of(field, objectives)
        for bucket in bucket_names(field):
            if bucket in edges:
                around = edges_around(objective, (edge for edge, _ in edges[bucket]))
                found[bucket] = [each for each in edges[bucket] if each[0] in around]
    return found


def bucket_names(distribution: str) -> tuple[str, ...]:
    return tuple(f"{name}_bucket" for name in DISTRIBUTIONS[distribution])


def candidates(field: str) -> tuple[str, ...]:
    """The names a field of PodSample may be read from, as vLLM itself spells them, newest first."""
    names = dict(_SCALARS).get(field) or DISTRIBUTIONS.get(field) or WAITING_BY_REASON
    return tuple(name for name in names if ":" in name) or names


def edges_of(buckets: Iterable[Key]) -> dict[str, list[tuple[float, str]]]:
    """The finite edges of every bucket series among the keys, ascending."""
    found: dict[str, list[tuple[float, str]]] = {}
    for name, label in buckets:
        edge = number(label)
        if name.endswith("_bucket") and edge is not None:
            found.setdefault(name, []).append((edge, label))
    return {name: sorted(edges) for name, edges in found.items()}


def number(text: str) -> float | None:
    """A finite number, or None for anything else: "None", "NaN" and "+Inf" are what exporters say too."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def cache_tokens(labels: Mapping[str, str]) -> float:
    """Capacity of one engine's KV cache by the labels of its cache config, NaN where they do not say."""
    said, blocks, block_size = (number(labels.get(label, "")) for label in CACHE_CONFIG_LABELS)
    if said is not None:
        return said
    return math.nan if blocks is None or block_size is None else blocks * block_size


@dataclass(frozen=True, slots=True)
class Found:
    """A pod's sample, FRESH or NOT_A_NUMBER by its values alone, and the name each field was read from."""

    sample: PodSample
    names: Mapping[str, str]


def read(values: Mapping[Key, float], edges: Edges, objectives: Objectives, time: float | None) -> Found | None:
    """What the pod's readings say; None where it shows neither requests running nor waiting: not a vLLM."""
    numbers: dict[str, float] = {}
    names: dict[str, str] = {}
    broken = False
    for field, candidates in _SCALARS:
        for name in candidates:
            value = values.get((name, ""))
            if value is not None:
                names[field] = name
                if math.isfinite(value):
                    numbers[field] = value
                else:
                    broken = True
                break
    if "requests_running" not in names and "requests_waiting" not in names:
        return None
    distributions: dict[str, Distribution] = {}
    for field, keys in _DISTRIBUTION_KEYS:
        for name, count, total in keys:
            if count in values and total in values:
                names[field] = name
                near = edges.get(f"{name}_bucket", ())
                distribution = _distribution(
                    values[count], values[total], f"{name}_bucket", values, near, objective_of(field, objectives)
                )
                if distribution is not None:
                    distributions[field] = distribution
                else:
                    broken = True
                break
    reasons = _reasons(values, names)
    broken |= any(not math.isfinite(waiting) for _, waiting in reasons)
    sample = PodSample(
        time=time,
        state=SampleState.NOT_A_NUMBER if broken else SampleState.FRESH,
        requests_running=numbers.get("requests_running"),
        requests_waiting=numbers.get("requests_waiting"),
        waiting_by_reason=tuple(reason for reason in reasons if math.isfinite(reason[1])),
        kv_cache_usage=numbers.get("kv_cache_usage"),
        kv_cache_tokens=numbers.get("kv_cache_tokens"),
        prompt_tokens=numbers.get("prompt_tokens"),
        generation_tokens=numbers.get("generation_tokens"),
        requests_finished=numbers.get("requests_finished"),
        http_requests_ended=numbers.get("http_requests_ended"),
        preemptions=numbers.get("preemptions"),
        engine_steps=numbers.get("engine_steps"),
        ttft=distributions.get("ttft"),
        tpot=distributions.get("tpot"),
        inter_token=distributions.get("inter_token"),
        queue_time=distributions.get("queue_time"),
    )
    return Found(sample, names)


_SCALARS: Final = (
    *GAUGES.items(),
    *COUNTERS.items(),
    ("kv_cache_usage", KV_CACHE_USAGE),
    ("kv_cache_tokens", CACHE_CONFIG),
    ("http_requests_ended", HTTP_REQUESTS),
)


_DISTRIBUTION_KEYS: Final = tuple(
    (field, tuple((name, (f"{name}_count", ""), (f"{name}_sum", "")) for name in names))
    for field, names in DISTRIBUTIONS.items()
)


def _distribution(
    count: float,
    total: float,
    bucket: str,
    values: Mapping[Key, float],
    edges: Iterable[tuple[float, str]],
    objective: float,
) -> Distribution | None:
    """None where a number is none; a bucket that was not seen leaves the interval as wide as it is known."""
    lower_edge, lower_count, upper_edge, upper_count = 0.0, 0.0, math.inf, count
    for edge, label in edges:
        within = values.get((bucket, label))
        if within is None:
            continue
        if edge <= objective:
            lower_edge, lower_count = edge, within
        if edge >= objective:
            upper_edge, upper_count = edge, within
            break
    if not math.isfinite(count + total + lower_count + upper_count):
        return None
    return Distribution(total, count, lower_edge, lower_count, upper_edge, upper_count)


def _reasons(values: Mapping[Key, float], names: dict[str, str]) -> list[tuple[str, float]]:
    seen = [(series, label, value) for (series, label), value in values.items() if series in _REASONS]
    for name in WAITING_BY_REASON:
        found = sorted((label, value) for series, label, value in seen if series == name)
        if found:
            names["waiting_by_reason"] = name
            return found
    return []


_REASONS: Final = frozenset(WAITING_BY_REASON)


def sample_of_page(text: str, objectives: Objectives, time: float) -> Found | None:
    """What one `/metrics` page says, read as a scrape of it would be."""
    values: dict[Key, float] = {}
    for name, labels, value in page_series(text):
        for key, reading in readings(name, labels, value):
            values[key] = (
                max(values[key], reading) if highest(name) and key in values else (values.get(key, 0.0) + reading)
            )
    return read(values, edges_of(values), objectives, time)


def page_series(text: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Every series of an exposition page: name, labels, value."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def highest(name: str) -> bool:
    """Whether several engines of one pod show the highest rather than the sum."""
    return name in KV_CACHE_USAGE


def readings(name: str, labels: Mapping[str, str], value: float) -> Iterator[tuple[Key, float]]:
    """The reading that a series is, none if it is not one of ours."""
    if name in CACHE_CONFIG:
        yield (name, ""), cache_tokens(labels)
    elif name in WAITING_BY_REASON:
        yield (name, labels.get(REASON_LABEL, "")), value
    elif name in _BUCKETS:
        yield (name, labels["le"]), value
    elif name in HTTP_REQUESTS:
        if labels.get("method") == "POST" and labels.get("handler") in HTTP_HANDLERS:
            yield (name, ""), value
    elif name in _PLAIN:
        yield (name, ""), value


_BUCKETS: Final = frozenset(name for field in DISTRIBUTIONS for name in bucket_names(field))
_PLAIN: Final = frozenset(
    (
        *(name for names in (*GAUGES.values(), *COUNTERS.values(), KV_CACHE_USAGE) for name in names),
        *(f"{name}_{part}" for names in DISTRIBUTIONS.values() for name in names for part in ("sum", "count")),
    )
)


# Names that dashboards, examples and other autoscalers use and vLLM does not, with the one that is meant.
MISTAKEN: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("num_requests_running", "running_requests", "vllm_num_running_requests"), "vllm:num_requests_running"
    ),
    **dict.fromkeys(
        ("num_requests_waiting", "pending_requests", "vllm_waiting_requests", "vllm_num_waiting_requests"),
        "vllm:num_requests_waiting",
    ),
    **dict.fromkeys(
        ("kv_cache_usage_perc", "kv_cache_usage_ratio", "vllm_kv_cache_usage_ratio", "vllm_gpu_cache_usage_ratio"),
        "vllm:kv_cache_usage_perc",
    ),
    "vllm_requests_running": "vllm:num_requests_running",
    "vllm_running_requests": "vllm:num_requests_running",
    "vllm_active_requests": "vllm:num_requests_running",
    "vllm_pending_requests": "vllm:num_requests_waiting",
    "vllm_requests_waiting": "vllm:num_requests_waiting",
    "vllm_queue_length": "vllm:num_requests_waiting",
    "vllm_queue_size": "vllm:num_requests_waiting",
    "waiting_requests": "vllm:num_requests_waiting",
    "gpu_cache_usage_ratio": "vllm:kv_cache_usage_perc",
    "gpu_cache_usage_perc": "vllm:kv_cache_usage_perc",
    "vllm_gpu_cache_usage": "vllm:kv_cache_usage_perc",
    "vllm_kv_cache_usage": "vllm:kv_cache_usage_perc",
    "vllm_ttft_seconds": "vllm:time_to_first_token_seconds",
    "vllm_tpot_seconds": "vllm:request_time_per_output_token_seconds",
    "request_latency_p99": "vllm:e2e_request_latency_seconds",
}
_SAME_WORD: Final = {
    **dict.fromkeys(("pending", "queued", "queue"), "waiting"),
    **dict.fromkeys(("active", "inflight"), "running"),
    **dict.fromkeys(("reqs", "request"), "requests"),
    **dict.fromkeys(("ratio", "percent", "percentage"), "perc"),
    **dict.fromkeys(("gpu",), "kv"),
}
# Words that say nothing of what is measured.
_HOLLOW_WORDS: Final = frozenset(("vllm", "num", "total", "seconds", "count", "sum", "bucket", "by", "to", "per"))


def known_names() -> frozenset[str]:
    """Every series name that is read, in every spelling."""
    return _BUCKETS | _PLAIN | {*CACHE_CONFIG, *WAITING_BY_REASON, *HTTP_REQUESTS}


def look_alikes(names: Iterable[str], most: int = 8) -> tuple[tuple[str, str], ...]:
    """Of a server's series names those that seem to mean one of ours, each with that one, likest first."""
    ours = [(name, _words(name)) for name in sorted(known_names()) if name.startswith("vllm:")]
    ranked: list[tuple[float, str, str]] = []
    for name in set(names) - known_names():
        words = _words(name)
        meant = MISTAKEN.get(name)
        if meant is not None:
            ranked.append((2.0, name, meant))
        elif words:
            likeness, meant = max((len(words & w) / len(words | w), known) for known, w in ours)
            if likeness >= 0.6 or (likeness > 0 and "vllm" in name):
                ranked.append((likeness + ("vllm" in name), name, meant))
    ranked.sort(key=lambda entry: (-entry[0], entry[1]))
    return tuple((name, meant) for _, name, meant in ranked[:most])


def _words(name: str) -> frozenset[str]:
    words = (_SAME_WORD.get(word, word) for word in re.split(r"[^a-z0-9]+", name.lower()))
    return frozenset(words) - _HOLLOW_WORDS - {""}
