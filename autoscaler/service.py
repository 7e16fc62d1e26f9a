"""The running autoscaler: every target's turns on time, each on its own, until it is told to stop.

A target is a task. Its turns fall on multiples of the tick; a turn that takes longer than a tick passes over
those it missed, so nothing piles up behind a slow server, and no other target waits for it. What stops the
program lets a write that was begun end first: a half-made change would be nobody's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any, Final, Protocol

from autoscaler.events import Announcement, Repetition, announcement
from autoscaler.fleet import Fleet
from autoscaler.journal import Entry, Journal
from autoscaler.loop import Turn, turn
from autoscaler.schedule import Schedule, share_of_tick
from autoscaler.telemetry import Figures, Telemetry
from cluster.errors import ClusterError
from policies.scaling.history import History
from policies.scaling.observation import Observation
from policies.scaling.resource import Mode, VLLMAutoscaler
from policies.scaling.settings import ScalingPolicy

log = logging.getLogger(__name__)

TICKS_UNTIL_STUCK: Final = 3
STOP_SECONDS: Final = 4.5
"""For the write in flight; with what is closed after it, the program ends within 5 s."""
REFILL_SECONDS: Final = 60.0
EVENTS_IN_FLIGHT: Final = 1_000


class Recorder(Protocol):
    """Writes a Kubernetes event on a target."""

    async def __call__(self, resource: VLLMAutoscaler, announcement: Announcement) -> None: ...


@dataclass(slots=True)
class Target:
    """One resource at work."""

    resource: VLLMAutoscaler
    fleet: Fleet
    policy: ScalingPolicy
    figures: Figures
    phase: float = 0.0
    """Where in the tick its turns begin, 0 to 1; targets that share a reading share it."""
    history: History = field(default_factory=History)
    refill: Callable[[History], Awaitable[History]] | None = None
    expected: int | None = None
    repetition: Repetition = field(default_factory=Repetition)
    writing: bool = False
    had_turn: bool = False
    last_turn_at: float | None = None
    """On the loop's clock; None until its turns begin."""

    @property
    def shadow(self) -> bool:
        return self.resource.spec.mode is Mode.SHADOW

    @property
    def patience_seconds(self) -> float:
        """How long it may go without a turn before it is stuck."""
        timeout = self.resource.spec.prometheus.timeout_seconds
        return TICKS_UNTIL_STUCK * self.policy.tick_seconds + timeout


def target_of(resource: VLLMAutoscaler, fleet: Fleet, *, tick_seconds: float, phase: float = 0.0) -> Target:
    """A target before its first turn."""
    policy = ScalingPolicy.of(resource.spec, tick_seconds=tick_seconds)
    offset = policy.refit_seconds * share_of_tick(resource.key)
    return Target(
        resource=resource,
        fleet=fleet,
        policy=ScalingPolicy.of(resource.spec, tick_seconds=tick_seconds, refit_offset_seconds=offset),
        figures=Figures(resource.metadata.namespace, resource.metadata.name, resource.spec.mode is Mode.SHADOW),
        phase=phase,
    )


class _Watched:
    """The fleet of a target, with its writes marked while they are on their way."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def observe(self, previous: Observation | None) -> Observation:
        return await self._target.fleet.observe(previous)

    async def scale(self, expected: int, replicas: int) -> None:
        self._target.writing = True
        try:
            await self._target.fleet.scale(expected, replicas)
        finally:
            self._target.writing = False


class Service:
    """All targets of the process."""

    def __init__(
        self,
        targets: Sequence[Target],
        telemetry: Telemetry,
        *,
        tick_seconds: float,
        record_event: Recorder | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.targets = targets
        self.telemetry = telemetry
        self._tick_seconds = tick_seconds
        self._record_event = record_event
        self._journal = journal
        self._tasks: dict[asyncio.Task[None], Target] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._stopping = False
        telemetry.targets.extend(target.figures for target in targets)
        if journal:
            telemetry.sources.append(lambda: [("preheat_journal_dropped_total", (), journal.dropped)])

    async def run(self) -> None:
        """Refill every history, then take turns until `stop`."""
        start = asyncio.get_running_loop().time()
        for target in self.targets:
            task = asyncio.create_task(self._run(target, start), name=target.resource.key)
            self._tasks[task] = target
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """End what can be broken off at once, and let writes in flight end."""
        self._stopping = True
        for task, target in self._tasks.items():
            if not target.writing:
                task.cancel()
        loop = asyncio.get_running_loop()
        end = loop.time() + STOP_SECONDS
        for unfinished in (self._tasks, self._telling):  # the last turns have something to tell
            if unfinished:
                _, late = await asyncio.wait(unfinished, timeout=max(0.0, end - loop.time()))
                for task in late:
                    task.cancel()

    def stuck(self) -> list[str]:
        """Targets whose last turn ended too long ago."""
        now = asyncio.get_running_loop().time()
        return [
            target.resource.key
            for target in self.targets
            if target.last_turn_at is not None and now - target.last_turn_at > target.patience_seconds
        ]

    def waiting(self) -> list[str]:
        """Targets that have not had their first turn."""
        return [target.resource.key for target in self.targets if not target.had_turn]

    async def _run(self, target: Target, start: float) -> None:
        loop = asyncio.get_running_loop()
        if target.refill:
            await self._refill(target, target.refill)
        schedule = Schedule(start + target.phase * self._tick_seconds, self._tick_seconds)
        number = schedule.number_at_or_after(loop.time())
        target.last_turn_at = loop.time()
        while not self._stopping:
            due = schedule.due(number)
            await asyncio.sleep(due - loop.time())
            begun = loop.time()
            self.telemetry.latenesses.add(max(0.0, begun - due))
            try:
                await self.turn(target)
            except Exception:  # a mistake of ours in one target must not end the others
                log.exception("the turn failed", extra={"target": target.resource.key})
                target.figures.count("preheat_errors_total", "internal")
            target.last_turn_at = loop.time()
            target.had_turn = True
            self.telemetry.durations.add(target.last_turn_at - begun)
            following = max(number + 1, schedule.number_at_or_after(target.last_turn_at))
            target.figures.count("preheat_ticks_skipped_total", times=following - number - 1)
            number = following

    async def _refill(self, target: Target, refill: Callable[[History], Awaitable[History]]) -> None:
        try:
            async with asyncio.timeout(REFILL_SECONDS):
                target.history = await refill(target.history)
        except (ClusterError, TimeoutError) as error:
            reason = str(error) or f"it took longer than {REFILL_SECONDS:g} s"
            told = f"its past could not be read, so it begins without and will not shrink at once: {reason}"
            log.warning(told, extra={"target": target.resource.key})
            target.figures.count("preheat_errors_total", "refill")

    async def turn(self, target: Target) -> None:
        """One turn of one target, and everything that is told of it."""
        ended = await turn(_Watched(target), target.history, target.policy, shadow=target.shadow)
        target.history = ended.history
        now = time()
        target.figures.follow(ended, now, self._tick_seconds)
        if self._journal:
            self._journal.record(Entry.of(target.resource.key, now, ended))
        self._announce(target, ended)
        if ended.observation is not None:
            target.expected = ended.replicas_in_force

    def _announce(self, target: Target, ended: Turn) -> None:
        said = announcement(ended, target.expected)
        if said.reason == "ScaledByOther":
            target.figures.count("preheat_scaled_by_others_total")
        news = target.repetition.is_news(said, asyncio.get_running_loop().time())
        log.log(
            said.level if news else logging.DEBUG,
            said.message,
            extra={"target": target.resource.key, "outcome": ended.outcome.value, "reason": said.reason},
        )
        if news and said.reason and not target.shadow and self._record_event:
            self._tell(self._record_event(target.resource, said))

    def _tell(self, telling: Coroutine[Any, Any, None]) -> None:
        if len(self._telling) >= EVENTS_IN_FLIGHT:
            telling.close()
            self.telemetry.counts["preheat_events_dropped_total"] += 1
            return
        task = asyncio.create_task(telling)
        self._telling.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._telling.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.telemetry.counts["preheat_events_dropped_total"] += 1
            log.warning("an event could not be written: %s", error)
