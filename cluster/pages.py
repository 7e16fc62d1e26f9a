"""Where a program listens for those who ask it over HTTP, and what is wrong with a port that it cannot take."""

from __future__ import annotations

import asyncio
import errno
import ssl

from aiohttp import web

from cluster.files import ConfigError

HANDED_OVER_IN_TURNS = 2
"""Of the loop: to the task that asyncio makes of a connection, and to the protocol that aiohttp then knows of."""


class Runner(web.AppRunner):
    """Ends the connections also that were taken in the very moment in which it ends.

    A connection that asyncio has taken and not yet handed over when its server closes stays open, and nobody knows of
    it (Python 3.11, `Server._attach`). So no more are taken first, and what was taken is waited for.
    """

    async def cleanup(self) -> None:
        loop = asyncio.get_running_loop()
        for site in self.sites:
            server = site._server  # nothing public tells it
            for listening in server.sockets if isinstance(server, asyncio.Server) else ():
                loop.remove_reader(listening)
        for _ in range(HANDED_OVER_IN_TURNS):
            await asyncio.sleep(0)
        await super().cleanup()


async def listen(
    app: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None, *, option: str = "--port"
) -> tuple[web.AppRunner, int]:
    """Serve the pages; the port is the one that was taken, where 0 asked for any. `option` names it to the user."""
    runner = Runner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigError((no_port(host, port, error, option),)) from error
    except OverflowError as error:
        await runner.cleanup()
        raise ConfigError((f"{option} {port}: there is no such port: give one from 0 to 65535",)) from error
    return runner, runner.addresses[0][1]


def no_port(host: str, port: int, error: OSError, option: str = "--port") -> str:
    """Why nobody can listen there."""
    if error.errno == errno.EADDRINUSE:
        return f"{option} {port} on {host} is in use: stop what listens there, or give another {option}"
    if error.errno == errno.EACCES:
        return f"{option} {port} may not be taken by this user: give one above 1023"
    return f"--host {host}: cannot listen there: {error.strerror or error}: give an address of this machine"
