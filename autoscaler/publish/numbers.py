"""The newest number of each target that others follow, and why there is none where there is none.

A number stands as long as a target may go without a turn. Then it is stale, and whoever asks is told so: he who
follows must hold, not shrink to what nobody decided.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from time import time
from typing import Final

from autoscaler.events import PUBLISHED, Announcement
from autoscaler.loop import Turn
from policies.scaling.resource import VLLMAutoscaler

METRIC: Final = "preheat_replicas_published"
"""What the number is called wherever it is published."""
LABEL: Final = "name"
"""Tells the numbers of one namespace apart: the name of the VLLMAutoscaler."""


class NoNumberError(Exception):
    """There is nothing to follow; the sentence says why."""


class UnknownNumberError(NoNumberError):
    """No VLLMAutoscaler of that name publishes here."""


class StaleNumberError(NoNumberError):
    """The last number is too old, or none was decided yet."""


@dataclass(frozen=True, slots=True)
class Number:
    """So many replicas, as of a time in unix seconds."""

    replicas: int
    time: float


@dataclass(slots=True)
class _Published:
    patience_seconds: float
    paused: bool
    number: Number | None = None
    reason: str = "its first turn has not ended"
    """Why the last turn brought no number."""


class PublishedNumbers:
    """Those of one process, by namespace and name of the VLLMAutoscaler."""

    def __init__(self, *, clock: Callable[[], float] = time) -> None:
        self.problem = ""
        """What keeps those who should follow from asking; told of every target."""
        self._clock = clock
        self._published: dict[tuple[str, str], _Published] = {}

    def add(
        self, resource: VLLMAutoscaler, patience_seconds: float
    ) -> Callable[[Turn], Awaitable[Announcement | None]]:
        """What is to be handed each of the target's turns; a number stands for `patience_seconds`."""
        published = _Published(patience_seconds, paused=resource.spec.paused)
        self._published[resource.metadata.namespace, resource.metadata.name] = published

        async def pass_on(turn: Turn) -> Announcement | None:
            said = _follow(published, turn)
            if said is None or not self.problem:
                return said
            return Announcement(f"{self.problem}; {said.message}", logging.WARNING, "NobodyCanFollow")

        return pass_on

    def remove(self, namespace: str, name: str) -> None:
        """It publishes no longer."""
        self._published.pop((namespace, name), None)

    def names(self, namespace: str) -> list[str]:
        """Of all that publish in the namespace, with a number or without."""
        return sorted(name for home, name in self._published if home == namespace)

    def number(self, namespace: str, name: str) -> Number:
        """The number to follow now; UnknownNumberError or StaleNumberError where there is none."""
        published = self._published.get((namespace, name))
        if published is None:
            known = ", ".join(self.names(namespace)) or "none"
            raise UnknownNumberError(
                f"no VLLMAutoscaler '{name}' in namespace '{namespace}' has mode Publish (there: {known})"
            )
        number = published.number
        if number is None:
            raise StaleNumberError(f"{namespace}/{name} has no number yet: {published.reason}")
        age = self._clock() - number.time
        if age > published.patience_seconds:
            raise StaleNumberError(f"{namespace}/{name} has had no number for {age:.0f} s: {published.reason}")
        return number

    def gauges(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """For telemetry: what is stale is left out."""
        for namespace, name in tuple(self._published):
            try:
                yield METRIC, (namespace, name), self.number(namespace, name).replicas
            except NoNumberError:
                continue


def _follow(published: _Published, turn: Turn) -> Announcement | None:
    decision = turn.decision
    if decision is None:
        published.reason = turn.problem
        return None
    if published.paused:
        published.reason = "it is paused, until spec.paused is false again"
        return Announcement(f"publishes nothing, being paused: {decision.sentence}")
    if turn.is_held_blind:
        published.reason = decision.sentence
        return None
    is_new = published.number is None or published.number.replicas != decision.replicas
    published.number, published.reason = Number(decision.replicas, decision.time), "no turn has ended since"
    told = f"publishes {decision.replicas}: {decision.sentence}"
    return Announcement(told, reason=PUBLISHED if is_new else "")
