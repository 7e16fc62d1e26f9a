"""The relay leaves nothing behind, however its connections stand when it ends."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from tests.parts.relay import Relay

ASKED = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A TLS server that keeps its connections; its authority lies in `ca.pem`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


def test_connections_that_still_stand_when_it_ends_are_closed(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda told: left.append(told.exc_value))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with Relay(server, tmp_path / "ca.pem") as relay:
            host, port = relay.url.removeprefix("http://").split(":")
            clients = [socket.create_connection((host, int(port))) for _ in range(4)]
            for client in clients[1:]:
                client.sendall(ASKED)
                assert client.recv(100).startswith(b"HTTP/1.1 200")
            clients[-1].close()
        for client in clients:
            client.close()
        del relay
        gc.collect()
    assert left == []
