"""When a conflict is news: as it begins, as it becomes another one, and as it ends."""

from __future__ import annotations

import logging

from autoscaler.cluster_fleet import Conflict
from autoscaler.events import Announcement
from policies.scaling.resource import OnConflict

_FOLLOWS = {
    OnConflict.YIELD: "it is yielded to, and nothing is written (onConflict: Yield)",
    OnConflict.OVERRIDE: "it is written against (onConflict: Override)",
}


class ConflictNews:
    """Of one target."""

    def __init__(self, on_conflict: OnConflict) -> None:
        self._on_conflict = on_conflict
        self._known: Conflict | None = None

    def of(self, conflict: Conflict | None) -> Announcement | None:
        """What is to be told of it now."""
        before, self._known = self._known, conflict
        if conflict is None:
            return Announcement("nobody else scales it any more", reason="ConflictOver") if before else None
        if before is not None and before.reason == conflict.reason:
            return None
        return Announcement(f"{conflict.sentence}; {_FOLLOWS[self._on_conflict]}", logging.WARNING, "Conflicted")
