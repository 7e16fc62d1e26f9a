"""Stands in front of the API server and can keep what is on its way to it: a slow network, made to order.

It passes bytes on as they come. A request whose first line is the one waited for is kept, with all that follows it on
its connection; the server sees it when it is let go, and cannot tell that from a client that was slow to send.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import yaml

from tests.parts.processes import wait_until

HOST = "127.0.0.1"
_CHUNK = 1 << 16


@dataclass
class Kept:
    """A request that has not arrived yet."""

    request: bytes
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    answer: bytes = b""
    """What the server says of it once it has arrived, and of whatever follows on the connection."""


class Relay:
    """Speaks HTTP to its clients and TLS to the server, on a loop of its own; use it as a context."""

    def __init__(self, url: str, ca: Path) -> None:
        server = urlsplit(url)
        self._server = (str(server.hostname), int(server.port or 443))
        self._tls = ssl.create_default_context(cafile=str(ca))
        self._line: re.Pattern[bytes] | None = None
        self.kept: list[Kept] = []

    def __enter__(self) -> Self:
        self._listens = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=[self._serve()], name="relay", daemon=True)
        self._thread.start()
        assert self._listens.wait(timeout=30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ends.set)
        self._thread.join(timeout=30)

    def kubeconfig(self, folder: Path, token: str) -> Path:
        path = folder / "relayed.yaml"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "relay", "cluster": {"server": self.url}}],
            "users": [{"name": "us", "user": {"token": token}}],
            "contexts": [{"name": "relay", "context": {"cluster": "relay", "user": "us"}}],
            "current-context": "relay",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def keep(self, first_line: str) -> None:
        """The next requests that begin so (a regular expression) do not arrive until they are let go."""
        self._line = re.compile(first_line.encode())

    def wait_kept(self, *, within: float) -> Kept:
        """The one that is kept; later ones arrive as ever."""
        kept = wait_until(lambda: self.kept[-1:], within=within, what="a request that is kept")[0]
        self._line = None
        return kept

    def arrives(self, kept: Kept, *, within: float) -> str:
        """Let it go; what the server answers."""
        self._loop.call_soon_threadsafe(kept.let_go.set)
        wait_until(lambda: b"\r\n\r\n" in kept.answer, within=within, what="an answer to what was kept")
        return kept.answer.decode(errors="replace")

    async def _serve(self) -> None:
        serving = await asyncio.start_server(self._connected, HOST, 0)
        self.url = f"http://{HOST}:{serving.sockets[0].getsockname()[1]}"
        self._loop, self._ends = asyncio.get_running_loop(), asyncio.Event()
        self._listens.set()
        await self._ends.wait()
        serving.close()  # `asyncio.run` cancels the connections

    async def _connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        # That one of the two went away is theirs, and that the relay ends is its user's.
        with suppress(OSError, asyncio.CancelledError), ExitStack() as ending:
            # Once the relay ends there is no loop any more on which a connection could be closed in good order.
            ending.callback(to_client.transport.abort)
            server, to_server = await asyncio.open_connection(*self._server, ssl=self._tls)
            ending.callback(to_server.transport.abort)
            held: list[Kept] = []
            await asyncio.gather(self._requests(client, to_server, held), self._answers(server, to_client, held))
            await asyncio.gather(to_client.wait_closed(), to_server.wait_closed())

    async def _requests(self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter, held: list[Kept]) -> None:
        while chunk := await client.read(_CHUNK):
            if self._line and self._line.match(chunk):
                while not _is_whole(chunk):
                    chunk += await client.read(_CHUNK)
                held.append(Kept(chunk))
                self.kept.append(held[-1])
                await held[-1].let_go.wait()
            to_server.write(chunk)
            await to_server.drain()
        to_server.close()

    async def _answers(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter, held: list[Kept]) -> None:
        while chunk := await server.read(_CHUNK):
            for kept in held:
                kept.answer += chunk
            to_client.write(chunk)
            await to_client.drain()
        to_client.close()


def _is_whole(request: bytes) -> bool:
    head, ended, body = request.partition(b"\r\n\r\n")
    stated = re.search(rb"(?im)^content-length: *(\d+)", head)
    return bool(ended) and len(body) >= (int(stated[1]) if stated else 0)
