"""How often what came lay within what was foreseen: each forecast beside the load at the time it speaks of.

A forecast is held to the load that its own policy tells: nothing else is in the unit it speaks in, which is work for
one and may be arrivals for another. Where no load was seen nothing is known, and such a forecast counts neither way.
`preheat_forecast_coverage_ratio` counts those of a running target alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.replay import Replay
from simulations.report.document import clock
from simulations.report.series import load_told

TEN_MINUTES, HOUR, DAY = 600.0, 3600.0, 86400.0
HOURS_FROM_SECONDS = 2 * HOUR
"""A shorter replay is told by ten minutes."""
DAYS_FROM_SECONDS = 30 * DAY
"""A longer one is told by days: of more hours none could be seen."""
SEVERAL_DAYS_SECONDS = 2 * DAY
"""From here on a weakness is sought by hour of the day: one that comes again can be planned for."""
LEAST_SEEN = 0.25
"""Share of the forecasts of the fullest stretch that another must hold to have a share of its own."""
FEWEST_TO_BLAME = 20
"""Forecasts, five minutes of them, of which a stretch is called the weakest."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Covered:
    """Of forecasts for one stretch of time, how many were not exceeded."""

    begin: float
    end: float
    covered: int
    known: int
    """Forecasts for times at which the load was seen."""

    @property
    def share(self) -> float:
        """NaN where nothing is known."""
        return self.covered / self.known if self.known else math.nan


@dataclass(frozen=True, slots=True)
class Forecasts:
    """All whose time has come, in its order."""

    time: Floats
    upper: Floats
    """Requests/s."""
    came: Floats
    """Requests/s; NaN where the load was not seen."""
    quantile: float
    """Share, 0 to 1, that would be covered if each upper were just that quantile."""

    @classmethod
    def of(cls, replay: Replay) -> Forecasts | None:
        """None of a policy that foresees nothing, or never tells the load that it sees."""
        told = load_told(replay)
        if told is None:
            return None
        last = told.x[-1]
        made = [each.forecast for each in replay.decisions if each.forecast is not None and each.forecast.time <= last]
        if not made:
            return None
        made.sort(key=lambda each: each.time)
        time = np.array([each.time for each in made])
        return cls(
            time,
            np.array([each.upper for each in made]),
            load_at(replay, time),
            # Of many alike it is that one, to the last digit.
            round(math.fsum(each.quantile for each in made) / len(made), 9),
        )

    @property
    def is_known(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.came)

    @property
    def is_covered(self) -> NDArray[np.bool_]:
        return self.is_known & (self.came <= self.upper)

    def since(self, begin: float) -> Forecasts:
        """Those for times from then on alone."""
        later = self.time >= begin
        return Forecasts(self.time[later], self.upper[later], self.came[later], self.quantile)

    def by_step(self, step_seconds: float) -> tuple[Covered, ...]:
        """Every step from time 0 to the last forecast's, whether or not it has one."""
        return self._counted(self.time, step_seconds)

    def by_hour_of_day(self) -> tuple[Covered, ...]:
        """All days together, the day counted from the trace's time 0."""
        return self._counted(self.time % DAY, HOUR)

    def _counted(self, time: Floats, step_seconds: float) -> tuple[Covered, ...]:
        steps = (time // step_seconds).astype(np.int64)
        most = int(steps.max(initial=-1)) + 1
        covered, known = (np.bincount(steps[of], minlength=most).tolist() for of in (self.is_covered, self.is_known))
        return tuple(Covered(at * step_seconds, (at + 1) * step_seconds, covered[at], known[at]) for at in range(most))


def load_at(replay: Replay, times: Floats) -> Floats:
    """Requests/s that came around each time, as the next look that tells of it saw it; NaN where none did."""
    told = load_told(replay)
    if told is None:
        return np.full(len(times), np.nan)
    tick_seconds = float(np.median(np.diff(told.x))) if len(told.x) > 1 else 0.0
    following = np.minimum(np.searchsorted(told.x, times), len(told.x) - 1)
    wait = told.x[following] - times
    return np.where((wait >= 0) & (wait <= tick_seconds), told.y[following], np.nan)


def shares(stretches: Sequence[Covered]) -> list[float]:
    """Of each one; NaN where hardly anything was seen: one instant does not speak for an hour."""
    least = LEAST_SEEN * max((each.known for each in stretches), default=0)
    return [each.share if each.known >= least else math.nan for each in stretches]


def step_of(end_seconds: float) -> float:
    """The stretch by which a replay of this length is told."""
    if end_seconds < HOURS_FROM_SECONDS:
        return TEN_MINUTES
    return HOUR if end_seconds <= DAYS_FROM_SECONDS else DAY


def weakest(stretches: Sequence[Covered]) -> Covered | None:
    """The least covered of those that hold enough to be blamed; None where none does."""
    return min((each for each in stretches if each.known >= FEWEST_TO_BLAME), key=lambda s: s.share, default=None)


def what_was_covered(name: str, found: Forecasts, *, since: float, end: float) -> str:
    """The share of all from the scored time on, the share that was planned for, and where it was least."""
    scored = found.since(since)
    covered, known = int(scored.is_covered.sum()), int(scored.is_known.sum())
    from_ = f" from {clock(since)} on" if since > 0 else ""
    if not known:
        return f"{name}: no forecast was for a time{from_} at which a load was seen."
    said = (
        f"{name}: at {covered:,} of {known:,} instants{from_} ({covered / known:.1%}) the load that came was at most "
        f"what had been planned for; {100 * found.quantile:.3g}% were meant to be."
    )
    unknown = len(scored.time) - known
    if unknown:
        said += f" Of {unknown:,} more nothing is known: no load was seen."
    by_day = end >= SEVERAL_DAYS_SECONDS
    least = weakest(scored.by_hour_of_day() if by_day else scored.by_step(step_of(end)))
    if least is not None and least.share < found.quantile:
        when = f"from {clock(least.begin)} to {clock(min(least.end, end))}"
        when = f"in the hour of the day {when}, counted from the trace's begin" if by_day else when
        said += f" Fewest {when}: {least.covered:,} of {least.known:,} ({least.share:.1%})."
    return said
