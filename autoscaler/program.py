"""`preheat autoscaler`: puts the parts together, runs them until it is told to stop, and takes them apart."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NoReturn

from autoscaler.cluster_fleet import ClusterFleet, Pasts, Readings, shared_pasts, shared_readings
from autoscaler.journal import Journal
from autoscaler.publish.numbers import PublishedNumbers
from autoscaler.schedule import share_of_tick
from autoscaler.service import Service, Target, patience_seconds, target_of
from autoscaler.telemetry import BY_NAME, Telemetry
from autoscaler.web import application
from cluster.errors import ClusterError
from cluster.files import ConfigError, unreadable
from cluster.kubernetes import Cluster
from cluster.pages import listen
from cluster.prometheus import Prometheus
from policies.scaling.resource import Mode, PrometheusLabels, VLLMAutoscaler
from policies.scaling.resource import Prometheus as PrometheusSettings

log = logging.getLogger(__name__)

EVENTS_SECONDS: Final = 0.3
"""How long the events of the last turns may take after the last write, and the journal's last lines."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; the file is read already."""

    resources: tuple[VLLMAutoscaler, ...]
    kubeconfig: str | None = None
    context: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    tick_seconds: float = 15.0
    journal: Path | None = None


def run(options: Options) -> NoReturn:
    """`serve`, and then leave at once: a name that nobody resolves holds a thread that Python would wait for."""
    asyncio.run(_serve_and_leave(options))
    raise AssertionError("the line above leaves or raises")


async def _serve_and_leave(options: Options) -> NoReturn:
    await serve(options)
    logging.shutdown()
    os._exit(0)


def collect_rarely() -> None:
    """Nearly all that is remembered lives long and runs in no circle: to look through it every few hundred new objects
    for what may go would take a third of a tick of a thousand targets.
    """
    gc.set_threshold(10_000, 10, 100)


async def serve(options: Options) -> None:
    """Run until SIGTERM or SIGINT; a ConfigError says what the user must mend before it can."""
    collect_rarely()
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    telemetry = Telemetry(_version())
    async with AsyncExitStack() as parts:
        journal = _journal(options.journal)
        if journal:
            parts.push_async_callback(asyncio.to_thread, journal.close, EVENTS_SECONDS)
        cluster = await _connected(options)
        parts.push_async_callback(cluster.close, EVENTS_SECONDS)
        telemetry.sources.append(lambda: _kubernetes_numbers(cluster))
        numbers = PublishedNumbers()
        telemetry.sources.append(numbers.gauges)
        targets = _targets(options.resources, cluster, telemetry, numbers, parts, options.tick_seconds)
        service = Service(targets, telemetry, tick_seconds=options.tick_seconds, journal=journal)
        web, port = await listen(application(service), options.host, options.port)
        parts.push_async_callback(web.cleanup)
        log.info(
            "started: %d targets, a turn every %g s, pages on port %d",
            *(len(targets), options.tick_seconds, port),
            extra={"host": options.host, "port": port, "cluster": cluster.host},
        )
        running = asyncio.create_task(service.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        log.info("stopping: writes in flight are finished first")
        await service.stop()
        await running
    log.info("stopped")


def _version() -> str:
    try:
        return version("preheat")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def _journal(folder: Path | None) -> Journal | None:
    if folder is None:
        return None
    try:
        return Journal(folder)
    except OSError as error:
        raise ConfigError((f"--journal {unreadable(error.filename or folder, error)}",)) from error


async def _connected(options: Options) -> Cluster:
    try:
        return await Cluster.connect(options.kubeconfig, options.context)
    except ClusterError as error:
        raise ConfigError((str(error),)) from error


def _targets(
    resources: Sequence[VLLMAutoscaler],
    cluster: Cluster,
    telemetry: Telemetry,
    numbers: PublishedNumbers,
    parts: AsyncExitStack,
    tick_seconds: float,
) -> list[Target]:
    """Every target; those of one Prometheus share its readings, and so the place of their turns in the tick."""
    servers: dict[PrometheusSettings, tuple[Prometheus, Readings, Pasts]] = {}
    targets = []
    for resource in resources:
        settings = identity(resource.spec.prometheus)
        if settings not in servers:
            prometheus = Prometheus(settings)
            shared = prometheus, shared_readings(prometheus), shared_pasts(prometheus)
            servers[settings] = shared
            for part in shared:
                parts.callback(part.close)
        _, readings, pasts = servers[settings]
        fleet = ClusterFleet(resource, cluster, readings, pasts)
        phase = share_of_tick(settings.model_dump_json())
        pass_on = None
        if resource.spec.mode is Mode.PUBLISH:
            pass_on = numbers.add(resource, patience_seconds(resource, tick_seconds))
        target = target_of(
            resource,
            fleet,
            tick_seconds=tick_seconds,
            phase=phase,
            tell=fleet.tell,
            pass_on=pass_on,
            refill=fleet.past,
        )
        targets.append(target)
    telemetry.sources.append(lambda: _prometheus_numbers(servers.values()))
    return targets


def identity(settings: PrometheusSettings) -> PrometheusSettings:
    """The settings without what differs between the targets of one server."""
    return settings.model_copy(update={"arrivals": None, "labels": PrometheusLabels()})


Numbers = Iterable[tuple[str, tuple[str, ...], float]]


def _kubernetes_numbers(cluster: Cluster) -> Numbers:
    counters = cluster.counters
    yield "preheat_kubernetes_requests_total", (), counters.requests
    for status, times in tuple(counters.errors.items()):
        yield "preheat_kubernetes_errors_total", (status,), times
    yield "preheat_kubernetes_watch_failures_total", (), counters.watch_failures
    yield "preheat_kubernetes_watch_age_seconds", (), cluster.watch_age_seconds
    yield "preheat_events_written_total", (), counters.events_written
    yield "preheat_events_dropped_total", (), counters.events_failed + counters.events_suppressed


def _prometheus_numbers(servers: Iterable[tuple[Prometheus, Readings, Pasts]]) -> Numbers:
    """By URL: one that is asked as several identities is one server, whose counts add up."""
    numbers: dict[tuple[str, tuple[str, ...]], float] = {}
    for name, labels, value in (number for server in servers for number in _server_numbers(*server[:2])):
        before = numbers.get((name, labels), 0.0)
        counts = BY_NAME[name].kind == "counter"
        numbers[name, labels] = before + value if counts else max(before, value, key=abs)
    return [(name, labels, value) for (name, labels), value in numbers.items()]


def _server_numbers(prometheus: Prometheus, readings: Readings) -> Numbers:
    connection = prometheus.connection
    url = connection.settings.url
    yield "preheat_prometheus_requests_total", (url,), connection.requests_made
    for kind, times in tuple(connection.errors_by_kind.items()):
        yield "preheat_prometheus_errors_total", (url, kind), times
    yield "preheat_prometheus_remarks_total", (url,), prometheus.remarks_made
    yield "preheat_prometheus_dropped_series", (url,), prometheus.dropped_series
    yield "preheat_prometheus_reading_seconds", (url,), readings.seconds
    yield "preheat_prometheus_clock_ahead_seconds", (url,), prometheus.clock_ahead_seconds
