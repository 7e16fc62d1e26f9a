"""What the autoscaler answers over HTTP: `/metrics`, `/healthz`, `/readyz`."""

from __future__ import annotations

import asyncio
import errno
from typing import Final

from aiohttp import web

from autoscaler.config import ConfigError
from autoscaler.service import Service

_SERVICE: Final = web.AppKey("service", Service)


def application(service: Service) -> web.Application:
    """The three pages."""
    app = web.Application()
    app[_SERVICE] = service
    app.add_routes([web.get("/metrics", _metrics), web.get("/healthz", _healthz), web.get("/readyz", _readyz)])
    return app


async def listen(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Serve the pages; the port is the one that was taken, where 0 asked for any."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigError((_no_port(host, port, error),)) from error
    except OverflowError as error:
        await runner.cleanup()
        raise ConfigError((f"--port {port}: there is no such port: give one from 0 to 65535",)) from error
    return runner, runner.addresses[0][1]


def _no_port(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port {port} on {host} is in use: stop what listens there, or give another --port"
    if error.errno == errno.EACCES:
        return f"--port {port} may not be taken by this user: give one above 1023"
    return f"--host {host}: cannot listen there: {error.strerror or error}: give an address of this machine"


async def _metrics(request: web.Request) -> web.Response:
    # In a thread: with a thousand targets the text takes longer than a turn should wait.
    text = await asyncio.to_thread(request.app[_SERVICE].telemetry.text)
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _healthz(request: web.Request) -> web.Response:
    stuck = request.app[_SERVICE].stuck()
    if stuck:
        return web.Response(status=503, text=f"no turn for too long: {_named(stuck)}\n")
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    waiting = request.app[_SERVICE].waiting()
    if waiting:
        return web.Response(status=503, text=f"no turn yet: {_named(waiting)}\n")
    return web.Response(text="ok\n")


def _named(targets: list[str]) -> str:
    shown = ", ".join(targets[:10])
    return shown if len(targets) <= 10 else f"{shown} and {len(targets) - 10} more"
