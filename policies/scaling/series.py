"""Load folded into equal stretches of time, bounded in number: the long memory of a target."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil, floor
from typing import Final

import numpy as np
from numpy.typing import NDArray

SECONDS: Final = 0
ARRIVALS: Final = 1
PROMPT_TOKENS: Final = 2
GENERATION_TOKENS: Final = 3
SATURATED_SECONDS: Final = 4
PROMPTS: Final = 5
COLUMNS: Final = 6

MOST_UNSEEN: Final = 0.5
"""A bin seen for less than this share of its length is unknown."""

Row = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """Sums over bins of a grid that begins at time zero, so that how a tick falls never moves a bin.

    `sums` is (bins, COLUMNS), float32; row i covers [(first + i)·step, (first + i + 1)·step).
    """

    step_seconds: float
    keep: int
    first: int = 0
    sums: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, COLUMNS), np.float32))

    def add(self, start: float, end: float, row: Row) -> Series:
        """The series with what happened in [start, end) spread evenly over it."""
        if end <= start:
            return self
        low, high = floor(start / self.step_seconds), floor(end / self.step_seconds)
        if high * self.step_seconds == end:
            high -= 1
        grown = self._reaching(low, high)
        if low == high:
            if low >= grown.first:
                grown.sums[low - grown.first] += np.array(row, np.float32)
            return grown
        for index in range(max(low, grown.first), high + 1):
            overlap = min(end, (index + 1) * self.step_seconds) - max(start, index * self.step_seconds)
            grown.sums[index - grown.first] += np.array(row, np.float32) * np.float32(overlap / (end - start))
        return grown

    def add_all(self, starts: NDArray[np.float64], ends: NDArray[np.float64], rows: NDArray[np.float64]) -> Series:
        """What `add` of each (start, end, row) after the other gives; `rows` is (stretches, COLUMNS)."""
        some = ends > starts
        starts, ends, rows = starts[some], ends[some], rows[some]
        if not len(starts):
            return self
        step = self.step_seconds
        low = np.floor(starts / step).astype(np.int64)
        high = np.floor(ends / step).astype(np.int64)
        high -= high * step == ends
        grown = self._reaching(int(low.min()), int(high.max()))
        for further in range(int((high - low).max()) + 1):
            index = low + further
            overlap = np.minimum(ends, (index + 1) * step) - np.maximum(starts, index * step)
            kept = (overlap > 0) & (index >= grown.first)
            share = (overlap[kept] / (ends - starts)[kept])[:, np.newaxis]
            np.add.at(grown.sums, index[kept] - grown.first, (rows[kept] * share).astype(np.float32))
        return grown

    def _reaching(self, low: int, high: int) -> Series:
        """A copy with room for bins low…high, the oldest beyond `keep` dropped."""
        if len(self.sums) == 0:
            low = max(low, high - self.keep + 1)
            return replace(self, first=low, sums=np.zeros((high - low + 1, COLUMNS), np.float32))
        first = max(min(self.first, low), max(high, self.last) - self.keep + 1)
        length = max(high, self.last) - first + 1
        sums = np.zeros((length, COLUMNS), np.float32)
        kept = max(self.first, first)
        if kept <= self.last:
            sums[kept - first : self.last - first + 1] = self.sums[kept - self.first :]
        return replace(self, first=first, sums=sums)

    def until(self, time: float) -> Series:
        """Without what begins later."""
        return replace(self, sums=self.sums[: max(0, ceil(time / self.step_seconds) - self.first)])

    def tail(self, bins: int) -> Series:
        """The newest bins alone."""
        cut = max(0, len(self.sums) - bins)
        return replace(self, first=self.first + cut, sums=self.sums[cut:])

    @property
    def last(self) -> int:
        return self.first + len(self.sums) - 1

    @property
    def end(self) -> float:
        """Where the newest bin ends."""
        return (self.last + 1) * self.step_seconds

    def rates(self, column: int = ARRIVALS) -> NDArray[np.float64]:
        """Mean per second of each bin, NaN where too little of the bin was seen."""
        seconds = self.sums[:, SECONDS].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(
                seconds >= MOST_UNSEEN * self.step_seconds,
                self.sums[:, column].astype(np.float64) / seconds,
                np.nan,
            )
