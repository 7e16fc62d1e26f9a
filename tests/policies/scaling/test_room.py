"""What may not be created is not asked for, and what is there already is not taken away for it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.scaling.decision import Binding
from policies.scaling.observation import Limit, Observation, Pod, PodStage, Room
from policies.scaling.room import beside_waiting, narrowest, on_nodes
from tests.policies.scaling.story import Story, policy


def decided_with(room: int, start: int, load: float) -> Story:
    def observed(seen: Observation) -> Observation:
        return replace(seen, room=Room(room, "quota 'q' has none left"))

    return Story(lambda _: load, policy(max_replicas=50), start=start, observed=observed).settled().tell(150)


@settings(max_examples=30)
@given(st.integers(0, 20), st.integers(1, 20), st.sampled_from([0.5, 5.0, 20.0]))
def test_a_fleet_never_grows_beyond_its_room_nor_shrinks_for_it(room: int, start: int, load: float) -> None:
    story = decided_with(room, start, load)
    for decision in story.decisions:
        assert decision.replicas <= max(room, decision.desired)
        if decision.replicas < decision.desired:
            assert decision.binding is not Binding.ROOM


def test_the_limit_is_told_with_the_decision() -> None:
    story = decided_with(4, 2, 20.0).tell(300)
    limited = next(each for each in story.decisions if each.binding is Binding.ROOM)
    assert limited.replicas == 4
    assert "to 4: quota 'q' has none left" in limited.sentence


def waiting(seen: Observation) -> Observation:
    return replace(seen, room=narrowest(beside_waiting(seen, 2), None))


def test_only_so_many_wait_for_a_node_and_all_come_when_there_is_one() -> None:
    story = Story(lambda _: 20.0, policy(max_replicas=50), start=3, slots=5, observed=waiting).settled().tell(300)
    pending = [seen.count(PodStage.UNSCHEDULABLE) for seen in story.observations]
    assert story.replicas[-3:] == [7, 7, 7]
    assert pending[-3:] == [2, 2, 2]
    assert story.decisions[-1].binding is Binding.ROOM
    assert "2 of its pods fit on no node, and maxUnschedulable is 2" in story.decisions[-1].sentence


def test_the_narrowest_room_counts() -> None:
    wide, narrow = Room(9, "wide"), Room(4, "narrow")
    assert narrowest(wide, None, narrow) == narrow
    assert narrowest(None, None) is None


def on_two_nodes(seen: Observation) -> Observation:
    """Five fit there in all."""
    placed = len(seen.pods) - seen.count(PodStage.UNSCHEDULABLE, PodStage.TERMINATING)
    return replace(seen, room=on_nodes(seen, placed, 5 - placed, "none of 2 nodes has more"))


def test_no_more_is_asked_for_than_fits_on_nodes_and_nothing_waits() -> None:
    story = Story(lambda _: 20.0, policy(max_replicas=50), start=3, slots=5, observed=on_two_nodes).settled().tell(300)
    assert story.replicas[-3:] == [5, 5, 5]
    assert not any(seen.count(PodStage.UNSCHEDULABLE) for seen in story.observations)
    assert story.decisions[-1].binding is Binding.ROOM
    assert "to 5: none of 2 nodes has more" in story.decisions[-1].sentence


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3), st.integers(0, 3), st.integers(0, 9))
def test_what_fits_is_for_those_first_that_wait(placed: int, created: int, waits: int, leaving: int, fits: int) -> None:
    stages = (PodStage.READY, PodStage.CREATED, PodStage.UNSCHEDULABLE, PodStage.TERMINATING)
    counts = (placed, created, waits, leaving)
    pods = [Pod(f"{stage}-{n}", stage, 0.0) for stage, count in zip(stages, counts, strict=True) for n in range(count)]
    room = on_nodes(Observation(0.0, placed + created + waits, tuple(pods)), placed, fits, "")
    assert room.replicas == placed + (min(fits, created + waits) if waits else fits)
    assert room.limit is Limit.NODES
    assert ("as the scheduler finds no node" in room.reason) == bool(waits and fits > created + waits)
    assert not room.takes_back
