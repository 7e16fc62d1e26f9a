"""A turn told as conditions, and a status that is written when there is news."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from autoscaler.cluster_fleet import Conflict
from autoscaler.conditions import status_after
from autoscaler.loop import Outcome, Turn
from autoscaler.reporter import REFRESH_SECONDS, Reporter
from cluster.errors import NotObservedError
from policies.scaling.decision import Binding, Decision
from policies.scaling.observation import Interval, Limit, Observation, Pod, PodSample, PodStage, Room, SampleState
from policies.scaling.resource import VLLMAutoscaler
from policies.scaling.status import Status
from tests.autoscaler.worlds import EMPTY, START, policy, resource
from tests.stand_ins.waiting import until

FRESH = PodSample(START, SampleState.FRESH)
PODS = tuple(Pod(f"p{n}", PodStage.READY, START - 99, sample=FRESH) for n in range(3))
SEEN = Observation(START, 3, PODS)
DECIDED = Decision(
    START, 5, 5, 3, Binding.FORECAST, "wants 5; goes from 3 to 5", demand=2.0, within_objectives=Interval(0.98, 1.0)
)
RESCALED = Turn(EMPTY, Outcome.RESCALED, SEEN, DECIDED)


def after(
    turn: Turn, conflict: Conflict | None = None, before: Status | None = None, of: VLLMAutoscaler | None = None
) -> Status:
    return status_after(before or Status(), turn, conflict, of or resource(), policy(), Interval(0.98, 1.0), START)


def told(status: Status) -> dict[str, tuple[str, str]]:
    return {each.type: (each.status, each.reason) for each in status.conditions}


def test_a_turn_that_went_well() -> None:
    status = after(RESCALED)
    assert told(status) == {
        "Ready": ("True", "TargetSeen"),
        "MetricsAvailable": ("True", "Fresh"),
        "ScalingActive": ("True", "Writing"),
        "ScalingLimited": ("False", "WithinBounds"),
        "Learning": ("True", "TooLittleSeen"),
        "Conflicted": ("False", "Alone"),
    }
    assert (status.replicas_summary, status.reason, status.attainment) == ("3/3/5", "forecast", "98.0–100.0%")
    (newest,) = status.last_decisions
    assert (newest.before, newest.after, newest.message) == (3, 5, DECIDED.sentence)


CONFLICT = Conflict("OtherAutoscaler", "an HPA scales it too")


def failed(outcome: Outcome, kind: str, **more: Any) -> Turn:
    return Turn(EMPTY, outcome, problem="down", kind=kind, **more)


def saw(**changes: Any) -> Turn:
    return replace(RESCALED, observation=replace(SEEN, **changes))


def decided(**changes: Any) -> Turn:
    return replace(RESCALED, decision=replace(DECIDED, **changes))


def cut(limit: Limit) -> Turn:
    seen = replace(SEEN, room=Room(5, "full", limit))
    return replace(decided(binding=Binding.ROOM, clips=("cut from 9 to 5: full",)), observation=seen)


RAISED = replace(RESCALED, outcome=Outcome.RAISED, problem="down", kind="prometheus")
NO_PROMQL = "prometheus.arrivals (x() could not be read: refuses the question (HTTP 400, bad_data)"
HOMELESS = Pod("p", PodStage.UNSCHEDULABLE, START)


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (failed(Outcome.BLIND, "prometheus"), "Ready False MetricsUnavailable"),
        (failed(Outcome.BLIND, "prometheus"), "MetricsAvailable False Unavailable"),
        (failed(Outcome.BLIND, "kubernetes"), "MetricsAvailable Unknown NotAsked"),
        (RAISED, "Ready False MetricsUnavailable"),
        (RAISED, "MetricsAvailable False Unavailable"),
        (failed(Outcome.REFUSED, "refused", right="list pods"), "Ready False MissingRight"),
        (failed(Outcome.REFUSED, "target-not-found"), "Ready False TargetNotFound"),
        (saw(problems=("stale",)), "MetricsAvailable False Incomplete"),
        (saw(problems=(NO_PROMQL,)), "Ready False InvalidSpec"),
        (saw(pods=()), "MetricsAvailable Unknown NoPods"),
        (saw(pods=(HOMELESS,)), "MetricsAvailable Unknown NoneReady"),
        (saw(pods=(HOMELESS,)), "ScalingLimited True Unschedulable"),
        (decided(binding=Binding.CEILING, clips=("cut from 9 to 5",)), "ScalingLimited True TooManyReplicas"),
        (decided(clips=("one step up is 2",)), "ScalingLimited True StepLimited"),
        (cut(Limit.QUOTA), "ScalingLimited True QuotaExhausted"),
        (cut(Limit.NODES), "ScalingLimited True NoNodeFits"),
        (cut(Limit.WAITING), "ScalingLimited True Unschedulable"),
        (saw(room_unseen="no right"), "ScalingLimited Unknown NodesUnseen"),
    ],
)
def test_what_went_otherwise_is_a_condition(turn: Turn, expected: str) -> None:
    condition, *told_of_it = expected.split()
    assert told(after(turn))[condition] == tuple(told_of_it)


@pytest.mark.parametrize(
    ("spec", "conflict", "expected"),
    [
        ({"mode": "Shadow"}, None, "False Shadow"),
        ({"paused": True}, None, "False Paused"),
        ({}, CONFLICT, "False OtherAutoscaler"),
        ({"onConflict": "Override"}, CONFLICT, "True Writing"),
    ],
)
def test_what_keeps_us_from_writing_is_a_condition(
    spec: dict[str, Any], conflict: Conflict | None, expected: str
) -> None:
    conditions = told(after(RESCALED, conflict, of=resource(**spec)))
    assert conditions["ScalingActive"] == tuple(expected.split())
    assert conditions["Conflicted"] == (("True", "OtherAutoscaler") if conflict else ("False", "Alone"))


def test_what_was_set_by_hand_is_told_and_nothing_is_yielded_to() -> None:
    status = after(RESCALED, Conflict("ScaledByHand", "'kubectl' scaled from 2 to 3", passing=True))
    assert told(status)["Conflicted"] == ("False", "ScaledByHand")
    assert told(status)["ScalingActive"] == ("True", "Writing")


def test_what_a_blind_turn_does_not_see_keeps_what_was_known() -> None:
    before = after(RESCALED)
    status = after(Turn(EMPTY, Outcome.BLIND, problem="down", kind="prometheus"), before=before)
    assert (status.replicas, status.last_decisions) == (before.replicas, before.last_decisions)
    assert status.reason == "MetricsUnavailable"
    assert told(status)["Learning"] == ("True", "TooLittleSeen")


def test_a_rise_in_the_dark_is_among_the_decisions_and_its_replicas_are_told() -> None:
    status = after(RAISED)
    assert [each.after for each in status.last_decisions] == [DECIDED.replicas]
    assert status.replicas is not None
    assert status.replicas.wanted == DECIDED.replicas


def test_five_decisions_are_kept_newest_first() -> None:
    status = Status()
    for number in range(8):
        made = replace(DECIDED, desired=number, replicas=number + 1)
        status = after(replace(RESCALED, decision=made), before=status)
    assert [each.after for each in status.last_decisions] == [8, 7, 6, 5, 4]


class Desk:
    """Where a status lands, if it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.written: list[dict[str, Any]] = []
        self.failures = 0
        monkeypatch.setattr("autoscaler.reporter.monotonic", lambda: self.now)
        self.reporter = Reporter("inference/llama", Status(), self.write)

    async def write(self, status: dict[str, Any]) -> None:
        if self.failures:
            self.failures -= 1
            raise NotObservedError("the API server is away")
        self.written.append(status)

    async def turn(self, turn: Turn = RESCALED, seconds: float = 15.0) -> int:
        """One more, so much later; how many statuses it wrote."""
        self.now += seconds
        before = len(self.written)
        self.reporter.follow(turn, None, resource(), policy())
        await self.reporter.close()
        return len(self.written) - before


async def test_a_status_is_written_for_news_and_seldom_for_mere_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch)
    unchanged = replace(RESCALED, outcome=Outcome.UNCHANGED)
    assert await desk.turn() == 1
    assert await desk.turn(unchanged) == 0
    other_number = replace(unchanged, decision=replace(DECIDED, capacity=1.5))
    assert await desk.turn(other_number) == 0
    assert await desk.turn(other_number, REFRESH_SECONDS) == 1
    blind = Turn(EMPTY, Outcome.BLIND, problem="down", kind="prometheus")
    assert await desk.turn(blind, seconds=1.0) == 0, "news, but too soon after the last"
    assert await desk.turn(blind) == 1
    assert desk.written[-1]["reason"] == "MetricsUnavailable"


async def test_a_status_that_could_not_be_written_is_written_with_the_next_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(monkeypatch)
    desk.failures = 2
    assert [await desk.turn() for _ in range(4)] == [0, 0, 1, 0]
    await until(lambda: not asyncio.all_tasks() - {asyncio.current_task()})


def test_shadow_mode_counts_what_would_have_been_saved_or_lost() -> None:
    shadow = resource(mode="Shadow")
    shadowed = replace(RESCALED, outcome=Outcome.SHADOWED)
    first = after(shadowed, of=shadow)
    second = after(shadowed, before=first, of=shadow)
    (hour,) = second.shadow_hours
    assert (hour.saved_replica_hours, hour.lost_replica_hours) == (0.0, 0.016666666)
    assert after(failed(Outcome.BLIND, "prometheus"), before=second, of=shadow).shadow_hours == second.shadow_hours
    assert after(RESCALED, before=second).shadow_hours == ()
