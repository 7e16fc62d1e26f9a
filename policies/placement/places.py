"""How many pods of one kind a node takes, one after another, each by the extender's own judgement."""

from __future__ import annotations

from dataclasses import replace

from policies.placement.demand import GPU_RESOURCE, PodDemand
from policies.placement.policy import judge, ranks_linked
from policies.placement.settings import DEFAULT_SETTINGS, PlacementSettings
from policies.placement.supply import NodeFacts


def places(demand: PodDemand, node: NodeFacts, settings: PlacementSettings = DEFAULT_SETTINGS) -> int:
    """How many more such pods may land there; ValueError for a pod without GPUs, of which any number may."""
    if demand.gpus < 1:
        raise ValueError("a pod that asks for no GPU has no number of places")
    found = 0
    while judge(demand, node, settings).fits:
        found += 1
        node = _after_one_more(demand, node)
    return found


def free(demand: PodDemand, node: NodeFacts) -> int:
    """Free devices of the kind that the pod asks for."""
    if demand.resource == GPU_RESOURCE:
        return node.free_gpus
    return sum(each.free for each in node.slices if each.resource == demand.resource)


def _after_one_more(demand: PodDemand, node: NodeFacts) -> NodeFacts:
    if demand.resource != GPU_RESOURCE:
        slices = tuple(
            replace(each, free=each.free - demand.gpus) if each.resource == demand.resource else each
            for each in node.slices
        )
        return replace(node, slices=slices)
    groups = node.free_in_groups
    left = None if groups is None else _taken(demand.gpus, ranks_linked(demand), groups)
    return replace(node, free_gpus=node.free_gpus - demand.gpus, free_in_groups=left)


def _taken(gpus: int, linked: int, groups: tuple[int, ...]) -> tuple[int, ...]:
    """What is left of linked groups when each set is taken from the smallest group that holds it whole."""
    left = sorted(groups)
    for _ in range(gpus // linked):
        at = next((number for number, size in enumerate(left) if size >= linked), None)
        if at is None:
            break
        left[at] -= linked
        left.sort()
    rest = sum(left) - (sum(groups) - gpus)
    for number, size in enumerate(left):
        taken = min(size, rest)
        left[number], rest = size - taken, rest - taken
    return tuple(sorted(left, reverse=True))
