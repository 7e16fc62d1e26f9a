"""The status of one resource: followed turn by turn, and written when there is news, seldom otherwise."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic, time
from typing import Any, Final

from autoscaler.cluster_fleet import Conflict
from autoscaler.conditions import status_after, unusable
from autoscaler.loop import Turn
from cluster.errors import ClusterError
from policies.scaling.decision import Decision
from policies.scaling.observation import Interval
from policies.scaling.resource import VLLMAutoscaler
from policies.scaling.settings import ScalingPolicy
from policies.scaling.status import Status, written

log = logging.getLogger(__name__)

NEWS_SECONDS: Final = 5.0
"""Between two writes, however much happens."""
REFRESH_SECONDS: Final = 300.0
"""Between two writes where nothing but a measured number has changed."""
ATTAINED_TURNS: Final = 240
"""What the attainment rests on: an hour of ticks of 15 s."""

Write = Callable[[dict[str, Any]], Awaitable[None]]
"""Writes a status, or raises a ClusterError."""


class Reporter:
    """Of one resource; `status` is what is known, `close` waits for what is on its way."""

    def __init__(self, key: str, status: Status, write: Write) -> None:
        self.status = status
        self._key = key
        self._write = write
        self._told: Status | None = None
        """What was last written by us."""
        self._told_at = float("-inf")
        self._attained: deque[tuple[float, Interval]] = deque(maxlen=ATTAINED_TURNS)
        self._writing: asyncio.Task[None] | None = None
        self._problem = ""

    def follow(self, turn: Turn, conflict: Conflict | None, resource: VLLMAutoscaler, policy: ScalingPolicy) -> None:
        """Take in a turn."""
        if turn.decision:
            self._attain(turn.decision, policy.tick_seconds)
        self._offer(status_after(self.status, turn, conflict, resource, policy, self._mean_attained(), time()))

    def refuse(self, reason: str, problem: str, generation: int) -> None:
        """Say why no turn is taken of it."""
        self._offer(unusable(self.status, reason, problem, generation, time()))

    async def close(self) -> None:
        if self._writing:
            await asyncio.gather(self._writing, return_exceptions=True)

    def _offer(self, status: Status) -> None:
        self.status = status
        pause = NEWS_SECONDS if self._told is None or _news(status) != _news(self._told) else REFRESH_SECONDS
        busy = self._writing is not None and not self._writing.done()
        if status != self._told and not busy and monotonic() - self._told_at >= pause:
            self._told_at = monotonic()
            self._writing = asyncio.create_task(self._tell(status), name=f"status of {self._key}")

    async def _tell(self, status: Status) -> None:
        try:
            await self._write(written(status))
            self._told, self._problem = status, ""
        except ClusterError as error:
            # The next turn brings it again; once is enough for the log.
            if str(error) != self._problem:
                log.warning("its status cannot be written: %s", error, extra={"target": self._key})
            self._problem = str(error)

    def _attain(self, decision: Decision, tick_seconds: float) -> None:
        if decision.within_objectives is not None and decision.demand:
            self._attained.append((decision.demand * tick_seconds, decision.within_objectives))

    def _mean_attained(self) -> Interval | None:
        """Weighted by the requests that arrived."""
        requests = sum(weight for weight, _ in self._attained)
        if requests <= 0:
            return None
        return Interval(
            sum(weight * share.low for weight, share in self._attained) / requests,
            sum(weight * share.high for weight, share in self._attained) / requests,
        )


def _news(status: Status) -> tuple[object, ...]:
    """What is worth a write of its own."""
    conditions = tuple((each.type, each.status, each.reason) for each in status.conditions)
    return status.observed_generation, status.replicas, conditions, status.last_decisions[:1]
