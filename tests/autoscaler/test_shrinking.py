"""A shrink says first whom it takes, keeps what a budget keeps, and is never stopped by what it cannot say."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from autoscaler.cluster_fleet import LONGEST_DRAIN_SECONDS
from cluster.deletion_cost import OURS
from cluster.objects import DELETION_COST
from tests.autoscaler.stack import Stack
from tests.stand_ins.kubernetes import Kind
from tests.stand_ins.kubernetes_objects import START, pod

SIZE = 6
TURNS = 8


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with Stack(tmp_path) as running:
        running.api.kinds.append(Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", has_scale=False))
        yield running


def budget(stack: Stack, **spec: Any) -> None:
    metadata = {"name": "keep", "namespace": "inference"}
    selector = {"matchLabels": {"app": "vllm-llama"}}
    stack.api.put({"kind": "PodDisruptionBudget", "metadata": metadata, "spec": {"selector": selector, **spec}})


def marked(stack: Stack) -> dict[str, int]:
    """Pods by the cost that was written on them, in the order of the writes."""
    writes = [
        (path, body)
        for (method, path), body in zip(stack.api.requests, stack.api.bodies, strict=True)
        if method == "PATCH" and "/pods/" in path
    ]
    return {path.rpartition("/")[2]: int(body["metadata"]["annotations"][DELETION_COST]) for path, body in writes}


async def test_before_it_shrinks_it_marks_as_many_of_the_least_busy(stack: Stack) -> None:
    target = await stack.target(replicas=SIZE)
    names = sorted(stack.engines)
    for place, name in enumerate(names):
        stack.engines[name].shown["num_requests_running"] = str([3, 1, 2, 1, 3, 3][place])
    stack.follows = False
    await stack.turns(target, TURNS, until=lambda: stack.replicas < SIZE)
    removed = SIZE - stack.replicas
    assert removed > 0
    costs = marked(stack)
    assert len(costs) == removed
    assert sorted(costs, key=lambda name: costs[name]) == [names[place] for place in (1, 3, 2, 0, 4, 5)][:removed]
    assert max(costs.values()) < OURS
    order = [path for method, path in stack.api.requests if method == "PATCH" and "events" not in path]
    assert order[-1].endswith("/scale")


async def test_a_right_that_is_missing_stops_no_shrink(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    target = await stack.target(replicas=SIZE)
    stack.api.denied.add("patch pods")
    await stack.turns(target, TURNS, until=lambda: stack.replicas < SIZE)
    assert stack.replicas < SIZE
    assert "it shrinks without saying whom: the deletion cost of pod" in caplog.text
    assert 'lacks the right "patch pods"' in caplog.text


async def test_no_shrink_goes_below_what_a_budget_keeps(stack: Stack) -> None:
    target = await stack.target(replicas=SIZE)
    budget(stack, minAvailable=5)
    await stack.turns(target, TURNS)
    assert stack.replicas == 5
    assert "PodDisruptionBudget 'keep' keeps 5 available" in " ".join(said.message for said in stack.events)


async def test_while_budgets_cannot_be_seen_nothing_shrinks_and_growth_goes_on(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "autoscaler")
    stack.api.denied.add("list poddisruptionbudgets")
    target = await stack.target(replicas=SIZE)
    await stack.turns(target, TURNS)
    assert stack.replicas == SIZE
    assert 'lacks the right "list poddisruptionbudgets"' in caplog.text
    stack.rate = 600.0
    await stack.turns(target, TURNS, until=lambda: stack.replicas > SIZE)
    assert stack.replicas > SIZE


async def test_a_shrink_waits_for_what_drains_and_not_for_what_is_stuck(stack: Stack) -> None:
    target = await stack.target(replicas=SIZE)
    stack.follows = False
    leaving = pod(stack.replica_set, "vllm-llama-6b7c8d9f4-leave", ready=START, deleted=START)
    stack.api.put(leaving)
    await stack.turns(target, TURNS)
    assert stack.replicas == SIZE
    assert target.figures.counts["preheat_decisions_total", "floor"] > 0
    stack.now = START + LONGEST_DRAIN_SECONDS
    await stack.turns(target, TURNS, until=lambda: stack.replicas < SIZE)
    assert stack.replicas < SIZE
