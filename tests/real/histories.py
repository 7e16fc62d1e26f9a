"""A past for a real Prometheus: series of many minutes in one scrape, each sample with its own time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.parts.processes import wait_until
from tests.parts.prometheus import HOST, Prometheus, Target

STEP_SECONDS = 15.0
SECONDS = 50 * 60.0
"""Prometheus takes samples that are up to an hour older than the newest it has."""


@dataclass(frozen=True)
class Behind:
    """A series whose samples are the moments so many seconds before their own."""

    seconds: float


Value = Callable[[float], float | None] | Behind
"""A series by its age in seconds at each sample: SECONDS at the first, 0 now; None: no sample."""
Past = Mapping[str, Value]
"""By the series' name with its labels, as a page spells it."""


@contextmanager
def served(pages: Mapping[str, bytes]) -> Iterator[int]:
    """Pages by their paths; the port."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages[self.path]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer((HOST, 0), Pages)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def shown(prometheus: Prometheus, pasts: Mapping[str, Past]) -> Iterator[float]:
    """Each past as one scraped instance of that name; the moment at which all of them end."""
    now = time.time()
    with served({f"/{name}": _page(past, now) for name, past in pasts.items()}) as port:
        prometheus.watch([Target(f"{HOST}:{port}", f"/{name}", {"instance": name}) for name in pasts])
        wait_until(lambda: prometheus.value("count(up == 1)") == len(pasts), within=60, what="all pasts scraped")
        yield now


def _page(past: Past, now: float) -> bytes:
    lines = []
    for series, value in past.items():
        for step in range(int(SECONDS / STEP_SECONDS), -1, -1):
            age = step * STEP_SECONDS
            sample = now - age - value.seconds if isinstance(value, Behind) else value(age)
            if sample is not None:
                lines.append(f"{series} {sample!r} {int((now - age) * 1000)}\n")
    return "".join(lines).encode()


def steady(value: float) -> Value:
    return lambda age: value


def growing(per_minute: float) -> Value:
    """A counter."""
    return lambda age: per_minute * (SECONDS - age) / 60


def clock(behind_seconds: float = 0.0) -> Value:
    """A timestamp that is always so long ago."""
    return Behind(behind_seconds)
