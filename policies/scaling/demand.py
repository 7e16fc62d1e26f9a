"""What happened between two observations: arrivals, tokens, hang-ups, and how far each number can be trusted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadBin:
    """The load of one stretch of time, as a refill from a metrics store yields it (means over the stretch)."""

    start: float
    seconds: float
    arrivals_per_second: float
    prompt_tokens_per_second: float
    generation_tokens_per_second: float
    in_flight: float | None = None
    """Mean requests running or waiting; None where the store had none."""
