"""To zero and back on the real control plane: idle, asked for by POST, idle, asked for at a gateway, idle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
import yaml

from tests.checkout import ROOT
from tests.parts.control_plane import ControlPlane
from tests.parts.fixtures import new_namespace, running_prometheus
from tests.parts.kubernetes_api import Json
from tests.parts.processes import wait_until
from tests.parts.prometheus import HOST, Prometheus, Target
from tests.real.access import ACCOUNT, RBAC, apply_shipped
from tests.real.autoscaler_process import Autoscaler, preheat
from tests.real.custom_resource import Resource, give_lease_back, install
from tests.real.simulated_pods import SimulatedPods
from tests.real.workloads import Workload, deployment, resource

pytestmark = pytest.mark.cluster

MANIFESTS = ROOT / "manifests" / "wake"
CLUSTER_RBAC = "/apis/rbac.authorization.k8s.io/v1"
QUEUED = 'sum(gateway_queued{model="tiny"}) or vector(0)'
IDLE_SECONDS = 3
WAKES: dict[str, Json] = {"asked": {}, "queued": {"query": QUEUED}, "unread": {"query": "sum(gateway_queued"}}
"""The targets by name, and what wakes each."""


class Gateway:
    """What stands before the pods and tells how many requests it holds, on a page that Prometheus scrapes."""

    def __init__(self, prometheus: Prometheus) -> None:
        self.queued = 0
        gateway = self

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = f'gateway_queued{{model="tiny"}} {gateway.queued}\n'.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                """Silent: a scrape a second is not worth a line."""

        self._http = ThreadingHTTPServer((HOST, 0), Page)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()
        prometheus.watch([Target(f"{HOST}:{self._http.server_address[1]}")], group="gateway")

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@dataclass
class Zero:
    """A namespace whose resources may rest, and the door at which they are woken."""

    control_plane: ControlPlane
    prometheus: Prometheus
    namespace: str
    autoscaler: Autoscaler
    gateway: Gateway

    def target(self, name: str) -> Workload:
        return Workload(self.control_plane, self.namespace, deployment(name))

    def resource(self, name: str) -> Resource:
        spec = {"minReplicas": 0, "idleSeconds": IDLE_SECONDS, "wake": WAKES[name]}
        return Resource(self.control_plane.api, resource(self.target(name), self.prometheus, **spec))

    def post(self, name: str, token: str = "") -> tuple[int, str]:
        port = self.autoscaler.lines(wake_port=...)[-1]["wake_port"]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = requests.post(f"http://{HOST}:{port}/wake/{self.namespace}/{name}", headers=headers, timeout=10)
        return answer.status_code, answer.text.strip()

    def waker(self, account: str, *names: str) -> str:
        """The token of an account with the shipped right to wake these."""
        api, namespace = self.control_plane.api, self.namespace
        (role,) = yaml.safe_load_all((MANIFESTS / "waker.yaml").read_text())
        role["metadata"] = {"name": account}
        role["rules"][0]["resourceNames"] = list(names)
        api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": account}})
        api.create(f"{RBAC}/{namespace}/roles", role)
        subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
        binding = {"metadata": {"name": account}, "roleRef": reference, "subjects": [subject]}
        api.create(f"{RBAC}/{namespace}/rolebindings", binding)
        return self.control_plane.token_of_service_account(namespace, account)


def reaches(target: Workload, replicas: int) -> None:
    wait_until(lambda: target.desired == replicas, within=120, what=f"{target.name} at {replicas}")


def decisions(made: Resource) -> list[tuple[int, int, str]]:
    """Before, after and reason, newest first."""
    return [(each["before"], each["after"], each["reason"]) for each in made.status["lastDecisions"]]


@contextmanager
def access(control_plane: ControlPlane, namespace: str) -> Iterator[str]:
    """The shipped right to ask who somebody is and what he may do, for the account of this namespace; its path."""
    (binding,) = yaml.safe_load_all((MANIFESTS / "access.yaml").read_text())
    binding["metadata"]["name"] += f"-{namespace}"
    binding["subjects"][0]["namespace"] = namespace
    control_plane.api.create(f"{CLUSTER_RBAC}/clusterrolebindings", binding)
    path = f"{CLUSTER_RBAC}/clusterrolebindings/{binding['metadata']['name']}"
    try:
        yield path
    finally:
        control_plane.api.delete(path)


@pytest.fixture(scope="module")
def zero(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zero]:
    folder = tmp_path_factory.mktemp("zero")
    (folder / "overlay").mkdir()
    install(control_plane)
    with ExitStack() as stack:
        namespace = stack.enter_context(new_namespace(control_plane))
        prometheus = stack.enter_context(running_prometheus(folder / "prometheus"))
        kubeconfig = apply_shipped(control_plane, folder / "overlay", namespace)
        stack.enter_context(access(control_plane, namespace))
        give_lease_back(control_plane.api, namespace)
        gateway = Gateway(prometheus)
        stack.callback(gateway.close)
        options = ("--namespace", namespace, "--wake-port", "0")
        autoscaler = stack.enter_context(Autoscaler(folder, None, kubeconfig, options=options))
        made = Zero(control_plane, prometheus, namespace, autoscaler, gateway)
        for name in WAKES:  # all at once: while one is looked at the others come to rest
            made.target(name).create(1, cold_start_seconds=0)
            stack.enter_context(SimulatedPods(control_plane, prometheus, namespace, app=name))
            made.resource(name).create()
        yield made


def test_it_rests_when_idle_and_wakes_for_who_may_ask(zero: Zero) -> None:
    token = zero.waker("ci", "asked")
    target, made = zero.target("asked"), zero.resource("asked")
    reaches(target, 0)
    said = made.wait_condition("MetricsAvailable", "Unknown", "AtRest")
    assert "nothing but POST /wake can wake it" in said["message"]
    at_rest = ("0/0/0", "idle")
    wait_until(
        lambda: (made.status["replicasSummary"], made.status["reason"]) == at_rest,
        within=60,
        what=lambda: str(made.status),
    )
    kubeconfig = zero.control_plane.kubeconfig("admin")
    examined = preheat("doctor", "--kubeconfig", kubeconfig, "--namespace", zero.namespace)
    assert f"warn  {zero.namespace}/asked: at zero nothing but POST /wake can wake it" in examined.stdout
    assert target.desired == 0

    status, told = zero.post("asked", token)
    assert status == 202
    assert "was asked for, and is kept awake until nothing was asked of it for 3 s" in told
    reaches(target, 1)
    reaches(target, 0)
    story = [(1, 0, "idle"), (0, 1, "awake"), (1, 0, "idle")]
    wait_until(lambda: decisions(made)[:3] == story, within=60, what=lambda: str(made.status))


def test_who_may_not_wakes_nobody(zero: Zero) -> None:
    other = zero.waker("other", "another")
    assert zero.post("asked")[0] == 401
    assert zero.post("asked", "made.up.token")[0] == 401
    status, told = zero.post("asked", other)
    assert (status, told) == (
        403,
        f'user "system:serviceaccount:{zero.namespace}:other" cannot create vllmautoscalers/wake: give it a Role that '
        "says so",
    )
    assert zero.post("another", other)[0] == 404
    wait_until(lambda: 429 in at_once(zero, 40), within=60, what="an end of what is heard")


def at_once(zero: Zero, number: int) -> set[int]:
    """How so many strangers are answered."""
    with ThreadPoolExecutor(number) as strangers:
        return {status for status, _ in strangers.map(zero.post, ["asked"] * number)}


def test_a_gateway_that_holds_requests_wakes_it_and_keeps_it_awake(zero: Zero) -> None:
    target, made = zero.target("queued"), zero.resource("queued")
    reaches(target, 0)
    said = made.wait_condition("MetricsAvailable", "Unknown", "AtRest")
    assert said["message"].endswith("what wakes it: wake.query, POST /wake")
    zero.gateway.queued = 2
    reaches(target, 1)
    made.wait_condition("MetricsAvailable", "True", "Fresh")
    zero.autoscaler.wait_turns(f"{zero.namespace}/queued", IDLE_SECONDS + 4)
    assert target.desired == 1, "somebody still waits"
    zero.gateway.queued = 0
    reaches(target, 0)


def test_a_wake_query_that_cannot_be_read_keeps_it_as_it_is(zero: Zero) -> None:
    target, made = zero.target("unread"), zero.resource("unread")
    said = made.wait_condition("Ready", "False", "InvalidSpec")
    assert "spec.wake.query (sum(gateway_queued) could not be read" in said["message"]
    made.change(wake={"query": "gateway_gone"})
    unread = "wake.query (gateway_gone) could not be read: it has no value now"
    wait_until(
        lambda: made.condition("MetricsAvailable").get("message") == unread, within=60, what=lambda: str(made.status)
    )
    zero.autoscaler.wait_turns(f"{zero.namespace}/unread", IDLE_SECONDS + 4)
    assert target.desired == 1
    made.change(wake={"query": "gateway_gone or vector(0)"})
    reaches(target, 0)


def test_without_the_right_to_ask_about_others_nobody_is_woken(control_plane: ControlPlane, tmp_path: Path) -> None:
    install(control_plane)
    (tmp_path / "overlay").mkdir()
    with ExitStack() as stack:
        namespace = stack.enter_context(new_namespace(control_plane))
        prometheus = stack.enter_context(running_prometheus(tmp_path / "prometheus"))
        kubeconfig = apply_shipped(control_plane, tmp_path / "overlay", namespace)
        give_lease_back(control_plane.api, namespace)
        options = ("--namespace", namespace, "--wake-port", "0")
        autoscaler = stack.enter_context(Autoscaler(tmp_path, None, kubeconfig, options=options))
        here = Zero(control_plane, prometheus, namespace, autoscaler, Gateway(prometheus))
        stack.callback(here.gateway.close)
        token = here.waker("ci", "asked")

        def answers(status: int, sentence: str) -> None:
            def told() -> bool:
                answered = here.post("asked", token)
                return answered[0] == status and sentence in answered[1]

            wait_until(told, within=60, what=lambda: f"{status} {sentence}: {here.post('asked', token)}", every=1.0)

        answers(503, 'lacks the right "create tokenreviews"')
        subject: Json = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}
        rule = {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
        name = f"half-{namespace}"
        control_plane.api.create(f"{CLUSTER_RBAC}/clusterroles", {"metadata": {"name": name}, "rules": [rule]})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        half = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
        control_plane.api.create(f"{CLUSTER_RBAC}/clusterrolebindings", half)
        answers(503, 'lacks the right "create subjectaccessreviews"')
        stack.enter_context(access(control_plane, namespace))
        answers(404, "is followed here")
