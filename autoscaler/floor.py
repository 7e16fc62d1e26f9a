"""Mode Floor: the decision as a floor under somebody's HPA or ScaledObject, raised ahead of need, given back after.

Theirs still reacts; ours only sees to it that what will be needed is there by then. What stands is written on their
object, so nothing is remembered here: the next leader goes on from what it finds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Final

from autoscaler.events import FLOOR, Announcement
from autoscaler.loop import Turn
from autoscaler.service import PassOn
from cluster.errors import ClusterError, OvertakenError, RefusedError, WithheldError
from cluster.floors import Floor, Floors
from policies.scaling.decision import Binding
from policies.scaling.resource import Mode, ScaleTargetRef, VLLMAutoscaler

log = logging.getLogger(__name__)

METRIC: Final = "preheat_replicas_floor"
LOOK_SECONDS: Final = 60.0
"""How long a floor that is as it should be is believed to stay so; every look lists the namespace's HPAs."""
LISTED_SECONDS: Final = 30.0
"""At start all targets of a namespace ask for what is raised there: for so long one list answers them."""


def level_of(turn: Turn) -> int | None:
    """How many replicas there should be at least; None where the turn does not say, and what stands should stand.

    A shrink that is held for want of sight holds what the other autoscaler made of it, not a wish of ours.
    """
    decision = turn.decision
    if decision is None or (decision.binding is Binding.HOLD and decision.replicas >= decision.desired):
        return None
    return decision.replicas


@dataclass(slots=True)
class _Kept:
    resource: VLLMAutoscaler
    seen: Floor | None = None
    """As last read or written; None after anything that makes it doubtful."""
    seen_at: float = 0.0
    """On a clock that only goes forward."""
    level: int | None = None
    """What was last asked for, and is seen to."""


class FloorKeeper:
    """The floors of one process, by `namespace/name` of the VLLMAutoscaler."""

    def __init__(self, floors: Floors, *, clock: Callable[[], float] = monotonic) -> None:
        self._floors = floors
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._raised: dict[str, tuple[float, list[Floor]]] = {}
        self._giving: dict[str, asyncio.Task[None]] = {}

    def add(self, resource: VLLMAutoscaler) -> PassOn:
        """What is to be handed each of the target's turns."""
        kept = self._kept[resource.key] = _Kept(resource)

        async def pass_on(turn: Turn) -> Announcement | None:
            return await self._follow(kept, turn)

        return pass_on

    def remove(self, key: str) -> None:
        """It is looked after no longer; what is raised stays, for whoever comes next."""
        self._kept.pop(key, None)
        giving = self._giving.pop(key, None)
        if giving:
            giving.cancel()

    def begin_to_give_back(self, resource: VLLMAutoscaler) -> None:
        """What it may once have raised in this mode, or for another target: until it is done, or `remove`."""
        self._giving[resource.key] = asyncio.create_task(self._give_back(resource))

    async def _give_back(self, resource: VLLMAutoscaler) -> None:
        extra, spec = {"target": resource.key}, resource.spec
        but_of = spec.scale_target_ref if spec.mode is Mode.FLOOR else None
        while True:
            try:
                for floor in await self.give_back(resource.key, but_of=but_of):
                    log.info("%s has its %s %d back", floor.subject, floor.holder.fewest, floor.fewest, extra=extra)
                return
            except RefusedError as error:
                # Nobody needs the right to what he never does; who changes the mode has had it.
                log.debug("whether a floor of it is raised cannot be seen: %s", error, extra=extra)
                return
            except ClusterError as error:
                log.debug("a floor could not be given back yet: %s", error, extra=extra)
            await asyncio.sleep(LISTED_SECONDS)

    async def give_back(
        self, key: str, *, but_of: ScaleTargetRef | None = None, listed_anew: bool = False
    ) -> list[Floor]:
        """Give back all that the resource of this `namespace/name` has raised, but of one target."""
        namespace = key.partition("/")[0]
        if listed_anew:
            self._raised.pop(namespace, None)
        listed_at, raised = self._raised.get(namespace, (float("-inf"), []))
        if self._clock() - listed_at > LISTED_SECONDS:
            raised = await self._floors.raised(namespace)
            self._raised[namespace] = self._clock(), raised
        given = []
        for floor in tuple(raised):
            if floor.raised and floor.raised.by == key and not (but_of and floor.is_of(but_of)):
                raised.remove(floor)
                given.append(await self._floors.give_back(floor))
        return given

    def gauges(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """For telemetry: what is not known is left out."""
        for kept in tuple(self._kept.values()):
            if kept.seen:
                metadata = kept.resource.metadata
                yield METRIC, (metadata.namespace, metadata.name), kept.seen.fewest

    async def _follow(self, kept: _Kept, turn: Turn) -> Announcement | None:
        if turn.decision is None:
            return None
        level, sentence = level_of(turn), turn.decision.sentence
        if kept.resource.spec.paused:
            return Announcement(f"leaves the floor as it is, being paused: {sentence}")
        if kept.seen and kept.level == level and self._clock() - kept.seen_at < LOOK_SECONDS:
            return Announcement(f"leaves the floor at {kept.seen.fewest}: {sentence}")
        kept.level, kept.seen_at = level, self._clock()
        try:
            return await self._set(kept, level, sentence)
        except ClusterError as error:
            kept.seen = None
            return _told(error)

    async def _set(self, kept: _Kept, level: int | None, sentence: str) -> Announcement:
        resource = kept.resource
        floor = await self._floors.of(resource.spec.scale_target_ref, resource.metadata.namespace)
        kept.seen = floor
        if floor.raised and floor.raised.by != resource.key:
            raise RefusedError(
                f"the floor of {floor.subject} is raised by {floor.raised.by}: "
                f"delete that one, or give it back with `preheat release {floor.raised.by}`"
            )
        if level is None:
            return Announcement(f"leaves the floor at {floor.fewest}: {sentence}")
        level = min(level, floor.most)
        if level <= floor.own:
            if floor.raised is None:
                return Announcement(f"needs no floor above their {floor.own}: {sentence}")
            kept.seen = await self._floors.give_back(floor)
            return Announcement(
                f"gives {floor.subject} its {floor.holder.fewest} {floor.own} back, from {floor.fewest}: {sentence}",
                reason=FLOOR,
            )
        if floor.raised and level == floor.fewest:
            return Announcement(f"leaves the floor at {level}: {sentence}")
        told = f"sets {floor.holder.fewest} of {floor.subject} from {floor.fewest} to {level}: {sentence}"
        if floor.overwritten:
            told = f"somebody set it to {floor.fewest} meanwhile, which is given back later; {told}"
        kept.seen = await self._floors.set(floor, level, resource.key)
        self._raised.pop(resource.metadata.namespace, None)  # what was listed before does not have it
        return Announcement(told, reason=FLOOR)


def _told(error: ClusterError) -> Announcement:
    match error:
        case OvertakenError() | WithheldError():
            return Announcement(f"holds for this tick: {error}")
        case RefusedError():
            reason = "MissingRight" if error.right else "FloorRefused"
            return Announcement(f"holds: {error}", logging.WARNING, reason)
        case _:
            return Announcement(f"cannot tell which floor stands: {error}", logging.WARNING, "FloorUnanswered")
