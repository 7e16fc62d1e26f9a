"""The views of the demand to come: the present level, its trend, the same hour of other days, the same minute of hours.

Each view answers for many instants at once, so that the very function which forecasts is the one that is
back-tested. A view that lacks the past it needs answers NaN, which is "no opinion", never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from policies.scaling.series import Series
from policies.scaling.work import Work

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Past:
    """What views look at: fine bins of the recent past, coarse ones of the days before (both rates, NaN unseen)."""

    fine: Series
    coarse: Series
    work: Work | None = None
    """What tokens cost; None: requests are counted, not their work."""

    def fine_rates(self) -> Array:
        return self.work.rates(self.fine) if self.work else self.fine.rates()

    def coarse_rates(self) -> Array:
        return self.work.rates(self.coarse) if self.work else self.coarse.rates()

    def level(self, seconds: float) -> Array:
        """Mean rate over the last `seconds`, at the end of each fine bin; NaN with less than half of them seen."""
        return trailing_mean(self.fine_rates(), max(1, round(seconds / self.fine.step_seconds)))

    def came(self, horizon_seconds: float, smooth_seconds: float) -> Array:
        """Mean rate around the instant that lies a horizon after each fine bin; NaN where it is still to come."""
        step = self.fine.step_seconds
        rates = centred_mean(self.fine_rates(), max(1, round(smooth_seconds / step)))
        # From the end of a bin, half a step after its middle.
        ahead = horizon_seconds / step + 0.5
        return between_middles(rates, np.arange(len(rates)) + int(ahead), ahead % 1.0)

    def fine_times(self) -> Array:
        """The end of each fine bin: the instant at which it was known."""
        return np.asarray((self.fine.first + 1.0 + np.arange(len(self.fine.sums))) * self.fine.step_seconds, np.float64)


class View(Protocol):
    """One way to see ahead."""

    @property
    def name(self) -> str: ...

    @property
    def least_skill(self) -> float:
        """Share by which its quantile loss must lie below the present level's for it to be believed."""
        ...

    def ahead(self, past: Past, horizon_seconds: float) -> Array:
        """Rates foreseen `horizon_seconds` after each fine time, from nothing later than that time."""
        ...


@dataclass(frozen=True, slots=True)
class LastValue:
    """Tomorrow is like today: the mean of the last `window_seconds`."""

    window_seconds: float
    name: str = "last-value"
    least_skill: float = 0.02

    def ahead(self, past: Past, horizon_seconds: float) -> Array:
        return past.level(self.window_seconds)


@dataclass(frozen=True, slots=True)
class Trend:
    """The present level, drawn on to the horizon by the slope between two windows side by side, damped."""

    level_seconds: float
    window_seconds: float
    damping: float = 0.7
    name: str = "trend"
    least_skill: float = 0.02

    def ahead(self, past: Past, horizon_seconds: float) -> Array:
        width = max(1, round(self.window_seconds / past.fine.step_seconds))
        newer = past.level(self.window_seconds)
        older = np.full_like(newer, np.nan)
        older[width:] = newer[:-width]
        slope = (newer - older) / self.window_seconds
        # The level stands in the middle of its own window.
        foreseen = past.level(self.level_seconds) + self.damping * slope * (horizon_seconds + self.level_seconds / 2)
        return np.asarray(np.maximum(foreseen, 0.0))


@dataclass(frozen=True, slots=True)
class Seasonal:
    """The present level, moved as the same hours of earlier periods moved."""

    period_seconds: float
    name: str
    level_seconds: float
    smooth_seconds: float
    greatest_change: float = 4.0
    """A profile of a quiet night says little of how a rise multiplies; beyond this it is not believed."""
    least_skill: float = 0.02

    def ahead(self, past: Past, horizon_seconds: float) -> Array:
        times = past.fine_times()
        level = past.level(self.level_seconds)
        then = self._profile(past, times + horizon_seconds)
        now = self._profile(past, times - self.level_seconds / 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            change = np.where(now > 0, then / now, np.nan)
        return np.asarray(level * np.clip(change, 1.0 / self.greatest_change, self.greatest_change))

    def _profile(self, past: Past, times: Array) -> Array:
        """Smoothed rate one period before each time; NaN where the past does not reach or was not seen."""
        step = past.coarse.step_seconds
        rates = centred_mean(past.coarse_rates(), max(1, round(self.smooth_seconds / step)))
        place = (times - self.period_seconds) / step - past.coarse.first - 0.5
        low = np.floor(place).astype(np.int64)
        return between_middles(rates, low, place - low)


@dataclass(frozen=True, slots=True)
class Recurring:
    """The present level, and what came or went after this place of the last few periods, in the median.

    For what a clock starts each hour: it adds requests whatever else comes, for minutes that a season smooths out.
    """

    period_seconds: float
    name: str
    level_seconds: float
    smooth_seconds: float
    periods: int = 3
    """An odd number, so that what came in fewer than half of them is not expected again."""
    least_skill: float = 0.2
    """In so few periods chance alone shows patterns."""

    def ahead(self, past: Past, horizon_seconds: float) -> Array:
        level = past.level(self.level_seconds)
        moved = past.came(horizon_seconds, self.smooth_seconds) - level
        period = round(self.period_seconds / past.fine.step_seconds)
        # The first of which all that it says had come by now.
        first = ceil((horizon_seconds + self.smooth_seconds / 2 + past.fine.step_seconds) / self.period_seconds)
        earlier = np.full((self.periods, len(level)), np.nan)
        for row, back in zip(earlier, range(first * period, len(level), period), strict=False):
            row[back:] = moved[:-back]
        return np.asarray(np.maximum(0.0, level + np.median(earlier, axis=0)))


def between_middles(rates: Array, low: NDArray[np.int64], share: Array | float) -> Array:
    """The rate that `share` of a step after the middle of each bin `low`; NaN beyond the bins.

    A bin stands for its middle, and between two middles the rate is a line.
    """
    inside = (low >= 0) & (low + 1 < len(rates))
    if not inside.any():
        return np.full(len(low), np.nan)
    low = np.where(inside, low, 0)
    return np.where(inside, rates[low] * (1 - share) + rates[low + 1] * share, np.nan)


def trailing_mean(rates: Array, width: int) -> Array:
    """Mean of the last `width` values at each place; NaN where fewer than half of them are known."""
    return _window_mean(rates, width - 1, 0)


def centred_mean(rates: Array, width: int) -> Array:
    return _window_mean(rates, width // 2, width // 2)


def _window_mean(rates: Array, back: int, ahead: int) -> Array:
    known = ~np.isnan(rates)
    total = np.concatenate(([0.0], np.cumsum(np.where(known, rates, 0.0))))
    count = np.concatenate(([0], np.cumsum(known)))
    index = np.arange(len(rates))
    low, high = np.maximum(index - back, 0), np.minimum(index + ahead + 1, len(rates))
    seen = count[high] - count[low]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(2 * seen >= back + ahead + 1, (total[high] - total[low]) / seen, np.nan)
