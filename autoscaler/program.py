"""`preheat autoscaler`: puts the parts together, runs them until it is told to stop, and takes them apart."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NoReturn

from autoscaler.controller import Controller
from autoscaler.journal import Journal
from autoscaler.publish.numbers import PublishedNumbers
from autoscaler.publish.servers import PublishOptions, serve_numbers
from autoscaler.servers import Numbers, Servers
from autoscaler.service import Service
from autoscaler.targets import Targets
from autoscaler.telemetry import Telemetry
from autoscaler.web import application
from cluster.errors import ClusterError
from cluster.files import ConfigError, unreadable
from cluster.kubernetes import Cluster
from cluster.pages import listen
from policies.scaling.resource import VLLMAutoscaler

log = logging.getLogger(__name__)

EVENTS_SECONDS: Final = 0.3
"""How long the events of the last turns may take after the last write, and the journal's last lines."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; the file is read already."""

    resources: tuple[VLLMAutoscaler, ...] | None
    """Of a file; None: those of the cluster are followed."""
    kubeconfig: str | None = None
    context: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    tick_seconds: float = 15.0
    journal: Path | None = None
    namespace: str | None = None
    """Whose resources are followed; None: those of all."""
    publish: PublishOptions = field(default_factory=PublishOptions)


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
        servers = Servers()
        parts.callback(servers.close)
        telemetry.sources.append(servers.numbers)
        service = Service((), telemetry, tick_seconds=options.tick_seconds, journal=journal)
        targets = Targets(cluster, servers, service, numbers, options.tick_seconds)
        web, port = await listen(application(service), options.host, options.port)
        parts.push_async_callback(web.cleanup)
        await serve_numbers(options.publish, options.host, numbers, cluster.api, parts)
        log.info(
            "started: %s, a turn every %g s, pages on port %d",
            *(_followed(options), options.tick_seconds, port),
            extra={"host": options.host, "port": port, "cluster": cluster.host},
        )
        running = asyncio.create_task(service.run())
        working = asyncio.create_task(_work(options, cluster, targets))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([running, working, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        log.info("stopping: writes in flight are finished first")
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await service.stop()
        await running
        if not working.cancelled() and (mistake := working.exception()):
            raise mistake
    log.info("stopped")


def _followed(options: Options) -> str:
    if options.resources is not None:
        return f"{len(options.resources)} targets"
    return (
        f"the resources of namespace '{options.namespace}'" if options.namespace else "the resources of all namespaces"
    )


async def _work(options: Options, cluster: Cluster, targets: Targets) -> None:
    """Have targets at work until it is cancelled."""
    if options.resources is None:
        controller = Controller(cluster, cluster.autoscalers(options.namespace), targets)
        targets.service.problem = lambda: controller.problem
        await controller.run()
    for resource in options.resources or ():
        targets.begin(resource)
    await asyncio.Event().wait()


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


def _kubernetes_numbers(cluster: Cluster) -> Numbers:
    counters = cluster.counters
    yield "preheat_kubernetes_requests_total", (), counters.requests
    for status, times in tuple(counters.errors.items()):
        yield "preheat_kubernetes_errors_total", (status,), times
    yield "preheat_kubernetes_watch_failures_total", (), counters.watch_failures
    yield "preheat_kubernetes_watch_age_seconds", (), cluster.watch_age_seconds
    yield "preheat_events_written_total", (), counters.events_written
    yield "preheat_events_dropped_total", (), counters.events_failed + counters.events_suppressed
