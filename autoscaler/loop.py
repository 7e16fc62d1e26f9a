"""One turn of the loop: observe, decide, scale, remember. Live, in a demo, in a replay: this very code.

Whatever goes wrong, the turn ends in a hold that says why: a fleet that cannot be seen is left alone, one that is
merely not measured may rise and never shrinks, and a write that was not accepted is remembered as not made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from autoscaler.fleet import Fleet, MetricsNotObservedError
from cluster.errors import (
    ClusterError,
    NotObservedError,
    OvertakenError,
    RefusedError,
    TargetNotFoundError,
    WithheldError,
)
from policies.scaling.decision import Binding, Decision
from policies.scaling.history import History
from policies.scaling.observation import Observation
from policies.scaling.policy import decide_unmeasured, judge
from policies.scaling.settings import ScalingPolicy


class Outcome(StrEnum):
    """How a turn ended."""

    UNCHANGED = "unchanged"
    """The decision is the number in force."""
    RESCALED = "rescaled"
    SHADOWED = "shadowed"
    """A change was decided, and by the mode not written here."""
    BLIND = "blind"
    """The fleet could not be seen: nothing was decided."""
    RAISED = "raised"
    """It was not measured, and has gone up to what was wished for before."""
    OVERTAKEN = "overtaken"
    """Somebody changed the number after it was read; theirs stands for this tick."""
    REFUSED = "refused"
    """The API server said no, to the look or to the write."""
    WITHHELD = "withheld"
    """A change was decided, and for a reason of our own not sent: `kind` and `problem` say which."""
    UNANSWERED = "unanswered"
    """The write got no answer; the next look tells whether it was made."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What was seen, what was decided from it, and what came of it."""

    history: History
    outcome: Outcome
    observation: Observation | None = None
    decision: Decision | None = None
    problem: str = ""
    """The sentence of whatever went wrong; "" when nothing did."""
    kind: str = ""
    """Who is to blame for it: "prometheus", "kubernetes", "refused", …; "" when nobody is."""
    right: str = ""
    """The permission that was missing, as a Role would state it."""

    @property
    def replicas_in_force(self) -> int | None:
        """What the fleet is asked for after this turn, as far as it is known."""
        if self.decision is None or self.outcome in (Outcome.OVERTAKEN, Outcome.UNANSWERED):
            return None
        written = self.outcome in (Outcome.RESCALED, Outcome.RAISED)
        return self.decision.replicas if written else self.decision.desired

    @property
    def is_held_blind(self) -> bool:
        """Whether it stays for want of sight; a pod whose scrape failed just now is known by the one before."""
        known = self.history.last or self.observation
        held = self.decision is not None and self.decision.binding is Binding.HOLD
        return held and known is not None and bool(known.problems or known.unseen_ready_pods)


async def turn(fleet: Fleet, history: History, policy: ScalingPolicy, *, shadow: bool = False) -> Turn:
    """Look at the fleet once and do what the policy judges, unless shadowed."""
    try:
        seen = await fleet.observe(history.last)
    except RefusedError as error:
        return Turn(history, Outcome.REFUSED, problem=str(error), kind=_kind(error), right=error.right)
    except NotObservedError as error:
        blind = Turn(history, Outcome.BLIND, problem=str(error), kind=_kind(error))
        known = error.seen if isinstance(error, MetricsNotObservedError) and not shadow else None
        return await _unmeasured(fleet, known, policy, blind) if known else blind
    done = history.activity(seen, policy)
    decision = judge(seen, done, history, policy)
    if shadow or not decision.changes:
        outcome = Outcome.SHADOWED if decision.changes else Outcome.UNCHANGED
        return Turn(history.after(seen, done, decision, policy), outcome, seen, decision)
    written = await _written(fleet, Turn(history, Outcome.RESCALED, seen, decision), decision)
    made = decision
    if written.outcome is not Outcome.RESCALED:
        made = replace(decision, replicas=decision.desired, clips=(*decision.clips, written.outcome.value))
    return replace(written, history=history.after(seen, done, made, policy))


async def _unmeasured(fleet: Fleet, known: Observation, policy: ScalingPolicy, blind: Turn) -> Turn:
    """Of the target alone only a rise is decided, and nothing remembered: what was not measured teaches nothing."""
    decision = decide_unmeasured(known, blind.history, policy)
    if decision is None:
        return blind
    raised = await _written(
        fleet, replace(blind, outcome=Outcome.RAISED, observation=known, decision=decision), decision
    )
    return blind if raised.outcome is Outcome.WITHHELD else raised


async def _written(fleet: Fleet, turn: Turn, decision: Decision) -> Turn:
    """The turn, if its write is made, or what became of it."""
    try:
        await fleet.scale(decision.desired, decision.replicas)
    except OvertakenError as error:
        return replace(turn, outcome=Outcome.OVERTAKEN, problem=str(error), kind=_kind(error))
    except WithheldError as error:
        return replace(turn, outcome=Outcome.WITHHELD, problem=str(error), kind=error.kind)
    except RefusedError as error:
        return replace(turn, outcome=Outcome.REFUSED, problem=str(error), kind=_kind(error), right=error.right)
    except NotObservedError as error:
        return replace(turn, outcome=Outcome.UNANSWERED, problem=str(error), kind=_kind(error))
    return turn


def _kind(error: ClusterError) -> str:
    match error:
        case MetricsNotObservedError():
            return "prometheus"
        case TargetNotFoundError():
            return "target-not-found"
        case RefusedError():
            return "refused"
        case OvertakenError():
            return "overtaken"
        case _:
            return "kubernetes"
