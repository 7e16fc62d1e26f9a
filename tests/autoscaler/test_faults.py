"""Whatever fails on either side: nothing shrinks while blind, a line and a counter tell, and it recovers by itself."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.autoscaler.stack import Stack
from tests.stand_ins.kubernetes import Fault
from tests.stand_ins.kubernetes_objects import Object
from tests.stand_ins.waiting import until

SEEN_TURNS = 2
BLIND_TURNS = 3
RECOVERY_TURNS = 6
SIZE = 3


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with Stack(tmp_path) as made:
        yield made


class Trouble:
    """A fault of the list: how it comes, how it goes, and what must be told of it."""

    def __init__(
        self,
        name: str,
        counter: str,
        sentence: str,
        come: Callable[[Stack], Awaitable[None] | None],
        go: Callable[[Stack], Awaitable[None] | None] | None = None,
    ) -> None:
        self.name, self.counter, self.sentence = name, counter, sentence
        self._come, self._go = come, go or come

    async def comes(self, stack: Stack) -> None:
        if (waits := self._come(stack)) is not None:
            await waits

    async def goes(self, stack: Stack) -> None:
        if (waits := self._go(stack)) is not None:
            await waits


def prometheus(**faults: object) -> Callable[[Stack], None]:
    """Set these faults, or take them away if they are set."""
    ordinary = {"status": 200, "delay_seconds": 0.0, "broken_connections": 0, "only_queries_with": "", "warnings": ()}

    def switch(stack: Stack) -> None:
        for name, value in faults.items():
            on = getattr(stack.prometheus.faults, name) == ordinary[name]
            setattr(stack.prometheus.faults, name, value if on else ordinary[name])

    return switch


def empty(stack: Stack) -> None:
    stack.prometheus.restart_empty()
    stack.prometheus.scraping = False


def scraping_again(stack: Stack) -> None:
    stack.prometheus.scraping = True


def still(stack: Stack) -> None:
    stack.prometheus.scraping = False
    stack.pass_time(10)  # a sample is believed for 60 s


def not_a_number(stack: Stack) -> None:
    next(iter(stack.engines.values())).shown["num_requests_running"] = "NaN"


def numbers(stack: Stack) -> None:
    for engine in stack.engines.values():
        engine.shown.clear()


def one_unseen(stack: Stack) -> None:
    stack.prometheus.pods.pop(0)


def all_seen(stack: Stack) -> None:
    stack.follow()


def clock_ahead(stack: Stack) -> None:
    stack.prometheus.clock = lambda: stack.now + 120


def clock_right(stack: Stack) -> None:
    stack.prometheus.restart_empty()  # the samples of the future are in its store
    stack.prometheus.clock = lambda: stack.now


async def api_down(stack: Stack) -> None:
    await stack.api.stop()


async def api_up(stack: Stack) -> None:
    await stack.api.start()
    await stack.followed()


def writes_fail(status: int) -> Callable[[Stack], None]:
    def fail(stack: Stack) -> None:
        stack.api.faults.append(Fault(status, times=10_000, method="PATCH", path="/scale"))

    return fail


def writes_work(stack: Stack) -> None:
    stack.api.faults.clear()


def right_taken(stack: Stack) -> None:
    stack.api.denied.add("patch deployments/scale")


def right_given(stack: Stack) -> None:
    stack.api.denied.clear()


TROUBLES = [
    Trouble("Prometheus is down", "prometheus", "broke the connection off", prometheus(broken_connections=10_000)),
    Trouble("Prometheus is slow", "prometheus", "did not answer", prometheus(delay_seconds=2.0)),
    Trouble("Prometheus says 503", "prometheus", "503", prometheus(status=503)),
    Trouble("Prometheus is empty", "incomplete", "has no series of vLLM now", empty, scraping_again),
    Trouble("Prometheus scrapes no more", "incomplete", "no whole sample", still, scraping_again),
    Trouble("Prometheus remarks on its answers", "incomplete", "may be part", prometheus(warnings=("may be part",))),
    Trouble(
        "one query fails",
        "incomplete",
        "could not be read",
        prometheus(status=503, only_queries_with="kv_cache_usage"),
    ),
    Trouble("a pod shows NaN", "incomplete", "not a finite number", not_a_number, numbers),
    Trouble("a pod has no sample", "incomplete", "have no whole sample", one_unseen, all_seen),
    Trouble("the clock of samples is ahead", "incomplete", "ahead of ours", clock_ahead, clock_right),
    Trouble("the API server is down", "kubernetes", "API server", api_down, api_up),
    Trouble("writes meet 409", "kubernetes", "409", writes_fail(409), writes_work),
    Trouble("writes meet 429", "kubernetes", "429", writes_fail(429), writes_work),
    Trouble("writes meet 503", "kubernetes", "503", writes_fail(503), writes_work),
    Trouble("the right to patch is taken away", "refused", 'lacks the right "patch', right_taken, right_given),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
async def test_no_shrink_while_it_lasts_a_line_a_counter_and_recovery(
    stack: Stack, trouble: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    if "slow" in trouble.name:
        stack.prometheus_settings["timeoutSeconds"] = 1.0
    target = await stack.target(replicas=SIZE)
    await stack.turns(target, SEEN_TURNS)
    with caplog.at_level(logging.DEBUG, "autoscaler"):
        await trouble.comes(stack)
        await stack.turns(target, BLIND_TURNS)
    assert stack.replicas == SIZE
    assert target.figures.counts["preheat_errors_total", trouble.counter] >= 1
    assert any(trouble.sentence in record.getMessage() for record in caplog.records)
    assert any(said.is_warning for said in stack.events)
    await trouble.goes(stack)
    await stack.turns(target, RECOVERY_TURNS, until=lambda: stack.replicas < SIZE)
    assert stack.replicas < SIZE


async def test_without_trouble_it_shrinks_in_the_turns_that_trouble_is_given(stack: Stack) -> None:
    """What makes the tests above mean something."""
    target = await stack.target(replicas=SIZE)
    await stack.turns(target, SEEN_TURNS + BLIND_TURNS, until=lambda: stack.replicas < SIZE)
    assert stack.replicas < SIZE
    assert not [said for said in stack.events if said.is_warning]
    assert sum(target.figures.counts["preheat_errors_total", kind] for kind in ("prometheus", "incomplete")) == 0
    await until(lambda: bool(stack.api.events))  # it is written beside the turns
    event = next(iter(stack.api.events.values()))
    assert event["reason"] == "Rescaled"
    assert event["involvedObject"]["name"] == "vllm-llama"


async def test_prometheus_away_for_long_brings_back_what_the_hour_before_wanted(stack: Stack) -> None:
    stack.rate = 180.0
    target = await stack.target(replicas=6)
    await stack.turns(target, 6)
    stack.rate = 40.0
    await stack.turns(target, 40, until=lambda: stack.replicas < 11)
    few = stack.replicas
    assert few < 11
    stack.prometheus.faults.broken_connections = 10_000
    await stack.turns(target, 1)
    assert stack.replicas == few
    await stack.turns(target, 2)
    assert stack.replicas == 11
    (said,) = [each for each in stack.events if each.reason == "RaisedUnmeasured"]
    assert said.is_warning
    assert "11 were wanted before" in said.message
    stack.prometheus.faults.broken_connections = 0
    await stack.turns(target, RECOVERY_TURNS, until=lambda: stack.replicas < 11)
    assert stack.replicas < 11


async def test_a_passing_conflict_is_written_again_within_the_turn(stack: Stack) -> None:
    target = await stack.target(replicas=SIZE)
    stack.api.faults = [Fault(409, times=1, method="PATCH", path="/scale"), Fault(429, times=1, method="PATCH")]
    await stack.turns(target, SEEN_TURNS + BLIND_TURNS, until=lambda: stack.replicas < SIZE)
    assert stack.replicas < SIZE
    assert target.figures.counts["preheat_scale_writes_total", "rescaled"] == 1


async def test_a_target_that_is_gone_is_held_told_and_taken_up_again(stack: Stack) -> None:
    target = await stack.target(replicas=SIZE)
    await stack.turns(target, SEEN_TURNS)
    kept: Object = stack.api.get(stack.deployed)
    stack.api.remove(stack.deployed)
    stack.follows = False
    stack.pass_time(60)
    for _ in range(50):  # until the watch has told
        await stack.service.turn(target)
        if target.figures.counts["preheat_errors_total", "target-not-found"]:
            break
    assert [said.reason for said in stack.events if said.is_warning] == ["TargetNotFound"]
    assert "does not exist" in stack.events[-1].message
    stack.api.put(kept)
    stack.follows = True
    await stack.followed()
    await stack.turns(target, RECOVERY_TURNS, until=lambda: stack.replicas < SIZE)
    assert stack.replicas < SIZE


async def test_a_scale_by_hand_that_the_watch_has_not_told_yet_makes_the_write_void(stack: Stack) -> None:
    target = await stack.target(replicas=SIZE)
    await stack.turns(target, SEEN_TURNS)
    stack.api.silent = True
    stack.api.get(stack.deployed)["spec"]["replicas"] = 9
    stack.follows = False
    overtaken = ("preheat_scale_writes_total", "overtaken")
    await stack.turns(target, BLIND_TURNS, until=lambda: target.figures.counts[overtaken] > 0)
    assert target.figures.counts[overtaken] == 1
    assert stack.replicas == 9
    (event,) = [said for said in stack.events if said.reason == "ScaledByOther"]
    assert "was set to 9 by somebody else" in event.message


async def test_a_scale_by_hand_between_two_ticks_is_told_and_respected(stack: Stack) -> None:
    target = await stack.target(replicas=2)
    await stack.turns(target, SEEN_TURNS)
    stack.set_replicas(5)
    await stack.followed()
    await stack.turns(target, 1)
    assert stack.replicas == 5
    (event,) = stack.events
    assert (event.reason, event.is_warning) == ("ScaledByOther", False)
    assert event.message.startswith("somebody else scaled from 2 to 5, which is respected")
