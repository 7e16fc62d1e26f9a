"""What the loop asks of a fleet: to be seen and to be scaled. A cluster answers; so does a simulation."""

from __future__ import annotations

from typing import Protocol

from cluster.errors import NotObservedError
from policies.scaling.observation import Observation


class MetricsNotObservedError(NotObservedError):
    """It is the metrics that could not be seen; the target itself may well have been."""

    def __init__(self, problem: str, seen: Observation | None = None) -> None:
        """`seen` is the target without its metrics, the problem among what could not be seen."""
        super().__init__(problem)
        self.seen = seen


class Fleet(Protocol):
    """One target. `observe` raises NotObservedError or RefusedError, `scale` OvertakenError as well."""

    async def observe(self, previous: Observation | None) -> Observation:
        """The target as it is now; the previous observation tells idle from silent."""
        ...

    async def scale(self, expected: int, replicas: int) -> None:
        """Ask for the replicas, provided that `expected` are still asked for."""
        ...
