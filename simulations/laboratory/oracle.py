"""The oracle: the fewest GPU-hours found at which the attainment is reached, by one who knows every arrival.

It is found by search, so it bounds from above what a clairvoyant needs; it proves nothing (`lower_bound` does).
Every candidate is judged by the simulator itself, under the same cold start, bounds and start as any policy.

1. Schedules are made from the work to come: averaged over a window, shared out at a use ρ of each replica, ordered a
   cold start ahead. Each of several windows at each of several ρ is simulated once.
2. The trace is cut into blocks of ten minutes. What a block's requests missed and what its replicas cost is known
   for each of these schedules; at a price λ, in GPU-seconds a miss, every block takes the one that is cheapest.
   A narrow window serves a burst, a wide one spares cold starts, a high ρ gives up what is dear to keep.
3. The schedule of all these choices is simulated, and λ found by bisection at which it just attains. What the blocks
   missed side by side corrects what was known of them, twice.
4. Where the foreseeable's schedule, one ρ for all time, is cheaper still, that is taken.

The number of simulations is bounded and nothing is drawn, so the same scenario gives the same schedule.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.laboratory.foreseeable import foreseeable, mean_work, ordered_ahead, schedule
from simulations.laboratory.scenario import Scenario
from simulations.model.fleet import SimulatedFleet
from simulations.replay import LONGEST_WORK_OFF_SECONDS, Replay, Schedule, attained

WINDOWS_SECONDS = (30.0, 60.0, 150.0, 400.0)
USES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05)
BLOCK_SECONDS = 600.0
ROUNDS = 3
BISECTIONS = 6
HOPELESS = 0.3
"""A schedule that misses so many is the last of its window: leaner ones only queue longer."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Oracle:
    """What the search found."""

    schedule: Schedule
    attains: bool
    """False: not even the most replicas at all times do."""
    simulations: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Judged:
    """A schedule as it was simulated."""

    replicas: Ints
    """Asked for at each tick."""
    missed: Ints
    """Scored requests that missed, by the block in which they arrived."""
    gpu_hours: float


def oracle(scenario: Scenario, *, progress: Callable[[float], None] | None = None) -> Oracle:
    """Searches; `progress` is told the share done."""
    search = _Search(scenario, progress)
    search.try_schedules()
    search.choose_by_block()
    search.try_the_foreseeable()
    best = search.best
    if best is None:
        best = search.judged(np.full(search.ticks, scenario.max_replicas))
    found = Schedule("oracle", scenario.tick_seconds, tuple(best.replicas.tolist()))
    return Oracle(found, search.attains(best), search.simulations, search.seconds)


class _Search:
    def __init__(self, scenario: Scenario, progress: Callable[[float], None] | None) -> None:
        self.scenario = scenario
        self.simulations = 0
        self.seconds = 0.0
        self.best: _Judged | None = None
        """The cheapest that attains."""
        self._progress = progress
        trace, tick = scenario.trace, scenario.tick_seconds
        self.ticks = int(trace.end_seconds // tick) + 1
        self._ahead = math.ceil(scenario.cold_start_seconds / tick - 1e-9)
        self._scored = trace.arrived_at_seconds >= scenario.score_from_seconds
        self._requests = int(self._scored.sum())
        per_block = max(1, round(BLOCK_SECONDS / tick))
        self._block = np.arange(self.ticks) // per_block
        """Of each tick."""
        self._blocks = int(self._block[-1]) + 1
        of_request = np.minimum((trace.arrived_at_seconds // tick).astype(np.int64), self.ticks - 1)
        self._block_of_scored = self._block[of_request[self._scored]]
        self._serving: list[Ints] = []
        """Replicas to serve at each tick, of each schedule tried."""
        self._missed: list[Ints] = []
        self._held_seconds: list[NDArray[np.float64]] = []
        """By block, as `_missed`: the price of each."""

    def try_schedules(self) -> None:
        """Every window at every use, from the most generous on; the first dear ones are known to attain."""
        scenario = self.scenario
        for window in WINDOWS_SECONDS:
            mean = mean_work(
                scenario.trace,
                scenario.engine,
                step_seconds=scenario.tick_seconds,
                end_seconds=scenario.trace.end_seconds,
                window_seconds=window,
            )[: self.ticks]
            for use in USES:
                wish = np.ceil(np.round(mean / use, 9))
                serving = np.clip(wish, scenario.min_replicas, scenario.max_replicas).astype(np.int64)
                judged = self.judged(self._created(serving))
                self._serving.append(serving)
                self._missed.append(judged.missed)
                held = np.bincount(self._block, weights=judged.replicas, minlength=self._blocks)
                self._held_seconds.append(np.asarray(held * scenario.tick_seconds, dtype=np.float64))
                if judged.missed.sum() > HOPELESS * self._requests:
                    break

    def choose_by_block(self) -> None:
        """The cheapest schedule of each block at a price of a miss, and the price at which all together just attain."""
        serving, held = np.array(self._serving), np.array(self._held_seconds)
        missed = np.array(self._missed, dtype=np.float64)
        blocks = np.arange(self._blocks)
        low, high = math.log(0.05), math.log(500.0)
        price = 0.0
        for round_ in range(ROUNDS):
            if round_ > 0:
                low, high = price - 1.0, price + 1.0
            for _ in range(BISECTIONS):
                price = (low + high) / 2
                chosen = np.argmin(held + math.exp(price) * missed, axis=0)
                judged = self.judged(self._created(serving[chosen[self._block], np.arange(self.ticks)]))
                # What a block missed among its neighbours as chosen is nearer the truth than among its own kind.
                missed[chosen, blocks] = (missed[chosen, blocks] + judged.missed) / 2
                low, high = (low, price) if self.attains(judged) else (price, high)

    def try_the_foreseeable(self) -> None:
        """On a smooth load blocks may differ by luck alone, and one ρ for all be the better choice."""

        def tried(_: float, result: Replay) -> None:
            self.simulations += 1
            self.seconds += result.loop_seconds

        found = foreseeable(self.scenario, tried=tried)
        if found is not None and (self.best is None or found.reached.gpu_hours < self.best.gpu_hours):
            self.judged(np.array(schedule(self.scenario, found.use).replicas))

    def attains(self, judged: _Judged) -> bool:
        kept = self._requests - int(judged.missed.sum())
        return kept / self._requests >= self.scenario.objectives.attainment

    def _created(self, serving: Ints) -> Ints:
        return ordered_ahead(serving, self._ahead, self.scenario.min_replicas)

    def judged(self, replicas: Ints) -> _Judged:
        """Simulates it, as `simulations.replay.replay` would, without what only a report needs."""
        scenario = self.scenario
        fleet, seconds = serve(scenario, replicas)
        self.simulations += 1
        self.seconds += seconds
        if self._progress is not None:
            self._progress(min(1.0, self.simulations / (len(WINDOWS_SECONDS) * len(USES) + ROUNDS * BISECTIONS)))
        missed = ~attained(fleet.servers, scenario.objectives)[self._scored]
        by_block = np.bincount(self._block_of_scored[missed], minlength=self._blocks)
        judged = _Judged(replicas, by_block, fleet.gpu_hours(scenario.score_from_seconds))
        if self.attains(judged) and (self.best is None or judged.gpu_hours < self.best.gpu_hours):
            self.best = judged
        return judged


def serve(scenario: Scenario, replicas: Ints) -> tuple[SimulatedFleet, float]:
    """The fleet after it served the whole trace with so many replicas at each tick, and the seconds that took."""
    start = scenario.start_replicas
    fleet = SimulatedFleet(
        scenario.trace,
        scenario.engine,
        objectives=scenario.objectives,
        conditions=scenario.conditions,
        start_replicas=int(replicas[0]) if start is None else start,
    )
    asked = replicas.tolist()
    last_arrival = scenario.trace.end_seconds
    begun = time.perf_counter()
    tick = 0
    while True:
        now = tick * scenario.tick_seconds
        fleet.advance(now)
        if now >= last_arrival and (fleet.servers.is_idle() or now > last_arrival + LONGEST_WORK_OFF_SECONDS):
            return fleet, time.perf_counter() - begun
        wanted = asked[min(tick, len(asked) - 1)]
        if wanted != fleet.desired:
            fleet.scale(wanted)
        tick += 1
