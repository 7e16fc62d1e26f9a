"""A floor by the calendar is there when it begins, in whose time zone it may be, and gone when it ends."""

from __future__ import annotations

import copy
import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from policies.scaling.calendar_floor import floor_at, floors_of
from policies.scaling.observation import PodStage
from policies.scaling.resource import ScheduledFloor
from policies.scaling.resource_reading import InvalidResourceError, read
from tests.policies.scaling.story import Story, policy
from tests.policies.scaling.structural import DOCUMENT

OFFICE = ScheduledFloor(start="0 8 * * 1-5", end="0 18 * * 1-5", time_zone="Europe/Berlin", min_replicas=4)
LUNCH = ScheduledFloor(start="0 12 * * *", end="0 13 * * *", min_replicas=6)


def at(text: str, *, ahead: float = 0.0) -> int:
    """What both floors set at a time of Berlin."""
    now = dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    return floor_at(floors_of((OFFICE, LUNCH)), now, ahead)


def test_it_holds_from_start_to_end_by_its_own_clock() -> None:
    assert [at(f"2024-07-0{day}T09:00") for day in (1, 5, 6, 7)] == [4, 4, 0, 0]
    assert at("2024-07-01T07:59") == 0
    assert at("2024-07-01T08:00") == 4
    assert at("2024-07-01T18:00") == 0
    assert at("2024-01-02T08:00") == at("2024-07-02T08:00") == 4, "eight o'clock, summer or winter"


def test_of_several_the_highest_counts() -> None:
    assert at("2024-07-01T14:30") == 6, "noon in UTC"
    assert at("2024-07-06T14:30") == 6


def test_what_begins_within_the_horizon_is_seen_to_now() -> None:
    assert at("2024-07-01T07:55", ahead=299) == 0
    assert at("2024-07-01T07:55", ahead=300) == 4


def test_replicas_are_ready_when_it_begins_and_leave_after_it_ends() -> None:
    # The story begins at ten in the evening, UTC.
    evening = ScheduledFloor(start="30 22 * * *", end="0 23 * * *", min_replicas=5)
    rules = policy(calendar=floors_of((evening,)), scale_down_window_seconds=300.0)
    story = Story(lambda _: 0.5, rules, cold_start_seconds=180.0).settled().tell(5400)
    ready = {round(seen.time - story.epoch): seen.count(PodStage.READY) for seen in story.observations}
    assert ready[1200] == 1
    assert ready[1800] == ready[3600] == 5
    assert ready[5400] == 1
    raised = next(each for each in story.decisions if each.replicas == 5)
    assert "raised from 1 to the floor 5" in raised.sentence
    assert 1800 - 300 < raised.time - story.epoch <= 1800 - 180, "not long before it is needed"


def test_what_comes_only_in_leap_years_is_stated_all_the_same() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["spec"]["schedule"] = [{"start": "0 8 29 2 *", "end": "0 18 29 2 *", "minReplicas": 2}]
    assert read(document).spec.schedule[0].min_replicas == 2


@pytest.mark.parametrize(
    ("field", "text", "sentence"),
    [
        ("start", "0 25 * * *", "spec.schedule.0.start: schedule '0 25 * * *': hour '25' is not within 0-23"),
        ("end", "8 o'clock", "spec.schedule.0.end: schedule '8 o'clock' has 2 fields: write minute hour"),
        (
            "start",
            "0 8 31 2 *",
            "spec.schedule.0.start: schedule '0 8 31 2 *' never comes: name a day that its month has",
        ),
        ("end", "0 8 30 feb *", "spec.schedule.0.end: schedule '0 8 30 feb *' never comes: name a day that its"),
        ("timeZone", "Europa/Berlin", "spec.schedule.0.timeZone: time zone 'Europa/Berlin' is not known"),
        ("minReplicas", 99, "spec: minReplicas of schedule (99) must not exceed maxReplicas (8)"),
        ("until", 9, "spec.schedule.0.until is not a field of VLLMAutoscaler: "),
    ],
)
def test_what_is_wrong_with_one_is_said_of_that_one(field: str, text: object, sentence: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    floor = {"start": "0 8 * * *", "end": "0 9 * * *", "minReplicas": 2, field: text}
    document["spec"]["schedule"] = [floor]
    with pytest.raises(InvalidResourceError) as refused:
        read(document)
    (problem,) = refused.value.problems
    assert problem.startswith(sentence)
