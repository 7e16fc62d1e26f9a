"""The load of the past, read back from a Prometheus so that a restart forgets nothing.

Pods of the past are gone, so a series belongs to a target when its namespace is the target's and its pod's name
is of the pattern that the target's pods are named by. The server adds up: a target comes back as one series a
quantity, in bins of five minutes for eight days and of a minute for the last day. A stretch without data is left
out, never zero; so is a bin with too few scrapes in it, whose increase would be less than what happened.
Instances alone (a series that names no pod) cannot be read back: whose an IP was is not known any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from time import monotonic
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cluster import vllm_metrics
from cluster.errors import NotObservedError
from cluster.prometheus_connection import Connection, QueryRefusedError, Rows
from cluster.prometheus_queries import BY_POD, INSTANCE, TARGET, WAYS, Way, matching, once, override, quoted
from policies.scaling.demand import LoadBin
from policies.scaling.resource import PrometheusLabels

DAY_SECONDS: Final = 86_400.0
LONGEST_SECONDS: Final = 8 * DAY_SECONDS
# Bin length and how far back: what `History` keeps is no finer.
RESOLUTIONS: Final = ((300, LONGEST_SECONDS), (60, DAY_SECONDS))
# A router's counter may be any expression; it is looked at this many times a bin.
LOOKS_A_BIN: Final = 4
# Of 8 days in 5-minute bins, 5 targets are 1.2 MB of answer.
TARGETS_AT_ONCE: Final = 5
SECONDS_ALLOWED: Final = 120.0
# Of the scrapes that bins around have, a bin must have this share, and 2, which an increase needs.
LEAST_SCRAPES: Final = 0.85
BINS_AROUND: Final = 48

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HistoryTarget:
    """Whose load is read back; `pod_pattern` is the regular expression (RE2) of its pods' names, anchored."""

    namespace: str
    pod_pattern: str
    arrivals: str | None = None
    labels: PrometheusLabels = BY_POD


@dataclass(frozen=True, slots=True)
class Past:
    """Bins in order of time, without overlap; `problems` says what could not be read, one sentence each."""

    bins: tuple[LoadBin, ...] = ()
    problems: tuple[str, ...] = ()


async def load_history(
    connection: Connection,
    targets: Mapping[str, HistoryTarget],
    until: float,
    *,
    seconds: float = LONGEST_SECONDS,
) -> Mapping[str, Past]:
    """As far back as the server has it, `seconds` at most; what fails leaves that target's past empty."""
    keys = list(targets)
    deadline = monotonic() + max(SECONDS_ALLOWED, connection.settings.timeout_seconds)
    chunks = [keys[n : n + TARGETS_AT_ONCE] for n in range(0, len(keys), TARGETS_AT_ONCE)]
    parts = await asyncio.gather(
        *(_chunk(connection, [targets[key] for key in chunk], until, deadline, seconds) for chunk in chunks)
    )
    pasts = (past for part in parts for past in part)
    return dict(zip(keys, pasts, strict=True))


async def _chunk(
    connection: Connection, targets: Sequence[HistoryTarget], until: float, deadline: float, seconds: float
) -> list[Past]:
    found: list[list[tuple[LoadBin, ...]]] = [[] for _ in targets]
    remarks: tuple[str, ...] = ()
    for bin_seconds, reach_seconds in RESOLUTIONS:
        end = floor(until / bin_seconds) * bin_seconds
        count = int(min(reach_seconds, seconds) // bin_seconds)
        grid = Grid(bin_seconds, end - (count - 1) * bin_seconds, count)
        try:
            answer = await connection.over_range(
                history_query(targets, bin_seconds),
                grid.fold(len(targets)),
                start=grid.first_end,
                end=end,
                step_seconds=bin_seconds,
                deadline=deadline,
            )
        except QueryRefusedError as error:
            return await _apart(connection, targets, until, deadline, seconds, error)
        except NotObservedError as error:
            return [Past(problems=(f"its past could not be read back: {error}",))] * len(targets)
        for bins, more in zip(found, answer.value, strict=True):
            bins.append(more)
        remarks += answer.remarks
    url = connection.settings.url
    problems = tuple(dict.fromkeys(f"Prometheus at {url} remarks on the past: {remark}" for remark in remarks))
    return [Past(finest(*bins), problems[:3]) for bins in found]


async def _apart(
    connection: Connection,
    targets: Sequence[HistoryTarget],
    until: float,
    deadline: float,
    seconds: float,
    error: QueryRefusedError,
) -> list[Past]:
    """Find the one whose query the server takes for wrong; without its router's counter it may do."""
    if len(targets) > 1:
        return [(await _chunk(connection, [each], until, deadline, seconds))[0] for each in targets]
    (target,) = targets
    if target.arrivals is None:
        return [Past(problems=(f"its past could not be read back: {error}",))]
    plain = HistoryTarget(target.namespace, target.pod_pattern, labels=target.labels)
    (past,) = await _chunk(connection, [plain], until, deadline, seconds)
    sentence = f"the past of prometheus.arrivals ({target.arrivals}) could not be read: {error}"
    return [Past(past.bins, (*past.problems, sentence))]


def finest(coarse: tuple[LoadBin, ...], fine: tuple[LoadBin, ...]) -> tuple[LoadBin, ...]:
    """The fine bins, and coarse ones where not one fine bin lies."""
    if not coarse:
        return fine
    length = coarse[0].seconds
    covered = {each.start // length for each in fine}
    return tuple(sorted((*(b for b in coarse if b.start // length not in covered), *fine), key=lambda b: b.start))


QUANTITIES: Final = ("scrapes", "arrivals", "prompt", "generation")


def history_query(targets: Sequence[HistoryTarget], bin_seconds: int) -> str:
    """One query for all quantities of these targets; at each step, what the bin that ends there holds."""
    parts = []
    for number, target in enumerate(targets):
        for quantity, promql in zip(QUANTITIES, _quantities(target, bin_seconds), strict=True):
            parts.append(f'label_replace({promql}, "{TARGET}", "{number}/{quantity}", "", "")')
    return " or ".join(parts)


@dataclass(frozen=True, slots=True)
class TargetSeries:
    """PromQL over the series of a target's pods, gone or not, in windows of one bin."""

    target: HistoryTarget
    bin_seconds: int

    def vector(self, name: str, way: Way, function: str = "") -> str:
        namespace, pods = quoted(self.target.namespace), quoted(self.target.pod_pattern)
        selector = matching((name,), (f"{way[0]}={namespace}", f"{way[1]}=~{pods}"))
        return once((*way, INSTANCE), f"{function}({selector}[{self.bin_seconds}s])" if function else selector)

    def first_of(self, promql: Callable[[int, Way], str], spellings: int) -> str:
        """Of the spellings and ways the first that a moment has."""
        way = override(self.target.labels)
        ways = WAYS if way is None else (way,)
        return " or ".join(f"({promql(spelling, way)})" for spelling in range(spellings) for way in ways)

    def increase(self, names: Sequence[str], by: str = "") -> str:
        """What a counter, by any of its names, rose in the bin; `by` a label apart."""
        total = f"sum by ({by})" if by else "sum"
        return self.first_of(lambda n, way: f"{total}({self.vector(names[n], way, 'increase')})", len(names))


def _quantities(target: HistoryTarget, bin_seconds: int) -> tuple[str, ...]:
    series = TargetSeries(target, bin_seconds)
    running = vllm_metrics.GAUGES["requests_running"]
    scrapes = series.first_of(lambda n, way: f"max({series.vector(running[n], way, 'count_over_time')})", len(running))
    arrivals = series.increase([f"{name}_count" for name in vllm_metrics.DISTRIBUTIONS["ttft"]])
    if target.arrivals is not None:
        # One look more, at the bin's start, so that nothing between two bins is lost; for that look the server
        # extrapolates as far again, which is taken back.
        look = bin_seconds // LOOKS_A_BIN
        looks = f"[{bin_seconds + look}s:{look}s]"
        routed = f"sum(increase(({target.arrivals}\n){looks})) * {LOOKS_A_BIN / (LOOKS_A_BIN + 1)}"
        arrivals = f"({routed}) or {arrivals}"
    return (
        scrapes,
        arrivals,
        series.increase(vllm_metrics.COUNTERS["prompt_tokens"]),
        series.increase(vllm_metrics.COUNTERS["generation_tokens"]),
    )


@dataclass(frozen=True, slots=True)
class Grid:
    """`count` bins of `bin_seconds`; the first one ends at `first_end`."""

    bin_seconds: int
    first_end: float
    count: int

    def fold(self, targets: int) -> Callable[[Rows], list[tuple[LoadBin, ...]]]:
        def fold(rows: Rows) -> list[tuple[LoadBin, ...]]:
            found: list[dict[str, Floats]] = [{} for _ in range(targets)]
            for row in rows:
                number, _, quantity = row["metric"][TARGET].partition("/")
                found[int(number)][quantity] = self.column(row["values"])
            return [self._bins(columns) for columns in found]

        return fold

    def column(self, values: Sequence[tuple[float, str]]) -> Floats:
        """One row's values, a place a bin, NaN where it has none."""
        times, texts = zip(*values, strict=True)
        column = np.full(self.count, np.nan)
        places = np.rint((np.array(times) - self.first_end) / self.bin_seconds).astype(int)
        column[places] = list(map(float, texts))
        return column

    def _bins(self, columns: Mapping[str, Floats]) -> tuple[LoadBin, ...]:
        unknown = np.full(self.count, np.nan)
        scrapes, *loads = (columns.get(quantity, unknown) for quantity in QUANTITIES)
        arrivals, prompt, generation = loads
        whole = np.flatnonzero(scraped_throughout(scrapes) & np.isfinite(arrivals + prompt + generation))
        seconds = float(self.bin_seconds)
        starts = (self.first_end + (whole - 1) * seconds).tolist()
        rates = ((column[whole] / seconds).tolist() for column in (arrivals, prompt, generation))
        return tuple(LoadBin(start, seconds, *rest) for start, *rest in zip(starts, *rates, strict=True))


def scraped_throughout(scrapes: Floats) -> NDArray[np.bool_]:
    """Which bins have about as many scrapes as is usual around them; a changed scrape interval is no gap."""
    whole = np.zeros(len(scrapes), np.bool_)
    seen = np.flatnonzero(scrapes > 0)
    if not len(seen):
        return whole
    found = scrapes[seen]
    # Around those at either end are as many as around any other: of a few, half could be thin and pass for usual.
    width = min(BINS_AROUND, len(seen))
    begins = np.minimum(np.arange(0, len(seen), BINS_AROUND), len(seen) - width)
    usual = np.median(found[begins[:, np.newaxis] + np.arange(width)], axis=1)
    least = np.maximum(2.0, np.floor(LEAST_SCRAPES * usual)).repeat(BINS_AROUND)[: len(seen)]
    whole[seen] = found >= least
    return whole
