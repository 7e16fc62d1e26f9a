"""Where a program listens for those who ask it over HTTP, and what is wrong with a port that it cannot take."""

from __future__ import annotations

import errno
import ssl

from aiohttp import web

from cluster.files import ConfigError


async def listen(
    app: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None
) -> tuple[web.AppRunner, int]:
    """Serve the pages; the port is the one that was taken, where 0 asked for any."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
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
