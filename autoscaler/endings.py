"""Tells who does not let his pods end what they do, before a shrink shows it: at start, and when it changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from autoscaler.events import Announcement
from autoscaler.service import Tell
from cluster.errors import ClusterError
from cluster.kubernetes import Cluster
from cluster.prometheus import Prometheus
from policies.scaling.endings import warnings
from policies.scaling.resource import Mode, VLLMAutoscaler

log = logging.getLogger(__name__)

FIRST_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 3_600.0
REASON: Final = "ShrinkCutsRequests"


async def look(resource: VLLMAutoscaler, cluster: Cluster, prometheus: Prometheus) -> tuple[str, ...]:
    """What a shrink of this target would cut off, a sentence each; ClusterError where the target cannot be seen."""
    namespace = resource.metadata.namespace
    state = await cluster.target(resource.spec.scale_target_ref, namespace)
    own = [pod.name for pod in state.pods]
    ending = cluster.ending(namespace, own)
    if ending is None:
        return ()  # no pod, no end
    seconds = await prometheus.request_seconds(namespace, own, resource.spec.prometheus.labels)
    return tuple(warnings(ending, seconds))


class Endings:
    """Of the targets of one process, by their keys."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._looking: dict[str, asyncio.Task[None]] = {}

    def begin(self, resource: VLLMAutoscaler, prometheus: Prometheus, tell: Tell) -> None:
        """Look now and then, until `end`."""
        self._looking[resource.key] = asyncio.create_task(self._look_on(resource, prometheus, tell))

    def end(self, key: str) -> None:
        looking = self._looking.pop(key, None)
        if looking:
            looking.cancel()

    async def _look_on(self, resource: VLLMAutoscaler, prometheus: Prometheus, tell: Tell) -> None:
        told: Sequence[str] = ()
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            try:
                found = await look(resource, self._cluster, prometheus)
            except ClusterError as error:
                log.debug("how its pods end cannot be seen: %s", error, extra={"target": resource.key})
                found = ()
            if found and found != told:
                told = found
                said = Announcement("; ".join(found), logging.WARNING, REASON)
                log.warning("%s", said.message, extra={"target": resource.key, "reason": REASON})
                if resource.spec.mode is not Mode.SHADOW:  # which writes nothing, not even this
                    await tell(said)
            await asyncio.sleep(AGAIN_SECONDS)
