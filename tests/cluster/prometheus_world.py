"""A server with pods, a clock that a test sets, and Preheat's view of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from cluster.prometheus import Prometheus
from cluster.prometheus_queries import PodAddress, TargetPods
from cluster.prometheus_readings import Reading
from policies.scaling.resource import Objectives
from policies.scaling.resource import Prometheus as Settings
from tests.stand_ins.prometheus import StandInPod, StandInPrometheus

OBJECTIVES = Objectives(ttft_seconds=2.0, tpot_seconds=0.06, attainment=0.99)
NOW = 1_800_000_000.0


class Clock:
    """The server's; ours is what a test hands to `samples`."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class World:
    """The server, and what was read of it last."""

    def __init__(self, server: StandInPrometheus, clock: Clock) -> None:
        self.server, self.clock = server, clock
        self.prometheus = Prometheus(Settings(url=server.url))
        self.last: Mapping[str, Reading] = {}

    def run(self, name: str, text: str | None, **labels: str) -> None:
        """A pod that shows a page, with its own labels if any are given."""
        ip = f"10.0.0.{len(self.server.pods) + 1}"
        self.server.pods.append(StandInPod("inference", name, ip, text, labels or None))

    def asked(self, **settings: object) -> TargetPods:
        pods = [PodAddress(pod.namespace, pod.name, pod.ip) for pod in self.server.pods]
        return replace(TargetPods(pods, OBJECTIVES), **settings)  # type: ignore[arg-type]

    async def look(self, target: TargetPods | None = None, **targets: TargetPods) -> Reading:
        """One sweep; the reading of the only target, or of the first."""
        everything = targets or {"t": target or self.asked()}
        self.last = await self.prometheus.samples(everything, self.clock.now, previous=self.last)
        return next(iter(self.last.values()))


@pytest.fixture
def world() -> Iterator[World]:
    clock = Clock()
    with StandInPrometheus(clock=clock) as server:
        world = World(server, clock)
        yield world
        world.prometheus.close()
