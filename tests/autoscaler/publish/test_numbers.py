"""A number is there to be followed while it is true; after that whoever asks is told why there is none."""

from __future__ import annotations

import pytest

from autoscaler.events import Announcement
from autoscaler.fleet import MetricsNotObservedError
from autoscaler.publish.numbers import METRIC, PublishedNumbers, StaleNumberError, UnknownNumberError
from autoscaler.service import Service, Target, patience_seconds, target_of
from autoscaler.telemetry import Telemetry
from policies.scaling.observation import SampleState
from tests.autoscaler.worlds import TICK_SECONDS, World, resource, with_states

PATIENCE_SECONDS = 3 * TICK_SECONDS + 5


class Story:
    """A target of mode Publish, whose replicas somebody else sets."""

    def __init__(self, **world: object) -> None:
        self.world = World(**world)  # type: ignore[arg-type]  # the names are the fields'
        self.numbers = PublishedNumbers(clock=lambda: self.world.time)
        self.told: list[Announcement] = []
        stated = resource(mode="Publish")
        assert patience_seconds(stated, TICK_SECONDS) == PATIENCE_SECONDS
        pass_on = self.numbers.add(stated, PATIENCE_SECONDS)
        self.target: Target = target_of(stated, self.world, tick_seconds=TICK_SECONDS, tell=self._tell, pass_on=pass_on)
        self.service = Service([self.target], Telemetry("0"), tick_seconds=TICK_SECONDS)
        self.service.telemetry.sources.append(self.numbers.gauges)

    async def _tell(self, said: Announcement) -> None:
        self.told.append(said)

    async def turns(self, times: int = 1) -> None:
        for _ in range(times):
            await self.service.turn(self.target)

    @property
    def number(self) -> int:
        return self.numbers.number("inference", "llama").replicas

    @property
    def gauge(self) -> bool:
        return f'{METRIC}{{name="llama",namespace="inference"}}' in self.service.telemetry.text().decode()


async def test_the_decision_is_published_and_not_written() -> None:
    story = Story(replicas=2, rate=60.0, waiting=30.0)
    await story.turns(6)
    assert story.number > 2
    assert story.gauge
    assert story.world.writes == []
    assert story.told[0].reason == "Published"
    assert story.told[0].message.startswith("publishes ")


async def test_whoever_follows_is_not_taken_for_a_stranger() -> None:
    story = Story(replicas=2, rate=60.0, waiting=30.0)
    await story.turns(4)
    story.world.replicas = story.number
    await story.turns(4)
    assert {said.reason for said in story.told} == {"Published"}


async def test_before_the_first_turn_there_is_no_number() -> None:
    story = Story()
    with pytest.raises(StaleNumberError, match="inference/llama has no number yet: its first turn has not ended"):
        assert story.number
    assert not story.gauge


async def test_a_number_stands_for_three_ticks_without_sight_and_then_no_longer() -> None:
    story = Story(replicas=4)
    await story.turns(4)
    before = story.number
    story.world.faults = [MetricsNotObservedError("Prometheus is down")] * 4
    await story.turns(3)
    assert story.number == before
    await story.turns(1)
    with pytest.raises(StaleNumberError, match="inference/llama has had no number for 60 s: Prometheus is down"):
        assert story.number
    assert not story.gauge
    await story.turns(1)
    assert story.number > 0


async def test_what_is_held_for_want_of_sight_is_no_number_to_follow() -> None:
    story = Story(replicas=2)
    story.world.bend = with_states(SampleState.STALE, SampleState.STALE)
    await story.turns(8)
    with pytest.raises(StaleNumberError, match="2 of 2 ready pods have no whole sample"):
        assert story.number


def test_one_that_does_not_publish_is_unknown() -> None:
    numbers = PublishedNumbers()
    numbers.add(resource("one"), 60.0)
    numbers.add(resource("two"), 60.0)
    with pytest.raises(UnknownNumberError, match=r"no VLLMAutoscaler 'three' .* \(there: one, two\)"):
        numbers.number("inference", "three")
    numbers.remove("inference", "one")
    assert numbers.names("inference") == ["two"]
    with pytest.raises(UnknownNumberError):
        numbers.number("inference", "one")


async def test_while_it_is_paused_there_is_no_number() -> None:
    story = Story()
    story.target.pass_on = story.numbers.add(resource(mode="Publish", paused=True), PATIENCE_SECONDS)
    await story.turns(3)
    with pytest.raises(StaleNumberError, match="it is paused"):
        assert story.number
