"""The servers that the numbers are asked of, from the options to their end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from autoscaler.publish.access import Access
from autoscaler.publish.metrics_api import application
from autoscaler.publish.numbers import PublishedNumbers
from cluster.api import Api
from cluster.files import ConfigError
from cluster.pages import listen
from cluster.tls import Tls, files_of

log = logging.getLogger(__name__)

RELOAD_SECONDS: Final = 60.0
"""How long after its rotation a mounted certificate is shown."""


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """What the command line says; a port that is None is not listened on."""

    metrics_api_port: int | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None


async def serve_numbers(
    options: PublishOptions, host: str, numbers: PublishedNumbers, api: Api, parts: AsyncExitStack
) -> None:
    """Begin to listen; `parts` ends it. A ConfigError says what the user must mend."""
    files = files_of(options.tls_cert, options.tls_key, None)
    if options.metrics_api_port is None:
        if files is not None:
            raise ConfigError(("--tls-cert is for the metrics API: give --metrics-api-port too, or leave it out",))
        return
    if files is None:
        raise ConfigError(("--metrics-api-port serves HTTPS only: give --tls-cert and --tls-key",))
    tls = Tls(files)
    access = Access(api, tls)
    web, port = await listen(
        application(numbers, access),
        host,
        options.metrics_api_port,
        tls.listening,
        option="--metrics-api-port",
    )
    parts.push_async_callback(web.cleanup)
    for task in (asyncio.create_task(access.run()), asyncio.create_task(_reload(tls))):
        parts.push_async_callback(_end, task)
    log.info("the metrics API is served", extra={"metrics_api_port": port})


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
