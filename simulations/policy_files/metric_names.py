"""What a metric's name in an autoscaler means: vLLM's own, an exporter's spelling, a known mistake, or the user's own.

An HPA names a metric, a Prometheus Adapter says what that is. Where no `--metrics` file says it, the name is taken
for the series that it most plainly means, and that is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from cluster.vllm_metrics import DISTRIBUTIONS, MISTAKEN, REQUEST_TIMES
from simulations.policy_files.promql import Expression, Selector, parse, rewritten
from simulations.policy_files.scrapes import GAUGES, HISTOGRAMS, SOURCES, is_shown, nearest

Api = Literal["pods", "external"]
"""Which metrics API is asked: one value a pod, or values that are added up."""


class MetricError(ValueError):
    """A name that means nothing to the simulated fleet; the message names it and the remedy."""


class Definitions(Protocol):
    """What a `--metrics` file says."""

    def query(self, name: str, api: Api) -> str | None: ...


class NoDefinitions:
    """Without a file."""

    def query(self, name: str, api: Api) -> str | None:
        return None


@dataclass(frozen=True, slots=True)
class Meaning:
    """A query that can be replayed, and what must be said of how it came about."""

    tree: Expression
    notes: tuple[str, ...] = ()


_TIMES: Mapping[str, str] = {
    "ttft|first_token": DISTRIBUTIONS["ttft"][0],
    "tpot|time_per_output_token|time_per_token": DISTRIBUTIONS["tpot"][0],
    "itl|inter_token": DISTRIBUTIONS["inter_token"][0],
    "queue": DISTRIBUTIONS["queue_time"][0],
    "latency|e2e|duration": REQUEST_TIMES["end_to_end"][0],
}
"""By words of a name, likest first: the histogram that a quantile of that name is taken of."""
_QUANTILE = re.compile(r"(?:^|_)p(\d{2,3})(?:_|$)")
_MILLISECONDS = re.compile(r"(?:^|_)(?:ms|milliseconds|millis)(?:_|$)")


def of_metric(name: str, api: Api, definitions: Definitions) -> Meaning:
    """What an HPA's metric of that name reads."""
    own = definitions.query(name, api)
    if own is not None:
        return of_query(own, definitions, within=(name,))
    found = _query_of(name, api)
    if found is None:
        near = nearest(name)
        hint = f" (is {near} meant?)" if near else ""
        raise MetricError(
            f"metric {name} is none that the simulated fleet shows{hint}: say what it is in a --metrics file, "
            f'as in {name}: "avg(vllm:num_requests_waiting)"'
        )
    query, said = found
    return Meaning(parse(query), (said,) if said else ())


def of_query(query: str, definitions: Definitions, *, within: tuple[str, ...] = ()) -> Meaning:
    """A query with every name in it that the fleet does not show replaced by what it means.

    `within` are the names of the `--metrics` file that led to it, each by the one before; the last one is this query's
    own, and in it stands for a series.
    """
    notes: list[str] = []

    def meant(selector: Selector) -> Expression:
        name = selector.series
        if is_shown(name):
            return selector
        own = definitions.query(name, "external") if name not in within[-1:] else None
        if own is not None and selector.window_seconds is None:
            if name in within:
                circle = ", ".join(within[within.index(name) + 1 :])
                raise MetricError(f"metric {name} is told in a circle, by way of {circle}: write one in vLLM's series")
            inner = of_query(own, definitions, within=(*within, name))
            notes.extend(inner.notes)
            return inner.tree
        stem, part = _parts(name)
        renamed = MISTAKEN.get(stem)
        if renamed is not None and (renamed + part) in SOURCES:
            notes.append(f"{name} is not one of vLLM's names: read as {renamed + part}")
            return Selector(renamed + part, selector.matchers, selector.window_seconds, selector.place)
        found = _query_of(name, "pods") if selector.window_seconds is None else None
        if found is not None:
            notes.append(found[1])
            return parse(found[0])
        near = nearest(name)
        remedy = f"write {near}" if near else "say what it is in a --metrics file"
        shown = " ".join(query.split())
        raise MetricError(
            f"query '{shown}', character {selector.place}: {name} is none of the series that the simulated fleet "
            f"shows: {remedy}"
        )

    tree = rewritten(parse(query), meant)
    return Meaning(tree, tuple(dict.fromkeys(notes)))


def _parts(name: str) -> tuple[str, str]:
    for part in ("_bucket", "_sum", "_count"):
        if name.endswith(part):
            return name.removesuffix(part), part
    return name, ""


def _query_of(name: str, api: Api) -> tuple[str, str] | None:
    """A query and what to say of it; None where the name says too little."""
    if name in GAUGES:
        return name, ""
    if name in SOURCES and not SOURCES[name].part:
        return _rate_of(name), f"{name} only grows: read as its rate a second, as the Prometheus Adapter's rules do"
    quantile = _QUANTILE.search(name)
    if quantile is not None:
        return _quantile_of(name, quantile[1], api)
    if name in HISTOGRAMS:
        return _mean_of(name, name)
    rated = name.removesuffix("_per_second")
    if rated != name:
        counter = next((f"{rated}{end}" for end in ("_total", "") if f"{rated}{end}" in SOURCES), None)
        if counter is not None and counter not in GAUGES:
            return _rate_of(counter), f"{name} is read as the rate of {counter}"
    meant = MISTAKEN.get(name)
    if meant is None:
        return None
    if meant in GAUGES:
        return meant, f"{name} is not one of vLLM's names: read as {meant}"
    return _mean_of(name, meant)


def _rate_of(counter: str) -> str:
    return f"rate({counter}[5m])"


def _mean_of(name: str, histogram: str) -> tuple[str, str]:
    query = f"rate({histogram}_sum[5m]) / rate({histogram}_count[5m])"
    return query, f"{name} is a histogram's name: read as the mean of {histogram} over 5 minutes"


def _quantile_of(name: str, digits: str, api: Api) -> tuple[str, str] | None:
    words = name.lower()
    histogram = next((of for known, of in _TIMES.items() if re.search(known, words)), None)
    if histogram is None:
        return None
    kept = "pod, le" if api == "pods" else "le"
    query = f"histogram_quantile(0.{digits}, sum by ({kept}) (rate({histogram}_bucket[5m])))"
    if _MILLISECONDS.search(words):
        query = f"1000 * {query}"
    return query, f"{name} is not one of vLLM's names: read as that quantile of {histogram} over 5 minutes"
