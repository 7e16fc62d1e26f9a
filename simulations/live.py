"""The simulated fleet as the autoscaler's loop meets any fleet: seen and scaled, with time that somebody lets go by.

It has the two methods that the loop asks for, so the loop itself, and no copy of it, runs at accelerated time.
"""

from __future__ import annotations

from collections.abc import Callable

from policies.scaling.decision import Decision
from policies.scaling.observation import Observation
from policies.scaling.resource import Objectives
from simulations.model.fleet import FleetError, SimulatedFleet
from simulations.replay import Recorder, Replay


class LiveFleet:
    """Ticks through a simulated fleet; between two ticks it is seen and scaled like a real one."""

    def __init__(
        self,
        fleet: SimulatedFleet,
        *,
        tick_seconds: float = 15.0,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        self._fleet = fleet
        self._recorder = Recorder(fleet)
        self._tick_seconds = tick_seconds
        self._ticks = 0
        self._progress = progress

    @property
    def time(self) -> float:
        return self._fleet.time

    def next_tick(self) -> bool:
        """Lets time go by to the next tick, the first being at 0; False when every request is answered."""
        self._fleet.advance(self._ticks * self._tick_seconds)
        self._ticks += 1
        if self._progress is not None:
            self._progress(min(1.0, self._fleet.time / self._fleet.servers.trace.end_seconds))
        return not self._recorder.is_over()

    async def observe(self, previous: Observation | None) -> Observation:
        """The fleet as Prometheus and the API server would show it now."""
        return self._fleet.observe(previous)

    async def scale(self, expected: int, replicas: int) -> None:
        """Asks for the replicas; nobody else scales this fleet, so `expected` always holds."""
        if expected != self._fleet.desired:
            raise FleetError(f"{expected} replicas were expected, {self._fleet.desired} are asked for")
        self._fleet.scale(replicas)

    def note(self, decision: Decision) -> None:
        """Keeps a tick's decision for the result, once it is carried out."""
        self._recorder.note(decision)

    def result(self, objectives: Objectives, score_from_seconds: float = 0.0) -> Replay:
        return self._recorder.result(objectives, score_from_seconds)
