"""What a target's servers counted between two moments, read from a Prometheus: enough to make a trace of it again.

It is asked for as `prometheus:URL?target=NAMESPACE/NAME&from=TIME&to=TIME`. Arrivals and tokens come in bins, as
the history of the autoscaler does (`prometheus_history`); the lengths of prompts and outputs are known only as
histograms of the requests that were done in each five minutes, and which went with which is not known at all.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from math import floor, inf, isfinite
from time import monotonic
from typing import Any, Final
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cluster import vllm_metrics
from cluster.files import ConfigError
from cluster.objects import pod_name_pattern
from cluster.prometheus_connection import Answer, Connection, Rows
from cluster.prometheus_history import (
    DAY_SECONDS,
    RESOLUTIONS,
    SECONDS_ALLOWED,
    Grid,
    HistoryTarget,
    TargetSeries,
    finest,
    history_query,
)
from cluster.prometheus_queries import TARGET
from policies.scaling.demand import LoadBin
from policies.scaling.resource import Prometheus as Settings

SCHEME: Final = "prometheus:"
STRETCH_SECONDS: Final = 300
LONGEST_DAYS: Final = 31
# Of a target whose kind is not said: these name their pods in ways that do not meet.
KINDS: Final = (("apps", "Deployment"), ("apps", "StatefulSet"))
OF_OURS: Final = ("target", "from", "to", "pods")
FORM: Final = f"{SCHEME}http://HOST:PORT?target=NAMESPACE/NAME&from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z"
_AGO: Final = re.compile(r"-(\d+(?:\.\d+)?)([mhd])")
_UNITS: Final = {"m": 60.0, "h": 3600.0, "d": DAY_SECONDS}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Address:
    """Which server is asked for which pods and which time; unix seconds, whole stretches of five minutes."""

    settings: Settings
    target: HistoryTarget
    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class RecordedLengths:
    """How long was what was done in each stretch of STRETCH_SECONDS, from the traffic's start on."""

    edges: tuple[float, ...]
    """The upper edge of each bucket in tokens, ascending; the last may be infinite."""
    counts: Floats
    """Stretches × buckets, in requests; a row of NaN where nothing is known."""


@dataclass(frozen=True, slots=True)
class RecordedTraffic:
    """Bins in order of time, without overlap; what is in none of them is not known."""

    name: str
    start: float
    end: float
    bins: tuple[LoadBin, ...]
    prompts: RecordedLengths | None
    """None where the server has no histogram of them."""
    outputs: RecordedLengths | None
    problems: tuple[str, ...] = ()


def is_address(text: str) -> bool:
    return text.startswith(SCHEME)


def address(text: str, now: float) -> Address:
    """What the text asks for; a ConfigError says all that is wrong with it.

    Beside the three, `pods` is the regular expression of the pods' names where the target is neither a Deployment
    nor a StatefulSet, and whatever `spec.prometheus` of a VLLMAutoscaler takes may stand there: `arrivals`,
    `bearerTokenFile`, `labels.pod` …. Values are percent-encoded where they hold `&` or `%`.
    """
    url, _, query = text.removeprefix(SCHEME).partition("?")
    given: dict[str, str] = {}
    for part in query.split("&") if query else ():
        key, _, value = part.partition("=")
        given[unquote(key)] = unquote(value)
    problems: list[str] = []
    namespace, _, name = given.get("target", "").partition("/")
    if not (namespace and name) or "/" in name:
        problems.append(f"target '{given.get('target', '')}' is not NAMESPACE/NAME")
    moments = _moment("from", given, now, problems), min(now, _moment("to", given, now, problems))
    start, end = (floor(moment / STRETCH_SECONDS) * STRETCH_SECONDS for moment in moments)
    if not problems and not 0 < end - start <= LONGEST_DAYS * DAY_SECONDS:
        problems.append(f"from and to must be of the past, 5 minutes to {LONGEST_DAYS} days apart")
    pods = given.get("pods", "|".join(f"({pod_name_pattern(group, kind, name)})" for group, kind in KINDS))
    settings = None
    try:
        settings = Settings.model_validate(_nested(url, given))
    except ValidationError as error:
        problems.extend(map(_sentence, error.errors(include_url=False)))
    if problems or settings is None:
        raise ConfigError(tuple(f"a trace from Prometheus: {problem}: write {FORM}" for problem in problems))
    target = HistoryTarget(namespace, pods, settings.arrivals, settings.labels)
    return Address(settings, target, f"{namespace}/{name}", start, end)


def _moment(key: str, given: Mapping[str, str], now: float, problems: list[str]) -> float:
    """Unix seconds of unix seconds, ISO 8601 (in UTC unless it says otherwise), `now`, or so long ago as `-6h`."""
    text = given.get(key, "now" if key == "to" else "")
    if text == "now":
        return now
    if ago := _AGO.fullmatch(text):
        return now - float(ago[1]) * _UNITS[ago[2]]
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            seconds = inf
        else:
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isfinite(seconds):
        return seconds
    problems.append(f"{key} '{text}' is no time")
    return now


def _nested(url: str, given: Mapping[str, str]) -> dict[str, Any]:
    settings: dict[str, Any] = {"url": url}
    inside: dict[str, dict[str, str]] = {}
    for key, value in given.items():
        outer, dot, inner = key.partition(".")
        if dot:
            inside.setdefault(outer, {})[inner] = value
        elif key not in OF_OURS:
            settings[key] = value
    return {**settings, **inside}


def _sentence(wrong: ErrorDetails) -> str:
    field = ".".join(map(str, wrong["loc"])) or "its parameters"
    if wrong["type"] == "extra_forbidden":
        return f"{field} is no parameter of it"
    return f"{field}: {wrong['msg'].removeprefix('Value error, ')}"


async def fetch(asked: Address) -> RecordedTraffic:
    """What the server has; NotObservedError says why it has said nothing."""
    connection = Connection(asked.settings, quotes=True)
    deadline = monotonic() + max(SECONDS_ALLOWED, asked.settings.timeout_seconds)
    days = range(int(asked.start), int(asked.end), int(DAY_SECONDS))
    try:
        parts = await asyncio.gather(
            *(_day(connection, asked.target, day, min(day + DAY_SECONDS, asked.end), deadline) for day in days)
        )
    finally:
        connection.close()
    remarks = dict.fromkeys(chain.from_iterable(part.remarks for part in parts))
    return RecordedTraffic(
        *(asked.name, asked.start, asked.end),
        bins=tuple(chain.from_iterable(part.bins for part in parts)),
        prompts=_lengths([part.buckets.get("prompt", {}) for part in parts], [part.stretches for part in parts]),
        outputs=_lengths([part.buckets.get("generation", {}) for part in parts], [part.stretches for part in parts]),
        problems=tuple(f"Prometheus at {asked.settings.url} remarks: {remark}" for remark in remarks)[:3],
    )


Buckets = Mapping[float, Floats]
"""By upper edge, what the cumulative count of the bucket rose in each stretch, NaN where that is not known."""


@dataclass(frozen=True, slots=True)
class _Day:
    stretches: int
    bins: tuple[LoadBin, ...]
    buckets: Mapping[str, Buckets]
    remarks: tuple[str, ...]


async def _day(connection: Connection, target: HistoryTarget, start: float, end: float, deadline: float) -> _Day:
    async def over(grid: Grid, promql: str, fold: Callable[[Rows], Any]) -> Answer[Any]:
        last = grid.first_end + (grid.count - 1) * grid.bin_seconds
        return await connection.over_range(
            promql, fold, start=grid.first_end, end=last, step_seconds=grid.bin_seconds, deadline=deadline
        )

    def grid(bin_seconds: int) -> Grid:
        return Grid(bin_seconds, start + bin_seconds, round((end - start) / bin_seconds))

    grids = [grid(seconds) for seconds, _ in RESOLUTIONS]
    stretches = grid(STRETCH_SECONDS)
    *loads, lengths = await asyncio.gather(
        *(over(each, history_query([target], each.bin_seconds), each.fold(1)) for each in grids),
        over(stretches, lengths_query(target), lambda rows: _buckets(rows, stretches)),
    )
    ((coarse,), (fine,)) = (answer.value for answer in loads)
    remarks = tuple(remark for answer in (*loads, lengths) for remark in answer.remarks)
    return _Day(stretches.count, finest(coarse, fine), lengths.value, remarks)


def lengths_query(target: HistoryTarget) -> str:
    """At each step, what each bucket of both histograms rose in the stretch that ends there."""
    series = TargetSeries(target, STRETCH_SECONDS)
    return " or ".join(
        f'label_replace({series.increase([f"{name}_bucket" for name in names], "le")}, "{TARGET}", "{which}", "", "")'
        for which, names in vllm_metrics.LENGTHS.items()
    )


def _buckets(rows: Rows, stretches: Grid) -> Mapping[str, Buckets]:
    found: dict[str, dict[float, Floats]] = {}
    for row in rows:
        edge = float(row["metric"]["le"])
        buckets = found.setdefault(row["metric"][TARGET], {})
        column = stretches.column(row["values"])
        # Releases spell an edge differently: 1 and 1.0 are one.
        buckets[edge] = column if edge not in buckets else np.where(np.isnan(column), buckets[edge], column)
    return found


def _lengths(days: Sequence[Buckets], stretches: Sequence[int]) -> RecordedLengths | None:
    edges = sorted({edge for buckets in days for edge in buckets})
    if not edges:
        return None
    cumulative = np.concatenate(
        [
            np.column_stack([buckets.get(edge, np.full(count, np.nan)) for edge in edges])
            for buckets, count in zip(days, stretches, strict=True)
        ]
    )
    # A server with a shorter context has fewer edges: what it has done lies below them.
    rising = np.maximum.accumulate(np.nan_to_num(cumulative), axis=1)
    counts = np.diff(rising, axis=1, prepend=0.0)
    counts[np.isnan(cumulative).all(axis=1)] = np.nan
    return RecordedLengths(tuple(edges), counts)
