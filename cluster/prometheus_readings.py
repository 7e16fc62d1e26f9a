"""From a server's rows to what each target's pods show: folding and judging of answers, no I/O."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cluster import vllm_metrics
from cluster.prometheus_arrivals import Process
from cluster.prometheus_processes import Instances, Ups
from cluster.prometheus_queries import INSTANCE, TARGET, WAYS, PodIndex, TargetPods
from cluster.vllm_metrics import Edges, Key
from policies.scaling.observation import PodSample, SampleState, with_idleness
from policies.scaling.resource import Objectives

Rows = list[dict[str, Any]]

# Every release of vLLM shows these; a pod that lacks one is not seen whole, however fresh the rest.
ESSENTIAL: Final = (
    *("requests_running", "requests_waiting", "kv_cache_usage", "prompt_tokens", "generation_tokens"),
    *("requests_finished", "ttft", "tpot"),
)
# Not shown by every release; once a pod has shown one, a sample without it is not whole.
EXPECTED_AGAIN: Final = ("kv_cache_tokens", "preemptions", "engine_steps", "inter_token", "queue_time")
# Rounding of times, no more: a sample later than its server's now cannot be.
FUTURE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What a sweep says of one target."""

    samples: Mapping[str, PodSample]
    """By pod name, one for every pod asked for; ABSENT where no series is the pod's."""
    up: Mapping[str, bool] = field(default_factory=dict)
    """Whether the latest scrape of a pod succeeded; pods that the server does not scrape are not in it."""
    arrivals_total: float | None = None
    wake: float | None = None
    model_name: str = ""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By field of PodSample, the metric names it was read from."""
    dropped_series: int = 0
    """Series of this target's namespaces, or of none that they name, that join no pod we asked for."""
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class Scrapes:
    """When each pod was scraped, in the server's time, and how the server names pods."""

    server_time: float = math.nan
    times: dict[int, float] = field(default_factory=dict)
    """Of a pod's processes the oldest."""
    instances: dict[int, set[str]] = field(default_factory=dict)
    models: dict[int, str] = field(default_factory=dict)
    namespace_labels: set[str | None] = field(default_factory=set)
    strangers: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Columns:
    """Readings by key and pod, and how many series, by namespace, are of no pod of ours."""

    values: dict[Key, dict[int, float]] = field(default_factory=dict)
    strangers: Counter[str] = field(default_factory=Counter)

    def take(self, other: Columns) -> None:
        """Add another query's; no two queries read the same key."""
        self.values.update(other.values)
        self.strangers.update(other.strangers)


@dataclass(slots=True)
class Sweep:
    """All that one round of queries brought."""

    index: PodIndex
    scrapes: Scrapes
    now: float
    """On our clock, as sample times will be."""
    shift_seconds: float = 0.0
    """How far the server's times lie ahead of ours."""
    stale_after_seconds: float = 60.0
    objectives: tuple[Objectives, ...] = ()
    """Those of all targets."""
    columns: Columns = field(default_factory=Columns)
    edges: Edges = field(default_factory=dict)
    near: dict[Objectives, Edges] = field(default_factory=dict)
    """Of the edges those that matter to each of the objectives."""
    up: dict[int, bool] = field(default_factory=dict)
    incomplete: set[int] = field(default_factory=set)
    """Pods of which one process shows vLLM and another, which did and is still scraped, does not."""
    problems: list[str] = field(default_factory=list)
    partial: bool = False
    """Some answer is missing, or the server remarked that it may not be whole."""


def fold_scrapes(index: PodIndex) -> Callable[[Rows], Scrapes]:
    def fold(rows: Rows) -> Scrapes:
        scrapes = Scrapes()
        for row in rows:
            labels, (evaluated, text) = row["metric"], row["value"]
            scrapes.server_time = float(evaluated)
            place = index.place(labels)
            if place is None:
                scrapes.strangers[_namespace(labels)] += 1
                continue
            time = float(text)
            scrapes.times[place] = min(time, scrapes.times.get(place, time))
            scrapes.instances.setdefault(place, set()).add(labels.get(INSTANCE, ""))
            scrapes.models[place] = labels.get("model_name", "")
            scrapes.namespace_labels.add(index.namespace_label(labels))
        return scrapes

    return fold


def fold_columns(index: PodIndex, apart: str = "", *, config: bool = False) -> Callable[[Rows], Columns]:
    """Rows into columns; `apart` is the label that sets readings apart, `config` reads labels, not values."""

    def fold(rows: Rows) -> Columns:
        columns = Columns()
        for row in rows:
            labels = row["metric"]
            place = index.place(labels)
            if place is None:
                columns.strangers[_namespace(labels)] += 1
                continue
            name = labels["__name__"]
            value = vllm_metrics.cache_tokens(labels) if config else float(row["value"][1])
            column = columns.values.setdefault((name, labels.get(apart, "") if apart else ""), {})
            if place not in column:
                column[place] = value
            elif vllm_metrics.highest(name):
                column[place] = max(column[place], value)
            else:
                column[place] += value
        return columns

    return fold


def fold_instances(index: PodIndex) -> Callable[[Rows], dict[int, set[str]]]:
    """The instances of each pod."""

    def fold(rows: Rows) -> dict[int, set[str]]:
        instances: dict[int, set[str]] = {}
        for row in rows:
            place = index.place(row["metric"])
            if place is not None:
                instances.setdefault(place, set()).add(row["metric"].get(INSTANCE, ""))
        return instances

    return fold


def fold_up(index: PodIndex) -> Callable[[Rows], dict[int, dict[str, bool]]]:
    """Whether the latest scrape of each instance of a pod succeeded."""

    def fold(rows: Rows) -> dict[int, dict[str, bool]]:
        ups: dict[int, dict[str, bool]] = {}
        for row in rows:
            labels = row["metric"]
            place = index.place(labels)
            if place is not None:
                ports, port = ups.setdefault(place, {}), labels.get(INSTANCE, "")
                ports[port] = ports.get(port, True) and float(row["value"][1]) == 1.0
        return ups

    return fold


def judge_up(sweep: Sweep, ups: Ups, vllm: Instances) -> None:
    """Whether all of a pod's vLLM processes answer and show it; of a pod that shows none, whether all ports do."""
    for place, ports in ups.items():
        shown = sweep.scrapes.instances.get(place, set())
        wanted = [port for port in ports if port in vllm[place]] if shown else list(ports)
        if shown and not shown.issuperset(vllm[place]):
            sweep.incomplete.add(place)
        if wanted:
            sweep.up[place] = place not in sweep.incomplete and all(ports[port] for port in wanted)


def fold_edges(rows: Rows) -> Edges:
    return vllm_metrics.edges_of((row["metric"]["__name__"], row["metric"]["le"]) for row in rows)


def fold_answers(rows: Rows) -> dict[int, dict[Process, float]]:
    """By target the sum of each process that answers its query; one that is no number leaves its target out."""
    found: dict[int, dict[Process, float]] = {}
    broken: set[int] = set()
    for row in rows:
        labels, value = dict(row["metric"]), float(row["value"][1])
        number = int(labels.pop(TARGET))
        found.setdefault(number, {})[frozenset(labels.items())] = value
        if not math.isfinite(value):
            broken.add(number)
    return {number: counts for number, counts in found.items() if number not in broken}


def reading_of(
    sweep: Sweep,
    target: TargetPods,
    previous: Reading | None,
    arrivals: float | str | None,
    wake: float | str | None = None,
) -> Reading:
    """One target's part of the sweep; of its own queries the number, or why there is none though one was asked for."""
    samples: dict[str, PodSample] = {}
    up: dict[str, bool] = {}
    names: dict[str, set[str]] = {}
    lacking: dict[str, list[str]] = {}
    models: Counter[str] = Counter()
    for pod in target.pods:
        place = sweep.index.pods[pod.namespace, pod.name]
        if place in sweep.up:
            up[pod.name] = sweep.up[place]
        before = None if previous is None else previous.samples.get(pod.name)
        sample, found = _sample(sweep, place, target, before, lacking, pod.name)
        samples[pod.name] = with_idleness(sample, before, up=sweep.up.get(place, False))
        for name in found:
            names.setdefault(name, set()).add(found[name])
        if place in sweep.scrapes.models:
            models[sweep.scrapes.models[place]] += 1
    problems = [*sweep.problems, *_sentences(lacking)]
    if isinstance(arrivals, str):
        problems.append(f"prometheus.arrivals ({target.arrivals}) could not be read: {arrivals}")
        arrivals = None
    if isinstance(wake, str):
        problems.append(f"wake.query ({target.wake}) could not be read: {wake}")
        wake = None
    strangers = sweep.columns.strangers
    return Reading(
        samples=samples,
        up=up,
        arrivals_total=arrivals,
        wake=wake,
        model_name=max(sorted(models), key=models.__getitem__, default=""),
        names={name: tuple(sorted(read_from)) for name, read_from in names.items()},
        dropped_series=sum(strangers[n] for n in {"", *(pod.namespace for pod in target.pods)}),
        problems=tuple(dict.fromkeys(problems)),
    )


def _sample(
    sweep: Sweep,
    place: int,
    target: TargetPods,
    before: PodSample | None,
    lacking: dict[str, list[str]],
    pod: str,
) -> tuple[PodSample, Mapping[str, str]]:
    scraped_at = sweep.scrapes.times.get(place)
    if scraped_at is None:
        return PodSample(None, SampleState.ABSENT), {}
    time = min(scraped_at - sweep.shift_seconds, sweep.now)
    values = {key: column[place] for key, column in sweep.columns.values.items() if place in column}
    if target.objectives not in sweep.near:
        sweep.near[target.objectives] = vllm_metrics.near_edges(sweep.edges, target.objectives)
    found = vllm_metrics.read(values, sweep.near[target.objectives], target.objectives, time)
    if found is None:
        return PodSample(time, SampleState.PARTIAL), {}
    sample = found.sample
    age = sweep.scrapes.server_time - scraped_at
    if sample.state is SampleState.NOT_A_NUMBER:
        lacking.setdefault("a value that is not a finite number", []).append(pod)
    elif age < -FUTURE_SECONDS:
        lacking.setdefault("a sample of the future", []).append(pod)
        sample = replace(sample, state=SampleState.STALE)
    elif age > sweep.stale_after_seconds:
        sample = replace(sample, state=SampleState.STALE)
    else:
        missing = [name for name in ESSENTIAL if getattr(sample, name) is None]
        if before is not None:
            shown_before = (name for name in EXPECTED_AGAIN if getattr(before, name) is not None)
            missing += (name for name in shown_before if getattr(sample, name) is None)
        if missing or sweep.partial or place in sweep.incomplete:
            sample = replace(sample, state=SampleState.PARTIAL)
        if place in sweep.incomplete:
            lacking.setdefault("fewer processes of vLLM than before", []).append(pod)
        for name in () if sweep.partial else missing:
            what = f"no {name.replace('_', ' ')} ({' or '.join(vllm_metrics.candidates(name))})"
            lacking.setdefault(what, []).append(pod)
    return sample, found.names


def _sentences(lacking: Mapping[str, list[str]]) -> Iterator[str]:
    for what, pods in lacking.items():
        named = ", ".join(pods[:3]) + (f" and {len(pods) - 3} more" if len(pods) > 3 else "")
        yield f"{named} {'shows' if len(pods) == 1 else 'show'} {what} in Prometheus"


def _namespace(labels: Mapping[str, str]) -> str:
    for label, _ in WAYS:
        if label in labels:
            return str(labels[label])
    return ""
