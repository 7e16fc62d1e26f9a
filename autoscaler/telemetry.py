"""What the autoscaler tells of itself: the `preheat_*` metrics, and how its forecasts fared.

Figures are plain numbers that each turn leaves behind; the text is made when somebody asks, so a thousand
targets cost nothing between two scrapes. docs/metrics.md says the same as METRICS, and a test compares them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from autoscaler.loop import Outcome, Turn
from policies.scaling.decision import Decision, Forecast
from policies.scaling.observation import SampleState
from policies.scaling.shadow import replica_hours

TARGET: Final = ("namespace", "name")
SERVER: Final = ("server",)


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as it is documented."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


METRICS: Final = tuple(
    Described(name, kind, labels, meaning)
    for name, kind, labels, meaning in (
        ("preheat_build_info", "gauge", ("version",), "Always 1; the version is in the label"),
        ("preheat_leads", "gauge", (), "1 where this replica takes the turns and writes; 0 where it waits to"),
        ("preheat_shadow", "gauge", TARGET, "1 in shadow mode, where nothing is written; else 0"),
        (
            "preheat_shadow_replica_hours_total",
            "counter",
            (*TARGET, "kind"),
            "In shadow mode: replicas × hours by which the one in charge asks for more (`saved`) or less (`lost`)",
        ),
        ("preheat_replicas_desired", "gauge", TARGET, "`spec.replicas` of the scale, as last read"),
        ("preheat_replicas_wanted", "gauge", TARGET, "Replicas wished for, before damping and bounds"),
        ("preheat_replicas_decided", "gauge", TARGET, "Replicas decided on, after damping and bounds"),
        (
            "preheat_replicas_published",
            "gauge",
            TARGET,
            "The number that others follow, in mode Publish; absent while there is none, or it is stale",
        ),
        ("preheat_replicas_floor", "gauge", TARGET, "In mode Floor: the fewest replicas of their HPA or ScaledObject"),
        ("preheat_replicas_ready", "gauge", TARGET, "Pods that serve"),
        ("preheat_replicas_coming", "gauge", TARGET, "Pods created and expected, not ready yet"),
        ("preheat_horizon_seconds", "gauge", TARGET, "How far ahead a replica asked for now would serve"),
        (
            "preheat_demand_requests_per_second",
            "gauge",
            TARGET,
            "The load now, in requests of the present mix whose work it is",
        ),
        ("preheat_capacity_requests_per_second", "gauge", TARGET, "What one replica bears within objectives"),
        (
            "preheat_forecast_requests_per_second",
            "gauge",
            (*TARGET, "bound"),
            "Demand foreseen at the horizon: `expected`, and `upper`, the quantile that is sized for",
        ),
        ("preheat_forecast_view", "gauge", (*TARGET, "view"), "1 for the forecaster that is believed"),
        (
            "preheat_forecast_error_ratio",
            "gauge",
            TARGET,
            "Mean distance of the forecast from the load that came, a mean over minutes, as a share of it",
        ),
        (
            "preheat_forecast_coverage_ratio",
            "gauge",
            TARGET,
            "Share of forecasts whose `upper` the load that came did not exceed",
        ),
        ("preheat_forecasts_compared", "gauge", TARGET, "Forecasts that the last two ratios rest on"),
        ("preheat_samples", "gauge", (*TARGET, "state"), "Ready pods by the state of their newest sample"),
        ("preheat_sample_age_seconds", "gauge", TARGET, "Age of the oldest sample of a ready pod"),
        ("preheat_last_turn_timestamp_seconds", "gauge", TARGET, "When the last turn ended, unix time"),
        (
            "preheat_last_observed_timestamp_seconds",
            "gauge",
            TARGET,
            "When the target was last seen, unix time",
        ),
        ("preheat_decisions_total", "counter", (*TARGET, "binding"), "Decisions by what set the number"),
        ("preheat_clips_total", "counter", TARGET, "What changed wishes on their way to a decision"),
        ("preheat_turns_total", "counter", (*TARGET, "outcome"), "Turns by how they ended"),
        ("preheat_errors_total", "counter", (*TARGET, "kind"), "Turns that met an error, by its kind"),
        ("preheat_scale_writes_total", "counter", (*TARGET, "result"), "Writes to `scale` by their result"),
        (
            "preheat_scaled_by_others_total",
            "counter",
            TARGET,
            "Changes of `spec.replicas` that somebody else made",
        ),
        ("preheat_ticks_skipped_total", "counter", TARGET, "Ticks passed over: the turn before went on"),
        ("preheat_tick_duration_seconds", "histogram", (), "How long a turn took"),
        ("preheat_tick_lateness_seconds", "histogram", (), "How long after its time a turn began"),
        ("preheat_prometheus_requests_total", "counter", SERVER, "HTTP requests to a Prometheus"),
        ("preheat_prometheus_errors_total", "counter", (*SERVER, "kind"), "Those that failed, by kind"),
        (
            "preheat_prometheus_remarks_total",
            "counter",
            SERVER,
            "Warnings and infos beside its answers; with any on what pods show, samples are partial",
        ),
        (
            "preheat_prometheus_dropped_series",
            "gauge",
            SERVER,
            "Series of vLLM in the last reading that joined no existing pod of a target",
        ),
        ("preheat_prometheus_reading_seconds", "gauge", SERVER, "How long the last reading took"),
        ("preheat_prometheus_clock_ahead_seconds", "gauge", SERVER, "How far its clock is ahead of ours"),
        ("preheat_kubernetes_requests_total", "counter", (), "HTTP requests to the API server"),
        (
            "preheat_kubernetes_errors_total",
            "counter",
            ("status",),
            "Those that failed, by HTTP status, or `timeout` or `connection`",
        ),
        ("preheat_kubernetes_watch_failures_total", "counter", (), "Watches that broke and were begun anew"),
        ("preheat_kubernetes_watch_age_seconds", "gauge", (), "Since the most silent watch was heard"),
        ("preheat_events_written_total", "counter", (), "Kubernetes events written"),
        (
            "preheat_events_dropped_total",
            "counter",
            (),
            "Kubernetes events that failed, or were one too many for the API server",
        ),
        ("preheat_journal_dropped_total", "counter", (), "Turns that could not be written to the journal"),
    )
)
BY_NAME: Final = {metric.name: metric for metric in METRICS}

COMPARED: Final = 240
"""Comparisons that error and coverage rest on: an hour of ticks of 15 s."""


class ForecastScore:
    """The forecasts that were made, each compared with the load that came around its time."""

    def __init__(self) -> None:
        self._due: deque[Forecast] = deque(maxlen=4 * COMPARED)
        self._compared: deque[tuple[float, float, bool]] = deque(maxlen=COMPARED)

    def follow(self, decision: Decision, tolerance_seconds: float) -> None:
        """Compare what is due with the load that this decision saw come, and remember its forecast."""
        came = decision.came
        while came is not None and self._due and self._due[0].time <= came.time:
            due = self._due.popleft()
            # Of a time that nobody looked at, nothing is known.
            if came.time - due.time < tolerance_seconds:
                self._compared.append((abs(came.load - due.expected), came.load, came.load <= due.upper))
        if decision.forecast is not None and decision.forecast.time > decision.time:
            self._due.append(decision.forecast)

    @property
    def compared(self) -> int:
        return len(self._compared)

    @property
    def error_ratio(self) -> float | None:
        compared = tuple(self._compared)  # at once: a scrape is told in a thread, beside the turns
        demand = sum(came for _, came, _ in compared)
        return sum(distance for distance, _, _ in compared) / demand if demand > 0 else None

    @property
    def coverage_ratio(self) -> float | None:
        compared = tuple(self._compared)
        return sum(covered for _, _, covered in compared) / len(compared) if compared else None


@dataclass(slots=True)
class Figures:
    """What is told of one target."""

    namespace: str
    name: str
    shadow: bool = False
    gauges: dict[str, float | None] = field(default_factory=dict)
    samples: dict[SampleState, int] = field(default_factory=dict)
    forecast: Forecast | None = None
    score: ForecastScore = field(default_factory=ForecastScore)
    shadow_hours: dict[str, float] = field(default_factory=lambda: {"saved": 0.0, "lost": 0.0})
    """Replica-hours, in shadow mode."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By metric and the value of its own label, "" where it has none."""

    def count(self, metric: str, label: str = "", times: int = 1) -> None:
        self.counts[metric, label] += times

    def follow(self, turn: Turn, now: float, tick_seconds: float) -> None:
        """Take in what a turn left behind; what was not seen this time keeps no number from before."""
        self.count("preheat_turns_total", turn.outcome)
        self.gauges["preheat_last_turn_timestamp_seconds"] = now
        if turn.kind and turn.outcome is not Outcome.WITHHELD:
            self.count("preheat_errors_total", turn.kind)
        if turn.observation and (turn.observation.problems or turn.observation.unseen_ready_pods):
            self.count("preheat_errors_total", "incomplete")
        self._follow_observation(turn)
        self._follow_decision(turn, tick_seconds)

    def _follow_observation(self, turn: Turn) -> None:
        seen = turn.observation
        ready = seen.ready_pods if seen else ()
        self.samples = dict(Counter(p.sample.state if p.sample else SampleState.ABSENT for p in ready))
        times = [p.sample.time for p in ready if p.sample and p.sample.time is not None]
        self.gauges["preheat_sample_age_seconds"] = seen.time - min(times) if seen and times else None
        self.gauges["preheat_replicas_ready"] = len(ready) if seen else None
        self.gauges["preheat_replicas_desired"] = seen.desired if seen else None
        if seen and turn.outcome is not Outcome.RAISED:
            self.gauges["preheat_last_observed_timestamp_seconds"] = seen.time

    def _follow_decision(self, turn: Turn, tick_seconds: float) -> None:
        decision = turn.decision
        self.forecast = decision.forecast if decision else None
        self.gauges |= {
            "preheat_replicas_wanted": decision.wanted if decision else None,
            "preheat_replicas_decided": decision.replicas if decision else None,
            "preheat_replicas_coming": decision.coming if decision else None,
            "preheat_horizon_seconds": decision.horizon_seconds if decision else None,
            "preheat_demand_requests_per_second": decision.demand if decision else None,
            "preheat_capacity_requests_per_second": decision.capacity if decision else None,
        }
        if decision is None:
            return
        self.score.follow(decision, 2 * tick_seconds)
        for kind, hours in zip(self.shadow_hours, replica_hours(decision, tick_seconds), strict=True):
            self.shadow_hours[kind] += hours
        self.count("preheat_decisions_total", decision.binding)
        self.count("preheat_clips_total", times=len(decision.clips))
        if turn.outcome in _WRITES:
            self.count("preheat_scale_writes_total", turn.outcome)

    def numbers(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """(metric, its own labels, value) of everything that is known."""
        yield "preheat_shadow", (), float(self.shadow)
        for kind, hours in self.shadow_hours.items() if self.shadow else ():
            yield "preheat_shadow_replica_hours_total", (kind,), hours
        yield from ((name, (), value) for name, value in tuple(self.gauges.items()) if value is not None)
        for state in SampleState:
            yield "preheat_samples", (state.value,), self.samples.get(state, 0)
        if self.forecast:
            yield "preheat_forecast_requests_per_second", ("expected",), self.forecast.expected
            yield "preheat_forecast_requests_per_second", ("upper",), self.forecast.upper
            yield "preheat_forecast_view", (self.forecast.view,), 1
        yield "preheat_forecasts_compared", (), self.score.compared
        for name, ratio in (
            ("preheat_forecast_error_ratio", self.score.error_ratio),
            ("preheat_forecast_coverage_ratio", self.score.coverage_ratio),
        ):
            if ratio is not None:
                yield name, (), ratio
        for (name, label), times in tuple(self.counts.items()):
            yield name, (label,) if label else (), times


_WRITES: Final = (Outcome.RESCALED, Outcome.RAISED, Outcome.OVERTAKEN, Outcome.REFUSED, Outcome.UNANSWERED)


class Durations:
    """A histogram of durations in seconds."""

    EDGES: Final = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

    def __init__(self) -> None:
        self._counts = [0] * (len(self.EDGES) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[next((i for i, edge in enumerate(self.EDGES) if seconds <= edge), len(self.EDGES))] += 1
        self._sum += seconds

    def family(self, metric: Described) -> HistogramMetricFamily:
        buckets, total = [], 0
        for edge, times in zip((*map(str, self.EDGES), "+Inf"), tuple(self._counts), strict=True):
            total += times
            buckets.append((edge, total))
        family = HistogramMetricFamily(metric.name, metric.meaning)
        family.add_metric((), buckets, self._sum)
        return family


Numbers = Callable[[], Iterable[tuple[str, tuple[str, ...], float]]]
"""(metric, values of all its labels, value), asked at every scrape."""


class Telemetry(Collector):
    """All figures of the process, in a registry of its own."""

    def __init__(self, version: str) -> None:
        self.targets: list[Figures] = []
        self.sources: list[Numbers] = [lambda: [("preheat_build_info", (version,), 1)]]
        self.durations = Durations()
        self.latenesses = Durations()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for metric in METRICS:
            if metric.kind == "gauge":
                families[metric.name] = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
            elif metric.kind == "counter":
                families[metric.name] = CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        for name, labels, value in self._numbers():
            families[name].add_metric(labels, value)
        yield from families.values()
        yield self.durations.family(BY_NAME["preheat_tick_duration_seconds"])
        yield self.latenesses.family(BY_NAME["preheat_tick_lateness_seconds"])

    def _numbers(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        for figures in self.targets:
            target = (figures.namespace, figures.name)
            yield from ((name, target + labels, value) for name, labels, value in figures.numbers())
        for source in self.sources:
            yield from source()
