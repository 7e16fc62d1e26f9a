"""Where a program listens: every connection that was taken ends with it."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web

from cluster.pages import HANDED_OVER_IN_TURNS, listen


@pytest.mark.parametrize("turns", range(HANDED_OVER_IN_TURNS + 3))
async def test_a_connection_taken_as_it_ends_is_closed_with_the_others(turns: int) -> None:
    """The client's own call goes past the loop, which then has so many turns to take it and to hand it over."""
    runner, port = await listen(web.Application(), "127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", port)) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await runner.cleanup()
        client.setblocking(False)
        try:
            farewell = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1), 10)
        except ConnectionResetError:  # nobody had taken it
            farewell = b""
    assert farewell == b""
