"""Events: aggregated, limited, bounded in memory, and never in anybody's way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster import events
from cluster.api import Api, Counters
from cluster.credentials import client_for
from cluster.events import Events, EventType, Subject
from cluster.kubernetes import Cluster
from policies.scaling.resource import ScaleTargetRef
from tests.stand_ins.kubernetes import QUICK, Fault, KubernetesStandIn
from tests.stand_ins.kubernetes_objects import NAMESPACE
from tests.stand_ins.waiting import until

REF = ScaleTargetRef(name="vllm-a")
SUBJECT = Subject("apps/v1", "Deployment", NAMESPACE, "vllm-a", "a-uid")


class Clock:
    now = 1_760_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
async def told(api: KubernetesStandIn, clock: Clock, counters: Counters, tmp_path: Path) -> AsyncIterator[Events]:
    client = await client_for(api.kubeconfig(tmp_path / "kubeconfig"), None)
    writer = Events(Api(client, pace=QUICK, counters=counters), counters, clock=clock)
    yield writer
    await writer.close(1)
    await client.close()


def take(told: Events, message: str, subject: Subject = SUBJECT, reason: str = "Scaled") -> None:
    told.take(subject, reason, message, EventType.NORMAL)


async def test_an_event_names_its_target_and_tells_its_story(api: KubernetesStandIn, cluster: Cluster) -> None:
    await cluster.event(REF, NAMESPACE, "a-uid", "Scaled", "2 became 3", EventType.WARNING)
    await until(lambda: len(api.events) == 1)
    (event,) = api.events.values()
    assert event["involvedObject"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "namespace": NAMESPACE,
        "name": "vllm-a",
        "uid": "a-uid",
    }
    assert (event["reason"], event["message"], event["type"]) == ("Scaled", "2 became 3", "Warning")
    assert (event["count"], event["source"]) == (1, {"component": "preheat"})
    assert event["firstTimestamp"] == event["lastTimestamp"]


async def test_the_same_event_again_raises_its_count(
    api: KubernetesStandIn, told: Events, clock: Clock, counters: Counters
) -> None:
    for _ in range(3):
        take(told, "2 became 3")
        clock.now += 10
    await until(lambda: counters.events_written == 3)
    (event,) = api.events.values()
    assert event["count"] == 3
    assert event["firstTimestamp"] == "2025-10-09T08:53:20Z"
    assert event["lastTimestamp"] == "2025-10-09T08:53:40Z"


async def test_two_events_of_one_instant_are_two(api: KubernetesStandIn, told: Events, counters: Counters) -> None:
    take(told, "2 became 3")
    take(told, "3 became 4")
    await until(lambda: counters.events_written == 2)
    assert {e["message"] for e in api.events.values()} == {"2 became 3", "3 became 4"}


async def test_an_event_that_has_expired_is_written_anew(
    api: KubernetesStandIn, told: Events, counters: Counters
) -> None:
    take(told, "2 became 3")
    await until(lambda: counters.events_written == 1)
    api.events.clear()
    take(told, "2 became 3")
    await until(lambda: counters.events_written == 2)
    (event,) = api.events.values()
    assert event["count"] == 1


async def test_many_different_events_of_one_reason_become_one(
    api: KubernetesStandIn, told: Events, clock: Clock, counters: Counters
) -> None:
    for number in range(15):
        take(told, f"{number} became {number + 1}")
        clock.now += 1
    await until(lambda: counters.events_written == 15)
    assert len(api.events) == events.SIMILAR_AT_MOST + 1
    (combined,) = (e for e in api.events.values() if e["message"].startswith("(combined"))
    assert combined["count"] == 5
    assert combined["message"] == "(combined from similar events): 14 became 15"
    clock.now += events.SIMILAR_WITHIN_SECONDS + 1
    take(told, "calm again")
    await until(lambda: counters.events_written == 16)
    assert "calm again" in {e["message"] for e in api.events.values()}


async def test_an_object_is_heard_in_a_burst_and_then_once_in_five_minutes(
    told: Events, clock: Clock, counters: Counters
) -> None:
    for number in range(100):
        take(told, "the same")
        if number % 10 == 0:
            await asyncio.sleep(0)
    await until(lambda: counters.events_written == events.BURST)
    assert counters.events_suppressed == 100 - events.BURST
    take(told, "of another target", Subject("apps/v1", "Deployment", NAMESPACE, "vllm-b", "b-uid"))
    await until(lambda: counters.events_written == events.BURST + 1)
    clock.now += events.REFILL_SECONDS
    take(told, "the same")
    take(told, "the same")
    await until(lambda: counters.events_written == events.BURST + 2)
    assert counters.events_suppressed == 100 - events.BURST + 1


async def test_an_event_that_is_forbidden_is_logged_once_and_harms_nothing(
    api: KubernetesStandIn, told: Events, counters: Counters, caplog: pytest.LogCaptureFixture
) -> None:
    api.denied.add("create events")
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            take(told, f"{number}")
        await until(lambda: counters.events_failed == 5)
    assert [r.getMessage() for r in caplog.records] == [
        'events in namespace \'inference\': user "us" lacks the right "create events"; add it to its Role'
    ]


async def test_an_event_whose_answer_was_lost_is_not_written_twice(
    api: KubernetesStandIn, told: Events, counters: Counters
) -> None:
    api.drop_answers = 1
    take(told, "2 became 3")
    await until(lambda: counters.events_written == 1)
    assert api.number_of("POST", "/events") == 2
    assert len(api.events) == 1


async def test_a_server_that_is_down_holds_nobody_up_and_fills_no_memory(
    api: KubernetesStandIn, told: Events, counters: Counters
) -> None:
    await api.stop()
    for number in range(events.QUEUED_AT_MOST + 500):
        take(told, "2 became 3", Subject("apps/v1", "Deployment", NAMESPACE, f"vllm-{number}", f"{number}"))
    assert counters.events_suppressed == 500


async def test_long_unused_memories_are_let_go(told: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "REMEMBERED", 10)
    for number in range(50):
        take(told, "2 became 3", Subject("apps/v1", "Deployment", NAMESPACE, f"vllm-{number}", f"{number}"))
    assert len(told._buckets) == 10
    assert len(told._similar) == 10


async def test_closing_writes_what_still_waits(api: KubernetesStandIn, told: Events) -> None:
    take(told, "the last words")
    await told.close(1)
    assert len(api.events) == 1


async def test_closing_does_not_wait_for_a_server_that_fails(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.faults.append(Fault(503, times=100, method="POST"))
    await cluster.event(REF, NAMESPACE, "a-uid", "Scaled", "2 became 3")
    await cluster.close(0.1)
    assert not api.events
