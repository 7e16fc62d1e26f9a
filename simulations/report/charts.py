"""What the page's script draws: charts over time and charts of dots, as plain values; NaN is drawn as a gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

COLORS = 8
"""How many of the style sheet's --p0, --p1, … there are."""
DASHES = ("", "7 4", "2 3", "10 3 2 3")
"""Lines of other policies are told apart without colour, too."""
DIGITS = 4


def color(number: int) -> str:
    """Of the n-th policy, all over the page."""
    return f"var(--p{number % COLORS})"


def dash(number: int) -> str:
    return DASHES[number % len(DASHES)]


@dataclass(frozen=True, slots=True)
class Even:
    """Times at even distances."""

    start: float
    step: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line, or an area down to `low`."""

    name: str
    x: Even | NDArray[np.float64]
    y: NDArray[Any]
    low: NDArray[Any] | None = None
    """Lower edge of an area as high as `y`."""
    kind: Literal["line", "area"] = "line"
    short: str = ""
    """Its name in the tip."""
    color: str = "var(--soft)"
    dash: str = ""
    width: float = 2.0
    opacity: float = 1.0
    steps: bool = False
    told: bool = True
    """Whether the tip tells it."""
    shown: bool = True
    """At first; where lines can be chosen."""

    @classmethod
    def rounded(cls, y: NDArray[Any], **others: Any) -> Series:
        """As many digits as can be seen."""
        low = others.pop("low", None)
        return cls(y=_round(y), low=None if low is None else _round(low), **others)


def _round(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.dtype.kind == "i" else np.round(values, DIGITS)


@dataclass(frozen=True, slots=True)
class Mark:
    """A dashed line across, as an objective is."""

    y: float
    label: str
    left: bool = False
    """Whether its label stands at the begin; else at the end."""


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of time that is spoken of."""

    begin: float
    end: float
    label: str


@dataclass(frozen=True, slots=True)
class Said:
    """Sentences that hold from their time on."""

    x: Even | NDArray[np.float64]
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeChart:
    """Series over the seconds of the trace."""

    at: str
    """Of the figure, as its id."""
    label: str
    """For those who hear the page."""
    unit: str
    begin: float
    end: float
    series: tuple[Series, ...]
    title: str = ""
    height: int = 220
    top: float | None = None
    """Where the axis ends, whatever goes beyond."""
    log_from: float | None = None
    """Draw logarithms, from here on."""
    percent: bool = False
    marks: tuple[Mark, ...] = ()
    bands: tuple[Band, ...] = ()
    said: Said | None = None
    choosable: bool = False
    """Whether the legend turns lines on and off."""
    kind: Literal["time"] = "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One replay: what it reached, and what it cost."""

    name: str
    x: float
    """Attainment, 0 to 1."""
    y: float
    """GPU-hours."""
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None
    color: str
    shape: Literal["circle", "diamond", "ring", "small"] = "circle"
    label: str = ""
    """Written beside it where there is room."""
    told: tuple[tuple[str, str], ...] = ()
    """Name and value, one a line of the tip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A line through points; without a name it is not in the legend."""

    name: str
    points: tuple[tuple[float, float], ...]
    color: str = "var(--soft)"
    dash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DotsChart:
    """GPU-hours over attainment; the attainment's axis counts nines, so that 99 % and 99.9 % lie apart."""

    at: str
    label: str
    objective: float
    finest: float
    """The least share of misses that can be told from none: half a request."""
    dots: tuple[Dot, ...]
    links: tuple[Link, ...] = ()
    floor: Mark | None = None
    title: str = ""
    height: int = 380
    kind: Literal["dots"] = "dots"


Chart = TimeChart | DotsChart
