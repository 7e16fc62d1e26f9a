"""Requests that wait for an answer keep none of another lane from being sent."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from kubernetes_asyncio.client import ApiClient

from cluster import delegation
from cluster.api import Api, Counters, Pace
from cluster.lease import Lease, Terms
from cluster.scale import write_scale
from tests.stand_ins.waiting import until

SCALE = "/apis/apps/v1/namespaces/inference/deployments/vllm-a/scale"


class Answer:
    """A whole one, at once."""

    status, headers = 200, {"Content-Type": "application/json"}

    def __init__(self, body: object) -> None:
        self._body = orjson.dumps(body)

    async def read(self) -> bytes:
        return self._body

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class Client:
    """Answers nothing but the Lease and the scale."""

    configuration = SimpleNamespace(host="https://api")

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        """By the last part of the path."""

    async def call_api(self, path: str, method: str, **_: Any) -> Answer:
        self.sent[path.rpartition("/")[2]] += 1
        if path == SCALE:
            return Answer({"metadata": {}, "spec": {"replicas": 3}, "status": {}})
        if "/leases" in path:
            return Answer({"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": "one"}})
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def api(client: Client) -> Api:
    return Api(cast("ApiClient", client), pace=Pace(request_seconds=60.0), counters=Counters())


async def renewed(api: Api) -> str:
    lease = Lease(api, "inference", "preheat-autoscaler", "one", Terms())
    return (await lease.write(await lease.read(), "one")).holder


async def ended(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_thousand_slow_writes_of_status_keep_neither_the_lease_nor_a_scale_waiting(
    api: Api, client: Client
) -> None:
    slow = [asyncio.create_task(api.call("PATCH", "/apis/x/status", body={})) for _ in range(1000)]
    await until(lambda: client.sent["status"] == 16)
    assert await renewed(api) == "one"
    assert (await write_scale(api, SCALE, "vllm-a", expected=2, replicas=3, pace=Pace())).desired == 3
    assert client.sent["status"] == 16
    await ended(*slow)


async def test_those_who_ask_us_take_up_few_requests_to_the_cluster_and_none_of_our_own(
    api: Api, client: Client
) -> None:
    strangers = [asyncio.create_task(delegation.asker_of(api, f"junk {number}")) for number in range(3000)]
    may = {"nonResourceAttributes": {"path": "/apis", "verb": "get"}}
    known = [asyncio.create_task(delegation.may(api, delegation.Asker("anna"), may)) for _ in range(10)]
    await until(lambda: client.sent["tokenreviews"] == 4)
    assert await renewed(api) == "one"
    own = asyncio.create_task(api.call("PATCH", "/apis/x/status", body={}))
    await until(lambda: client.sent["status"] == 1)
    assert client.sent["tokenreviews"] + client.sent["subjectaccessreviews"] == 4
    await ended(own, *known, *strangers)
