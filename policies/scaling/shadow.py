"""What shadow mode would have saved or lost against the one in charge, hour by hour."""

from __future__ import annotations

from typing import Final

from policies.scaling.decision import Decision
from policies.scaling.status import ShadowHour, moment

HOURS_KEPT: Final = 24
DIGITS: Final = 9
"""A turn of 15 s of one replica is 0.004167 replica-hours."""


def replica_hours(decision: Decision, seconds: float) -> tuple[float, float]:
    """(saved, lost) in so many seconds: by how much the one in charge asks for more than ours, or for less."""
    difference = (decision.desired - decision.replicas) * seconds / 3600
    return max(0.0, difference), max(0.0, -difference)


def hours_after(
    before: tuple[ShadowHour, ...], decision: Decision, seconds: float, now: float
) -> tuple[ShadowHour, ...]:
    """The last day's hours, newest first, with a turn that stands for so many seconds; `now` is unix time."""
    begun = moment(now - now % 3600)
    newest = before[0] if before and before[0].hour == begun else ShadowHour(hour=begun)
    saved, lost = replica_hours(decision, seconds)
    followed = ShadowHour(
        hour=begun,
        saved_replica_hours=round(newest.saved_replica_hours + saved, DIGITS),
        lost_replica_hours=round(newest.lost_replica_hours + lost, DIGITS),
    )
    return (followed, *(each for each in before if each.hour != begun))[:HOURS_KEPT]
