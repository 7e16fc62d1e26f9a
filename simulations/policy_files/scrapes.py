"""The simulated fleet as a Prometheus would hold it: series by name and labels, and what was scraped of them lately.

A pod's series carry `namespace`, `pod`, `instance`, `job`, `container`, `engine` and `model_name`. Matchers on labels
that vLLM itself gives (`le`, `finished_reason`, …) are met or not; all others choose the target, and a replay knows
no other target, so they are taken as met. One scrape a tick is seen: the last.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from cluster import vllm_metrics as names
from policies.scaling.observation import Observation, PodSample, PodStage, SampleState
from simulations.model.shown import Histogram, WholeSample
from simulations.policy_files.evaluation import Labels, Points, Vector, matches
from simulations.policy_files.promql import Expression, Selector, selectors

VLLM_LABELS = ("le", "finished_reason", "reason", "handler", "method", "status", "engine")
"""Labels that tell the series of one pod apart: matchers on them are judged."""
LOOKBACK_SECONDS = 300.0
"""How long Prometheus answers with a value that nothing has followed."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a series is read: a field of the sample, and for a histogram which part of it."""

    field: str
    part: str = ""


def _sources() -> Iterator[tuple[str, _Source]]:
    for fields in (names.GAUGES, names.COUNTERS):
        for key, spellings in fields.items():
            yield from ((name, _Source(key)) for name in spellings)
    yield from ((name, _Source("kv_cache_usage")) for name in names.KV_CACHE_USAGE)
    yield from ((name, _Source("http_requests_ended")) for name in names.HTTP_REQUESTS)
    # What releases without a mean time per token say in its place comes later, under its own name.
    histograms = [*names.DISTRIBUTIONS.items(), *names.REQUEST_TIMES.items()]
    for key, spellings in histograms:
        for name in spellings:
            yield from ((f"{name}_{part}", _Source(key, part)) for part in ("bucket", "sum", "count"))


SOURCES: Mapping[str, _Source] = dict(_sources())
"""By series name; the later field has a name that two may be read from."""
HISTOGRAMS = frozenset(
    name for of in (names.DISTRIBUTIONS, names.REQUEST_TIMES) for spellings in of.values() for name in spellings
)
GAUGES = frozenset(name for spellings in (*names.GAUGES.values(), names.KV_CACHE_USAGE) for name in spellings)
_GAUGE_FIELDS = (*names.GAUGES, "kv_cache_usage")
UP = "up"
REPLICAS: Mapping[str, str] = {
    "kube_deployment_spec_replicas": "asked",
    "kube_statefulset_replicas": "asked",
    **{
        f"kube_{kind}_status_replicas{which}": what
        for kind in ("deployment", "statefulset")
        for which, what in (("", "created"), ("_ready", "ready"), ("_available", "ready"))
    },
}
"""Of kube-state-metrics: counts of the target, as the API server has them at the very moment."""


def is_shown(name: str) -> bool:
    return name in SOURCES or name in REPLICAS or name == UP


def reads_buckets(name: str) -> bool:
    """Whether the series needs the histograms of a sample."""
    return name in SOURCES and bool(SOURCES[name].part)


def nearest(name: str) -> str | None:
    """The shown series, or histogram, with the most similar name."""
    found = difflib.get_close_matches(name, [n for n in (*SOURCES, *HISTOGRAMS) if ":" in n], n=1, cutoff=0.6)
    return found[0] if found else None


Key = tuple[str, Labels]


@dataclass(frozen=True, slots=True)
class Scrapes:
    """What was scraped up to `time`; as much as the queries that it was made for look back."""

    time: float = -math.inf
    now: Mapping[str, Vector] = field(default_factory=dict)
    """By series name, what is neither gone nor too old."""
    past: Mapping[Key, Points] = field(default_factory=dict)

    def instant(self, selector: Selector) -> Vector:
        return {k: v for k, v in self.now.get(selector.series, {}).items() if _chosen(selector, k)}

    def window(self, selector: Selector) -> Mapping[Labels, Points]:
        start = self.time - (selector.window_seconds or 0.0)
        found: dict[Labels, Points] = {}
        for (name, labels), points in self.past.items():
            if name == selector.series and _chosen(selector, labels):
                within = _after(start, points)
                if within:
                    found[labels] = within
        return found


def _after(start: float, points: Points) -> Points:
    """Those after it; most often all."""
    first = 0
    while first < len(points) and points[first][0] <= start:
        first += 1
    return points[first:] if first else points


def _chosen(selector: Selector, labels: Labels) -> bool:
    if not selector.matchers:
        return True
    values = dict(labels)
    judged = (matcher for matcher in selector.matchers if matcher[0] in VLLM_LABELS)
    return all(matches(operator, wanted, values.get(label, "")) for label, operator, wanted in judged)


@dataclass(frozen=True, slots=True)
class Needs:
    """Which series some queries read, and how far back."""

    instant: tuple[str, ...]
    window_seconds: Mapping[str, float]

    @classmethod
    def of(cls, trees: Iterable[Expression]) -> Needs:
        read = [selector for tree in trees for selector in selectors(tree)]
        windows: dict[str, float] = {}
        for selector in read:
            if selector.window_seconds is not None:
                windows[selector.series] = max(windows.get(selector.series, 0.0), selector.window_seconds)
        return cls(tuple(sorted({s.series for s in read if s.window_seconds is None})), windows)

    @property
    def histograms(self) -> bool:
        return any(map(reads_buckets, (*self.instant, *self.window_seconds)))

    def scraped(self, before: Scrapes, seen: Observation) -> Scrapes:
        """What was known before, with what this look shows besides."""
        now: dict[str, Vector] = {name: {} for name in self.instant}
        past = {key: points for key, points in before.past.items() if self._is_kept(key, points, seen.time)}
        for name in {*self.instant, *self.window_seconds}:
            for time, labels, value in _series(name, seen):
                if name in now and seen.time - time <= LOOKBACK_SECONDS:
                    now[name][labels] = value
                window = self.window_seconds.get(name)
                if window is not None:
                    points = past.get((name, labels), ())
                    if not points or points[-1][0] < time:
                        past[name, labels] = (*_after(seen.time - window, points), (time, value))
        return Scrapes(seen.time, now, past)

    def _is_kept(self, key: Key, points: Points, time: float) -> bool:
        return points[-1][0] > time - self.window_seconds[key[0]]


def _series(name: str, seen: Observation) -> Iterator[tuple[float, Labels, float]]:
    """Each of that name: when it was scraped, its labels, its value."""
    if name in REPLICAS:
        kind = name.split("_")[1]
        yield seen.time, tuple(sorted({kind: "vllm", "namespace": "default"}.items())), _replicas(REPLICAS[name], seen)
        return
    for pod in seen.pods:
        sample = pod.sample
        if sample is None or sample.time is None:
            continue
        labels = _labels(pod.name, seen.model_name)
        if name == UP:
            yield sample.time, labels, 1.0
        else:
            for own, value in _readings(SOURCES[name], sample):
                yield sample.time, _joined(labels, own), value


def _readings(source: _Source, sample: PodSample) -> Iterator[tuple[Labels, float]]:
    if source.part:
        histogram = sample.histograms.get(source.field) if isinstance(sample, WholeSample) else None
        if histogram is not None:
            yield from _parts(histogram, source.part)
        return
    value: float | None = getattr(sample, source.field)
    if value is None and sample.state is SampleState.NOT_A_NUMBER and source.field in _GAUGE_FIELDS:
        value = math.nan
    if value is None:
        return
    if source.field == "requests_finished":
        # An imagined model has said all that it wanted to.
        for reason in names.FINISHED_REASONS:
            yield (("finished_reason", reason),), value if reason == "stop" else 0.0
    elif source.field == "http_requests_ended":
        yield (("handler", names.HTTP_HANDLERS[0]), ("method", "POST"), ("status", "2xx")), value
    else:
        yield (), value


def _parts(histogram: Histogram, part: str) -> Iterator[tuple[Labels, float]]:
    if part == "sum":
        yield (), histogram.sum_seconds
    elif part == "count":
        yield (), histogram.counts[-1]
    else:
        for edge, count in zip((*histogram.edges_seconds, math.inf), histogram.counts, strict=True):
            yield (("le", "+Inf" if math.isinf(edge) else str(float(edge))),), count


def _replicas(what: str, seen: Observation) -> float:
    match what:
        case "asked":
            return float(seen.desired)
        case "ready":
            return float(seen.count(PodStage.READY))
        case _:
            return float(len(seen.pods) - seen.count(PodStage.TERMINATING))


@cache
def _labels(pod: str, model: str) -> Labels:
    given = {"container": "vllm", "engine": "0", "instance": pod, "job": "vllm", "model_name": model}
    return tuple(sorted({**given, "namespace": "default", "pod": pod}.items()))


@cache
def _joined(labels: Labels, own: Labels) -> Labels:
    return tuple(sorted((*labels, *own))) if own else labels
