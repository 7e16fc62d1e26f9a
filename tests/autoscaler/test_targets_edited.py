"""A resource whose spec is edited becomes another target, with what was learnt of it before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from autoscaler.endings import Endings
from autoscaler.floor import FloorKeeper
from autoscaler.gpu_budgets import GpuBudgets
from autoscaler.nodes import Nodes
from autoscaler.publish.numbers import PublishedNumbers
from autoscaler.servers import Servers
from autoscaler.service import Service, Target
from autoscaler.targets import Targets
from autoscaler.telemetry import Telemetry
from cluster.floors import Floors
from cluster.kubernetes import Cluster
from policies.scaling.history import History
from policies.scaling.series import ARRIVALS
from tests.autoscaler.stack import Engine
from tests.autoscaler.worlds import resource
from tests.stand_ins.kubernetes import QUICK, KubernetesStandIn
from tests.stand_ins.prometheus import StandInPod, StandInPrometheus


@dataclass
class Edited:
    """A target of one pod behind two routers, and its resource."""

    targets: Targets
    prometheus: StandInPrometheus
    counted: list[float]

    def begin(self, history: History | None = None, **spec: object) -> Target:
        settings = {"url": self.prometheus.url, "timeoutSeconds": 10, "arrivals": "routed_total"}
        return self.targets.begin(resource("llama", mode="Shadow", prometheus=settings, **spec), history=history)

    def router(self, number: int) -> StandInPod:
        return StandInPod(
            "edge", f"router-{number}", f"10.1.0.{number}", lambda: f"routed_total {self.counted[number]}\n"
        )


@pytest.fixture
async def edited(tmp_path: Path) -> AsyncIterator[Edited]:
    api = KubernetesStandIn()
    await api.start()
    api.deploy("vllm-llama", 1)
    with StandInPrometheus() as prometheus:
        prometheus.pods.append(StandInPod("inference", "vllm-llama-6b7c8d9f4-b0000", "10.0.0.1", Engine().page))
        cluster = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=QUICK)
        servers = Servers()
        targets = Targets(
            cluster,
            servers,
            Service((), Telemetry("0"), tick_seconds=3_600.0),
            PublishedNumbers(),
            FloorKeeper(Floors(cluster.api)),
            Endings(cluster),
            Nodes(cluster.gpu_nodes, cluster.node_autoscalers),
            GpuBudgets(),
            3_600.0,
        )
        yield Edited(targets, prometheus, [1_000.0, 30_000.0])
        servers.close()
        await cluster.close()
    await api.stop()


async def test_an_edit_makes_no_arrivals_of_what_routers_counted_in_all(edited: Edited) -> None:
    """The one that came up later was no flood then, and is none when all routers are counted from the beginning."""
    edited.prometheus.pods.append(edited.router(0))
    first = edited.begin(maxReplicas=20)
    await edited.targets.service.turn(first)
    edited.prometheus.pods.append(edited.router(1))
    edited.prometheus.scrape()
    await edited.targets.service.turn(first)
    seen = first.history.last
    assert seen is not None
    assert seen.arrivals_total == 1_000.0
    await edited.targets.end(first)

    second = edited.begin(first.history, maxReplicas=19)
    before = second.history.last
    assert before == replace(seen, arrivals_total=None)
    await edited.targets.service.turn(second)
    assert second.history.last is not None
    assert second.history.last.arrivals_total == 31_000.0
    assert second.history.fine is not None
    assert second.history.fine.sums[:, ARRIVALS].sum() < 1_000
    await edited.targets.end(second)
