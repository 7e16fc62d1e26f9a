"""`preheat extender`: puts the parts together, serves until it is told to stop, and takes them apart."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from cluster.errors import ClusterError
from cluster.files import ConfigError
from cluster.pages import listen
from cluster.placement import PlacementCluster
from cluster.tls import Tls, files_of
from scheduler_extender.config import load
from scheduler_extender.service import Extender
from scheduler_extender.telemetry import Telemetry

log = logging.getLogger(__name__)


GIVE_WAY_SECONDS: Final = 0.0001
"""How long the thread that reads whole nodes may keep the loop from running; a question waits so after every read of
a socket and every write to one."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    host: str = "0.0.0.0"
    port: int = 8888
    inventory: Path | None = None
    config: Path | None = None
    kubeconfig: str | None = None
    context: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None


def run(options: Options) -> None:
    """`serve`, to its end; a ConfigError says what the user must mend first."""
    sys.setswitchinterval(GIVE_WAY_SECONDS)
    asyncio.run(serve(options))


async def serve(options: Options) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    configuration = load(options.config)
    files = files_of(options.tls_cert, options.tls_key, options.client_ca)
    tls = Tls(files) if files is not None else None
    async with AsyncExitStack() as parts:
        cluster = await _connected(options)
        if cluster is not None:
            parts.push_async_callback(cluster.close)
        extender = Extender(
            configuration,
            Telemetry(_version()),
            config=options.config,
            inventory_file=options.inventory,
            cluster=cluster,
            tls=tls,
        )
        app = extender.pages().application()
        web, port = await listen(app, options.host, options.port, tls.listening if tls else None)
        parts.push_async_callback(web.cleanup)
        running = asyncio.create_task(extender.run())
        stopping = asyncio.create_task(stop.wait())
        log.info(
            "started: questions of schedulers are answered on port %d",
            port,
            extra={"host": options.host, "port": port, "facts": _source(options, cluster), "tls": tls is not None},
        )
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            log.info("stopped")


async def _connected(options: Options) -> PlacementCluster | None:
    """A file of nodes and pods needs no cluster; where one is named too, it is for touching pods."""
    if options.inventory is not None and options.kubeconfig is None:
        return None
    try:
        return await PlacementCluster.connect(options.kubeconfig, options.context)
    except ClusterError as error:
        raise ConfigError((f"{error}; or give --inventory FILE",)) from error


def _source(options: Options, cluster: PlacementCluster | None) -> str:
    return str(options.inventory) if options.inventory is not None else cluster.host if cluster is not None else ""


def _version() -> str:
    try:
        return version("preheat")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
