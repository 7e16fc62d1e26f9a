"""A wish is cut to what nodes take, told in numbers, and never for want of sight."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoscaler.nodes import Nodes, fitting
from cluster.asks import Ask, ask_of
from policies.scaling.observation import Limit, Observation
from tests.autoscaler.stack import Stack
from tests.cluster.test_gpu_nodes import GPU, holder, node
from tests.stand_ins.kubernetes import Kind
from tests.stand_ins.kubernetes_objects import START, Object
from tests.stand_ins.waiting import until

MANY_REQUESTS = 600.0
TURNS = 6


class GpuStack(Stack):
    """Whose pods ask for two GPUs each, and are on the first node that has them.

    Somebody waits in the first one: what its replicas were seen to bear is then not taken for enough.
    """

    asks: Object | None = None
    """What else its pods say, or in place of that."""

    def follow(self) -> None:
        super().follow()
        min(self.engines.items())[1].shown["num_requests_waiting"] = "1"

    def pod(self, name: str, ip: str) -> Object:
        free = dict.fromkeys((key[2] for key in self.api.objects if key[0] == "nodes"), 0)
        for (plural, _, named), thing in self.api.objects.items():
            if plural == "nodes":
                free[named] += int(thing["status"]["allocatable"].get(GPU, 0))
            elif plural == "pods" and thing["spec"].get("nodeName"):
                free[thing["spec"]["nodeName"]] -= 2
        on = next((name for name, gpus in free.items() if gpus >= 2), "")
        container = {"name": "vllm", "resources": {"limits": {GPU: "2"}}}
        return {**super().pod(name, ip), "spec": {"nodeName": on, "containers": [container], **(self.asks or {})}}


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[GpuStack]:
    async with GpuStack(tmp_path) as running:
        running.api.put(node("a", gpus=4), node("b", gpus=4))
        running.rate = MANY_REQUESTS
        yield running


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[Stack]:
    """Without a node."""
    async with Stack(tmp_path) as running:
        yield running


async def test_no_more_is_asked_for_than_fits_and_the_rest_when_a_node_comes(stack: GpuStack) -> None:
    target = await stack.target(replicas=1, maxReplicas=9)
    await stack.turns(target, TURNS)
    assert stack.replicas == 4
    told = " ".join(said.message for said in stack.events)
    assert re.search(r"cut from \d to 4: nodes take \d more now, each with 2 nvidia.com/gpu, of which \d", told)
    seen = target.history.last
    assert seen is not None
    assert seen.room is not None
    assert (seen.room.replicas, seen.room.limit) == (4, Limit.NODES)
    stack.api.put(node("c", gpus=6))
    await until(lambda: len(stack.cluster.gpu_nodes) == 3)
    await stack.turns(target, TURNS)
    assert stack.replicas == 7


@pytest.mark.parametrize("sees", ["Karpenter", "cluster-autoscaler", "maxUnschedulable"])
async def test_where_waiting_pods_bring_nodes_they_are_asked_for(stack: GpuStack, sees: str) -> None:
    spec = {"maxUnschedulable": 5} if sees == "maxUnschedulable" else {}
    if sees == "Karpenter":
        stack.api.kinds.append(Kind("karpenter.sh/v1", "NodePool", "nodepools", has_scale=False, namespaced=False))
    if sees == "cluster-autoscaler":
        stack.api.kinds.append(Kind("v1", "ConfigMap", "configmaps", has_scale=False))
        stack.api.put({"kind": "ConfigMap", "metadata": {"name": "cluster-autoscaler-status", "namespace": "its-own"}})
    target = await stack.target(replicas=1, maxReplicas=9, **spec)
    await stack.turns(target, TURNS)
    assert stack.replicas == 9
    assert target.history.last is not None
    assert target.history.last.room_unseen == ""


async def test_what_may_not_be_seen_limits_nothing_and_is_said_once(
    stack: GpuStack, caplog: pytest.LogCaptureFixture
) -> None:
    stack.api.denied.add("list nodes")
    target = await stack.target(replicas=1, maxReplicas=9)
    await stack.turns(target, TURNS)
    assert stack.replicas == 9
    assert target.history.last is not None
    assert target.history.last.room is None
    assert 'lacks the right "list nodes"' in target.history.last.room_unseen
    assert caplog.text.count("whether more pods fit on nodes is not seen, and limits nothing") == 1
    assert "manifests/autoscaler/nodes" in caplog.text


async def test_a_turn_does_not_wait_for_a_long_list(stack: GpuStack, caplog: pytest.LogCaptureFixture) -> None:
    target = await stack.target(replicas=1, maxReplicas=9)
    impatient = Nodes(stack.cluster.gpu_nodes, stack.cluster.node_autoscalers, patience_seconds=0.0)
    target.fleet._nodes = impatient  # type: ignore[attr-defined]
    await stack.turns(target, 1)
    assert target.history.last is not None
    assert target.history.last.room_unseen == "nodes and the pods on them are still being listed"
    assert "manifests/autoscaler/nodes" not in caplog.text


async def test_a_group_of_pods_takes_so_many_places(stack: GpuStack) -> None:
    target = await stack.target(replicas=1, maxReplicas=9)
    await stack.turns(target, 1)
    fleet = target.fleet
    state = await stack.cluster.target(stack.resource.spec.scale_target_ref, "inference")
    assert (state.gpus, state.ask is not None) == (2, True)
    assert state.ask is not None
    nodes: Nodes = fleet._nodes  # type: ignore[attr-defined]
    seen = Observation(START, 1, state.pods)
    for size, most in ((1, 4), (2, 2), (3, 2), (4, 1)):
        group = replace(state, ask=replace(state.ask, pods=size))
        room, _ = await nodes.room("inference", group, seen, 9)
        assert room is not None
        assert room.replicas == most


async def test_pods_without_gpus_fit_anywhere_and_no_node_is_looked_at(stack: GpuStack) -> None:
    stack.asks = {"containers": [{"name": "vllm"}]}
    target = await stack.target(replicas=1, maxReplicas=9)
    await stack.turns(target, TURNS)
    assert stack.replicas == 9
    assert stack.api.number_of("GET", "/api/v1/nodes") == 0


def asking(gpus: int, **spec: Any) -> Ask:
    asked = ask_of(holder("asks", "", gpus, **spec))
    assert asked is not None
    return asked


async def test_it_is_said_what_is_free_and_why_it_is_no_place(bare: Stack) -> None:
    nodes = bare.cluster.gpu_nodes
    mine = {"pool": "mine"}
    elsewhere, one, cordoned = node("elsewhere"), node("one", 3), node("cordoned", unschedulable=True)
    for each in (one, cordoned):
        each["metadata"]["labels"] |= mine
    bare.api.put(elsewhere, one, cordoned, holder("other", "one", 2))
    await nodes.whole()
    found = fitting(asking(2, nodeSelector=mine), nodes, 5)
    assert (found.further, found.sentence) == (
        0,
        "nodes take 0 more now, each with 2 nvidia.com/gpu, of which 17 are free on 3 nodes; to 1 that would take some "
        "its nodeSelector, affinity or tolerations do not let it; refused on 1: node is cordoned",
    )
    assert "at most 8 on one" in fitting(asking(9), nodes, 5).sentence
    assert fitting(asking(1, nodeSelector=mine), nodes, 5).further == 1
    assert fitting(asking(1), nodes, 5).further >= 5
    assert fitting(asking(1, nodeSelector=mine, tolerations=[{"operator": "Exists"}]), nodes, 50).further == 9


LINKED = ["--model", "meta-llama/Llama-3.1-8B", "--tensor-parallel-size", "2"]


@pytest.mark.parametrize(("scheduler", "fits"), [("default-scheduler", 4), ("preheat", 0)])
async def test_links_are_asked_for_where_the_extender_places(bare: Stack, scheduler: str, fits: int) -> None:
    nodes, unlinked = bare.cluster.gpu_nodes, node("a")
    unlinked["metadata"]["annotations"] = {"preheat.dev/links": "none"}
    bare.api.put(unlinked)
    await nodes.whole()
    asks = holder("asks", "", 2, schedulerName=scheduler)
    asks["spec"]["containers"][0] |= {"image": "vllm/vllm-openai:v0.11.0", "args": LINKED}
    asked = ask_of(asks)
    assert asked is not None
    assert fitting(asked, nodes, 50).further == fits
    if not fits:
        assert "refused on 1: GPUs are not NVLink-connected" in fitting(asked, nodes, 50).sentence


async def test_a_pod_that_may_evict_others_counts_what_they_hold(bare: Stack) -> None:
    nodes = bare.cluster.gpu_nodes
    bare.api.put(node("a"), holder("ballast", "a", 8, priority=-10))
    await nodes.whole()
    assert fitting(asking(2), nodes, 50).further == 4
    assert fitting(asking(2, preemptionPolicy="Never"), nodes, 50).further == 0
    assert fitting(asking(2, priority=-10), nodes, 50).further == 0
