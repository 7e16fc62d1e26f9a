"""An adapter of the external and custom metrics APIs, on 127.0.0.1, as a control plane sees one.

What it answers is asked of a function at each request, which may take its time: the HPA controller waits for it.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme

from tests.parts.control_plane import HOST, ControlPlane
from tests.parts.kubernetes_api import Json, is_true
from tests.parts.processes import wait_until

EXTERNAL = ("external.metrics.k8s.io", "v1beta1")
CUSTOM = ("custom.metrics.k8s.io", "v1beta2")
SERVICE, NAMESPACE = "metrics-api", "kube-system"
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"


@dataclass(frozen=True)
class Question:
    """A metric of all pods that are selected, or an external one."""

    namespace: str
    metric: str
    of_pods: bool


Answer = Mapping[str, str] | Sequence[str] | None
"""Quantities by pod; of an external metric one for each of its series; None: 404, there is no such metric."""


@contextmanager
def serving_metrics(control_plane: ControlPlane, answer: Callable[[Question], Answer]) -> Iterator[None]:
    """Registered with the control plane, and away at the end. `answer` is called in a thread for each connection."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(f"{SERVICE}.{NAMESPACE}.svc").configure_cert(context)
    server = _Server((HOST, 0), _handler(answer))
    # A handshake belongs to its connection's thread: in the listening one a slow client would stop all others.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,))
    thread.start()
    try:
        with _registered(control_plane, server.server_port, authority):
            yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # the API server keeps its connections open

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that breaks is the API server's end."""


@contextmanager
def _registered(control_plane: ControlPlane, port: int, authority: trustme.CA) -> Iterator[None]:
    api = control_plane.api
    spec = {"type": "ExternalName", "externalName": "localhost"}
    services = f"/api/v1/namespaces/{NAMESPACE}/services"
    api.create(services, {"metadata": {"name": SERVICE}, "spec": spec})
    bundle = authority.cert_pem.bytes()
    paths = [f"{SERVICES}/{version}.{group}" for group, version in (EXTERNAL, CUSTOM)]
    try:
        for group, version in (EXTERNAL, CUSTOM):
            api.create(SERVICES, _api_service(group, version, port, bundle))
        served = "the metrics APIs available"
        wait_until(lambda: all(is_true(api.get(path), "Available") for path in paths), within=60, what=served)
        yield
    finally:
        for path in paths:
            api.delete(path)
        api.delete(f"{services}/{SERVICE}")


def _api_service(group: str, version: str, port: int, bundle: bytes) -> Json:
    spec = {
        "group": group,
        "version": version,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "service": {"namespace": NAMESPACE, "name": SERVICE, "port": port},
        "caBundle": base64.b64encode(bundle).decode(),
    }
    return {"metadata": {"name": f"{version}.{group}"}, "spec": spec}


def _handler(answer: Callable[[Question], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: apart, the second waits 40 ms for an acknowledgement

        def do_GET(self) -> None:
            parts = [urllib.parse.unquote(part) for part in self.path.partition("?")[0].strip("/").split("/")]
            if parts[:1] == ["apis"] and len(parts) == 3:
                self._send(200, _discovery("/".join(parts[1:])))
            elif (question := _question(parts)) is None or (found := answer(question)) is None:
                self._send(404, _no_such_metric(self.path))
            else:
                self._send(200, _list(question, found))

        def _send(self, status: int, body: Json) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: who asked for what is known to `answer`."""

    return Handler


def _question(parts: Sequence[str]) -> Question | None:
    match parts:
        case ["apis", group, version, "namespaces", namespace, metric] if (group, version) == EXTERNAL:
            return Question(namespace, metric, of_pods=False)
        case ["apis", group, version, "namespaces", namespace, "pods", "*", metric] if (group, version) == CUSTOM:
            return Question(namespace, metric, of_pods=True)
        case _:
            return None


def _discovery(group_version: str) -> Json:
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": []}


def _no_such_metric(path: str) -> Json:
    message = f"{path}: there is no such metric"
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "NotFound",
        "code": 404,
        "message": message,
    }


def _list(question: Question, found: Mapping[str, str] | Sequence[str]) -> Json:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(found, Mapping):
        pod = {"kind": "Pod", "apiVersion": "v1", "namespace": question.namespace}
        items: list[Json] = [
            {
                "describedObject": {**pod, "name": name},
                "metric": {"name": question.metric},
                "timestamp": now,
                "value": value,
            }
            for name, value in found.items()
        ]
        kind, (group, version) = "MetricValueList", CUSTOM
    else:
        items = [
            {"metricName": question.metric, "metricLabels": {"series": str(place)}, "timestamp": now, "value": value}
            for place, value in enumerate(found)
        ]
        kind, (group, version) = "ExternalMetricValueList", EXTERNAL
    return {"kind": kind, "apiVersion": f"{group}/{version}", "metadata": {}, "items": items}
