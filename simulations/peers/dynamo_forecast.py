"""How NVIDIA Dynamo's planner foresees the next interval: core/load/predictors.py at 260b6ae (ai-dynamo/dynamo).

Our re-implementation of its constant and Kalman predictors; each foresees one interval ahead and no further. Its
default, a search over ARIMA models by pmdarima, and Prophet are not re-implemented: we have neither library, and
an ARIMA search of our own would not be theirs. Its authors hold the Kalman filter the better match for bursts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol

Predictor = Literal["kalman", "constant"]


class Forecaster(Protocol):
    """Takes a value an interval, and says the next one."""

    def seen(self, number: float) -> Forecaster: ...

    @property
    def next(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Constant:
    """The next is as the last."""

    last: float | None = None

    def seen(self, number: float) -> Constant:
        if not math.isfinite(number):
            number = 0.0
        # Zeros before the first traffic are not counted.
        return self if number == 0 and self.last is None else Constant(number)

    @property
    def next(self) -> float:
        return self.last or 0.0


Matrix = tuple[float, float, float, float]
"""Of two rows, row after row."""


@dataclass(frozen=True, slots=True)
class Kalman:
    """A level and a trend a step: the level drifts by q_level, the trend by q_trend, a reading errs by r."""

    q_level: float = 1.0
    q_trend: float = 0.1
    r: float = 10.0
    level: float | None = None
    """None until the first traffic."""
    trend: float = 0.0
    covariance: Matrix = (1000.0, 0.0, 0.0, 1000.0)

    def seen(self, number: float) -> Kalman:
        if not math.isfinite(number):
            number = 0.0
        if self.level is None:
            return self if number == 0 else replace(self, level=number)
        level, trend, (a, b, c, d) = self._ahead(self.level)
        error_variance = a + self.r
        gain, trend_gain = a / error_variance, c / error_variance
        surprise = number - level
        # Joseph's form, as its library has it.
        i, j = 1 - gain, -trend_gain
        aa, ab = i * a, i * b
        ca, cd = j * a + c, j * b + d
        covariance = (
            aa * i + gain * self.r * gain,
            aa * j + ab + gain * self.r * trend_gain,
            ca * i + trend_gain * self.r * gain,
            ca * j + cd + trend_gain * self.r * trend_gain,
        )
        return replace(self, level=level + gain * surprise, trend=trend + trend_gain * surprise, covariance=covariance)

    @property
    def next(self) -> float:
        return 0.0 if self.level is None else self._ahead(self.level)[0]

    def _ahead(self, level: float) -> tuple[float, float, Matrix]:
        a, b, c, d = self.covariance
        return level + self.trend, self.trend, (a + b + c + d + self.q_level, b + d, c + d, d + self.q_trend)


def forecaster(predictor: Predictor) -> Forecaster:
    return Kalman() if predictor == "kalman" else Constant()
