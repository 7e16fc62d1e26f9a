"""The servers that the numbers are asked of, from the options to their end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp.web import AppRunner

from autoscaler.publish.access import Access
from autoscaler.publish.metrics_api import application
from autoscaler.publish.numbers import PublishedNumbers
from autoscaler.publish.registration import look_on
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
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def listens(self) -> bool:
        """Whether anybody can ask for a number."""
        return self.metrics_api_port is not None or self.keda_port is not None


async def serve_numbers(
    options: PublishOptions, host: str, numbers: PublishedNumbers, api: Api, parts: AsyncExitStack
) -> None:
    """Begin to listen; `parts` ends it. A ConfigError says what the user must mend."""
    files = files_of(options.tls_cert, options.tls_key, None)
    if options.metrics_api_port is not None:
        if files is None:
            raise ConfigError(("--metrics-api-port serves HTTPS only: give --tls-cert and --tls-key",))
        await _serve_metrics_api(options.metrics_api_port, host, files, numbers, api, parts)
    if options.keda_port is not None:
        await _serve_keda(options.keda_port, host, files, numbers, parts)
    if files is not None and options.metrics_api_port is None and options.keda_port is None:
        raise ConfigError(("--tls-cert is shown to HPAs and KEDA: give --metrics-api-port or --keda-port too",))


async def _serve_metrics_api(
    port: int, host: str, files: TlsFiles, numbers: PublishedNumbers, api: Api, parts: AsyncExitStack
) -> None:
    tls = Tls(files)
    access = Access(api, tls)
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
