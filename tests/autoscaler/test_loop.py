"""A turn does what the policy judges, and holds, tells and recovers when the world does not play along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from autoscaler.fleet import MetricsNotObservedError
from autoscaler.loop import Outcome, Turn, turn
from cluster.errors import NotObservedError, OvertakenError, RefusedError, TargetNotFoundError, WithheldError
from policies.scaling.history import History
from policies.scaling.observation import Observation, SampleState
from tests.autoscaler.worlds import EMPTY, World, policy, with_problem, with_states

SHRINKS_WITHIN = 8
"""Turns after which an oversized fleet that is wholly seen has shrunk."""


@dataclass
class Story:
    """A world and what the loop remembers of it."""

    world: World
    history: History = EMPTY
    shadow: bool = False

    async def turns(self, times: int) -> list[Turn]:
        taken = []
        for _ in range(times):
            taken.append(await turn(self.world, self.history, policy(), shadow=self.shadow))
            self.history = taken[-1].history
        return taken


def oversized() -> Story:
    return Story(World(replicas=6, rate=4.0))


async def test_a_fleet_that_is_wholly_seen_and_too_large_shrinks() -> None:
    """The measure of all faults below: without them, this happens."""
    story = oversized()
    last = (await story.turns(SHRINKS_WITHIN))[-1]
    assert story.world.replicas < 6
    assert last.decision is not None
    assert last.kind == last.problem == ""


async def test_a_rising_load_is_followed() -> None:
    story = Story(World(replicas=1, rate=2.0))
    await story.turns(4)
    story.world.rate = 30.0
    turns = await story.turns(8)
    assert story.world.replicas > 3
    assert Outcome.RESCALED in {each.outcome for each in turns}
    rescaled = next(each for each in turns if each.outcome is Outcome.RESCALED)
    assert rescaled.decision is not None
    assert rescaled.replicas_in_force == rescaled.decision.replicas != rescaled.decision.desired


async def test_shadow_decides_the_same_and_writes_nothing() -> None:
    shadow = Story(World(replicas=6, rate=4.0), shadow=True)
    active = oversized()
    shadowed, acted = await shadow.turns(SHRINKS_WITHIN), await active.turns(SHRINKS_WITHIN)
    assert shadow.world.writes == []
    first = next(i for i, each in enumerate(acted) if each.outcome is Outcome.RESCALED)
    assert shadowed[first].decision == acted[first].decision
    assert shadowed[first].outcome is Outcome.SHADOWED
    assert shadowed[first].replicas_in_force == 6


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (MetricsNotObservedError("Prometheus http://p: connection refused"), "prometheus"),
        (NotObservedError("the API server did not answer within 5 s"), "kubernetes"),
    ],
)
async def test_who_cannot_be_seen_is_held_told_and_found_again(fault: NotObservedError, kind: str) -> None:
    story = oversized()
    await story.turns(3)
    before = story.history
    story.world.faults = [fault] * SHRINKS_WITHIN
    for blind in await story.turns(SHRINKS_WITHIN):
        assert blind.outcome is Outcome.BLIND
        assert blind.kind == kind
        assert blind.problem == str(fault)
        assert blind.decision is None
        assert blind.history is before
    assert story.world.writes == []
    await story.turns(SHRINKS_WITHIN)
    assert story.world.replicas < 6


async def lull() -> Story:
    """A fleet that has shrunk with its load."""
    story = Story(World(replicas=6, rate=40.0))
    await story.turns(12)
    story.world.rate = 4.0
    for _ in range(40):
        await story.turns(1)
        if story.world.replicas < 5:
            break
    return story


async def metrics_away(story: Story, turns: int) -> list[Turn]:
    """With Prometheus down, and the target as Kubernetes still shows it."""
    taken = []
    for _ in range(turns):
        whole = await replace(story.world, faults=[]).observe(None)
        bare = with_states(*[None] * story.world.replicas)(whole)
        story.world.faults = [MetricsNotObservedError("Prometheus is down", bare)]
        taken += await story.turns(1)
    return taken


async def test_what_is_not_measured_for_long_goes_back_up_once_and_is_told() -> None:
    story = await lull()
    few = story.world.replicas
    before = story.history
    turns = await metrics_away(story, 12)
    outcomes = [each.outcome for each in turns]
    assert outcomes.count(Outcome.RAISED) == 1
    first = outcomes.index(Outcome.RAISED)
    assert set(outcomes[:first]) == set(outcomes[first + 1 :]) == {Outcome.BLIND}
    raised = turns[first]
    assert (raised.problem, raised.kind) == ("Prometheus is down", "prometheus")
    assert raised.replicas_in_force == story.world.replicas > few
    assert all(each.history is before for each in turns), "what was not measured teaches nothing"
    assert turns[first - 1].decision is None


async def test_in_the_dark_nothing_is_written_where_nothing_may_be() -> None:
    story = await lull()
    few = story.world.replicas
    story.shadow = True
    assert {each.outcome for each in await metrics_away(story, 12)} == {Outcome.BLIND}
    story.shadow = False
    story.world.write_faults = [WithheldError("it is paused", kind="paused")] * 4
    assert {each.outcome for each in await metrics_away(story, 4)} == {Outcome.BLIND}
    story.world.write_faults = [RefusedError("no right", right="patch deployments/scale")]
    (refused,) = await metrics_away(story, 1)
    assert (refused.outcome, refused.right) == (Outcome.REFUSED, "patch deployments/scale")
    assert story.world.replicas == few


async def test_a_gap_in_sight_must_be_covered_again_before_anything_shrinks() -> None:
    story = oversized()
    await story.turns(4)
    story.world.faults = [MetricsNotObservedError("down")] * 20
    await story.turns(20)
    for uncovered in await story.turns(4):  # the window of 60 s reaches back into the gap
        assert uncovered.decision is not None
        assert uncovered.decision.replicas >= 6
    await story.turns(4)
    assert story.world.replicas < 6


@pytest.mark.parametrize(
    "bend",
    [
        pytest.param(with_states(SampleState.STALE), id="one pod's sample is stale"),
        pytest.param(with_states(SampleState.ABSENT), id="one pod has no sample"),
        pytest.param(with_states(None), id="one pod was not asked"),
        pytest.param(with_states(SampleState.NOT_A_NUMBER), id="one pod shows NaN"),
        pytest.param(with_states(SampleState.PARTIAL), id="one pod's sample is partial"),
        pytest.param(with_states(*[SampleState.ABSENT] * 6), id="the server is empty"),
        pytest.param(with_states(*[SampleState.NOT_A_NUMBER] * 6), id="all is NaN"),
        pytest.param(with_problem("the server remarked: results may be incomplete"), id="the answer is partial"),
    ],
)
async def test_half_sight_shrinks_nothing_and_whole_sight_does_again(
    bend: Callable[[Observation], Observation],
) -> None:
    story = oversized()
    await story.turns(2)
    whole, story.world.bend = story.world.bend, bend
    for half in await story.turns(SHRINKS_WITHIN + 4):
        assert half.decision is not None
        assert half.decision.replicas >= 6
    assert story.world.replicas == 6
    story.world.bend = whole
    await story.turns(SHRINKS_WITHIN + 4)
    assert story.world.replicas < 6


async def test_half_sight_does_not_keep_a_queue_waiting() -> None:
    story = Story(World(replicas=2, rate=4.0))
    await story.turns(4)
    story.world.waiting = 20_000.0  # at each: more than both can work off before a third is ready
    story.world.bend = with_states(SampleState.STALE)
    await story.turns(8)
    assert story.world.replicas > 2


async def test_somebody_elses_number_stands_for_the_tick_and_is_judged_at_the_next() -> None:
    story = oversized()
    story.world.write_faults = [OvertakenError("vllm-llama was scaled from 6 to 9 by somebody else")]
    turns = await story.turns(SHRINKS_WITHIN)
    overtaken = next(each for each in turns if each.outcome is Outcome.OVERTAKEN)
    assert overtaken.problem == "vllm-llama was scaled from 6 to 9 by somebody else"
    assert overtaken.kind == "overtaken"
    assert overtaken.replicas_in_force is None
    assert overtaken.history.last is overtaken.observation
    assert len(story.world.writes) == 1  # the write that was void is not among them; the next turn's is


async def test_a_missing_right_is_named_and_held_at_each_turn_until_it_is_given() -> None:
    story = oversized()
    refusal = RefusedError('user "x" lacks the right "patch deployments/scale"', right="patch deployments/scale")
    story.world.write_faults = [refusal] * 3
    refused = [each for each in await story.turns(12) if each.outcome is Outcome.REFUSED]
    assert [each.right for each in refused] == ["patch deployments/scale"] * 3
    assert all(each.decision and each.replicas_in_force == 6 for each in refused)
    assert story.world.replicas < 6


async def test_a_target_that_is_gone_is_held_and_taken_up_when_it_is_back() -> None:
    story = oversized()
    await story.turns(2)
    story.world.faults = [TargetNotFoundError("Deployment 'vllm-llama' does not exist")] * 3
    for gone in await story.turns(3):
        assert gone.outcome is Outcome.REFUSED
        assert gone.kind == "target-not-found"
        assert gone.decision is None
    await story.turns(SHRINKS_WITHIN + 4)
    assert story.world.replicas < 6


async def test_a_write_without_an_answer_is_not_remembered_as_made() -> None:
    story = oversized()
    story.world.write_faults = [NotObservedError("the API server did not answer within 4 s")]
    turns = await story.turns(SHRINKS_WITHIN + 2)
    unanswered = next(each for each in turns if each.outcome is Outcome.UNANSWERED)
    assert unanswered.kind == "kubernetes"
    assert unanswered.replicas_in_force is None
    assert story.world.replicas < 6


async def test_a_fleet_scaled_by_hand_is_judged_from_the_new_number() -> None:
    story = Story(World(replicas=1, rate=4.0))
    await story.turns(3)
    story.world.replicas = 5
    by_hand = (await story.turns(1))[0]
    assert by_hand.decision is not None
    assert by_hand.decision.desired == by_hand.decision.replicas == 5
    assert story.world.writes == []
