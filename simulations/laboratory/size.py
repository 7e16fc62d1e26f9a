"""The fewest replicas that keep the objective: one number for all time, and one for each hour of the day.

Each number is found by simulation. The fixed one by bisection. For the hours, all are lowered together, one replica
at a time; an hour whose own requests no longer attain goes back by one and stays there. Then every hour attains by
itself, with the cold start ordered ahead and whatever queue the hour before left.

The interval says how sure the trace makes it: its stretches (hours, or ten minutes in a short trace) are drawn anew
with replacement a thousand times, and 95 % of the answers lie within. It knows nothing of traffic unlike the trace's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.files import ConfigError
from simulations.laboratory.comparison import warm_up
from simulations.laboratory.foreseeable import ordered_ahead
from simulations.laboratory.oracle import serve
from simulations.laboratory.scenario import Scenario
from simulations.replay import attained

HOUR_SECONDS = 3600.0
DAY_HOURS = 24
STRETCH_SECONDS = 600.0
DRAWS = 1000
TAIL = 2.5
"""Per cent of the draws on either side of the interval."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fewest:
    """A number of replicas, and between which the trace leaves it."""

    replicas: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of the day, over all days of the trace."""

    hour: int
    """0 to 23, counted from the trace's time 0."""
    requests_per_second: float
    fewest: Fewest
    slo_attainment: float
    """Of the hour's own requests, with every hour at its number."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """What is needed, and what it costs from `score_from_seconds` on."""

    fixed: Fewest
    fixed_attainment: float
    fixed_gpu_hours: float
    hours: tuple[Hour, ...]
    """Those in which any scored request arrives."""
    hourly_attainment: float
    hourly_gpu_hours: float
    simulations: int


class _Runs:
    """Simulations so far, and what of each is needed."""

    def __init__(self, scenario: Scenario, progress: Callable[[str, float], None] | None) -> None:
        trace = scenario.trace
        self.scenario = scenario
        self.count = 0
        self.missed: dict[int, Ints] = {}
        """By fixed number of replicas: whether each scored request missed."""
        self.ticks = int(trace.end_seconds // scenario.tick_seconds) + 1
        self._scored = trace.arrived_at_seconds >= scenario.score_from_seconds
        self.arrived = trace.arrived_at_seconds[self._scored]
        self._progress = progress

    def run(self, replicas: Ints) -> tuple[Ints, float]:
        """Misses of the scored requests, and GPU-hours."""
        fleet, _ = serve(self.scenario, replicas)
        self.count += 1
        if self._progress is not None:
            self._progress(f"{int(replicas.max())} replicas", min(0.95, self.count / 24))
        missed = ~attained(fleet.servers, self.scenario.objectives)[self._scored]
        return missed.astype(np.int64), fleet.gpu_hours(self.scenario.score_from_seconds)

    def fixed(self, replicas: int) -> Ints:
        if replicas not in self.missed:
            self.missed[replicas] = self.run(np.full(self.ticks, replicas))[0]
        return self.missed[replicas]


def size(scenario: Scenario, *, progress: Callable[[str, float], None] | None = None) -> Sizing:
    """Simulates until both are known; a ConfigError where `max_replicas` do not suffice."""
    warm_up(scenario)
    runs = _Runs(scenario, progress)
    target = scenario.objectives.attainment
    least, most = max(1, scenario.min_replicas), scenario.max_replicas
    reached = 1 - runs.fixed(most).mean()
    if reached < target:
        raise ConfigError((f"{most} replicas at all times reach {reached:.2%}, not {target * 100:g} %: raise --max",))
    low, high = least - 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if 1 - runs.fixed(middle).mean() >= target else (middle, high)
    for near in range(max(least, high - 2), min(most, high + 2) + 1):
        runs.fixed(near)
    span = scenario.trace.end_seconds - scenario.score_from_seconds
    stretch = HOUR_SECONDS if span >= DAY_HOURS / 2 * HOUR_SECONDS else STRETCH_SECONDS
    fixed = _fewest(high, runs.missed, (runs.arrived // stretch).astype(np.int64), target)
    fixed_hours = runs.run(np.full(runs.ticks, high))[1]
    hours, hourly_attainment, hourly_hours = _by_hour(runs, high, least, target)
    return Sizing(
        fixed,
        1 - float(runs.missed[high].mean()),
        fixed_hours,
        hours,
        hourly_attainment,
        hourly_hours,
        runs.count,
    )


def _by_hour(runs: _Runs, enough: int, least: int, target: float) -> tuple[tuple[Hour, ...], float, float]:
    scenario = runs.scenario
    hour_of_tick = (np.arange(runs.ticks) * scenario.tick_seconds // HOUR_SECONDS).astype(np.int64) % DAY_HOURS
    hour = (runs.arrived // HOUR_SECONDS).astype(np.int64) % DAY_HOURS
    requests = np.bincount(hour, minlength=DAY_HOURS)
    ahead = math.ceil(scenario.cold_start_seconds / scenario.tick_seconds - 1e-9)

    def tried(levels: Ints) -> tuple[Ints, float]:
        return runs.run(ordered_ahead(levels[hour_of_tick], ahead, least))

    def attains(missed: Ints) -> NDArray[np.bool_]:
        return np.asarray(np.bincount(hour, missed, DAY_HOURS) <= (1 - target) * requests + 1e-9)

    def interval(each: int) -> Fewest:
        stretches = (runs.arrived[hour == each] // STRETCH_SECONDS).astype(np.int64)
        return _fewest(int(levels[each]), seen[each], stretches, target)

    levels = np.where(requests > 0, enough, least)
    seen: list[dict[int, Ints]] = [{} for _ in range(DAY_HOURS)]
    settled = requests == 0
    missed, hours_held = tried(levels)
    while True:
        for each in np.flatnonzero(requests).tolist():
            seen[each][int(levels[each])] = missed[hour == each]
        kept = attains(missed)
        failing = ~kept & (levels < scenario.max_replicas)
        if settled.all() and not failing.any():
            break
        # An hour that fails goes back by one and is lowered no more.
        settled = settled | ~kept | (levels == least)
        levels = levels + failing - (~settled & kept)
        missed, hours_held = tried(levels)
    # An hour that now has more than the fixed number was raised for a queue that its neighbour no longer leaves.
    for each in np.flatnonzero(levels > enough).tolist():
        while levels[each] > enough:
            lower = levels - (np.arange(DAY_HOURS) == each)
            its_missed, its_hours = tried(lower)
            if not attains(its_missed).all():
                break
            levels, missed, hours_held = lower, its_missed, its_hours
            seen[each][int(levels[each])] = missed[hour == each]
    rows = []
    days = np.bincount(((np.unique(runs.arrived // HOUR_SECONDS)).astype(np.int64)) % DAY_HOURS, minlength=DAY_HOURS)
    for each in np.flatnonzero(requests).tolist():
        rate = requests[each] / (days[each] * HOUR_SECONDS)
        rows.append(Hour(each, float(rate), interval(each), 1 - float(missed[hour == each].mean())))
    return tuple(rows), 1 - float(missed.mean()), hours_held


def _fewest(found: int, missed: dict[int, Ints], stretch: Ints, target: float) -> Fewest:
    """The interval around what was found, from the numbers that were tried, whose misses are given by request."""
    _, place = np.unique(stretch, return_inverse=True)
    stretches = int(place.max()) + 1
    rng = np.random.default_rng(0)
    weights = rng.multinomial(stretches, np.full(stretches, 1 / stretches), size=DRAWS)
    drawn = weights @ np.bincount(place, minlength=stretches)
    answers = np.full(DRAWS, max(missed))
    for replicas in sorted(missed, reverse=True):
        late = weights @ np.bincount(place, missed[replicas], stretches)
        answers[late <= (1 - target) * drawn + 1e-9] = replicas
    low, high = np.percentile(answers, [TAIL, 100 - TAIL], method="inverted_cdf")
    return Fewest(found, min(found, int(low)), max(found, int(high)))
