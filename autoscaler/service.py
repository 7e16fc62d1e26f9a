"""The running autoscaler: every target's turns on time, each on its own, until it is told to stop.

A target is a task. Its turns fall on multiples of the tick; a turn that takes longer than a tick passes over
those it missed, so nothing piles up behind a slow server, and no other target waits for it. What stops the
program lets a write that was begun end first: a half-made change would be nobody's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from time import time
from typing import Final

from autoscaler.events import Announcement, Repetition, announcement
from autoscaler.fleet import Fleet
from autoscaler.journal import Entry, Journal
from autoscaler.loop import Turn, turn
from autoscaler.schedule import Schedule, share_of_tick
from autoscaler.telemetry import Figures, Telemetry
from autoscaler.tracing import Tracing
from cluster.errors import ClusterError
from policies.scaling.demand import LoadBin
from policies.scaling.history import History
from policies.scaling.observation import Observation
from policies.scaling.resource import Mode, VLLMAutoscaler
from policies.scaling.settings import ScalingPolicy

log = logging.getLogger(__name__)

TICKS_UNTIL_STUCK: Final = 3
STOP_SECONDS: Final = 4.1
"""For the write in flight, which takes 4 s at most; with what is closed after it, the program ends within 5 s."""
REFILL_SECONDS: Final = 60.0
"""How long the first turn waits for the past, and how long after a failure it is asked for again."""

Tell = Callable[[Announcement], Awaitable[None]]
"""Writes a Kubernetes event on a target; returns at once and never fails."""
PassOn = Callable[[Turn], Awaitable[Announcement | None]]
"""Hands a decision to those who scale in our place; what is to be told of it, None where the turn speaks for itself."""
Refill = Callable[[], Awaitable[Sequence[LoadBin]]]
"""Reads a target's past back from where its metrics are kept, or raises a ClusterError."""
Report = Callable[[Turn], Awaitable[None]]
"""Hears of every turn when it is over; returns at once and never fails."""


@dataclass(slots=True)
class Target:
    """One resource at work."""

    resource: VLLMAutoscaler
    fleet: Fleet
    policy: ScalingPolicy
    figures: Figures
    phase: float = 0.0
    """Where in the tick its turns begin, 0 to 1; targets that share a reading share it."""
    tell: Tell | None = None
    pass_on: PassOn | None = None
    """In the modes in which others scale by what is decided here."""
    refill: Refill | None = None
    report: Report | None = None
    history: History = field(default_factory=History)
    past: Sequence[LoadBin] = ()
    """Read back, and not yet part of the history."""
    first_seen_at: float | None = None
    """Time of the first observation: what is older is known from the refilled past alone."""
    expected: int | None = None
    """What the last turn left in force, None where that is unknown."""
    repetition: Repetition = field(default_factory=Repetition)
    asked_at: float | None = None
    """When somebody last asked by name that it be awake."""
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where the next turn should not wait until it is due."""
    writing: bool = False
    leaving: bool = False
    """No further turn is wanted of it."""
    had_turn: bool = False
    last_turn_at: float | None = None
    """On the loop's clock; None until its turns begin."""

    def wake(self) -> None:
        """Somebody asks for it by name; of one that rests the next turn comes at once."""
        self.asked_at = time()
        if self.history.last is None or self.history.last.desired == 0:
            self.hurry.set()

    @property
    def shadow(self) -> bool:
        return self.resource.spec.mode is Mode.SHADOW

    @property
    def scales(self) -> bool:
        """Whether it is we who write the number of replicas."""
        return self.resource.spec.mode is Mode.ACTIVE

    @property
    def patience_seconds(self) -> float:
        """How long it may go without a turn before it is stuck."""
        return patience_seconds(self.resource, self.policy.tick_seconds)


def patience_seconds(resource: VLLMAutoscaler, tick_seconds: float) -> float:
    """How long a target may go without a turn before it is stuck, and what it last said is stale."""
    return TICKS_UNTIL_STUCK * tick_seconds + resource.spec.prometheus.timeout_seconds


def target_of(
    resource: VLLMAutoscaler,
    fleet: Fleet,
    *,
    tick_seconds: float,
    phase: float = 0.0,
    tell: Tell | None = None,
    pass_on: PassOn | None = None,
    refill: Refill | None = None,
    report: Report | None = None,
    history: History | None = None,
) -> Target:
    """A target before its first turn."""
    # Refits cost more than turns: they are spread over their period, whatever the turns share.
    policy = ScalingPolicy.of(resource.spec, tick_seconds=tick_seconds, refit_share=share_of_tick(resource.key))
    return Target(
        resource=resource,
        fleet=fleet,
        policy=policy,
        figures=Figures(resource.metadata.namespace, resource.metadata.name, resource.spec.mode is Mode.SHADOW),
        phase=phase,
        tell=tell,
        pass_on=pass_on,
        refill=refill,
        report=report,
        history=history or History(),
    )


class _Watched:
    """The fleet of a target, with who asked for it, and its writes marked while they are on their way."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def observe(self, previous: Observation | None) -> Observation:
        seen = await self._target.fleet.observe(previous)
        return replace(seen, asked_at=self._target.asked_at)

    async def scale(self, expected: int, replicas: int) -> None:
        self._target.writing = True
        try:
            await self._target.fleet.scale(expected, replicas)
        finally:
            self._target.writing = False


class Service:
    """All targets of the process; they come and go while it runs."""

    def __init__(
        self,
        targets: Sequence[Target],
        telemetry: Telemetry,
        *,
        tick_seconds: float,
        journal: Journal | None = None,
        tracing: Tracing | None = None,
        refill_seconds: float = REFILL_SECONDS,
    ) -> None:
        self.targets = list(targets)
        self.telemetry = telemetry
        self.problem: Callable[[], str] | None = None
        """Why the program is not ready, "" if it is, where that is not a matter of first turns."""
        self._tick_seconds = tick_seconds
        self._journal = journal
        self._tracing = tracing
        self._refill_seconds = refill_seconds
        self._tasks: dict[asyncio.Task[None], Target] = {}
        self._start: float | None = None
        self._stopping = asyncio.Event()
        telemetry.targets.extend(target.figures for target in targets)

    async def run(self) -> None:
        """Of every target read the past back, then take turns, until `stop`."""
        self._start = asyncio.get_running_loop().time()
        for target in self.targets:
            self._begin(target)
        await self._stopping.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, target: Target) -> None:
        """One target more, from now on."""
        self.targets.append(target)
        self.telemetry.targets.append(target.figures)
        self._begin(target)

    async def remove(self, target: Target) -> None:
        """Let go of a target as it is; a write in flight ends first."""
        self.targets.remove(target)
        self.telemetry.targets.remove(target.figures)
        await self._end([task for task, its in self._tasks.items() if its is target])

    async def stop(self) -> None:
        """End what can be broken off at once, and let writes in flight end."""
        self._stopping.set()
        await self._end(list(self._tasks))

    def _begin(self, target: Target) -> None:
        if self._start is not None and not self._stopping.is_set():
            task = asyncio.create_task(self._run(target, self._start), name=target.resource.key)
            self._tasks[task] = target
            task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            target = self._tasks.get(task)
            if target is not None:
                target.leaving = True
                if not target.writing:
                    task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
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

    def first_turns(self) -> str:
        """Why it is not ready while first turns are missing; "" if none is."""
        waiting = self.waiting()
        return f"no turn yet: {named(waiting)}" if waiting else ""

    async def _run(self, target: Target, start: float) -> None:
        schedule = Schedule(start + target.phase * self._tick_seconds, self._tick_seconds)
        if target.refill is None:
            return await self._take_turns(target, schedule)
        tried = asyncio.Event()
        refilling = asyncio.create_task(self._refill(target, target.refill, tried))
        try:
            await _within(self._refill_seconds, tried)
            await self._take_turns(target, schedule)
        finally:
            refilling.cancel()

    async def _refill(self, target: Target, refill: Refill, tried: asyncio.Event) -> None:
        """Read the past back; while that fails, turns go on without it and it is asked for again."""
        while True:
            try:
                target.past = await refill()
            except ClusterError as error:
                log.log(
                    logging.DEBUG if tried.is_set() else logging.WARNING,
                    f"its past cannot be read, so it begins without and will not shrink at once: {error}",
                    extra={"target": target.resource.key},
                )
                target.figures.count("preheat_errors_total", "refill")
            except Exception:  # a mistake of ours; turns go on without the past
                log.exception("reading the past failed", extra={"target": target.resource.key})
                target.figures.count("preheat_errors_total", "internal")
                return
            else:
                log.info("its past was read back", extra={"target": target.resource.key, "bins": len(target.past)})
                return
            finally:
                tried.set()
            await asyncio.sleep(self._refill_seconds)

    async def _take_turns(self, target: Target, schedule: Schedule) -> None:
        loop = asyncio.get_running_loop()
        target.last_turn_at = loop.time()
        number = schedule.number_at_or_after(loop.time())
        while not target.leaving:
            due = schedule.due(number)
            await _within(due - loop.time(), target.hurry)
            target.hurry.clear()
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

    async def turn(self, target: Target) -> None:
        """One turn of one target, and everything that is told of it."""
        _remember_past(target)
        begun_at = time()
        ended = await turn(_Watched(target), target.history, target.policy, shadow=not target.scales)
        target.history = ended.history
        if ended.observation and target.first_seen_at is None:
            target.first_seen_at = ended.observation.time
        now = time()
        target.figures.follow(ended, now, self._tick_seconds)
        entry = Entry.of(target.resource.key, now, ended)
        if self._journal:
            self._journal.record(entry)
        if self._tracing:
            self._tracing.record(entry, begun_at, now)
        passed_on = await self._pass_on(target, ended)
        await self._announce(target, passed_on or announcement(ended, target.expected), ended)
        if ended.observation and target.pass_on is None:
            target.expected = ended.replicas_in_force
        if target.report:
            await target.report(ended)

    async def _pass_on(self, target: Target, ended: Turn) -> Announcement | None:
        if target.pass_on is None:
            return None
        target.writing = True
        try:
            return await target.pass_on(ended)
        finally:
            target.writing = False

    async def _announce(self, target: Target, said: Announcement, ended: Turn) -> None:
        if said.reason == "ScaledByOther":
            target.figures.count("preheat_scaled_by_others_total")
        news = target.repetition.is_news(said, asyncio.get_running_loop().time())
        log.log(
            said.level if news else logging.DEBUG,
            said.message,
            extra={"target": target.resource.key, "outcome": ended.outcome.value, "reason": said.reason},
        )
        # Shadow mode writes nothing, not even this.
        if news and said.reason and target.tell and not target.shadow:
            await target.tell(said)


def _remember_past(target: Target) -> None:
    """Take in what was read back of the time before the first look; the time since then was seen better."""
    if target.past:
        seen_from = target.first_seen_at or float("inf")
        older = [bin for bin in target.past if bin.start + bin.seconds <= seen_from]
        target.history, target.past = target.history.refilled(older, target.policy), ()


async def _within(seconds: float, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass  # it goes on beside the turns


def named(targets: Sequence[str]) -> str:
    """Some of the names, and how many there are."""
    shown = ", ".join(targets[:10])
    return shown if len(targets) <= 10 else f"{shown} and {len(targets) - 10} more"
