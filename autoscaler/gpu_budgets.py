"""The budgets of GPUs that resources share: who has how many, and how many more each may ask for now.

Whoever asks for more is written down before anybody else can look: a target's room is told at the end of its look, and
from there to its write nothing else runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import time
from typing import Final

from policies.scaling.budget import Claim, claim, most_of
from policies.scaling.calendar_floor import CalendarFloor, floor_at, floors_of
from policies.scaling.decision import Decision
from policies.scaling.observation import Limit, Room
from policies.scaling.resource import Budget, Mode, VLLMAutoscaler

MEMBERS_NAMED: Final = 3


@dataclass(slots=True)
class Member:
    """One resource that names a budget."""

    resource: VLLMAutoscaler
    budget: Budget
    floors: tuple[CalendarFloor, ...]
    looked: bool = False
    """A turn was taken of it, whether or not it saw anything."""
    desired: int = 0
    """Replicas that are asked for, or still there."""
    gpus: int | None = None
    """That one replica takes; None while nobody says."""
    decision: Decision | None = None

    @property
    def scales(self) -> bool:
        spec = self.resource.spec
        return spec.mode is Mode.ACTIVE and not spec.paused

    @property
    def taken(self) -> int:
        return self.desired * (self.gpus or 0)


class GpuBudgets:
    """Of all resources that the program scales."""

    def __init__(self, *, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self._members: dict[str, Member] = {}

    def join(self, resource: VLLMAutoscaler) -> None:
        """From now on its GPUs count; one that names no budget is left alone throughout."""
        if resource.spec.budget is not None:
            self._members[resource.key] = Member(resource, resource.spec.budget, floors_of(resource.spec.schedule))

    def leave(self, key: str) -> None:
        self._members.pop(key, None)

    def saw(self, key: str, desired: int, pods: int, gpus: int | None) -> None:
        """What a look has shown; pods that still drain take their GPUs until they are gone."""
        if member := self._members.get(key):
            member.looked, member.desired = True, max(desired, pods)
            member.gpus = member.gpus if gpus is None else gpus

    def asks(self, key: str, replicas: int) -> None:
        """That so many are about to be asked for; what comes of it the next look tells."""
        if member := self._members.get(key):
            member.desired = max(member.desired, replicas)

    def heard(self, key: str, decision: Decision | None) -> None:
        """How a turn ended; None: it saw too little to decide."""
        if member := self._members.get(key):
            member.looked = True
            member.decision = decision or member.decision

    def room(self, key: str) -> Room | None:
        """How many replicas it may have; None where no budget says."""
        own = self._members.get(key)
        if own is None or not own.scales or own.gpus == 0:
            return None
        sharing = list(self._sharing(own))
        name = f"budget '{own.budget.name}'"
        if own.gpus is None:
            return Room(own.desired, f"{name} is shared by GPUs, and what a replica takes is not known", Limit.BUDGET)
        for member in sharing:
            if not member.looked:
                unseen = member.resource.key
                return Room(own.desired, f"{name} is shared with {unseen}, which was not looked at yet", Limit.BUDGET)
        most_gpus = min(member.budget.max_gpus for member in sharing)
        claims = [made for member in sharing if (made := self._claim(member)) is not None]
        return Room(most_of(key, claims, most_gpus), _sentence(name, most_gpus, own.gpus, sharing), Limit.BUDGET)

    def _sharing(self, own: Member) -> Iterator[Member]:
        for member in self._members.values():
            same_place = member.resource.metadata.namespace == own.resource.metadata.namespace
            if same_place and member.budget.name == own.budget.name:
                yield member

    def _claim(self, member: Member) -> Claim | None:
        if not member.gpus:
            return None
        spec, key = member.resource.spec, member.resource.key
        if not member.scales:
            return Claim(key, member.gpus, member.desired)
        decision = member.decision
        ahead = decision.horizon_seconds if decision else 0.0
        scheduled = floor_at(member.floors, self._clock(), ahead)
        kept = max(member.desired, spec.min_replicas)
        fewest = max(scheduled, spec.min_replicas)
        return claim(key, member.gpus, kept, decision, fewest=fewest, most=spec.max_replicas)


def _sentence(name: str, most_gpus: int, each: int, sharing: list[Member]) -> str:
    takers = sorted((member for member in sharing if member.taken), key=lambda member: -member.taken)
    taken = ", ".join(f"{member.taken} by {member.resource.key}" for member in takers[:MEMBERS_NAMED])
    others = f" and {len(takers) - MEMBERS_NAMED} more" if len(takers) > MEMBERS_NAMED else ""
    told = f"{name} has {most_gpus} GPUs, {each} a replica; taken are {taken or 'none'}{others}"
    said = sorted({member.budget.max_gpus for member in sharing})
    if len(said) > 1:
        told += f"; maxGpus is said to be {' and '.join(map(str, said))}, of which the least holds"
    unknown = [member.resource.key for member in sharing if member.gpus is None]
    return told + (f"; of {', '.join(unknown[:MEMBERS_NAMED])} it is not known what they take" if unknown else "")
