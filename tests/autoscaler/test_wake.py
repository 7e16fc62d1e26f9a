"""Who asks by POST that a target be awake is judged by the cluster, heard within reason, and told what comes of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
import pytest
import trustme

from autoscaler.access import Access
from autoscaler.service import Service, Target, target_of
from autoscaler.telemetry import Telemetry
from autoscaler.wake import ADDRESSES, BURST, PER_SECOND, Allowance, Waker, application
from cluster.api import Api
from cluster.pages import listen
from tests.autoscaler.publish.test_metrics_api import Word
from tests.autoscaler.test_service import Running
from tests.autoscaler.worlds import World, resource
from tests.stand_ins.waiting import until

MAY = ("anna", "create", "vllmautoscalers")


@dataclass
class Door:
    """One that listens, and who may be woken."""

    word: Word
    service: Service
    url: str
    now: float = 0.0
    problem: str = ""

    async def post(
        self, path: str = "/wake/inference/llama", *, token: str = "t0", method: str = "POST"
    ) -> tuple[int, str, Mapping[str, str]]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, headers=headers) as answer,
        ):
            return answer.status, (await answer.text()).strip(), answer.headers


@asynccontextmanager
async def serving(*targets: Target, tick_seconds: float = 3_600.0) -> AsyncIterator[Door]:
    word = Word(trustme.CA(), allowed={MAY})
    service = Service(targets, Telemetry("0"), tick_seconds=tick_seconds)
    waker = Waker(service, lambda: door.problem)
    allowance = Allowance(clock=lambda: door.now)
    web, port = await listen(application(waker, Access(cast("Api", word)), allowance), "127.0.0.1", 0)
    door = Door(word, service, f"http://127.0.0.1:{port}")
    try:
        yield door
    finally:
        await web.cleanup()


def resting(**spec: Any) -> Target:
    world = World(replicas=0, rate=0.0, time=time.time())
    return target_of(resource(**{"minReplicas": 0, **spec}), world, tick_seconds=3_600.0)


async def test_who_may_wakes_it_at_once_and_is_told_so() -> None:
    """The next turn would be due in an hour."""
    target = resting()
    async with serving(target) as door, Running(door.service):
        await door.service.turn(target)
        status, told, _ = await door.post()
        assert (status, told) == (
            202,
            "inference/llama was asked for, and is kept awake until nothing was asked of it for 900 s; "
            "it serves when its first replica has started",
        )
        await until(lambda: cast("World", target.fleet).writes == [(0, 1)])
        asked = [spec["resourceAttributes"] for spec in door.word.asked if "resourceAttributes" in spec]
        assert asked == [
            {
                "namespace": "inference",
                "name": "llama",
                "verb": "create",
                "group": "autoscaling.preheat.dev",
                "version": "v1alpha1",
                "resource": "vllmautoscalers",
                "subresource": "wake",
            }
        ]


async def test_one_that_is_awake_keeps_its_turns() -> None:
    target = resting()
    target.fleet = World(replicas=1, rate=0.0, time=time.time())
    async with serving(target) as door:
        await door.service.turn(target)
        assert "it serves when" not in (await door.post())[1]
        assert not target.hurry.is_set()
        assert target.asked_at is not None


@pytest.mark.parametrize(
    ("token", "status", "said"),
    [
        ("", 401, "who asks is not known: send a bearer token"),
        ("stolen", 401, "the bearer token is nobody's"),
        ("t1", 403, 'user "bert" cannot create vllmautoscalers/wake: give it a Role that says so'),
    ],
    ids=("nobody", "a stranger", "not allowed"),
)
async def test_who_may_not_wakes_nobody(token: str, status: int, said: str) -> None:
    target = resting()
    async with serving(target) as door:
        answered, told, headers = await door.post(token=token)
        assert answered == status
        assert said in told
        assert ("WWW-Authenticate" in headers) is (status == 401)
        there = await door.post("/wake/inference/llama", token="t1")
        nowhere = await door.post("/wake/inference/none", token="t1")
        assert there[:2] == nowhere[:2], "what there is is nobody's business who may not wake it"
    assert target.asked_at is None


async def test_what_cannot_be_woken_is_said() -> None:
    async with serving(resting()) as door:
        assert (await door.post("/wake/inference/lama"))[:2] == (
            404,
            "no VLLMAutoscaler 'lama' in namespace 'inference' is followed here",
        )
        assert (await door.post(method="GET"))[0] == 405
        door.problem = "this replica waits"
        assert (await door.post())[:2] == (503, "this replica waits")
        door.problem, door.word.broken = "", True
        status, told, _ = await door.post(token="t1")
        assert status == 503
        assert "the cluster could not be asked" in told


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"minReplicas": 2}, "never rests, as its minReplicas is 2"),
        ({"paused": True}, "is paused, so nothing is written until spec.paused is false again"),
        ({"mode": "Shadow"}, "in mode Shadow nothing is written"),
        ({"mode": "Publish"}, "as far as those follow who scale it"),
        ({"idleSeconds": 60}, "until nothing was asked of it for 60 s"),
    ],
)
async def test_what_comes_of_it_is_told(spec: dict[str, Any], said: str) -> None:
    async with serving(resting(**spec)) as door:
        status, told, _ = await door.post()
        assert status == 202
        assert said in told


async def test_beyond_its_allowance_an_address_is_not_heard_and_the_cluster_not_asked() -> None:
    async with serving(resting()) as door:
        for _ in range(int(BURST)):
            assert (await door.post())[0] == 202
        before = len(door.word.asked)
        status, told, headers = await door.post(token="another")
        assert (status, headers["Retry-After"]) == (429, "1")
        assert "ask again in a second" in told
        assert len(door.word.asked) == before
        door.now += 1.0 / PER_SECOND
        assert [(await door.post())[0] for _ in range(2)] == [202, 429]


def test_many_addresses_are_remembered_only_while_they_matter() -> None:
    now = 0.0
    allowance = Allowance(clock=lambda: now)
    assert all(allowance.take(f"10.0.{n // 256}.{n % 256}") for n in range(ADDRESSES))
    assert not allowance.take("a new one"), "so many at once is an attack"
    now = BURST / PER_SECOND
    assert allowance.take("a new one")
