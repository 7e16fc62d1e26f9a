"""The pod's label says whether it leads, however often it could not be written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from autoscaler.leader_label import LeaderLabel
from autoscaler.program import Options, _Work
from autoscaler.publish.servers import PublishOptions
from autoscaler.targets import Targets
from cluster.api import Api, UnansweredError
from cluster.kubernetes import Cluster
from cluster.own_pod import LEADS, OwnPod
from tests.stand_ins.waiting import until


class ApiStandIn:
    """Holds the one label, unless it is away or its answer is held back."""

    def __init__(self) -> None:
        self.label: str | None = "true"  # of a container that died
        self.asked = 0
        self.away = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def call(self, method: str, path: str, *, body: Any, **_: Any) -> dict[str, Any]:
        self.asked += 1
        await self.answers.wait()
        if self.away:
            raise UnansweredError("the API server did not answer")
        self.label = body["metadata"]["labels"][LEADS]
        return {}


@pytest.fixture
def api() -> ApiStandIn:
    return ApiStandIn()


@pytest.fixture
async def label(api: ApiStandIn, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LeaderLabel]:
    monkeypatch.setattr("autoscaler.leader_label.RETRY_SECONDS", 0.001)
    made = LeaderLabel(OwnPod("preheat-system", "one"), cast("Api", api))
    yield made
    await made.close()


async def test_a_leader_that_could_not_be_labelled_is_so_once_the_api_server_answers(
    api: ApiStandIn, label: LeaderLabel, caplog: pytest.LogCaptureFixture
) -> None:
    label.set(leads=False)
    await until(lambda: api.label is None)
    api.away = True
    label.set(leads=True)
    await until(lambda: api.asked > 4)
    api.away = False
    await until(lambda: api.label == "true")
    assert len(caplog.records) == 1


async def test_who_was_cut_off_is_labelled_no_longer_once_it_reaches_the_api_server(
    api: ApiStandIn, label: LeaderLabel
) -> None:
    label.set(leads=True)
    await label.close()
    api.away = True
    label.set(leads=False)
    await until(lambda: api.asked > 4)
    assert api.label == "true"
    api.away = False
    await until(lambda: api.label is None)


async def test_what_is_wished_while_a_write_is_on_its_way_comes_after_it(api: ApiStandIn, label: LeaderLabel) -> None:
    api.answers.clear()
    label.set(leads=True)
    await until(lambda: api.asked == 1)
    label.set(leads=False)
    api.answers.set()
    await until(lambda: api.asked == 2 and api.label is None)


async def test_what_is_as_it_should_be_is_written_no_more(api: ApiStandIn, label: LeaderLabel) -> None:
    label.set(leads=True)
    await label.close()
    assert api.asked == 1


async def test_the_work_goes_on_while_its_leader_cannot_be_labelled(
    api: ApiStandIn, label: LeaderLabel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoscaler.program.own_pod", lambda: OwnPod("preheat-system", "one"))
    cluster = cast("Cluster", SimpleNamespace(api=api, autoscalers=lambda namespace: None))
    options = Options(resources=(), publish=PublishOptions(wake_port=0))
    work = _Work(options, cluster, cast("Targets", None))
    api.away, api.label = True, None
    working = asyncio.create_task(work.run())
    await until(lambda: api.asked > 4)
    assert not working.done()
    api.away = False
    await until(lambda: api.label == "true")
    api.away = True
    working.cancel()
    await asyncio.wait([working])
    api.away = False
    await until(lambda: api.label is None)
    await work.label.close()


async def test_outside_of_a_cluster_there_is_nothing_to_label(api: ApiStandIn) -> None:
    label = LeaderLabel(None, cast("Api", api))
    label.set(leads=True)
    await label.close()
    assert api.asked == 0
