"""What the extender tells of itself: the `preheat_extender_*` metrics. docs/extender.md has the same table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

Numbers = Callable[[], Iterable[tuple[str, str, float]]]
"""(name, meaning, value) of gauges, asked at every scrape."""


class Telemetry:
    """All figures of the process, in a registry of its own."""

    def __init__(self, version: str) -> None:
        self._registry = CollectorRegistry()
        self.questions = self._counter("questions", "Questions of schedulers", "verb")
        self.unanswered = self._counter(
            "questions_unanswered", "Questions without a judgement, by what was wrong", "verb", "reason"
        )
        self.asked_at = Gauge(
            "preheat_extender_last_question_timestamp_seconds",
            "When a scheduler last asked, unix time; 0 before the first question",
            ("verb",),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "preheat_extender_question_seconds",
            "From a question's first byte to the last of its answer",
            ("verb",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self.refused = self._counter("nodes_refused", "Nodes that filter refused, by the reason's text", "reason")
        self.touched = self._counter("pods_touched", "Writes on waiting pods whose verdict had turned", "result")
        self.reloads = self._counter("reloads", "Files that were read anew, by what came of it", "file", "result")
        build = Gauge("preheat_extender_build_info", "Always 1", ("version",), registry=self._registry)
        build.labels(version).set(1)
        self._sources: list[Numbers] = []
        self._registry.register(_Sourced(self._sources))

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"preheat_extender_{name}", meaning, labels, registry=self._registry)

    def add_source(self, numbers: Numbers) -> None:
        self._sources.append(numbers)

    def count_refused(self, nodes_by_reason: Mapping[str, int]) -> None:
        """May be called from any thread."""
        for reason, nodes in nodes_by_reason.items():
            self.refused.labels(reason).inc(nodes)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)


class _Sourced(Collector):
    def __init__(self, sources: list[Numbers]) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        for source in self._sources:
            for name, meaning, value in source():
                yield GaugeMetricFamily(f"preheat_extender_{name}", meaning, value=value)
