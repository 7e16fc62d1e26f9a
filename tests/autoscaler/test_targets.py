"""Targets begin with what is still worth knowing of them, and leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from autoscaler.controller import Controller
from autoscaler.endings import Endings
from autoscaler.floor import FloorKeeper
from autoscaler.gpu_budgets import GpuBudgets
from autoscaler.nodes import Nodes
from autoscaler.publish.numbers import PublishedNumbers
from autoscaler.servers import Servers
from autoscaler.service import Service
from autoscaler.targets import Targets
from autoscaler.telemetry import Telemetry
from cluster.autoscalers import Autoscalers, Stated, stated
from cluster.kubernetes import Cluster
from policies.scaling.history import History
from policies.scaling.lead_time import LeadTime, Start
from policies.scaling.observation import Observation
from policies.scaling.status import learnt_of
from tests.autoscaler.worlds import START, resource
from tests.stand_ins.floors import FloorsStandIn

NOW = START
DAY = 86_400.0
LEARNT = LeadTime((Start("uid-1", NOW - 9 * DAY, 70.0, None, None),), frozenset({"uid-1"}))
LEARNT_SINCE = LeadTime((Start("uid-2", NOW - DAY, 80.0, None, None),), frozenset({"uid-2"}))
BUDGET = {"name": "inference", "maxGpus": 8}


@pytest.fixture
async def targets(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Targets]:
    monkeypatch.setattr("autoscaler.targets.time", lambda: NOW)
    cluster = cast("Cluster", SimpleNamespace())
    service = Service((), Telemetry("0"), tick_seconds=3_600.0)
    floors = FloorKeeper(FloorsStandIn().floors)
    numbers, nodes = PublishedNumbers(), cast("Nodes", None)
    made = Targets(
        cluster, Servers(), service, numbers, floors, Endings(cluster), nodes, GpuBudgets(), tick_seconds=3_600.0
    )
    yield made
    for target in list(service.targets):
        await made.end(target)


def seen(age_seconds: float) -> History:
    return History(last=Observation(NOW - age_seconds, 2, ()), lead_time=LEARNT)


async def test_what_was_seen_just_now_goes_on(targets: Targets) -> None:
    history = seen(age_seconds=60)
    target = targets.begin(resource(), history=history)
    assert target.history == history
    assert target.refill is None, "or the same hour would count twice"


async def test_a_past_that_broke_off_days_ago_is_read_back_and_what_was_learnt_is_kept(targets: Targets) -> None:
    target = targets.begin(resource(), history=seen(age_seconds=3 * DAY))
    assert target.refill is not None
    assert target.history.last is None
    assert target.history.lead_time == LEARNT


def followed(targets: Targets) -> tuple[Controller, Stated]:
    """One that led before, and an object that it follows again; its status is of whoever led meanwhile."""
    document: dict[str, Any] = resource(budget=BUDGET).model_dump(mode="json", by_alias=True, exclude_none=True)
    document["metadata"] |= {"uid": "uid-llama", "generation": 1}
    learnt = learnt_of(History(lead_time=LEARNT_SINCE), None, None)
    document["status"] = {"observedGeneration": 1, "learnt": learnt.model_dump(mode="json", by_alias=True)}
    return Controller(targets.cluster, cast("Autoscalers", None), targets), stated(document)


@pytest.mark.parametrize(("age_seconds", "lead_time"), [(60.0, LEARNT), (3 * DAY, LEARNT_SINCE)])
async def test_who_leads_again_goes_on_from_what_it_saw_unless_another_has_learnt_since(
    targets: Targets, age_seconds: float, lead_time: LeadTime
) -> None:
    controller, it = followed(targets)
    controller._histories[it.uid] = resource(budget=BUDGET), seen(age_seconds)
    await controller._take(it)
    assert controller._followed[it.key].history.lead_time == lead_time


async def test_one_that_is_let_go_of_is_gone_although_that_was_broken_off(
    targets: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, it = followed(targets)
    await controller._take(it)
    await controller._begin(controller._followed[it.key])
    remove, ends = targets.service.remove, asyncio.Event()

    async def remove_after_a_write_in_flight(target: Any) -> None:
        await remove(target)
        ends.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(targets.service, "remove", remove_after_a_write_in_flight)
    letting_go = asyncio.create_task(controller._forget(it.key))
    await ends.wait()
    letting_go.cancel()
    await asyncio.wait([letting_go])
    assert targets.endings._looking == {}
    assert targets.budgets._members == {}
    assert targets.servers._open == {}
    assert list(controller._histories) == [it.uid]
