"""How many more pods of a target fit on nodes, by the verdict that the scheduler extender gives of each.

Where something adds nodes for pods that wait, nothing is limited here: waiting pods are how nodes come. What cannot be
seen limits nothing either: a wish that is cut for no reason is a late fleet, one that is not cut some pods that wait.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cluster.asks import Ask
from cluster.errors import ClusterError
from cluster.gpu_nodes import GpuNodes
from cluster.node_autoscalers import NodeAutoscalers
from cluster.objects import TargetState
from policies.placement.places import free, places
from policies.placement.policy import judge
from policies.placement.verdict import Reason
from policies.scaling.observation import Observation, PodStage, Room
from policies.scaling.room import on_nodes

log = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS: Final = 3.0
"""How long a turn waits at start for the list of all pods, which takes a while in a large cluster."""
_DIGITS: Final = re.compile(r"\d+")
"""What counts on is no news."""
REMEDY: Final = "grant it with manifests/autoscaler/nodes"


@dataclass(frozen=True, slots=True)
class Fitting:
    """What was found for one more pod and another, until there were enough."""

    further: int
    sentence: str = ""
    """In numbers, where it was not enough."""


class Nodes:
    """Of one cluster, for all its targets."""

    def __init__(
        self, gpu_nodes: GpuNodes, autoscalers: NodeAutoscalers, *, patience_seconds: float = LONGEST_WAIT_SECONDS
    ) -> None:
        self._gpu_nodes = gpu_nodes
        self._patience_seconds = patience_seconds
        self._autoscalers = autoscalers
        self._told = ""

    async def room(self, namespace: str, state: TargetState, seen: Observation, most: int) -> tuple[Room | None, str]:
        """The limit that nodes set to a target that may have `most` replicas, None for none; and why none is seen."""
        ask = state.ask
        if ask is None or ask.demand.gpus == 0:
            return None, ""
        try:
            if await self._autoscalers.name():
                return None, ""
            async with asyncio.timeout(self._patience_seconds):
                await self._gpu_nodes.whole()
        except ClusterError as error:
            return None, self._unseen(str(error))
        except TimeoutError:
            return None, self._unseen("nodes and the pods on them are still being listed")
        self._told = ""
        alive = [pod.name for pod in seen.pods if pod.stage is not PodStage.TERMINATING]
        placed = sum(self._gpu_nodes.hosts(f"{namespace}/{name}") for name in alive)
        found = fitting(ask, self._gpu_nodes, max(0, most - placed) * ask.pods)
        return on_nodes(seen, placed, found.further // ask.pods, found.sentence), ""

    def _unseen(self, problem: str) -> str:
        kind = _DIGITS.sub("", problem)
        if kind != self._told:
            log.warning(
                "whether more pods fit on nodes is not seen, and limits nothing: %s%s", problem, remedy_of(problem)
            )
        self._told = kind
        return problem


def remedy_of(problem: str) -> str:
    """What somebody can do about it, after a colon; "" where it mends itself."""
    return f": {REMEDY}" if "lacks the right" in problem else ""


def fitting(ask: Ask, nodes: GpuNodes, enough: int) -> Fitting:
    """How many more such pods fit, counted no further than to `enough`."""
    if enough <= 0:
        return Fitting(0)
    further = free_in_all = largest = elsewhere = 0
    refused: Counter[Reason] = Counter()
    for facts, names in nodes.alike(ask.outranks):
        available = free(ask.demand, facts)
        if available == 0:
            continue
        free_in_all, largest = free_in_all + available * len(names), max(largest, available)
        each = places(ask.demand, facts)
        if each == 0:
            reason = judge(ask.demand, facts).reason
            if reason not in (None, Reason.TOO_FEW, Reason.TOO_FEW_FREE):
                refused[reason] += len(names)
            continue
        for name in names:
            if ask.choice.admits(nodes.words(name)):
                further += each
                if further >= enough:
                    return Fitting(further)
            else:
                elsewhere += 1
    return Fitting(further, "; ".join(_sentence(ask, len(nodes), further, free_in_all, largest, elsewhere, refused)))


def _sentence(
    ask: Ask, nodes: int, further: int, free_in_all: int, largest: int, elsewhere: int, refused: Counter[Reason]
) -> Iterator[str]:
    each = f"{ask.demand.gpus} {ask.demand.resource}"
    yield f"nodes take {further} more now, each with {each}, of which {free_in_all} are free on {nodes} nodes"
    if 0 < largest < ask.demand.gpus:
        yield f"at most {largest} on one"
    if elsewhere:
        yield f"to {elsewhere} that would take some its nodeSelector, affinity or tolerations do not let it"
    for reason, count in refused.most_common(2):
        yield f"refused on {count}: {reason.value}"
