"""Requests that routers have counted, added up over their processes so that the sum never falls.

A sum taken by the server drops when one of several routers starts anew, and reads as if all requests that the
others ever counted had come at once. So each process is followed by itself: what it counted since the last look
is added, a count below half of the last one began at zero, and a process first seen counts from there on. A count
that is a little lower is an older reading, as of two Prometheus behind one Service: it adds nothing.

Of a sum that the user takes nobody knows which of its processes fell out, nor why: a fall adds nothing, and a rise by
as much within an hour is taken to be its end, so that only what exceeds it was counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cluster.prometheus_queries import WAYS
from policies.scaling.demand import BEGUN_ANEW

Process = frozenset[tuple[str, str]]

# How long a process that shows nothing is remembered, so that its return is no new beginning.
REMEMBERED_SECONDS: Final = 3600.0
# An older reading lasts for a scrape interval, of two minutes at most; what lasts longer is counted from there on.
LASTING_SECONDS: Final = 150.0
_NAMESPACES: Final = frozenset(namespace for namespace, _ in WAYS)


def is_sum(process: Process) -> bool:
    """Whether no label tells processes apart: it may be many."""
    return {label for label, _ in process} <= _NAMESPACES


@dataclass(slots=True)
class Arrivals:
    """One target's routers."""

    total: float = 0.0
    _begun: bool = False
    _last: dict[Process, tuple[float, float]] = field(default_factory=dict)
    """By process, its newest count and when it was seen."""
    _falls: list[tuple[float, float, Process]] = field(default_factory=list)
    """Of sums: by how much each fell that has not come back, and when."""

    def add(self, counts: Mapping[Process, float], now: float) -> float:
        """The total with what these processes counted since they were last seen."""
        if not self._begun:
            self.total, self._begun = sum(counts.values()), True
        for process, count in counts.items():
            before, seen = self._last.get(process, (count, now))
            if is_sum(process):
                self.total += self._came_to_sum(process, count - before, now)
            elif before * BEGUN_ANEW <= count < before:
                if now - seen <= LASTING_SECONDS:
                    continue
            else:
                self.total += count - before if count >= before else count
            self._last[process] = (count, now)
        since = now - REMEMBERED_SECONDS
        self._last = {process: last for process, last in self._last.items() if last[1] >= since}
        self._falls = [fall for fall in self._falls if fall[1] >= since]
        return self.total

    def _came_to_sum(self, process: Process, rise: float, now: float) -> float:
        if rise < 0:
            self._falls.append((-rise, now, process))
            return 0.0
        ended = max((fall for fall in self._falls if fall[2] == process and fall[0] <= rise), default=None)
        if ended is None:
            return rise
        self._falls.remove(ended)
        return rise - ended[0]
