"""Simulated vLLM servers behind the pods of a real cluster: a load to bear, a page each to scrape.

One thread looks at the pods and tells Prometheus where their pages are, another sends what arrives to the least
busy ready one, as a router does, which goes on while the API server is down. A pod that is not ready yet answers
503, as a server that still loads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import requests

from tests.parts.control_plane import ControlPlane
from tests.parts.kubernetes_api import ApiError, Json, is_true
from tests.parts.prometheus import HOST, Prometheus, Target
from tests.real.simulated_vllm import Server, Speed, Truth

Load = Callable[[float], float]
"""Requests/s at so many seconds after the load began."""

NAME = "vllm-tiny"
"""What a target and its app are called where a test has only one."""

SECONDS_A_LOOK = 0.25
SECONDS_A_ROUND = 0.05


def is_terminating(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]


class SimulatedPods:
    """The servers of an app's pods in one namespace, from `with` to its end."""

    def __init__(
        self,
        control_plane: ControlPlane,
        prometheus: Prometheus,
        namespace: str,
        *,
        app: str = NAME,
        speed: Speed | None = None,
    ) -> None:
        self.api = control_plane.api_as("admin")  # a connection of its own: this is another thread
        self.prometheus = prometheus
        self.namespace = namespace
        self.app = app
        self.speed = speed or Speed()
        self.truth = Truth()
        self.servers: dict[str, Server] = {}
        self.silent: set[str] = set()
        """Pods whose page answers 404, as when something else sits on the port."""
        self._routable: list[Server] = []
        self._watched: set[str] = set()
        self._load: Load = lambda _: 0.0
        self._began = self._sent_until = time.time()
        self._owed = 0.0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._problem: BaseException | None = None
        self._http = ThreadingHTTPServer((HOST, 0), self._handler())
        self._threads = [
            threading.Thread(target=self._http.serve_forever, args=(0.05,), name="pages"),
            threading.Thread(target=self._run, args=(self._look, SECONDS_A_LOOK), name="eyes"),
            threading.Thread(target=self._run, args=(self._send, SECONDS_A_ROUND), name="router"),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._http.shutdown()
        for thread in self._threads:
            thread.join()
        self._http.server_close()
        self.api.session.close()
        if self._problem is not None and error is None:
            raise self._problem

    def bear(self, load: Load | float) -> None:
        """This load from now on: a rate, or one that changes over the seconds."""
        with self._lock:
            self._load = load if callable(load) else lambda _: load
            self._began = time.time()

    @property
    def waiting(self) -> int:
        with self._lock:
            return sum(len(server.waiting) for server in self.servers.values())

    def restart(self, pod: str) -> None:
        """Its counters begin again at zero."""
        with self._lock:
            self._routable.remove(self.servers[pod])
            self.servers[pod] = Server(time.time(), self.speed, self.truth)
            self._routable.append(self.servers[pod])

    def _run(self, step: Callable[[], None], every_seconds: float) -> None:
        try:
            while not self._stopping.wait(every_seconds):
                step()
        except BaseException as error:  # told at the end of `with`: a thread cannot fail a test
            self._problem = error

    def _look(self) -> None:
        try:
            pods = self.api.items(f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=f"app={self.app}")
        except (ApiError, requests.RequestException):
            return  # the API server is down: a router goes on with what it knows
        named = {pod["metadata"]["name"]: pod for pod in pods}
        with self._lock:
            for name, pod in named.items():
                if name not in self.servers and is_true(pod, "Ready"):
                    self.servers[name] = Server(time.time(), self.speed, self.truth)
            for gone in self.servers.keys() - named.keys():
                del self.servers[gone]
            self._routable = [
                server
                for name, server in self.servers.items()
                if is_true(named[name], "Ready") and not is_terminating(named[name])
            ]
        if self._watched != named.keys():
            self._watched = set(named)
            self.prometheus.watch([self._target(name) for name in sorted(named)], group=f"{self.namespace}-{self.app}")

    def _target(self, pod: str) -> Target:
        address = f"{HOST}:{self._http.server_address[1]}"
        labels = {"namespace": self.namespace, "pod": pod, "instance": f"{pod}:8000"}
        return Target(address, f"/pods/{pod}/metrics", labels)

    def _send(self) -> None:
        """What has arrived since the last time, evenly spaced; without a ready pod it is turned away."""
        with self._lock:
            now = time.time()
            since = now - self._sent_until
            self._owed += self._load(now - self._began) * since
            whole = int(self._owed)
            self._owed -= whole
            for number in range(whole if self._routable else 0):
                server = min(self._routable, key=lambda server: server.requests)
                server.take(self._sent_until + since * (number + 1) / (whole + 1))
            self._sent_until = now
            for server in self.servers.values():
                server.advance(now)

    def page(self, pod: str) -> bytes | None:
        """None while it does not serve."""
        with self._lock:
            server = self.servers.get(pod)
            if server is None:
                return None
            server.advance(time.time())
            return server.page.text()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        pods = self

        class Pages(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pod = self.path.split("/")[2]
                text = None if pod in pods.silent else pods.page(pod)
                if text is None:
                    self.send_error(404 if pod in pods.silent else 503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                """Silent: a scrape a second and pod is not worth a line."""

        return Pages
