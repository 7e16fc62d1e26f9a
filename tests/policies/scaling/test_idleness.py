"""A target rests only when it was watched being idle for long enough, and wakes for whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.calendar_floor import floors_of
from policies.scaling.decision import Binding, Decision
from policies.scaling.history import History
from policies.scaling.idleness import Idleness
from policies.scaling.observation import (
    Distribution,
    Kept,
    Observation,
    Pod,
    PodSample,
    PodStage,
    SampleState,
    with_idleness,
)
from policies.scaling.policy import decide
from policies.scaling.resource import ScheduledFloor
from policies.scaling.settings import ScalingPolicy
from tests.policies.scaling.story import policy

START = 1_700_000_000.0
TICK = 15.0
IDLE = 300.0
RESTING = policy(min_replicas=0, max_replicas=8, idle_seconds=IDLE, cold_start_seconds=60.0)

Bend = Callable[[Observation], Observation]


def as_it_is(seen: Observation) -> Observation:
    return seen


@dataclass
class Desk:
    """Pods that answer whole requests at once, and a policy that scales them; a start takes a minute."""

    policy: ScalingPolicy = RESTING
    desired: int = 1
    now: float = START
    served: float = 100.0
    wake: float | None = None
    asked_at: float | None = None
    routed: float | None = None
    up: bool = True
    history: History = field(default_factory=History)
    decisions: list[Decision] = field(default_factory=list)
    born: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.born = dict.fromkeys(range(self.desired), START - 3_600.0)

    def turn(self, bend: Bend = as_it_is, *, seconds: float = TICK, served: float = 0.0) -> Decision:
        """One look, `seconds` after the last, in which time so many requests were served."""
        self.now += seconds
        self.served += served
        seen = bend(Observation(self.now, self.desired, tuple(map(self._pod, self.born)), arrivals_total=self.routed))
        seen = replace(seen, wake=self.wake, asked_at=self.asked_at)
        decision = decide(seen, self.history, self.policy)
        self.history = self.history.then(seen, decision, self.policy)
        self.decisions.append(decision)
        self.scale(decision.replicas)
        return decision

    def turns(self, seconds: float, bend: Bend = as_it_is) -> Decision:
        for _ in range(round(seconds / TICK)):
            self.turn(bend)
        return self.decisions[-1]

    def scale(self, replicas: int) -> None:
        self.desired = replicas
        self.born = {n: self.born.get(n, self.now) for n in range(replicas)}

    def _pod(self, number: int) -> Pod:
        born, name = self.born[number], f"pod-{number}"
        if self.now < born + 60.0:
            return Pod(name, PodStage.STARTING, born, born, uid=f"{name}-{born}")
        sample = PodSample(
            time=self.now - 1.0,
            state=SampleState.FRESH,
            requests_running=0.0,
            requests_waiting=0.0,
            kv_cache_usage=0.0,
            kv_cache_tokens=100_000.0,
            prompt_tokens=100 * self.served,
            generation_tokens=100 * self.served,
            requests_finished=self.served,
            ttft=Distribution(self.served, self.served, 2.5, self.served, 2.5, self.served),
        )
        before = {pod.name: pod.sample for pod in self.history.last.pods} if self.history.last else {}
        sample = with_idleness(sample, before.get(name), up=self.up)
        return Pod(name, PodStage.READY, born, born, born, born + 60.0, uid=f"{name}-{born}", sample=sample)


def showing(**changes: Any) -> Bend:
    """The first pod's sample, with these changes."""

    def bend(seen: Observation) -> Observation:
        first, *others = seen.pods
        assert first.sample
        return replace(seen, pods=(replace(first, sample=replace(first.sample, **changes)), *others))

    return bend


def test_it_rests_when_it_was_seen_idle_for_as_long_as_is_stated() -> None:
    desk = Desk()
    desk.turns(IDLE)
    assert desk.desired == 1, "a program that has just begun has watched nothing yet"
    assert desk.decisions[-1].binding is Binding.AWAKE
    last = desk.turns(3 * TICK)
    assert (last.replicas, last.binding) == (0, Binding.IDLE)
    assert any("nothing was asked of it for 5 min" in each.sentence for each in desk.decisions)
    assert desk.turns(3600.0).replicas == 0


def test_a_request_begins_the_count_anew() -> None:
    desk = Desk()
    desk.turns(IDLE - TICK)
    desk.turn(served=1.0)
    desk.turns(IDLE)
    assert desk.desired == 1
    assert desk.turns(2 * TICK).replicas == 0


@pytest.mark.parametrize(
    "bend",
    [
        showing(requests_running=1.0),
        showing(requests_waiting=1.0),
        showing(state=SampleState.STALE),
        showing(state=SampleState.PARTIAL),
        showing(state=SampleState.ABSENT),
        lambda seen: replace(seen, problems=("the wake query could not be read",)),
        lambda seen: replace(seen, rolling=True),
        lambda seen: replace(seen, pods=(replace(seen.pods[0], sample=None),)),
        lambda seen: replace(seen, pods=(replace(seen.pods[0], stage=PodStage.STARTING, sample=None),)),
        lambda seen: replace(seen, pods=()),
    ],
    ids=("running", "waiting", "stale", "partial", "absent", "problem", "rollout", "unseen", "starting", "gone"),
)
def test_a_look_that_shows_less_than_idleness_begins_the_count_anew(bend: Bend) -> None:
    desk = Desk()
    desk.turns(IDLE)
    desk.turn(bend)
    desk.turns(IDLE)
    assert desk.desired == 1
    assert desk.turns(4 * TICK).replicas == 0


def test_without_word_of_being_up_or_after_a_gap_it_is_not_known_to_be_idle() -> None:
    desk = Desk(up=False)
    assert desk.turns(4 * IDLE).replicas == 1
    desk = Desk()
    desk.turns(IDLE)
    desk.turn(seconds=RESTING.max_gap_seconds + 1)
    assert desk.desired == 1


def test_several_go_at_once_without_waiting_for_the_window_of_a_shrink() -> None:
    desk = Desk(desired=3)
    desk.turns(IDLE + 3 * TICK)
    assert [each.replicas for each in desk.decisions if each.changes] == [0]
    assert RESTING.scale_down_window_seconds > IDLE + 3 * TICK


def test_what_must_stay_stays_and_steps_are_kept_to() -> None:
    desk = Desk(desired=3, policy=replace(RESTING, scale_down_step=1))
    desk.turns(2 * IDLE, lambda seen: replace(seen, kept=Kept(2, "budget 'b' keeps 2")))
    assert desk.desired == 2
    desk.turn()
    assert desk.desired == 1


def rested(**changes: Any) -> Desk:
    desk = Desk(**changes)
    desk.turns(IDLE + 3 * TICK)
    assert desk.desired == 0
    return desk


def test_somebody_who_asks_by_name_wakes_it_for_as_long_as_idleness_is_watched() -> None:
    desk = rested()
    desk.asked_at = desk.now + 1.0
    woken = desk.turn()
    assert (woken.replicas, woken.binding) == (1, Binding.AWAKE)
    assert "POST /wake asked for it 14 s ago" in woken.sentence
    desk.turns(60.0 + IDLE)
    assert desk.desired == 1, "the count begins when it is ready"
    assert desk.turns(3 * TICK).replicas == 0
    assert desk.turns(IDLE).replicas == 0, "it was asked once"


def test_a_wake_that_is_not_carried_out_is_not_forgotten() -> None:
    desk = rested()
    desk.asked_at = desk.now + 1.0
    for _ in range(3):
        assert desk.turn().replicas == 1
        desk.scale(0)  # somebody's quota, a write without answer, …
    assert desk.turns(IDLE).replicas == 1


def test_the_wake_query_wakes_it_and_keeps_it_awake() -> None:
    desk = rested()
    desk.wake = 0.0
    assert desk.turns(IDLE).replicas == 0
    desk.wake = 0.5
    assert desk.turn().replicas == 1
    assert desk.turns(4 * IDLE).replicas == 1
    desk.wake = 0.0
    assert desk.turns(IDLE + 2 * TICK).replicas == 0


def test_what_a_router_counts_wakes_it() -> None:
    desk = rested(routed=7.0)
    assert desk.turns(IDLE).replicas == 0
    desk.routed = 8.0
    assert desk.turn().replicas == 1
    assert "requests that came asked for it" in desk.decisions[-1].sentence


def test_at_zero_what_cannot_be_read_neither_wakes_nor_is_silent() -> None:
    desk = rested()
    told = desk.turn(lambda seen: replace(seen, problems=("wake.query could not be read",)))
    assert (told.replicas, told.binding) == (0, Binding.HOLD)
    assert "wake.query could not be read" in told.sentence


def test_a_person_who_scales_it_to_zero_is_followed_unless_somebody_asks() -> None:
    desk = Desk()
    desk.turns(4 * TICK)
    desk.scale(0)
    assert desk.turns(IDLE).replicas == 0
    desk = Desk()
    desk.turn()
    desk.turn(served=1.0)
    desk.scale(0)
    assert desk.turn().replicas == 1


def test_the_calendar_keeps_it_awake_and_lets_it_rest_at_once_when_it_has_been_idle() -> None:
    always = ScheduledFloor(start="0 0 * * *", end="59 23 * * *", min_replicas=2)
    desk = Desk(policy=replace(RESTING, calendar=floors_of((always,))))
    assert desk.turns(2 * IDLE).replicas == 2
    desk.policy = RESTING
    assert desk.turn().replicas == 0


def test_with_a_fewest_of_one_nothing_is_watched_and_nothing_rests() -> None:
    desk = Desk(policy=replace(RESTING, min_replicas=1), asked_at=START, wake=1.0)
    assert desk.turns(4 * IDLE).replicas == 1
    assert desk.history.idleness == Idleness()


def test_a_time_in_which_it_might_not_rest_was_not_watched() -> None:
    desk = Desk()
    desk.turns(IDLE - 2 * TICK)
    desk.policy = replace(RESTING, min_replicas=1)
    desk.turns(IDLE)
    desk.policy = RESTING
    desk.turns(IDLE - TICK)
    assert desk.desired == 1
    assert desk.turns(3 * TICK).replicas == 0


MISHAPS: list[Bend] = [
    as_it_is,
    as_it_is,
    as_it_is,
    showing(requests_running=1.0),
    showing(state=SampleState.STALE),
    lambda seen: replace(seen, problems=("unseen",)),
    lambda seen: replace(seen, rolling=True),
]


@given(st.lists(st.tuples(st.sampled_from(MISHAPS), st.sampled_from([0.0, 0.0, 0.0, 1.0])), max_size=60))
def test_it_never_rests_within_the_time_after_anything_but_idleness(looks: list[tuple[Bend, float]]) -> None:
    desk = Desk(policy=replace(RESTING, idle_seconds=60.0))
    disturbed = START
    for bend, served in looks:
        desk.turn(bend, served=served)
        if bend is not as_it_is or served:
            disturbed = desk.now
        if desk.desired == 0:
            assert desk.now - disturbed > 60.0
            return
