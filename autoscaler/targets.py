"""From a resource to a target at work, and back: the fleet, the server that measures it, and who is told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import time

from autoscaler.cluster_fleet import ClusterFleet, Conflict
from autoscaler.conflict_news import ConflictNews
from autoscaler.endings import Endings
from autoscaler.events import Announcement
from autoscaler.floor import FloorKeeper
from autoscaler.gpu_budgets import GpuBudgets
from autoscaler.loop import Turn
from autoscaler.nodes import Nodes
from autoscaler.publish.numbers import PublishedNumbers
from autoscaler.schedule import share_of_tick
from autoscaler.servers import Servers, identity
from autoscaler.service import PassOn, Service, Target, Tell, patience_seconds, target_of
from autoscaler.wake_signals import warnings
from cluster.kubernetes import Cluster
from policies.scaling.history import History
from policies.scaling.resource import Mode, VLLMAutoscaler
from policies.scaling.settings import ScalingPolicy
from policies.scaling.status import history_of, learnt_of

log = logging.getLogger(__name__)

Hears = Callable[[Turn, Conflict | None], None]
"""Hears of every turn, and of who else scales the target."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Begins and ends targets of one service in one cluster."""

    cluster: Cluster
    servers: Servers
    service: Service
    numbers: PublishedNumbers
    floors: FloorKeeper
    endings: Endings
    nodes: Nodes
    budgets: GpuBudgets
    tick_seconds: float

    def begin(
        self,
        resource: VLLMAutoscaler,
        *,
        report: Hears | None = None,
        tell_also: Tell | None = None,
        history: History | None = None,
    ) -> Target:
        """Its turns begin; those of one Prometheus share its readings, and so the place of their turns in the tick."""
        if history and self.broke_off(resource, history):
            history = history_of(learnt_of(history, None, None))
        settings = resource.spec.prometheus
        server = self.servers.take(settings)
        fleet = ClusterFleet(
            resource, self.cluster, server.readings, server.pasts, nodes=self.nodes, budgets=self.budgets
        )
        self.budgets.join(resource)

        async def tell(said: Announcement) -> None:
            await fleet.tell(said)
            if tell_also:
                await tell_also(said)

        news = ConflictNews(resource.spec.on_conflict)

        async def hear(turn: Turn) -> None:
            self.budgets.heard(resource.key, turn.decision)
            said = news.of(fleet.conflict)
            if said:
                log.log(said.level, said.message, extra={"target": resource.key, "reason": said.reason})
                await tell(said)
            if report:
                report(turn, fleet.conflict or fleet.by_hand)

        target = target_of(
            resource,
            fleet,
            tick_seconds=self.tick_seconds,
            phase=share_of_tick(identity(settings).model_dump_json()),
            tell=tell,
            pass_on=self._pass_on(resource),
            # Who has looked before has the past already; to add it again would count it twice.
            refill=None if history and history.last else fleet.past,
            report=hear,
            history=history.taken_up() if history else None,
        )
        self.service.add(target)
        for warning in warnings(resource.spec):
            log.warning("%s", warning, extra={"target": resource.key})
        self.endings.begin(resource, server.prometheus, tell)
        self.floors.begin_to_give_back(resource)
        return target

    async def end(self, target: Target) -> None:
        """Its turns end, a write in flight first; the fleet stays as it is. Broken off, it ends at once."""
        try:
            await self.service.remove(target)
        finally:
            if isinstance(target.fleet, ClusterFleet):
                target.fleet.close()
            self.servers.leave(target.resource.spec.prometheus)
            self.budgets.leave(target.resource.key)
            self.numbers.remove(target.resource.metadata.namespace, target.resource.metadata.name)
            self.floors.remove(target.resource.key)
            self.endings.end(target.resource.key)

    def broke_off(self, resource: VLLMAutoscaler, history: History) -> bool:
        """Whether its last look is too old to go on from: the past is then read back, as by a new leader."""
        gap_seconds = ScalingPolicy.of(resource.spec, tick_seconds=self.tick_seconds).max_gap_seconds
        return history.last is not None and time() - history.last.time > gap_seconds

    def _pass_on(self, resource: VLLMAutoscaler) -> PassOn | None:
        """What hands its decisions to others, in the modes in which they scale."""
        match resource.spec.mode:
            case Mode.PUBLISH:
                return self.numbers.add(resource, patience_seconds(resource, self.tick_seconds))
            case Mode.FLOOR:
                return self.floors.add(resource)
            case Mode.ACTIVE | Mode.SHADOW:
                return None
