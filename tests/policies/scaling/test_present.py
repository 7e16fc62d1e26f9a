"""What the newest look alone changes: how late it shows, who waits in it, and what must stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from policies.scaling.decision import Binding
from policies.scaling.observation import Kept, Observation, Pod
from policies.scaling.policy import decide
from tests.policies.scaling.story import Story, policy

HOUR = 3600.0


def step(hours: float, before: float, then: float) -> Callable[[float], float]:
    """A load of requests/s that changes once."""
    return lambda time: before if time < hours * HOUR else then


def test_what_is_seen_late_is_foreseen_for_so_much_longer() -> None:
    story = Story(lambda _: 6.0, policy(), start=4).settled().tell(600)
    last = story.observations[-1]
    now = replace(last, time=last.time + 15)
    fresh = replace(now, pods=tuple(aged(pod, now.time) for pod in now.pods))
    late = replace(fresh, pods=(aged(fresh.pods[0], now.time - 40), *fresh.pods[1:]))
    seconds = [decide(seen, story.history, story.policy).horizon_seconds for seen in (fresh, late)]
    assert seconds[1] == seconds[0] + 40


def aged(pod: Pod, time: float) -> Pod:
    assert pod.sample
    return replace(pod, sample=replace(pod.sample, time=time))


def test_a_queue_is_worked_off_beside_what_comes_meanwhile() -> None:
    """Two of three replicas fit: what comes until another is there takes all that the two bear."""
    story = Story(step(0.5, 4.0, 6.0), policy(), start=2, slots=2).settled().tell(0.5 * HOUR + 240)
    last = story.decisions[-1]
    waiting = story.observations[-1].requests_waiting
    assert last.capacity is not None
    assert last.demand is not None
    assert 100 < waiting < last.capacity * 2 * last.horizon_seconds
    assert last.binding is Binding.QUEUE
    assert last.needed > last.demand / last.capacity + 1


def queued(seen: Observation) -> Observation:
    """One request waits at the first pod."""
    first, *others = seen.pods
    assert first.sample
    return replace(seen, pods=(replace(first, sample=replace(first.sample, requests_waiting=1.0)), *others))


def test_no_fleet_shrinks_below_what_is_ready_while_requests_wait() -> None:
    story = Story(step(1, 9.0, 1.0), policy(), start=5).settled().tell(1.5 * HOUR)
    shrink = next(number for number, each in enumerate(story.decisions) if each.replicas < each.desired)
    again = Story(story.load, story.policy, start=5).settled().tell(15 * shrink)
    before = again.replicas[-1]
    assert before == len(again.observations[-1].ready_pods)
    again.observed = queued
    again.tell(15)
    assert again.replicas[-1] == before
    assert f"held at {before}: {before} needed for what runs now" in again.decisions[-1].sentence


def test_what_is_kept_of_a_fleet_holds_it_and_never_makes_it_grow() -> None:
    def held_at(replicas: int) -> Story:
        def kept(seen: Observation) -> Observation:
            return replace(seen, kept=Kept(replicas, "a budget keeps it"))

        return Story(step(0.5, 9.0, 1.0), policy(), start=5, observed=kept).settled().tell(1.2 * HOUR)

    assert held_at(3).replicas[-1] == 3
    assert set(held_at(9).replicas) == {5}
