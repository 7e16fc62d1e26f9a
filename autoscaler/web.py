"""What the autoscaler answers over HTTP: `/metrics`, `/healthz`, `/readyz`."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from autoscaler.service import Service, named

_SERVICE: Final = web.AppKey("service", Service)


def application(service: Service) -> web.Application:
    """The three pages."""
    app = web.Application()
    app[_SERVICE] = service
    app.add_routes([web.get("/metrics", _metrics), web.get("/healthz", _healthz), web.get("/readyz", _readyz)])
    return app


async def _metrics(request: web.Request) -> web.Response:
    # In a thread: with a thousand targets the text takes longer than a turn should wait.
    text = await asyncio.to_thread(request.app[_SERVICE].telemetry.text)
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _healthz(request: web.Request) -> web.Response:
    stuck = request.app[_SERVICE].stuck()
    if stuck:
        return web.Response(status=503, text=f"no turn for too long: {named(stuck)}\n")
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    service = request.app[_SERVICE]
    # Resources come and go while the program is well; the targets of a file are what it was started for.
    problem = service.problem() if service.problem else service.first_turns()
    return web.Response(status=503, text=f"{problem}\n") if problem else web.Response(text="ok\n")
