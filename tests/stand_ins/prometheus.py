"""A small Prometheus at the seam: scrapes the pods it is given, answers Preheat's queries, fails as it is told.

    with StandInPrometheus([StandInPod("inference", "a", "10.0.0.1", page)]) as server:
        server.url

Each question first scrapes the pods once more if the clock has moved, so that a pod whose page is a function is
seen as it is now. It runs in threads of its own: tests may block or await, as they like.
"""

from __future__ import annotations

import json
import math
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from prometheus_client.parser import text_string_to_metric_families

from tests.stand_ins.promql import BadQueryError, Store, Vector, parse


@dataclass
class StandInPod:
    """Something to scrape; `page` is its `/metrics`, or None while it does not answer."""

    namespace: str
    name: str
    ip: str
    page: str | Callable[[], str | None] | None
    labels: Mapping[str, str] | None = None
    """What the scrape adds to each series; by default namespace, pod and instance."""

    def target_labels(self) -> dict[str, str]:
        if self.labels is not None:
            return dict(self.labels)
        return {"namespace": self.namespace, "pod": self.name, "instance": f"{self.ip}:8000", "job": "vllm"}


@dataclass
class Faults:
    """How the server misbehaves, until told otherwise."""

    status: int = 200
    body: bytes | None = None
    """Sent instead of any answer."""
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    trickle_seconds: float = 0.0
    """A pause after every few bytes of the body."""
    broken_connections: int = 0
    """How many of the next connections are broken off before an answer."""
    only_queries_with: str = ""
    """The faults above concern queries that contain this; "" is all."""
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()
    remarks_only_with: str = ""
    """Warnings and infos are made on queries that contain this; "" is all."""
    authorization: str | None = None
    """The header that lets one in."""


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    method: str
    path: str
    parameters: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def query(self) -> str:
        return self.parameters.get("query", "")


class StandInPrometheus:
    """Serves from `start` to `close`, or as a context."""

    def __init__(
        self,
        pods: Iterable[StandInPod] = (),
        *,
        clock: Callable[[], float] = time.time,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self.pods = list(pods)
        self.clock = clock
        self.store = Store()
        self.faults = Faults()
        self.asked: list[Asked] = []
        self.scraping = True
        self.evaluates_at: float | None = None
        """When set, queries read the samples of this instant, while answers go on to bear the clock's."""
        self._scraped_at = -1.0
        self._shown: dict[frozenset[tuple[str, str]], set[frozenset[tuple[str, str]]]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _QuietServer(("127.0.0.1", port), self._handler())
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = int(self._server.server_address[1])
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def queries(self) -> list[str]:
        return [asked.query for asked in self.asked if asked.query]

    def restart_empty(self) -> None:
        """As after a lost volume: what was scraped before is gone."""
        with self._lock:
            self.store.clear()
            self._shown.clear()
            self._scraped_at = -1.0

    def _millisecond(self) -> float:
        """Of now: a server's samples, and the instants that it is asked for, lie on whole ones."""
        return math.floor(self.clock() * 1000) / 1000

    def scrape(self, at: float | None = None) -> None:
        """Read every pod's page; what a pod showed before and does not any more ends here."""
        now = self._millisecond() if at is None else at
        with self._lock:
            self._scraped_at = now
            shown: dict[frozenset[tuple[str, str]], set[frozenset[tuple[str, str]]]] = {}
            for pod in self.pods:
                target = pod.target_labels()
                text = pod.page() if callable(pod.page) else pod.page
                self.store.add({"__name__": "up", **target}, 0.0 if text is None else 1.0, now)
                series = shown.setdefault(frozenset(target.items()), set())
                for labels, value in _series(text or "", target):
                    self.store.add(labels, value, now)
                    series.add(frozenset(labels.items()))
            for key, before in self._shown.items():
                for labels_key in before - shown.get(key, set()):
                    self.store.add(dict(labels_key), None, now)
            self._shown = shown

    def _answer(self, asked: Asked) -> tuple[int, dict[str, Any]]:
        if self.scraping and self._millisecond() > self._scraped_at:
            self.scrape()
        try:
            with self._lock:
                return 200, {"status": "success", "data": self._data(asked), **self._remarks(asked)}
        except BadQueryError as error:
            return 400, {"status": "error", "errorType": "bad_data", "error": str(error)}

    def _remarks(self, asked: Asked) -> dict[str, list[str]]:
        if self.faults.remarks_only_with not in asked.query:
            return {}
        remarks = {"warnings": list(self.faults.warnings), "infos": list(self.faults.infos)}
        return {kind: said for kind, said in remarks.items() if said}

    def _data(self, asked: Asked) -> Any:
        parameters = asked.parameters
        if asked.path == "/api/v1/label/__name__/values":
            return self.store.names()
        expression = parse(parameters["query"])
        if asked.path == "/api/v1/query":
            at = float(parameters.get("time", self.clock()))
            rows = expression.at(self.store, at if self.evaluates_at is None else self.evaluates_at)
            return {
                "resultType": "vector",
                "result": [{"metric": labels, "value": [at, _text(value)]} for labels, value in rows],
            }
        start, end = float(parameters["start"]), float(parameters["end"])
        step = float(parameters["step"].removesuffix("s"))
        lines: dict[frozenset[tuple[str, str]], tuple[dict[str, str], list[list[Any]]]] = {}
        for number in range(int((end - start) / step) + 1):
            at = start + number * step
            row: Vector = expression.at(self.store, at)
            for labels, value in row:
                lines.setdefault(frozenset(labels.items()), (labels, []))[1].append([at, _text(value)])
        return {
            "resultType": "matrix",
            "result": [{"metric": labels, "values": values} for labels, values in lines.values()],
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self) -> None:
                self._serve(urlsplit(self.path).query)

            def do_POST(self) -> None:
                self._serve(self.rfile.read(int(self.headers["Content-Length"])).decode())

            def _serve(self, form: str) -> None:
                parameters = {name: values[-1] for name, values in parse_qs(form).items()}
                asked = Asked(self.command, urlsplit(self.path).path, parameters, dict(self.headers))
                server.asked.append(asked)
                faults = server.faults
                if faults.only_queries_with not in asked.query:
                    faults = Faults(warnings=faults.warnings, infos=faults.infos)
                if faults.broken_connections > 0:
                    faults.broken_connections -= 1
                    self.close_connection = True
                    return
                server._closing.wait(faults.delay_seconds)
                if faults.authorization not in (None, asked.headers.get("Authorization")):
                    self._send(401, b"Unauthorized\n", faults)
                elif faults.body is not None or faults.status != 200:
                    self._send(faults.status, faults.body or b"told to\n", faults)
                else:
                    status, body = server._answer(asked)
                    self._send(status, json.dumps(body).encode(), faults)

            def _send(self, status: int, body: bytes, faults: Faults) -> None:
                try:
                    self.send_response(status)
                    for name, value in faults.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if faults.trickle_seconds:
                        for place in range(0, len(body), 4):
                            self.wfile.write(body[place : place + 4])
                            if server._closing.wait(faults.trickle_seconds):
                                break
                    else:
                        self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # whoever asked has given up

            def log_message(self, format: str, *args: object) -> None:
                """A test's output is not the place."""

        return Handler


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that turns away from a certificate is what some tests are about."""


def _series(text: str, target: Mapping[str, str]) -> Iterable[tuple[dict[str, str], float]]:
    for labels, value in _parsed(text):
        yield {**labels, **target}, value


@lru_cache(maxsize=64)
def _parsed(text: str) -> list[tuple[dict[str, str], float]]:
    families = text_string_to_metric_families(text)
    return [
        ({"__name__": sample.name, **sample.labels}, sample.value) for family in families for sample in family.samples
    ]


def _text(value: float) -> str:
    text = repr(float(value))
    return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}.get(text, text.removesuffix(".0"))
