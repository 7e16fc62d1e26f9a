"""When turns are due: at whole multiples of the tick since the start, so that they do not drift."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Schedule:
    """Ticks numbered from 0; all times are of one monotonic clock."""

    start: float
    tick_seconds: float

    def due(self, number: int) -> float:
        return self.start + number * self.tick_seconds

    def number_at_or_after(self, now: float) -> int:
        return max(0, ceil((now - self.start) / self.tick_seconds))


def share_of_tick(name: str) -> float:
    """Where in the tick (0 to 1) a name falls: the same at every start, and many names fall evenly."""
    return zlib.crc32(name.encode()) / 2**32
