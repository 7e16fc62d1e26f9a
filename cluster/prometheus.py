"""One Prometheus: what it shows of the pods of all its targets, now and in the past, in a handful of queries.

How a sweep goes. The first query asks when each pod was scraped. It tells the server's own now, which all further
queries name, so that they speak of one instant although a scrape may fall between them; and by which labels pods
are named here, so that the others need not read what other tenants run. If it fails that is `NotObservedError`;
if another fails, samples are PARTIAL.

Clocks. The age of a sample is judged by the server's clock alone. Where that clock and ours differ, sample times
are moved onto ours, and from 5 s on it is said as a problem. A sample that lies in the future even of its own
server is STALE: its time cannot be believed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Final, TypeVar

from cluster import vllm_metrics
from cluster.errors import NotObservedError
from cluster.prometheus_arrivals import Arrivals
from cluster.prometheus_connection import Connection, Rows
from cluster.prometheus_history import LONGEST_SECONDS, HistoryTarget, Past, load_history
from cluster.prometheus_processes import Instances, Processes
from cluster.prometheus_queries import (
    COUNTERS,
    GAUGES,
    LATENCY_COUNTS,
    LATENCY_SUMS,
    WAYS,
    PodIndex,
    TargetPods,
    bucket_edges,
    bucket_queries,
    highest,
    http_matchers,
    matching,
    once,
    one_of,
    quoted,
    scrape_times,
    shown_lately,
    summed,
)
from cluster.prometheus_readings import (
    Reading,
    Scrapes,
    Sweep,
    fold_columns,
    fold_edges,
    fold_instances,
    fold_scrapes,
    fold_up,
    judge_up,
    reading_of,
)
from cluster.prometheus_user_queries import Found, UserQueries
from cluster.vllm_metrics import Edges
from policies.scaling.resource import Prometheus as Settings
from policies.scaling.resource import PrometheusLabels

STALE_AFTER_SECONDS: Final = 60.0
STALE_AFTER_SCRAPES: Final = 3
CLOCKS_AGREE_WITHIN_SECONDS: Final = 5.0
# A shift that follows every millisecond of delay would make one scrape look like two.
SHIFT_STEP_SECONDS: Final = 1.0
# Bucket edges change with vLLM's release only, and asking for them reads every bucket of every pod.
EDGES_KEPT_SECONDS: Final = 3600.0

T = TypeVar("T")


class Prometheus:
    """One server as one identity; its `connection` counts the requests made and the errors by kind."""

    def __init__(self, settings: Settings, *, quotes: bool = False) -> None:
        self.connection = Connection(settings, quotes=quotes)
        self.dropped_series = 0
        """Of the latest sweep: series of vLLM that join no pod that was asked for."""
        self.dropped_series_total = 0
        self.clock_ahead_seconds = 0.0
        """How far the server's clock was ahead of ours at the latest sweep."""
        self.scrape_gap_seconds: float | None = None
        """The shortest time between two scrapes of a pod that sweeps have seen; None before two were."""
        self._shift_seconds = 0.0
        self._edges: Edges = {}
        self._edges_until = -math.inf
        self._remarks_made = 0
        self._user_queries = UserQueries(self.connection)
        self._processes = Processes()
        self._routers: dict[tuple[str, str], Arrivals] = {}

    @property
    def remarks_made(self) -> int:
        """Warnings and infos that the server has put beside its answers."""
        return self._remarks_made + self._user_queries.remarks_made

    def close(self) -> None:
        self.connection.close()

    async def samples(
        self,
        targets: Mapping[str, TargetPods],
        now: float,
        *,
        previous: Mapping[str, Reading] | None = None,
        stale_after_seconds: float = STALE_AFTER_SECONDS,
    ) -> Mapping[str, Reading]:
        """What every pod of every target shows; `previous` is the last answer, evidence of idleness and loss."""
        previous = previous or {}
        index = PodIndex(targets.values())
        began = monotonic()
        first = await self.connection.instant(scrape_times(index.labels), fold_scrapes(index))
        scrapes, answered_after = first.value, monotonic() - began
        self._set_clock(scrapes.server_time, now, now + answered_after)
        gap = STALE_AFTER_SCRAPES * (self.scrape_gap_seconds or 0.0)
        sweep = Sweep(
            index,
            scrapes,
            now=now + answered_after,
            shift_seconds=self._shift_seconds,
            stale_after_seconds=max(stale_after_seconds, gap),
            objectives=tuple({target.objectives for target in targets.values()}),
        )
        self._remark(sweep, first.remarks)
        if index.pods and not scrapes.times and not scrapes.strangers:
            sweep.problems.append(f"Prometheus at {self.connection.settings.url} has no series of vLLM now")
        elif abs(self.clock_ahead_seconds) > CLOCKS_AGREE_WITHIN_SECONDS:
            side = "ahead of" if self.clock_ahead_seconds > 0 else "behind"
            sweep.problems.append(
                f"the clock of Prometheus at {self.connection.settings.url} is "
                f"{abs(self.clock_ahead_seconds):.0f} s {side} ours: set both by NTP"
            )
        sweep.columns.strangers.update(scrapes.strangers)
        answers, _ = await asyncio.gather(self._answers(sweep, targets), self._read_pods(sweep))
        self.dropped_series = sum(sweep.columns.strangers.values())
        self.dropped_series_total += self.dropped_series
        readings = {
            key: reading_of(
                sweep,
                target,
                previous.get(key),
                self._arrivals(key, target, answers, sweep.now),
                _wake(target, answers),
            )
            for key, target in targets.items()
        }
        self._learn_scrape_gap(readings, previous)
        return readings

    async def load_history(
        self, targets: Mapping[str, HistoryTarget], until: float, *, seconds: float = LONGEST_SECONDS
    ) -> Mapping[str, Past]:
        """The load of each target as far back as the server has it, for `seconds` at most."""
        routed = {key: target.arrivals for key, target in targets.items() if target.arrivals is not None}
        unsound = await self._user_queries.unsound(routed.values())
        left_out = {key: text for key, text in routed.items() if text in unsound}
        asked = {key: replace(target, arrivals=None) if key in left_out else target for key, target in targets.items()}
        pasts = dict(await load_history(self.connection, asked, until, seconds=seconds))
        for key, text in left_out.items():
            why = f"the past of prometheus.arrivals ({text}) could not be read: {unsound[text]}"
            pasts[key] = replace(pasts[key], problems=(*pasts[key].problems, why))
        return pasts

    async def query(self, promql: str) -> list[tuple[Mapping[str, str], float]]:
        """Labels and value of every series that a query yields now."""
        return (await self.connection.instant(promql, _pairs)).value

    async def request_seconds(
        self, namespace: str, pods: Sequence[str], labels: PrometheusLabels, quantile: float = 0.99
    ) -> float | None:
        """What so many of the requests of these pods stayed below in the last hour; None where nothing shows it."""
        buckets = [f"{name}_bucket" for name in vllm_metrics.REQUEST_TIMES["end_to_end"]]
        where = (f"{labels.namespace or 'namespace'}={quoted(namespace)}", f"{labels.pod or 'pod'}=~{one_of(pods)}")
        rates = f"sum by (le) (rate({matching(buckets, where)}[1h]))"
        found = [value for _, value in await self.query(f"histogram_quantile({quantile}, {rates})")]
        return found[0] if found and math.isfinite(found[0]) else None

    async def vllm_series(self) -> tuple[str, ...]:
        """Names of the series that we read and the server has now; empty: see `look_alikes`."""
        names = tuple(sorted(vllm_metrics.known_names() - {*vllm_metrics.HTTP_REQUESTS}))
        found = await self.query(f"group by (__name__) ({matching(names)})")
        return tuple(sorted(labels["__name__"] for labels, _ in found))

    async def look_alikes(self) -> tuple[tuple[str, str], ...]:
        """Names of the server's series that seem to mean one of ours, each with that one, likest first."""
        return vllm_metrics.look_alikes((await self.connection.series_names()).value)

    async def edges(self) -> Edges:
        """The bucket edges of vLLM's histograms on this server, by bucket series."""
        if monotonic() >= self._edges_until:
            answer = await self.connection.instant(bucket_edges(), fold_edges)
            self._edges = answer.value
            self._edges_until = monotonic() + EDGES_KEPT_SECONDS if answer.value else -math.inf
        return self._edges

    async def _read_pods(self, sweep: Sweep) -> None:
        """All that the pods show, each query on its own: one that fails leaves the others whole."""
        index, scrapes = sweep.index, sweep.scrapes
        deadline = self.connection.deadline()
        narrow = _narrow(index, scrapes)

        async def part(what: str, promql: str, fold: Callable[[Rows], T]) -> T | None:
            try:
                answer = await self.connection.instant(promql, fold, at=scrapes.server_time, deadline=deadline)
            except NotObservedError as error:
                sweep.partial = True
                sweep.problems.append(f"{what} could not be read: {error}")
                return None
            self._remark(sweep, answer.remarks)
            return answer.value

        async def columns(what: str, promql: str, apart: str = "", *, config: bool = False) -> None:
            found = await part(what, promql, fold_columns(index, apart, config=config))
            if found is not None:
                sweep.columns.take(found)

        async def buckets() -> None:
            try:
                sweep.edges = await self.edges()
            except NotObservedError as error:
                sweep.partial = True
                sweep.problems.append(f"the edges of the latency buckets could not be read: {error}")
                return
            wanted = bucket_queries(index, sweep.edges, sweep.objectives, narrow)
            await asyncio.gather(*(columns("latency buckets", promql, "le") for promql in wanted))

        async def up() -> None:
            ups = await part("`up`", once(index.labels, matching(("up",), narrow)), fold_up(index))
            if ups is None:
                return
            lately: Instances | None = {}
            if self._processes.in_doubt(index, scrapes.instances, ups):
                promql = shown_lately(index.labels, narrow)
                lately = await part("which processes showed vLLM lately", promql, fold_instances(index))
            if lately is None:
                return
            vllm = self._processes.judge(index, scrapes.instances, lately, ups, sweep.now)
            judge_up(sweep, ups, vllm)

        # Nothing to read of pods that show no vLLM; whether they are scraped at all is still worth knowing.
        if not scrapes.times:
            if not math.isnan(scrapes.server_time):
                await up()
            return
        labels = index.labels
        await asyncio.gather(
            columns("gauges", summed(labels, GAUGES, narrow)),
            columns("counters", summed(labels, COUNTERS, narrow)),
            columns("latency sums", summed(labels, LATENCY_SUMS, narrow)),
            columns("latency counts", summed(labels, LATENCY_COUNTS, narrow)),
            buckets(),
            columns("KV-cache use", highest(labels, vllm_metrics.KV_CACHE_USAGE, narrow)),
            columns(
                "waiting by reason",
                summed(labels, vllm_metrics.WAITING_BY_REASON, narrow, apart=(vllm_metrics.REASON_LABEL,)),
                vllm_metrics.REASON_LABEL,
            ),
            columns(
                "the size of the KV cache",
                highest(labels, vllm_metrics.CACHE_CONFIG, narrow, apart=(*vllm_metrics.CACHE_CONFIG_LABELS, "engine")),
                config=True,
            ),
            columns("HTTP requests", summed(labels, vllm_metrics.HTTP_REQUESTS, (*http_matchers(), *narrow))),
            up(),
        )

    async def _answers(self, sweep: Sweep, targets: Mapping[str, TargetPods]) -> Mapping[str, Found]:
        """What the queries that users wrote answer, by their texts."""
        written = (text for target in targets.values() for text in (target.arrivals, target.wake) if text is not None)
        at = None if math.isnan(sweep.scrapes.server_time) else sweep.scrapes.server_time
        return await self._user_queries.answers(written, sweep.index.labels, at)

    def _arrivals(self, key: str, target: TargetPods, answers: Mapping[str, Found], now: float) -> float | str | None:
        """What its routers have counted, or why that is not known."""
        if target.arrivals is None:
            return None
        counts = answers[target.arrivals]
        if isinstance(counts, str):
            return counts
        return self._routers.setdefault((key, target.arrivals), Arrivals()).add(counts, now)

    def _remark(self, sweep: Sweep, remarks: tuple[str, ...]) -> None:
        """With any remark the answer may not be whole, and what rests on it is PARTIAL."""
        if remarks:
            self._remarks_made += len(remarks)
            sweep.partial = True
            url = self.connection.settings.url
            sweep.problems += (f"Prometheus at {url} remarks: {remark}" for remark in remarks[:3])

    def _set_clock(self, server_time: float, asked_at: float, answered_at: float) -> None:
        """Compare the clocks: the server's now must lie between our question and its answer."""
        if math.isnan(server_time):
            return
        self.clock_ahead_seconds = server_time - min(max(server_time, asked_at), answered_at)
        if abs(self.clock_ahead_seconds - self._shift_seconds) > SHIFT_STEP_SECONDS:
            self._shift_seconds = self.clock_ahead_seconds

    def _learn_scrape_gap(self, readings: Mapping[str, Reading], previous: Mapping[str, Reading]) -> None:
        for key, reading in readings.items():
            before = previous[key].samples if key in previous else {}
            for pod, sample in reading.samples.items():
                past = before.get(pod)
                if past is not None and past.time is not None and sample.time is not None:
                    gap = sample.time - past.time
                    if SHIFT_STEP_SECONDS < gap < (self.scrape_gap_seconds or math.inf):
                        self.scrape_gap_seconds = gap


def _narrow(index: PodIndex, scrapes: Scrapes) -> tuple[str, ...]:
    """Only the namespaces asked for, where every pod of ours is named by the same label of its namespace."""
    named_by = scrapes.namespace_labels or {WAYS[0][0]}
    if len(named_by) > 1 or None in named_by:
        return ()
    return (f"{next(iter(named_by))}=~{one_of(index.namespaces)}",)


def _wake(target: TargetPods, answers: Mapping[str, Found]) -> float | str | None:
    """What its wake query answers, or why that is not known."""
    if target.wake is None:
        return None
    found = answers[target.wake]
    return found if isinstance(found, str) else math.fsum(found.values())


def _pairs(rows: Rows) -> list[tuple[Mapping[str, str], float]]:
    return [(row["metric"], float(row["value"][1])) for row in rows]
