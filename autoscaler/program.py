"""`preheat autoscaler`: puts the parts together, runs them until it is told to stop, and takes them apart."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NoReturn

from autoscaler.config import CREDENTIALS
from autoscaler.controller import Controller
from autoscaler.endings import Endings
from autoscaler.floor import FloorKeeper
from autoscaler.gpu_budgets import GpuBudgets
from autoscaler.journal import Journal
from autoscaler.leader_label import LeaderLabel
from autoscaler.leadership import Leadership
from autoscaler.nodes import Nodes
from autoscaler.publish.numbers import PublishedNumbers
from autoscaler.publish.servers import PublishOptions, serve_others
from autoscaler.servers import Numbers, Servers
from autoscaler.service import Service
from autoscaler.targets import Targets
from autoscaler.telemetry import Telemetry
from autoscaler.tracing import from_environment
from autoscaler.wake import Waker
from autoscaler.web import application
from cluster.errors import ClusterError
from cluster.files import ConfigError, unreadable
from cluster.floors import Floors
from cluster.kubernetes import Cluster
from cluster.lease import Terms
from cluster.own_pod import own_pod
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
    leader_elect: bool | None = None
    """Whether of several replicas one writes; None: where resources are followed."""
    publish: PublishOptions = field(default_factory=PublishOptions)
    credentials: Path = CREDENTIALS
    """Below it lie the files that resources of the cluster may name."""


LEASE: Final = "preheat-autoscaler"
"""The Lease of the replicas of one installation, in the namespace that they follow, or their own."""
WAITS: Final = "this replica waits while another leads: ask that one, as the shipped Service does"


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
        tracing = from_environment(_version())
        if tracing:
            parts.push_async_callback(tracing.close, EVENTS_SECONDS)
        cluster = await _connected(options)
        parts.push_async_callback(cluster.close, EVENTS_SECONDS)
        telemetry.sources.append(lambda: _kubernetes_numbers(cluster))
        numbers = PublishedNumbers()
        telemetry.sources.append(numbers.gauges)
        floors = FloorKeeper(Floors(cluster.api))
        telemetry.sources.append(floors.gauges)
        servers = Servers()
        parts.callback(servers.close)
        telemetry.sources.append(servers.numbers)
        service = Service((), telemetry, tick_seconds=options.tick_seconds, journal=journal, tracing=tracing)
        nodes = Nodes(cluster.gpu_nodes, cluster.node_autoscalers)
        targets = Targets(
            cluster,
            servers,
            service,
            numbers,
            floors,
            Endings(cluster),
            nodes,
            GpuBudgets(),
            options.tick_seconds,
        )
        web, port = await listen(application(service), options.host, options.port)
        parts.push_async_callback(web.cleanup)
        leadership = _leadership(options, cluster)
        waker = Waker(service, lambda: "" if leadership is None or leadership.leads else WAITS)
        await serve_others(options.publish, options.host, numbers, waker, cluster.api, parts)
        log.info(
            "started: %s, a turn every %g s, pages on port %d",
            *(_followed(options), options.tick_seconds, port),
            extra={"host": options.host, "port": port, "cluster": cluster.host},
        )
        work = _Work(options, cluster, targets)
        service.problem = work.problem if leadership is None else _problem(leadership, work)
        telemetry.sources.append(lambda: _leads(leadership))
        if leadership:
            work.label.set(leads=False)  # a container that died here may have left it
        running = asyncio.create_task(service.run())
        working = asyncio.create_task(leadership.run(work.run) if leadership else work.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([running, working, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        log.info("stopping: writes in flight are finished first")
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await service.stop()
        await asyncio.gather(work.label.close(), *([leadership.release()] if leadership else ()))
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


class _Work:
    """What is done by whoever leads: the targets of a file, or those of the cluster's resources."""

    def __init__(self, options: Options, cluster: Cluster, targets: Targets) -> None:
        # Who asks for numbers must ask the leader: his pod is marked, so that a Service finds it.
        self.label = LeaderLabel(own_pod() if options.publish.listens else None, cluster.api)
        self._resources = options.resources
        self._targets = targets
        self._controller = Controller(cluster, cluster.autoscalers(options.namespace), targets, options.credentials)

    async def run(self) -> None:
        """Until it is cancelled; then no write is on its way any more."""
        self.label.set(leads=True)
        try:
            await self._run()
        finally:
            self.label.set(leads=False)

    async def _run(self) -> None:
        if self._resources is None:
            await self._controller.run()
        begun = [self._targets.begin(resource) for resource in self._resources or ()]
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.gather(*map(self._targets.end, begun))

    def problem(self) -> str:
        """Why it is not ready; "" if it is."""
        return self._targets.service.first_turns() if self._resources is not None else self._controller.problem


def _leadership(options: Options, cluster: Cluster) -> Leadership | None:
    elects = options.resources is None if options.leader_elect is None else options.leader_elect
    if not elects:
        return None
    pod = own_pod()
    namespace = options.namespace or (pod.namespace if pod else "default")
    # It begins with the pod's name, as the admission policy in manifests/autoscaler/one-writer expects.
    identity = f"{pod.name if pod else socket.gethostname()}_{secrets.token_hex(4)}"
    leadership = Leadership(cluster.lease(namespace, LEASE, identity, Terms()))
    cluster.write_only_while(leadership.seconds_left)
    return leadership


def _problem(leadership: Leadership, work: _Work) -> Callable[[], str]:
    """Who waits to lead is ready to."""
    return lambda: work.problem() if leadership.leads else leadership.problem


def _leads(leadership: Leadership | None) -> Numbers:
    yield "preheat_leads", (), float(leadership is None or leadership.leads)


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
