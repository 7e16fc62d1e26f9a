"""Which turns are worth telling, and in which words: one line for the log, one event for the target.

The decision's own sentence is the message of both. A condition that lasts is told when it begins, when its
kind changes, and again every few minutes; a change of replicas is told every time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from autoscaler.loop import Outcome, Turn

AGAIN_SECONDS: Final = 300.0
PUBLISHED: Final = "Published"
FLOOR: Final = "FloorSet"
RAISED: Final = "RaisedUnmeasured"
EVERY_TIME: Final = frozenset({"Rescaled", RAISED, PUBLISHED, FLOOR})
"""Reasons of changes, each of which is told."""
WITHHELD_REASONS: Final = {"paused": "Paused", "conflict": "Conflicted", "lease": ""}
"""Of what was not sent: a replica that does not lead has nothing to tell the target."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is told of a turn. Without a reason it is a line of the log and no event."""

    message: str
    level: int = logging.INFO
    reason: str = ""
    """As Kubernetes shows it, in CamelCase."""

    @property
    def is_warning(self) -> bool:
        return self.level >= logging.WARNING


def announcement(turn: Turn, expected: int | None) -> Announcement:
    """What a turn tells; `expected` is what the turn before it left in force, None if that is unknown."""
    warning = logging.WARNING
    match turn.outcome:
        case Outcome.BLIND if turn.kind == "prometheus":
            return Announcement(f"holds: {turn.problem}", warning, "HeldMetricsIncomplete")
        case Outcome.BLIND:
            return Announcement(f"holds: {turn.problem}", warning, "HeldTargetUnseen")
        case Outcome.RAISED:
            assert turn.decision is not None  # the outcome says that there was one
            return Announcement(f"{turn.problem}: {turn.decision.sentence}", warning, RAISED)
        case Outcome.REFUSED if turn.right:
            return Announcement(f"holds: {turn.problem}", warning, "MissingRight")
        case Outcome.REFUSED if turn.kind == "target-not-found":
            return Announcement(f"holds: {turn.problem}", warning, "TargetNotFound")
        case Outcome.REFUSED:
            return Announcement(f"holds: {turn.problem}", warning, "Refused")
        case Outcome.WITHHELD:
            return Announcement(f"would scale, but {turn.problem}", reason=WITHHELD_REASONS.get(turn.kind, ""))
        case Outcome.UNANSWERED:
            return Announcement(f"cannot tell whether it was scaled: {turn.problem}", warning, "ScaleUnanswered")
        case Outcome.OVERTAKEN:
            return Announcement(f"holds for this tick: {turn.problem}", logging.INFO, "ScaledByOther")
        case Outcome.RESCALED | Outcome.SHADOWED | Outcome.UNCHANGED:
            return _of_decision(turn, expected)


def _of_decision(turn: Turn, expected: int | None) -> Announcement:
    seen, decision = turn.observation, turn.decision
    assert seen is not None  # the outcome says that there was a decision
    assert decision is not None
    sentence = decision.sentence
    if turn.outcome is Outcome.RESCALED:
        return Announcement(sentence, reason="Rescaled")
    if turn.outcome is Outcome.SHADOWED:
        return Announcement(f"in shadow: {sentence}", reason="WouldRescale")
    if turn.is_held_blind:
        return Announcement(sentence, logging.WARNING, "HeldMetricsIncomplete")
    if expected is not None and expected != seen.desired:
        told = f"somebody else scaled from {expected} to {seen.desired}, which is respected; {sentence}"
        return Announcement(told, reason="ScaledByOther")
    return Announcement(sentence)


class Repetition:
    """Whether a target's announcement is news."""

    def __init__(self) -> None:
        self._reason = ""
        self._told_at = float("-inf")

    def is_news(self, announcement: Announcement, now_seconds: float) -> bool:
        """True at the first of its kind, for every change of replicas, and for a lasting one now and then."""
        same = announcement.reason == self._reason and announcement.reason not in EVERY_TIME
        if same and now_seconds - self._told_at < AGAIN_SECONDS:
            return False
        self._reason, self._told_at = announcement.reason, now_seconds
        return True
