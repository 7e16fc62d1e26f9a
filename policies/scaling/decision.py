"""What a policy answers: how many replicas, and the whole story of why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from policies.scaling.observation import Interval


class Binding(StrEnum):
    """Which consideration set the number."""

    FORECAST = "forecast"
    QUEUE = "queue"
    KV_CACHE = "kv-cache"
    TPOT = "tpot"
    FLOOR = "floor"
    CEILING = "ceiling"
    ROOM = "room"
    HOLD = "hold"
    UNMEASURED = "unmeasured"
    """Nothing is measured, and more was needed in the hour before."""
    AWAKE = "awake"
    """It was asked for lately, or not watched being idle for long enough to rest."""
    IDLE = "idle"
    """Nothing is asked of it: it rests at zero."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Demand foreseen at one instant, in requests/s of the present mix of lengths."""

    time: float
    """The instant it speaks of."""
    view: str
    """Which forecaster was believed: "last-value", "trend", "seasonal-day", …"""
    expected: float
    upper: float
    """The demand that the quantile of back-tested errors at this horizon reaches."""
    quantile: float


@dataclass(frozen=True, slots=True)
class Came:
    """The load that came, as a forecast speaks of it: a mean over minutes, in the unit of forecasts."""

    time: float
    """The middle of those minutes: a forecast for this instant foresaw just that."""
    load: float


@dataclass(frozen=True, slots=True)
class Decision:
    """A number for `scale` with the reasons for it; `sentence` is the log line, the event and the report's column."""

    time: float
    replicas: int
    """What is asked of `scale`; the number in force where the tick holds."""
    wanted: int
    """The wish before damping and bounds."""
    desired: int
    """The number it was decided from."""
    binding: Binding
    sentence: str
    horizon_seconds: float = 0.0
    forecast: Forecast | None = None
    demand: float | None = None
    """The load now, in requests/s of the present mix whose work it is, and its bursts; None when unseen."""
    came: Came | None = None
    """What forecasts are held against; None while too little was seen."""
    capacity: float | None = None
    """Requests/s that one replica bears within the objectives, of the present mix."""
    ready: int = 0
    coming: int = 0
    """Replicas created and expected, not ready yet; unschedulable ones are not among them."""
    within_objectives: Interval | None = None
    """Share of the requests since the last look that kept both objectives; None without any."""
    needed: int = 0
    """The most that anything measured asked for: the wish, but for what is kept or brought back for want of sight."""
    clips: tuple[str, ...] = ()
    """What changed the wish on its way, in order, one short phrase each."""

    @property
    def changes(self) -> bool:
        return self.replicas != self.desired
