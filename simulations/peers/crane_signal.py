"""How crane foresees a periodic signal: pkg/prediction/dsp of 2b0ddae (Dec 2024), and docs/…/timeseries by DSP.

Our re-implementation. Its test for a period shuffles the samples a hundred times and takes the 99th of the greatest
amplitudes; a policy here knows no chance, so that threshold is what a shuffled series exceeds once in a hundred by
the theory of white noise. Numbers are rounded before they are compared, so that processors agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PEAK_REACH_SECONDS = 4 * 3600.0
"""How far to both sides of a lag the correlation must rise towards it."""
HIGH_FREQUENCY_HERTZ = 1 / 3600
MOST_SPECTRUM_ITEMS = 100
LEAST_VALUE = 0.01
DIGITS = 9


@dataclass(frozen=True, slots=True)
class Estimator:
    """The last cycle without its noise: quick and small components are cut, and a margin is put on top."""

    margin: float
    low_amplitude: float
    least_items: int

    def cycle(self, samples: Floats, per_cycle: int, interval_seconds: float) -> Floats:
        spectrum = np.fft.fft(samples)
        count = len(samples)
        amplitudes = _modulus(spectrum) / count
        ranked = np.sort(amplitudes[1 : count // 2])[::-1]
        cut = max(self.low_amplitude, float(ranked[min(len(ranked), MOST_SPECTRUM_ITEMS) - 1]))
        if len(ranked) >= self.least_items:
            cut = min(cut, float(ranked[self.least_items - 1]))
        # As it is there, the mirrored half counts as quick whatever it mirrors.
        quick = np.arange(count) / (count * interval_seconds) > HIGH_FREQUENCY_HERTZ
        kept = np.where((amplitudes < cut) & quick, 0.0, spectrum)
        smooth = np.fft.ifft(kept).real[count - per_cycle :]
        return np.asarray(np.round(np.where(smooth <= 0, LEAST_VALUE, smooth) * (1 + self.margin), DIGITS), np.float64)


ESTIMATORS = tuple(
    Estimator(margin, low, least) for low, least in ((1.0, 3), (0.05, 50)) for margin in (0.01, 0.10, 0.15, 0.20)
)


def without_outliers(samples: Sequence[float]) -> Floats:
    """What lies beyond the 0.1st and the 99.9th percentile is replaced by what came before it."""
    values = np.array(samples, dtype=np.float64)
    low, high = np.percentile(values, [0.1, 99.9])
    for place in np.flatnonzero((values < low) | (values > high)).tolist():
        if place:
            values[place] = values[place - 1]
    return values


def whole_cycles(samples: Floats, per_cycle: int) -> Floats:
    """The newest of them, as many as make whole cycles."""
    return samples[len(samples) - len(samples) // per_cycle * per_cycle :]


def period_seconds(samples: Floats, interval_seconds: float, periods: tuple[float, ...]) -> float | None:
    """The one of these periods (the longest that was seen twice decides the stretch) that the signal has."""
    for longest in sorted(periods, reverse=True):
        per_cycle = round(longest / interval_seconds)
        stretch = whole_cycles(samples, per_cycle)
        if len(stretch) >= 2 * per_cycle:
            lag = _fundamental(stretch, interval_seconds)
            found = None if lag is None else lag * interval_seconds
            return found if found in periods else None
    return None


def next_cycle(samples: Floats, interval_seconds: float, period: float) -> Floats | None:
    """By the estimator that would have foreseen the last cycle best; None of fewer than two."""
    per_cycle = round(period / interval_seconds)
    stretch = whole_cycles(samples, per_cycle)
    if len(stretch) < 2 * per_cycle:
        return None
    past, actual = stretch[:-per_cycle], stretch[-per_cycle:]
    errors = [prediction_error(actual, each.cycle(past, per_cycle, interval_seconds)) for each in ESTIMATORS]
    best = ESTIMATORS[errors.index(min(errors))]
    return best.cycle(stretch, per_cycle, interval_seconds)


def prediction_error(actual: Floats, predicted: Floats) -> float:
    """Mean share of error, too little weighing more than too much; the mean error where something is near zero."""
    pairs = list(zip(actual.tolist(), predicted.tolist(), strict=True))
    if min(a for a, _ in pairs) < 1e-3:
        return round(math.fsum(abs(a - p) for a, p in pairs) / len(pairs), DIGITS)
    shares = (amplified((a - p) / a) if p < a else (p - a) / a for a, p in pairs)
    return round(math.fsum(shares) / len(pairs), DIGITS)


def amplified(share: float) -> float:
    """What a forecast too small by this share counts: 0.1 as 0.47, 0.5 as 3.1."""
    return math.inf if share >= 1 else -math.log(1 - share) / math.log(1.25)


def _modulus(spectrum: NDArray[np.complex128]) -> Floats:
    return np.asarray(np.round(np.sqrt(spectrum.real**2 + spectrum.imag**2), DIGITS), np.float64)


def _fundamental(samples: Floats, interval_seconds: float) -> int | None:
    """The lag, in samples, that stands out in the spectrum and is the highest peak of the autocorrelation."""
    count = len(samples)
    centred = samples - math.fsum(samples.tolist()) / count
    variance = math.fsum((centred * centred).tolist()) / count
    if variance <= 1e-12:
        return None
    amplitudes = _modulus(np.fft.fft(samples))
    # Of white noise each |X|² is exponential with mean count·variance; of half as many the greatest exceeds this
    # once in a hundred.
    threshold = math.sqrt(count * variance * (math.log(count / 2) - math.log(-math.log(0.99))))
    hints = dict.fromkeys(count // k for k in range(2, count // 2) if amplitudes[k] > threshold)
    spectrum = np.fft.fft(centred)
    power = spectrum.real * spectrum.real + spectrum.imag * spectrum.imag
    correlation = np.round(np.fft.ifft(power).real / (count * variance), DIGITS)
    best, highest = None, 0.0
    reach = int(PEAK_REACH_SECONDS / interval_seconds)
    for lag in hints:
        if correlation[lag] > highest and _is_peak(correlation, lag, min(reach, lag // 2)):
            best, highest = lag, float(correlation[lag])
    return best


def _is_peak(correlation: Floats, lag: int, reach: int) -> bool:
    """Whether straight lines through both sides rise to it and fall from it."""
    if reach < 1 or lag + reach >= len(correlation):
        return False
    return _slope(correlation[lag - reach : lag + 1]) > 0 > _slope(correlation[lag : lag + reach + 1])


def _slope(values: Floats) -> float:
    middle = (len(values) - 1) / 2
    return math.fsum((place - middle) * value for place, value in enumerate(values.tolist()))
