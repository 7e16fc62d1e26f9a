"""The error budget: the misses that the promise allows to the scored requests, and how they were spent over time.

A miss is spent when its request arrives, as everywhere in the report: then the fleet was too small for it, or too slow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.replay import Replay

STEPS_SECONDS = (30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0)
MOST_STEPS = 360
"""A curve that only rises needs no more."""
ROUNDING = 1e-9
"""Of what is allowed: a tenth of 100 requests is ten, and whoever misses ten keeps the promise."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one replay spent of it."""

    time: NDArray[np.float64]
    spent: NDArray[np.float64]
    """Misses of requests that had arrived by then ÷ those allowed: 1 is all of it."""
    requests: int
    """Those scored, all that the promise is given to."""
    missed: int
    allowed: float
    """Requests, and a part of one: 0.01 of 150 are 1.5."""
    may_miss: int
    """Whole requests of these."""
    gone_at: float | None
    """When that request arrived whose miss was one too many; None where the budget lasts."""

    @property
    def total(self) -> float:
        """Share of the budget that was spent in the end."""
        return self.missed / self.allowed


def budget(replay: Replay, attainment: float) -> Budget | None:
    """Of the requests that arrived from the scored time on; None where none did."""
    begin = replay.score_from_seconds
    scored = replay.arrived_at_seconds >= begin
    if not scored.any():
        return None
    arrived = replay.arrived_at_seconds[scored]
    missed_at = arrived[~replay.attained[scored]]
    allowed = (1 - attainment) * len(arrived)
    last = float(arrived[-1])
    step = next((s for s in STEPS_SECONDS if (last - begin) / s <= MOST_STEPS), 86400.0)
    time = np.append(np.arange(begin, last, step), last)
    may_miss = int(allowed * (1 + ROUNDING))
    return Budget(
        time,
        np.searchsorted(missed_at, time, side="right") / allowed,
        len(arrived),
        len(missed_at),
        allowed,
        may_miss,
        float(missed_at[may_miss]) if len(missed_at) > may_miss else None,
    )
