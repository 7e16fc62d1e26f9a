"""Every change and every refusal is told, under a reason of its own, and not again at each tick."""

from __future__ import annotations

import logging

import pytest

from autoscaler.events import AGAIN_SECONDS, Announcement, Repetition, announcement
from autoscaler.loop import Outcome, Turn
from policies.scaling.decision import Binding, Decision
from policies.scaling.observation import Observation, Pod, PodStage
from tests.autoscaler.worlds import EMPTY

DECIDED = Decision(1.0, 5, 5, 3, Binding.QUEUE, "goes from 3 to 5")
KEPT = Decision(1.0, 3, 3, 3, Binding.TPOT, "stays at 3")
HELD = Decision(1.0, 3, 1, 3, Binding.HOLD, "stays at 3: not wholly seen")
SEEN = Observation(1.0, 3, ())
HALF_SEEN = Observation(1.0, 3, (Pod("a", PodStage.READY, 0.0),))


@pytest.mark.parametrize(
    ("turn", "expected", "reason", "message"),
    [
        (Turn(EMPTY, Outcome.RESCALED, SEEN, DECIDED), 3, "Rescaled", "goes from 3 to 5"),
        (Turn(EMPTY, Outcome.SHADOWED, SEEN, DECIDED), 3, "WouldRescale", "in shadow: goes from 3 to 5"),
        (Turn(EMPTY, Outcome.UNCHANGED, SEEN, KEPT), 3, "", "stays at 3"),
        (Turn(EMPTY, Outcome.UNCHANGED, SEEN, KEPT), None, "", "stays at 3"),
        (
            Turn(EMPTY, Outcome.UNCHANGED, SEEN, KEPT),
            2,
            "ScaledByOther",
            "somebody else scaled from 2 to 3, which is respected; stays at 3",
        ),
        (Turn(EMPTY, Outcome.UNCHANGED, SEEN, HELD), 3, "", "stays at 3: not wholly seen"),
        (
            Turn(EMPTY, Outcome.UNCHANGED, HALF_SEEN, HELD),
            3,
            "HeldMetricsIncomplete",
            "stays at 3: not wholly seen",
        ),
        (
            Turn(EMPTY, Outcome.BLIND, problem="it is down", kind="prometheus"),
            3,
            "HeldMetricsIncomplete",
            "holds: it is down",
        ),
        (
            Turn(EMPTY, Outcome.BLIND, problem="it is down", kind="kubernetes"),
            3,
            "HeldTargetUnseen",
            "holds: it is down",
        ),
        (
            Turn(EMPTY, Outcome.RAISED, SEEN, DECIDED, problem="it is down", kind="prometheus"),
            3,
            "RaisedUnmeasured",
            "it is down: goes from 3 to 5",
        ),
        (
            Turn(EMPTY, Outcome.REFUSED, problem="no right", kind="refused", right="patch x/scale"),
            3,
            "MissingRight",
            "holds: no right",
        ),
        (Turn(EMPTY, Outcome.REFUSED, problem="no", kind="refused"), 3, "Refused", "holds: no"),
        (Turn(EMPTY, Outcome.REFUSED, problem="gone", kind="target-not-found"), 3, "TargetNotFound", "holds: gone"),
        (
            Turn(EMPTY, Outcome.OVERTAKEN, SEEN, DECIDED, problem="now 9"),
            3,
            "ScaledByOther",
            "holds for this tick: now 9",
        ),
        (
            Turn(EMPTY, Outcome.UNANSWERED, SEEN, DECIDED, problem="no answer"),
            3,
            "ScaleUnanswered",
            "cannot tell whether it was scaled: no answer",
        ),
    ],
)
def test_each_ending_has_its_reason_and_sentence(turn: Turn, expected: int | None, reason: str, message: str) -> None:
    said = announcement(turn, expected)
    assert (said.reason, said.message) == (reason, message)


def test_what_somebody_must_look_after_is_a_warning() -> None:
    blind = announcement(Turn(EMPTY, Outcome.BLIND, problem="x", kind="prometheus"), 3)
    changed = announcement(Turn(EMPTY, Outcome.RESCALED, SEEN, DECIDED), 3)
    assert blind.is_warning
    assert not changed.is_warning
    assert changed.level == logging.INFO


def test_a_lasting_condition_is_told_when_it_begins_and_now_and_then() -> None:
    repetition, blind = Repetition(), Announcement("holds", logging.WARNING, "HeldMetricsIncomplete")
    told = [tick for tick in range(0, 3 * int(AGAIN_SECONDS), 15) if repetition.is_news(blind, tick)]
    assert told == [0, AGAIN_SECONDS, 2 * AGAIN_SECONDS]


def test_every_change_of_replicas_and_every_new_condition_is_told() -> None:
    repetition = Repetition()
    said = ["Rescaled", "Rescaled", "", "MissingRight", "MissingRight", "HeldMetricsIncomplete", "MissingRight", ""]
    told = [repetition.is_news(Announcement("x", reason=reason), at) for at, reason in enumerate(said)]
    assert told == [True, True, True, True, False, True, True, True]
