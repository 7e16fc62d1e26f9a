"""Schedules by the wall clock: the five fields of cron, as KEDA's parser reads them, in a time zone."""

from __future__ import annotations

import calendar
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {"sun": 0, **{name.lower(): number for number, name in enumerate(calendar.day_abbr[:6], 1)}}
_FIELDS: tuple[tuple[str, int, int, Mapping[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)
_LONGEST_DAYS = 5 * 366
_ANY_TIME = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
"""Any five years have each day of the calendar, but around 2100."""


class CronError(ValueError):
    """A schedule or a time zone that does not exist; the message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is due, by the wall clock."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    """Both a day of the month and one of the week are named: either suffices."""

    def after(self, now: dt.datetime) -> dt.datetime | None:
        """The first time due after `now`, read in the zone of `now`; in UTC. None in the next five years."""
        zone, instant = now.tzinfo, now.astimezone(dt.UTC)
        day = now.date()
        for _ in range(_LONGEST_DAYS):
            for hour in self.hours if self._is_due(day) else ():
                if day == now.date() and hour < now.hour:
                    continue
                for minute in self.minutes:
                    wall = dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
                    due = wall.astimezone(dt.UTC)
                    # An hour that summer time skips does not exist: it comes back as another.
                    exists = zone is None or due.astimezone(zone).replace(fold=0) == wall
                    if due > instant and exists:
                        return due
            day += dt.timedelta(days=1)
        return None

    def _is_due(self, day: dt.date) -> bool:
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and ((of_month or of_week) if self.either_day else (of_month and of_week))


def read_schedule(text: str) -> Schedule:
    """Of `minute hour day-of-month month day-of-week`."""
    parts = text.split()
    if len(parts) != 5:
        raise CronError(f"schedule '{text}' has {len(parts)} fields: write minute hour day-of-month month day-of-week")
    read = [_field(text, part, *field) for part, field in zip(parts, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = read
    named = [part[0] not in "*?" for part in (parts[2], parts[4])]
    return Schedule(
        text,
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        frozenset(days),
        frozenset(months),
        frozenset(weekdays),
        all(named),
    )


def coming(text: str) -> Schedule:
    """`read_schedule` of one that is due at all: on 31 February nothing is."""
    schedule = read_schedule(text)
    if schedule.after(_ANY_TIME) is None:
        raise CronError(f"schedule '{text}' never comes: name a day that its month has")
    return schedule


def _field(text: str, part: str, what: str, least: int, most: int, words: Mapping[str, int]) -> set[int]:
    found: set[int] = set()
    for piece in part.split(","):
        span, slash, step_text = piece.partition("/")
        first_text, dash, last_text = span.partition("-")
        try:
            if span in ("*", "?"):
                first, last = least, most
            else:
                first = _number(first_text, words)
                last = _number(last_text, words) if dash else (most if slash else first)
            step = int(step_text) if slash else 1
            if not (least <= first <= last <= most and step > 0):
                raise ValueError
        except ValueError:
            raise CronError(f"schedule '{text}': {what} '{piece}' is not within {least}-{most}") from None
        found.update(range(first, last + 1, step))
    return found


def _number(text: str, words: Mapping[str, int]) -> int:
    return words[text.lower()] if text.lower() in words else int(text)


def zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CronError(f"time zone '{name}' is not known: write one such as Europe/Berlin or UTC") from None


def is_within(start: Schedule, end: Schedule, now: dt.datetime) -> bool:
    """As KEDA judges: within, unless the next start comes before the next end."""
    next_start, next_end = start.after(now), end.after(now)
    # One that never comes has the zero time in KEDA's parser, which is before everything.
    if next_start is None or next_end is None:
        return next_start is None
    return not next_start < next_end
