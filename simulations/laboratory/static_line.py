"""Fixed fleets around the fewest replicas that keep the objective: the line that any policy has to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulations.laboratory.oracle import serve
from simulations.laboratory.scenario import Scenario
from simulations.replay import attained

AROUND = 3
"""Replicas below and above the fewest that suffice; fleets further off would only flatten the picture."""


@dataclass(frozen=True, slots=True)
class StaticFleet:
    """What a fixed number of replicas makes of the trace, under the scenario's own seed."""

    replicas: int
    slo_attainment: float
    gpu_hours: float


def static_line(scenario: Scenario, *, progress: Callable[[str, float], None] | None = None) -> tuple[StaticFleet, ...]:
    """By number of replicas, within the scenario's bounds."""
    least, most = max(1, scenario.min_replicas), scenario.max_replicas
    known: dict[int, StaticFleet] = {}

    def of(replicas: int) -> StaticFleet:
        if replicas not in known:
            if progress is not None:
                progress(f"static:{replicas}", len(known) / (len(known) + AROUND))
            known[replicas] = _served(scenario, replicas)
        return known[replicas]

    low, high = least - 1, most
    while high - low > 1:
        middle = (low + high) // 2
        suffices = of(middle).slo_attainment >= scenario.objectives.attainment
        low, high = (low, middle) if suffices else (middle, high)
    return tuple(of(replicas) for replicas in range(max(least, high - AROUND), min(most, high + AROUND) + 1))


def _served(scenario: Scenario, replicas: int) -> StaticFleet:
    scored = scenario.trace.arrived_at_seconds >= scenario.score_from_seconds
    fleet, _ = serve(scenario, np.array([replicas]))
    kept = attained(fleet.servers, scenario.objectives)[scored]
    return StaticFleet(replicas, float(kept.mean()), fleet.gpu_hours(scenario.score_from_seconds))
