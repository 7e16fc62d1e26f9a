"""Who else changes the number, a person or a tool: told from what was written and what is asked for later.

A person who scales by hand does so once, and is respected; what puts the old number back again and again is a tool
that holds its own idea of `replicas`, and writing against it only makes both restless.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

PUT_BACK_WITHIN_SECONDS = 900.0
"""A number that was ours for longer was changed for a reason of its own; tools compare every few minutes."""
TIMES = 3
"""Put back so often within `REMEMBERED_SECONDS`, it is no accident."""
REMEMBERED_SECONDS = 3_600.0
TRY_AGAIN_SECONDS = 600.0
"""After the last time: whoever it was may have been told to let `replicas` alone."""


@dataclass(frozen=True, slots=True)
class PutBacks:
    """What is remembered of our last write, and when writes of ours were undone."""

    before: int | None = None
    after: int | None = None
    wrote_at: float = float("-inf")
    times: tuple[float, ...] = ()

    def wrote(self, before: int, after: int, now: float) -> PutBacks:
        """With a write of ours that was accepted."""
        return replace(self, before=before, after=after, wrote_at=now)

    def saw(self, desired: int, now: float) -> PutBacks:
        """With what is asked for now."""
        if self.after is None or desired == self.after:
            return self
        undone = desired == self.before and now - self.wrote_at <= PUT_BACK_WITHIN_SECONDS
        kept = tuple(time for time in self.times if now - time < REMEMBERED_SECONDS)
        return PutBacks(times=(*kept, now) if undone else kept)

    def lasts(self, now: float) -> bool:
        """Whether it is no use to write again yet."""
        recent = [time for time in self.times if now - time < REMEMBERED_SECONDS]
        return len(recent) >= TIMES and now - recent[-1] < TRY_AGAIN_SECONDS


@dataclass(frozen=True, slots=True)
class Change:
    """A number that somebody else set."""

    before: int
    after: int
    at: float
    """When it was first seen."""


@dataclass(frozen=True, slots=True)
class ByHand:
    """The newest number that was not ours; with our next one it is history."""

    known: int | None = None
    """What was last written or seen; None where that cannot be told."""
    change: Change | None = None

    def wrote(self, after: int) -> ByHand:
        return ByHand(after)

    def saw(self, desired: int, now: float) -> ByHand:
        """With what is asked for now; what is not known to have changed was changed by nobody."""
        if self.known is None or desired == self.known:
            return replace(self, known=desired)
        return ByHand(desired, Change(self.known, desired, now))
