"""A real HPA follows the published number step by step, and holds where there is none."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autoscaler.loop import Outcome, Turn
from autoscaler.publish.numbers import PublishedNumbers
from autoscaler.publish.registration import obstacle
from autoscaler.publish.servers import PublishOptions, serve_others
from autoscaler.service import Service
from autoscaler.telemetry import Telemetry
from autoscaler.wake import Waker
from cluster.kubernetes import Cluster
from policies.scaling.decision import Binding, Decision
from policies.scaling.history import History
from policies.scaling.observation import Observation
from tests.autoscaler.worlds import resource as stated
from tests.parts.control_plane import ControlPlane
from tests.parts.fixtures import new_namespace
from tests.parts.kubernetes_api import ApiError, Json, condition
from tests.parts.metrics_api import serving_metrics
from tests.parts.processes import free_ports, wait_until
from tests.parts.prometheus import Prometheus
from tests.real.autoscaler_process import Autoscaler
from tests.real.publishing import PATH, account, certificate, hpa, registered
from tests.real.simulated_pods import SimulatedPods
from tests.real.workloads import Workload, resource

pytestmark = pytest.mark.cluster

METRIC = "preheat_replicas_published"
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Registry:
    """Where a metrics API is asked, once it listens on this port with this certificate."""

    control_plane: ControlPlane
    kubeconfig: Path
    port: int
    cert: Path
    key: Path
    authority: bytes

    @property
    def options(self) -> PublishOptions:
        return PublishOptions(metrics_api_port=self.port, tls_cert=self.cert, tls_key=self.key)


@pytest.fixture(scope="module")
def registry(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    cert, key, authority = certificate(tmp_path_factory.mktemp("metrics-api"))
    with account(control_plane) as kubeconfig:
        yield Registry(control_plane, kubeconfig, free_ports(1)[0], cert, key, authority)


@contextmanager
def published(registry: Registry, *, is_trusted: bool = True) -> Iterator[PublishedNumbers]:
    """The servers alone, on a loop in a thread; a test says what is decided."""
    numbers, ready, stop = PublishedNumbers(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with AsyncExitStack() as parts:
            cluster = await Cluster.connect(str(registry.kubeconfig))
            parts.push_async_callback(cluster.close)
            waker = Waker(Service((), Telemetry("0"), tick_seconds=15.0))
            await serve_others(registry.options, "127.0.0.1", numbers, waker, cluster.api, parts)
            ready.set()
            await stop.wait()

    # Ends a connection too that the API server opened at the last moment.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        thread = threading.Thread(target=runner.run, args=(serve(),))
        thread.start()
        try:
            assert ready.wait(30)
            with registered(registry.control_plane, registry.port, registry.authority, is_trusted=is_trusted):
                yield numbers
        finally:
            runner.get_loop().call_soon_threadsafe(stop.set)
            thread.join()


class Followed:
    """A target with the shipped HPA on it, and what is decided for it."""

    def __init__(self, control_plane: ControlPlane, namespace: str, numbers: PublishedNumbers, start: int) -> None:
        self.workload = Workload(control_plane, namespace)
        self.workload.create(start, cold_start_seconds=0)
        self.api = control_plane.api
        document = stated(mode="Publish")
        metadata = document.metadata.model_copy(update={"namespace": namespace})
        self.pass_on = numbers.add(document.model_copy(update={"metadata": metadata}), PATIENCE_SECONDS)
        self.path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
        shipped = hpa(namespace, self.workload.name, "llama", maxReplicas=12)
        self.api.request("POST", self.path, shipped, fieldValidation="Strict")

    def decide(self, replicas: int, *, at: float | None = None) -> None:
        now = time.time() if at is None else at
        decision = Decision(now, replicas, replicas, self.workload.desired, Binding.FORECAST, "as the test says")
        turn = Turn(History(), Outcome.SHADOWED, Observation(now, self.workload.desired, ()), decision)
        asyncio.run(_handed(self.pass_on, turn))

    def reaches(self, replicas: int) -> None:
        wait_until(lambda: self.workload.desired == replicas, within=60, what=lambda: f"{replicas}: {self.status}")
        # Its answer depends on the replicas that are there, so the next step begins from them.
        wait_until(lambda: len(self.workload.pods()) == replicas, within=60, what=f"{replicas} pods")

    @property
    def status(self) -> Json:
        found: Json = self.api.get(f"{self.path}/{self.workload.name}")["status"]
        return found

    def condition(self, kind: str) -> Json:
        return condition(self.api.get(f"{self.path}/{self.workload.name}"), kind)


async def _handed(pass_on: object, turn: Turn) -> None:
    await pass_on(turn)  # type: ignore[operator]  # as `PublishedNumbers.add` returned it


def test_a_real_hpa_follows_every_step_up_and_down(registry: Registry) -> None:
    """From ten replicas up an HPA's usual tolerance would swallow a step of one."""
    control_plane = registry.control_plane
    with published(registry) as numbers, new_namespace(control_plane) as namespace:
        followed = Followed(control_plane, namespace, numbers, start=2)
        for replicas in (2, 5, 2, 10, 11, 10):
            followed.decide(replicas)
            followed.reaches(replicas)
        assert followed.condition("ScalingActive")["status"] == "True"


def test_a_stale_number_is_an_error_and_the_hpa_holds(registry: Registry) -> None:
    control_plane = registry.control_plane
    with published(registry) as numbers, new_namespace(control_plane) as namespace:
        followed = Followed(control_plane, namespace, numbers, start=2)
        followed.decide(4)
        followed.reaches(4)
        followed.decide(1, at=time.time() - PATIENCE_SECONDS - 60)
        told = wait_until(
            lambda: (
                followed.condition("ScalingActive")
                if followed.condition("ScalingActive").get("status") == "False"
                else None
            ),
            within=60,
            what=lambda: f"the HPA without a number: {followed.status}",
        )
        assert told["reason"] == "FailedGetExternalMetric"
        assert f"{namespace}/llama has had no number for" in told["message"]
        assert followed.workload.desired == 4


def test_who_may_ask_is_the_clusters_to_say(registry: Registry) -> None:
    control_plane = registry.control_plane
    with published(registry) as numbers, new_namespace(control_plane) as namespace:
        followed = Followed(control_plane, namespace, numbers, start=1)
        followed.decide(3)
        path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{METRIC}"
        found = control_plane.api.get(path, labelSelector="name=llama")["items"]
        assert [(each["value"], each["metricLabels"]) for each in found] == [("3", {"name": "llama"})]
        with control_plane.api_as("nobody") as nobody, pytest.raises(ApiError, match="403"):
            nobody.get(path)
        discovered = control_plane.api.get("/apis/external.metrics.k8s.io/v1beta1")["resources"]
        assert [each["name"] for each in discovered] == [METRIC]
        with pytest.raises(ApiError, match=r"404.*no external metric 'queue'"):
            control_plane.api.get(path.replace(METRIC, "queue"))


def test_it_is_known_whom_hpas_ask(registry: Registry, tmp_path: Path) -> None:
    control_plane = registry.control_plane

    async def said() -> str:
        cluster = await Cluster.connect(str(registry.kubeconfig))
        try:
            return await obstacle(cluster.api)
        finally:
            await cluster.close()

    def is_said(sentence: str) -> None:
        wait_until(lambda: sentence in asyncio.run(said()), within=60, what=sentence)

    is_said("is not registered: apply manifests/publish/hpa")
    with serving_metrics(control_plane, lambda question: ("1",)):
        is_said("is served by another")
    with published(registry):
        wait_until(lambda: asyncio.run(said()) == "", within=60, what="nothing in the way")
    cert, key, authority = certificate(tmp_path, ends=datetime(2001, 1, 1, tzinfo=UTC))
    expired = replace(registry, port=free_ports(1)[0], cert=cert, key=key, authority=authority)
    with published(expired, is_trusted=False):
        is_said("mend what its APIService names, such as an expired certificate")
        (available,) = control_plane.api.get(PATH)["status"]["conditions"]
        assert "x509: certificate has expired" in available["message"]


def test_the_program_publishes_and_somebody_elses_hpa_scales(
    registry: Registry, prometheus: Prometheus, tmp_path: Path
) -> None:
    """The fewest replicas are five, so that is the number whatever the load."""
    control_plane = registry.control_plane
    with new_namespace(control_plane) as namespace:
        workload = Workload(control_plane, namespace)
        workload.create(2, cold_start_seconds=0)
        document = resource(workload, prometheus, minReplicas=5, maxReplicas=8, mode="Publish")
        autoscaler = Autoscaler(tmp_path, [document], control_plane.kubeconfig("admin"))
        options = registry.options
        autoscaler.command += ["--metrics-api-port", str(options.metrics_api_port)]
        autoscaler.command += ["--tls-cert", registry.cert, "--tls-key", registry.key]
        with SimulatedPods(control_plane, prometheus, namespace), autoscaler:
            with registered(control_plane, registry.port, registry.authority):
                followed = hpa(namespace, workload.name, workload.name, minReplicas=2, maxReplicas=8)
                control_plane.api.create(
                    f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers", followed
                )
                wait_until(lambda: workload.desired == 5, within=90, what="five replicas")
            assert autoscaler.metric(METRIC, name=workload.name) == 5
            managers = {each["manager"] for each in control_plane.api.get(workload.path)["metadata"]["managedFields"]}
            assert "preheat" not in managers
            told = {event["reason"] for event in workload.events()}
            assert "Published" in told
            assert not told & {"Rescaled", "ScaledByOther"}
            prometheus.stop()
            wait_until(lambda: autoscaler.metric(METRIC, name=workload.name) is None, within=60, what="the gauge gone")
