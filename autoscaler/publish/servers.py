"""The servers that others ask, of numbers or to be woken, from the options to their end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from aiohttp.web import AppRunner

from autoscaler.access import Access
from autoscaler.publish.access import ProxiedAccess
from autoscaler.publish.metrics_api import application
from autoscaler.publish.numbers import PublishedNumbers
from autoscaler.publish.registration import look_on
from autoscaler.wake import Waker
from autoscaler.wake import application as wake_application
from cluster.api import Api
from cluster.files import ConfigError
from cluster.pages import listen
from cluster.tls import Tls, TlsFiles, files_of

log = logging.getLogger(__name__)

RELOAD_SECONDS: Final = 60.0
"""How long after its rotation a mounted certificate is shown."""


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """What the command line says; a port that is None is not listened on."""

    metrics_api_port: int | None = None
    keda_port: int | None = None
    wake_port: int | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def listens(self) -> bool:
        """Whether anybody can ask what only the leader can answer."""
        return any(port is not None for port in (self.metrics_api_port, self.keda_port, self.wake_port))


async def serve_others(
    options: PublishOptions, host: str, numbers: PublishedNumbers, waker: Waker, api: Api, parts: AsyncExitStack
) -> None:
    """Begin to listen; `parts` ends it. A ConfigError says what the user must mend."""
    files = files_of(options.tls_cert, options.tls_key, None)
    if options.metrics_api_port is not None:
        if files is None:
            raise ConfigError(("--metrics-api-port serves HTTPS only: give --tls-cert and --tls-key",))
        await _serve_metrics_api(options.metrics_api_port, host, files, numbers, api, parts)
    if options.keda_port is not None:
        await _serve_keda(options.keda_port, host, files, numbers, parts)
    if options.wake_port is not None:
        await _serve_wake(options.wake_port, host, files, waker, api, parts)
    if files is not None and not options.listens:
        remedy = "give --metrics-api-port, --keda-port or --wake-port too"
        raise ConfigError((f"--tls-cert is shown to those who ask for numbers or to wake: {remedy}",))


async def _serve_metrics_api(
    port: int, host: str, files: TlsFiles, numbers: PublishedNumbers, api: Api, parts: AsyncExitStack
) -> None:
    tls = Tls(files)
    access = ProxiedAccess(api, tls)
    web, taken = await listen(application(numbers, access), host, port, tls.listening, option="--metrics-api-port")
    parts.push_async_callback(_cut_off, web)
    for work in (access.run(), _reload(tls), look_on(api, numbers)):
        parts.push_async_callback(_end, asyncio.create_task(work))
    log.info("external.metrics.k8s.io is served to HPAs", extra={"metrics_api_port": taken})


async def _serve_keda(
    port: int, host: str, files: TlsFiles | None, numbers: PublishedNumbers, parts: AsyncExitStack
) -> None:
    try:
        from autoscaler.publish.keda import serve_keda
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        raise ConfigError(
            (f"--keda-port needs '{missing}', which is not installed: pip install 'preheat[keda]'",)
        ) from error
    if files is not None:
        Tls(files)  # what is wrong with the files is told now, and in words
    server, taken = await serve_keda(numbers, host, port, files)
    parts.push_async_callback(server.stop, 0.1)
    log.info("KEDA's external scaler is served", extra={"keda_port": taken, "tls": files is not None})


async def _serve_wake(
    port: int, host: str, files: TlsFiles | None, waker: Waker, api: Api, parts: AsyncExitStack
) -> None:
    if files is None and not _is_loopback(host):
        remedy = "give --tls-cert and --tls-key, or --host 127.0.0.1"
        raise ConfigError((f"--wake-port takes bearer tokens, which HTTP would show to the network: {remedy}",))
    tls = Tls(files) if files else None
    application = wake_application(waker, Access(api))
    web, taken = await listen(application, host, port, tls.listening if tls else None, option="--wake-port")
    parts.push_async_callback(_cut_off, web)
    if tls:
        parts.push_async_callback(_end, asyncio.create_task(_reload(tls)))
    log.info("POST /wake/NAMESPACE/NAME is served", extra={"wake_port": taken, "tls": files is not None})


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _cut_off(web: AppRunner) -> None:
    # The API server keeps its connections open, and a polite goodbye by TLS would wait half a minute for it.
    for connection in web.server.connections if web.server else ():
        if connection.transport is not None:
            connection.transport.abort()
    await web.cleanup()


async def _reload(tls: Tls) -> None:
    while True:
        await asyncio.sleep(RELOAD_SECONDS)
        try:
            tls.reload()
        except ConfigError as error:
            log.warning("the certificate read before is shown on: %s", error)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
