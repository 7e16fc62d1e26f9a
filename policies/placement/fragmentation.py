"""How many free GPUs of a node no pod of the expected mix could use: the measure that packing keeps small.

After Weng et al., "Beware of Fragmentation" (USENIX ATC 2023), with one change: what counts as usable is a set of
GPUs that are linked, not any set. A pod of size t leaves unplaceable what is over when linked sets of t are taken.
"""

from __future__ import annotations

from policies.placement.supply import Links, NodeFacts

Mix = tuple[tuple[int, float], ...]


def fragmentation(node: NodeFacts, free: int, mix: Mix) -> float:
    """Expected unplaceable GPUs with so many free, over tensor-parallel sizes and their shares."""
    return sum(share * (free - size * placeable(node, free, size)) for size, share in mix)


def growth(node: NodeFacts, asked: int, mix: Mix) -> float:
    """How much more there is after a pod took `asked` GPUs; below 0 where it took what nobody else could use."""
    free = node.free_gpus
    return fragmentation(node, free - asked, mix) - fragmentation(node, free, mix)


def placeable(node: NodeFacts, free: int, size: int) -> int:
    """How many linked sets of `size` GPUs so many free ones hold at best."""
    if size == 1:
        return free
    match node.links:
        case Links.FULL_MESH:
            return free // size
        case Links.GROUPS:
            group = node.group_gpus or 1
            if size > group:
                return 0
            # The kubelet fills groups one after the other where its device plugin tells it of links.
            whole, rest = divmod(free, group)
            return whole * (group // size) + rest // size
        case Links.NONE | Links.CUBE | Links.UNKNOWN:
            return 0
