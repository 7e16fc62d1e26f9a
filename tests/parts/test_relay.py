"""The relay leaves nothing behind, however its connections stand when it ends."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
import warnings
from pathlib import Path

import pytest

from tests.parts.relay import Relay
from tests.stand_ins.certificates import server_side

CONNECTIONS = 3


def test_connections_that_still_stand_when_it_ends_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server takes them and says nothing more, to a farewell neither."""
    left: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda told: left.append(told.exc_value))
    context, taken = server_side(tmp_path), list[ssl.SSLSocket]()

    def take() -> None:
        for _ in range(CONNECTIONS):
            taken.append(context.wrap_socket(listening.accept()[0], server_side=True))

    with warnings.catch_warnings(), socket.create_server(("127.0.0.1", 0)) as listening:
        warnings.simplefilter("error", ResourceWarning)
        taking = threading.Thread(target=take, daemon=True)
        taking.start()
        with Relay(f"https://127.0.0.1:{listening.getsockname()[1]}", tmp_path / "here.crt") as relay:
            host, port = relay.url.removeprefix("http://").split(":")
            clients = [socket.create_connection((host, int(port))) for _ in range(CONNECTIONS)]
            taking.join(timeout=30)
        for each in (*clients, *taken):
            each.close()
        del relay
        gc.collect()
    assert len(taken) == CONNECTIONS
    assert left == []
