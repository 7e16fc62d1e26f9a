"""The floor that a calendar sets: so many replicas from a start to an end, ready when the start comes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from policies.scaling.cron import Schedule, is_within, read_schedule, zone
from policies.scaling.resource import ScheduledFloor


@dataclass(frozen=True, slots=True)
class CalendarFloor:
    """One stretch of time that comes again and again."""

    start: Schedule
    end: Schedule
    zone: dt.tzinfo
    replicas: int
    epoch_seconds: float = 0.0
    """Unix time of what it is told as time 0: a replay's time begins with its trace."""

    def at(self, now: float, horizon_seconds: float) -> int:
        """What it sets for now, or for whenever a replica ordered now would be ready; 0 where it sets nothing."""
        now += self.epoch_seconds
        here = dt.datetime.fromtimestamp(now, self.zone)
        if is_within(self.start, self.end, here):
            return self.replicas
        begins = self.start.after(here)
        return self.replicas if begins is not None and begins.timestamp() <= now + horizon_seconds else 0


def floors_of(stated: Sequence[ScheduledFloor]) -> tuple[CalendarFloor, ...]:
    """What the resource states; CronError where a schedule or a zone does not exist."""
    return tuple(
        CalendarFloor(read_schedule(each.start), read_schedule(each.end), zone(each.time_zone), each.min_replicas)
        for each in stated
    )


def floor_at(floors: Sequence[CalendarFloor], now: float, horizon_seconds: float) -> int:
    """The highest that any of them sets; 0 where none does."""
    return max((floor.at(now, horizon_seconds) for floor in floors), default=0)
