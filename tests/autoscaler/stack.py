"""The whole autoscaler between an API server and a Prometheus that a test can make fail; time is the test's own."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from autoscaler.cluster_fleet import ClusterFleet, shared_pasts, shared_readings
from autoscaler.events import Announcement
from autoscaler.nodes import Nodes
from autoscaler.service import Service, Target, target_of
from autoscaler.telemetry import Telemetry
from cluster.kubernetes import Cluster
from cluster.objects import TargetState
from cluster.prometheus import Prometheus
from policies.scaling.resource import VLLMAutoscaler
from tests.autoscaler.worlds import START, resource
from tests.stand_ins.kubernetes import QUICK, KubernetesStandIn
from tests.stand_ins.kubernetes_objects import Object, deployment, ready_pod
from tests.stand_ins.prometheus import StandInPod, StandInPrometheus
from tests.stand_ins.waiting import answer

# Patient where a busy machine is slow, quick where the API server is not there.
PACE = replace(QUICK, request_seconds=10.0, first_sight_seconds=10.0, blind_after_seconds=1.0, watch_seconds=60.0)
TICK_SECONDS = 60.0
"""A long tick makes short stories: a fleet may shrink once as much time is seen as a start takes, 62 s and a tick."""
TTFT_EDGES = ("1.0", "2.5", "5.0", "+Inf")
TPOT_EDGES = ("0.025", "0.05", "0.075", "+Inf")


class Engine:
    """One vLLM pod: requests of 200 tokens in and 100 out, 2 s each, as its `/metrics` shows them."""

    def __init__(self) -> None:
        self.served = 1_000.0
        self.rate = 0.0
        self.served_a_page = 0.0
        """Served between two looks at the page, where no test passes the time."""
        self.shown: dict[str, str] = {}
        """What some series show instead, by name."""

    def page(self) -> str:
        self.served += self.served_a_page
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        labels = 'engine="0",model_name="tiny"'
        for name, kind, value in (
            ("num_requests_running", "gauge", 2 * self.rate),
            ("num_requests_waiting", "gauge", 0.0),
            ("kv_cache_usage_perc", "gauge", min(1.0, 0.05 * self.rate)),
            ("prompt_tokens_total", "counter", 200 * self.served),
            ("generation_tokens_total", "counter", 100 * self.served),
            ("request_success_total", "counter", self.served),
        ):
            yield f"# TYPE vllm:{name.removesuffix('_total')} {kind}"
            more = ',finished_reason="stop"' if name == "request_success_total" else ""
            yield f"vllm:{name}{{{labels}{more}}} {self.shown.get(name, value)}"
        for name, edges, seconds in (
            ("time_to_first_token_seconds", TTFT_EDGES, 0.1),
            ("request_time_per_output_token_seconds", TPOT_EDGES, 0.02),
        ):
            yield f"# TYPE vllm:{name} histogram"
            for edge in edges:
                yield f'vllm:{name}_bucket{{{labels},le="{edge}"}} {self.served}'
            yield f"vllm:{name}_sum{{{labels}}} {seconds * self.served}"
            yield f"vllm:{name}_count{{{labels}}} {self.served}"


class Stack:
    """One target or more in namespace `inference`, all of one Prometheus; use it as a context."""

    def __init__(self, folder: Path, *, tls: ssl.SSLContext | None = None, **prometheus: Any) -> None:
        self.folder = folder
        self.now = START
        self.rate = 3.0
        self.api = KubernetesStandIn()
        self.prometheus = StandInPrometheus(clock=lambda: self.now, tls=tls)
        self.prometheus_settings = {"url": self.prometheus.url, "timeoutSeconds": 10, **prometheus}
        self.telemetry = Telemetry("0")
        self.engines: dict[str, Engine] = {}
        self.follows = True
        """Whether the pods of the target follow its replicas."""
        self.events: list[Announcement] = []

    async def __aenter__(self) -> Self:
        self._parts = AsyncExitStack()
        await self.api.start()
        self._parts.push_async_callback(self.api.stop)
        self._parts.enter_context(self.prometheus)
        self.cluster = await Cluster.connect(self.api.kubeconfig(self.folder / "kubeconfig"), pace=PACE)
        self._parts.push_async_callback(self.cluster.close, 0.2)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._parts.aclose()

    async def target(self, replicas: int = 3, **spec: Any) -> Target:
        """A Deployment that runs, and the resource that scales it."""
        self.resource = resource("llama", prometheus=self.prometheus_settings, **spec)
        self.deployed, self.replica_set = self.api.deploy("vllm-llama", 0)
        client = Prometheus(self.resource.spec.prometheus)
        self._parts.callback(client.close)
        self._readings = shared_readings(client, clock=self._clock)
        self._pasts = shared_pasts(client, clock=self._clock, seconds=3_600.0)
        made = self._target_of(self.resource)
        self.service = Service([made], self.telemetry, tick_seconds=TICK_SECONDS)
        self.set_replicas(replicas)
        await self.followed()
        return made

    def more_targets(self, target: Target, times: int) -> list[Target]:
        """The same Deployment again under other names: to the readings they are others."""
        stated = target.resource
        named = [stated.metadata.model_copy(update={"name": f"again-{number}"}) for number in range(times)]
        return [self._target_of(stated.model_copy(update={"metadata": metadata})) for metadata in named]

    def _clock(self) -> float:
        return self.now

    def _target_of(self, stated: VLLMAutoscaler) -> Target:
        nodes = Nodes(self.cluster.gpu_nodes, self.cluster.node_autoscalers)
        fleet = ClusterFleet(stated, self.cluster, self._readings, self._pasts, nodes=nodes, clock=self._clock)

        async def tell(said: Announcement) -> None:
            self.events.append(said)
            await fleet.tell(said)

        return target_of(stated, fleet, tick_seconds=TICK_SECONDS, tell=tell, refill=fleet.past)

    @property
    def replicas(self) -> int:
        return self.api.replicas(self.deployed)

    def set_replicas(self, replicas: int) -> None:
        """As `kubectl scale` does, and as the Deployment's controller follows."""
        thing: Object = deployment("vllm-llama", replicas)
        before = self.api.get(self.deployed)
        thing["metadata"]["generation"] = before["metadata"]["generation"]
        generation = thing["metadata"]["generation"] + (before["spec"]["replicas"] != replicas)
        thing["status"]["observedGeneration"] = generation
        self.api.put(thing)
        self.api.get(thing)["status"]["observedGeneration"] = self.api.get(thing)["metadata"]["generation"]
        self.follow()

    def follow(self) -> None:
        names = [f"vllm-llama-6b7c8d9f4-bcdf{letter}" for letter in "bcdfghjklm"[: self.replicas]]
        for name in set(self.engines) - set(names):
            self.api.remove(ready_pod(self.replica_set, name))
            del self.engines[name]
        for number, name in enumerate(names):
            if name not in self.engines:
                self.engines[name] = Engine()
                self.api.put(self.pod(name, f"10.0.0.{number}"))
        self.prometheus.pods = [
            StandInPod("inference", name, f"10.0.0.{number}", engine.page)
            for number, (name, engine) in enumerate(sorted(self.engines.items()))
        ]

    def pod(self, name: str, ip: str) -> Object:
        return ready_pod(self.replica_set, name, at=START - 3_600, ip=ip)

    async def followed(self) -> None:
        """Wait until the watches show what the API server holds."""

        def is_shown(state: TargetState) -> bool:
            return state.desired == self.replicas and len(state.pods) == len(self.engines) and not state.rolling

        ref = self.resource.spec.scale_target_ref
        await answer(lambda: self.cluster.target(ref, "inference"), is_shown)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for engine in self.engines.values():
            engine.rate = self.rate / len(self.engines)
            engine.served += engine.rate * seconds

    async def turns(self, target: Target, times: int, *, until: Callable[[], bool] = lambda: False) -> int:
        """Turns a tick apart; how many it took."""
        for number in range(times):
            self.pass_time(TICK_SECONDS)
            await self.service.turn(target)
            if self.follows and (self.replicas != len(self.engines)):
                self.set_replicas(self.replicas)
                await self.followed()
            if until():
                return number + 1
        return times
