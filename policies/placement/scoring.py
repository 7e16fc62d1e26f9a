"""How well a pod would lie on a node that may take it: 0 to 1, and the scheduler's 0 to 10 from that.

First how surely its GPUs are linked, then how little it breaks up the node's linked groups, then how snugly its model
fills the memory. Spreading over zones and balancing CPU is kube-scheduler's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Final

from policies.placement.demand import PodDemand
from policies.placement.fragmentation import growth
from policies.placement.settings import PlacementSettings
from policies.placement.supply import Evidence, Links, NodeFacts
from policies.placement.verdict import MemoryFit

HIGHEST: Final = 10
LIKELY_COSTS_GPUS: Final = 0.5
"""A promise that is only likely counts as so many more unplaceable GPUs."""
SNUGNESS_COUNTS: Final = 0.15
"""In GPUs: an empty memory is as bad as this much fragmentation, a full one not at all."""


def preference(
    demand: PodDemand,
    node: NodeFacts,
    settings: PlacementSettings,
    *,
    links: Evidence | None,
    need_bytes: int | None,
    has_bytes: int | None,
) -> float:
    """Above 0, at most 1."""
    cost = growth(node, demand.gpus, settings.mix)
    if links is Evidence.LIKELY:
        cost += LIKELY_COSTS_GPUS
    if need_bytes is not None and has_bytes:
        cost += SNUGNESS_COUNTS * max(0.0, 1 - need_bytes / has_bytes)
    # What differs by rounding only is the same.
    return 1 / (1 + exp(round(cost, 6)))


def tutorial_preference(node: NodeFacts, memory: MemoryFit) -> float:
    """The rule that tutorials give: 50 for NVLink, 10 a free GPU, 30 where memory is just enough; of 160."""
    linked = 50 if node.links in (Links.FULL_MESH, Links.GROUPS, Links.CUBE) and node.gpus > 1 else 0
    exact = 30 if memory is MemoryFit.TIGHT else 0
    return min(1.0, max(0.005, (linked + 10 * node.free_gpus + exact) / 160))


def score_of(preferred: float) -> int:
    """By itself: 1 to 10 for what is preferred at all, else 0."""
    return 0 if preferred <= 0 else max(1, min(HIGHEST, round(HIGHEST * preferred)))


def ranked_scores(preferences: Sequence[float]) -> list[int]:
    """Of the nodes of one question: 10 for the best, one less for each that is worse, at least 1; 0 for 0.

    Eleven steps are too few to tell nodes apart that are compared with all others thinkable; those of one question
    are few kinds, and the scheduler needs no more than their order at the top.
    """
    order = {value: rank for rank, value in enumerate(sorted({p for p in preferences if p > 0}, reverse=True))}
    return [max(1, HIGHEST - order[value]) if value > 0 else 0 for value in preferences]
