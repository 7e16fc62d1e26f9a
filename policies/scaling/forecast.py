"""Demand at the horizon as a quantile: each view back-tested at this horizon, the one with skill believed.

The error of a view is measured where it will be used: its forecasts of the last day for `horizon` ahead against
what came. Errors are taken in units of √(forecast·mean): between those of a count (∝ √load) and those of a level
that moves (∝ load). A view is believed when its quantile scored better than the present level's by the quantile
loss, which charges what was planned in vain (1 - q) and what was missed q a unit; otherwise it is muted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.scaling.decision import Forecast
from policies.scaling.forecasters.views import Past, View

PRIOR_ERROR = 0.2
"""Quantile of the error before there is a past to measure it on: three in four hours of chat traffic stay below."""
PRIOR_ERRORS = 15
"""What it weighs, in forecasts compared with what came: three that share none of their minutes."""
FEWEST_ERRORS = 5
"""Compared, before a quantile is taken from them."""
FEWEST_FOR_SKILL = 30
"""Compared, before another view is believed in the present level's place: one a minute, and neighbours share most of
their minutes, so that half an hour tells as much as half a dozen."""
FILLING_BINS = 2
"""Fine bins at the beginning of a past from which no forecast is compared: requests have come whose work is yet to be
done, and that it rises then is no error of a forecast."""


@dataclass(frozen=True, slots=True)
class ForecastFit:
    """What the last back-test found, kept until the next one."""

    fitted_at: float
    horizon_seconds: float
    view: int
    """Index of the believed view."""
    error: float
    """Quantile of its error, in units of √(forecast·mean)."""
    mean: float
    """Mean demand over the back-test."""
    compared: int
    coverage: float
    """Share of what came that lay at or below the quantile, of the last quarter by the first three's quantile."""
    losses: tuple[float, ...]
    """Of each view: its mean quantile loss ÷ mean demand; NaN where it had no opinion."""

    def upper(self, expected: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
        """The quantile above what the believed view expects."""
        return np.asarray(expected + max(0.0, self.error) * np.sqrt(expected * self.mean), np.float64)

    def uppers(self, past: Past, views: Sequence[View]) -> NDArray[np.float64]:
        """The quantile that would have been foreseen at the end of each fine bin; NaN where no view had an opinion."""
        expected = views[self.view].ahead(past, self.horizon_seconds)
        if self.view:  # as `foresee` has it: where the believed one has no past yet, the first speaks
            expected = np.where(np.isnan(expected), views[0].ahead(past, self.horizon_seconds), expected)
        return self.upper(expected)


def fit(
    past: Past,
    views: Sequence[View],
    *,
    now: float,
    horizon_seconds: float,
    quantile: float,
    smooth_seconds: float,
) -> ForecastFit | None:
    """Back-test every view over the fine bins; None while there is too little past. The first view is the fallback."""
    came = past.came(horizon_seconds, smooth_seconds)
    came[:FILLING_BINS] = np.nan
    mean = float(np.nanmean(came)) if np.any(~np.isnan(came)) else 0.0
    if mean <= 0:
        return None
    results = [_backtest(view.ahead(past, horizon_seconds), came, mean, quantile) for view in views]
    if results[0] is None:
        return None
    losses = tuple(float("nan") if result is None else result[1] for result in results)
    best = 0
    for index, result in enumerate(results):
        skilled = result is not None and result[2] >= FEWEST_FOR_SKILL
        if skilled and losses[index] < min(losses[best], losses[0] * (1.0 - views[index].least_skill)):
            best = index
    chosen = results[best]
    assert chosen is not None
    return ForecastFit(now, horizon_seconds, best, chosen[0], mean, chosen[2], chosen[3], losses)


def foresee(
    past: Past,
    views: Sequence[View],
    fitted: ForecastFit | None,
    *,
    now: float,
    horizon_seconds: float,
    quantile: float,
) -> Forecast | None:
    """The forecast for `now + horizon_seconds`, None while nothing is known of the demand of late."""
    if now - past.fine.end > 2 * past.fine.step_seconds:
        return None  # The newest that is known is old: it says nothing of now.
    view: View = views[fitted.view] if fitted else views[0]
    expected = _newest(view.ahead(past, horizon_seconds))
    if expected is None and view is not views[0]:
        view, expected = views[0], _newest(views[0].ahead(past, horizon_seconds))
    if expected is None:
        return None
    upper = expected * (1.0 + PRIOR_ERROR) if fitted is None else float(fitted.upper(np.float64(expected)))
    return Forecast(now + horizon_seconds, view.name, expected, max(expected, upper), quantile)


def _backtest(
    foreseen: NDArray[np.float64], came: NDArray[np.float64], mean: float, quantile: float
) -> tuple[float, float, int, float] | None:
    """(error quantile, loss, compared, coverage) of one view, None with too few comparisons."""
    both = ~np.isnan(foreseen) & ~np.isnan(came)
    if int(both.sum()) < FEWEST_ERRORS:
        return None
    f, c = foreseen[both], came[both]
    scale = np.sqrt(np.maximum(f, 1e-3 * mean) * mean)
    errors = (c - f) / scale
    measured = float(np.quantile(errors, quantile, method="higher"))
    error = (len(errors) * measured + PRIOR_ERRORS * PRIOR_ERROR) / (len(errors) + PRIOR_ERRORS)
    missed = c - (f + max(0.0, error) * scale)
    loss = float(np.mean(np.maximum(quantile * missed, (quantile - 1.0) * missed))) / mean
    split = 3 * len(errors) // 4
    earlier = float(np.quantile(errors[:split], quantile, method="higher"))
    coverage = float(np.mean(errors[split:] <= max(0.0, earlier)))
    return error, loss, len(errors), coverage


def _newest(values: NDArray[np.float64]) -> float | None:
    """The newest opinion; the bin in progress may be too short to have one, the one before then speaks."""
    for value in values[:-3:-1]:
        if not np.isnan(value):
            return float(value)
    return None
