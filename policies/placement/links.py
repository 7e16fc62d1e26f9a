"""Which promise can be made that the GPUs a pod gets will be linked, from what is known of the node.

An extender picks a node; which of its GPUs the pod gets, the kubelet decides later. So only a full mesh, or a request
that leaves the kubelet no choice, is guaranteed. In linked groups (bridged pairs, quads) of which only the count of
free GPUs is known, a linked set surely exists when more GPUs are free than could lie apart (pigeonhole): it is likely
to be taken. Otherwise nobody can say.
"""

from __future__ import annotations

from math import ceil

from policies.placement.supply import Evidence, Links, NodeFacts


def link_domain(node: NodeFacts) -> int | None:
    """The most GPUs of the node that are linked with each other; None: unknown."""
    match node.links:
        case Links.FULL_MESH:
            return node.gpus
        case Links.GROUPS | Links.CUBE:
            return node.group_gpus
        case Links.NONE:
            return 1
        case Links.UNKNOWN:
            return None


def links_are_known(node: NodeFacts) -> bool:
    """Whether it is known which GPUs are linked with which; of a cube only the size of its linked sets is."""
    return node.links not in (Links.CUBE, Links.UNKNOWN)


def link_promise(node: NodeFacts, *, size: int, sets: int = 1) -> Evidence | None:
    """Of `sets` disjoint sets of `size` GPUs, each linked within; None: it cannot be, whatever is free."""
    if size <= 1:
        return Evidence.GUARANTEED
    domain = link_domain(node)
    if domain is not None and size > domain:
        return None
    if domain is None or not links_are_known(node):
        return Evidence.UNKNOWN
    if node.links is Links.FULL_MESH:
        return Evidence.GUARANTEED
    asked, free = size * sets, node.free_gpus
    present = max(node.gpus, node.labelled_gpus or 0)  # with those that are unhealthy, of whichever group
    if asked == node.gpus == present:
        return Evidence.GUARANTEED  # all of them, whatever the kubelet thinks
    told = node.free_in_groups
    # An agent that tells of more than are free counts some that are unhealthy, or does not know who holds them.
    if told is not None and sum(told) <= free:
        if sum(group // size for group in told) < sets:
            return Evidence.UNKNOWN
        only = asked == free == max(told)
        return Evidence.GUARANTEED if only else Evidence.LIKELY
    fewest = _fewest_sets(free, groups=ceil(present / domain), group=domain, size=size)
    return Evidence.LIKELY if fewest >= sets else Evidence.UNKNOWN


def _fewest_sets(free: int, *, groups: int, group: int, size: int) -> int:
    """Linked sets that so many free GPUs hold however they lie: as many as possible are alone in their groups.

    Each group first takes size - 1 of them without holding a set, then `size` for every set, and at last what is
    left of the group for one set more. For one set this is free ≥ groups · (size - 1) + 1.
    """
    over = free - groups * (size - 1)
    if over <= 0:
        return 0
    whole = (group - size + 1) // size
    if over <= groups * whole * size:
        return ceil(over / size)
    last = group - whole * size - size + 1
    return groups * whole + ceil((over - groups * whole * size) / last) if last else groups * whole
