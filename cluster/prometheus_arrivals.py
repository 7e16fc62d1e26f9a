"""Requests that routers have counted, added up over their processes so that the sum never falls.

A sum taken by the server drops when one of several routers starts anew, and reads as if all requests that the
others ever counted had come at once. So each process is followed by itself: what it counted since the last look
is added, a count below half of the last one began at zero, and a process first seen counts from there on. A count
that is a little lower is an older reading, as of two Prometheus behind one Service: it adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

Process = frozenset[tuple[str, str]]

# How long a process that shows nothing is remembered, so that its return is no new beginning.
REMEMBERED_SECONDS: Final = 3600.0
# Of a process that began anew less is left.
BEGUN_ANEW: Final = 0.5
# An older reading lasts for a scrape interval, of two minutes at most; what lasts longer is counted from there on.
LASTING_SECONDS: Final = 150.0


@dataclass(slots=True)
class Arrivals:
    """One target's routers."""

    total: float = 0.0
    _begun: bool = False
    _last: dict[Process, tuple[float, float]] = field(default_factory=dict)
    """By process, its newest count and when it was seen."""

    def add(self, counts: Mapping[Process, float], now: float) -> float:
        """The total with what these processes counted since they were last seen."""
        if not self._begun:
            self.total, self._begun = sum(counts.values()), True
        for process, count in counts.items():
            before, seen = self._last.get(process, (count, now))
            if before * BEGUN_ANEW <= count < before:
                if now - seen <= LASTING_SECONDS:
                    continue
                before = count
            self.total += count - before if count >= before else count
            self._last[process] = (count, now)
        self._last = {
            process: (count, seen) for process, (count, seen) in self._last.items() if now - seen <= REMEMBERED_SECONDS
        }
        return self.total
