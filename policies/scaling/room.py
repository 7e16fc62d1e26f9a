"""How many replicas it makes sense to ask for, where it is not what is wanted that sets the limit."""

from __future__ import annotations

from policies.scaling.observation import Limit, Observation, PodStage, Room


def beside_waiting(seen: Observation, most_waiting: int | None) -> Room | None:
    """While pods wait for a node: those that have one, and so many that wait; what waits beyond is taken back."""
    waiting = seen.count(PodStage.UNSCHEDULABLE)
    if most_waiting is None or waiting == 0:
        return None
    placed = len(seen.pods) - waiting - seen.count(PodStage.TERMINATING)
    reason = f"{waiting} of its pods fit on no node, and maxUnschedulable is {most_waiting}"
    return Room(placed + most_waiting, reason, Limit.WAITING, takes_back=True)


def on_nodes(seen: Observation, placed: int, further: int, why: str) -> Room:
    """Those that are `placed` on nodes, and so many `further` as fit there.

    While some of them wait that a scheduler found no node for, whatever fits is theirs: one more would wait too.
    """
    waiting = seen.count(PodStage.UNSCHEDULABLE)
    unplaced = max(0, len(seen.pods) - seen.count(PodStage.TERMINATING) - placed)
    if waiting and further > unplaced:
        return Room(
            placed + unplaced, f"{waiting} of its pods wait, as the scheduler finds no node for them", Limit.NODES
        )
    return Room(placed + further, why, Limit.NODES)


def narrowest(*rooms: Room | None) -> Room | None:
    """The one that leaves least; None where none is known."""
    return min((room for room in rooms if room), key=lambda room: (room.replicas, room.reason), default=None)
