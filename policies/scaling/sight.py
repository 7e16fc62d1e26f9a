"""Whether a look shows enough for a fleet to shrink by it."""

from __future__ import annotations

from policies.scaling.demand import Activity
from policies.scaling.observation import Observation, PodStage


def blind(now: Observation, done: Activity | None) -> str:
    """Why nothing may shrink now, "" if all is seen."""
    if now.problems:
        return now.problems[0]
    unseen = now.unseen_ready_pods
    if unseen:
        return f"{len(unseen)} of {now.count(PodStage.READY)} ready pods have no whole sample ({unseen[0]})"
    if now.rolling:
        return "a rollout is in progress"
    if done is None or not done.whole:
        return "the stretch since the last look is not wholly seen"
    return ""
