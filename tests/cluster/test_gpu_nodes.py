"""What is free on nodes follows what pods hold there, in little memory and one watch of each."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from cluster.errors import NotObservedError, RefusedError
from cluster.gpu_nodes import GpuNodes, _holder
from cluster.kubernetes import Cluster
from tests.stand_ins.kubernetes import KubernetesStandIn
from tests.stand_ins.kubernetes_objects import Object
from tests.stand_ins.waiting import until

GPU = "nvidia.com/gpu"


def node(name: str, gpus: int = 8, **spec: Any) -> Object:
    labels = {"kubernetes.io/hostname": name, "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    allocatable = {"cpu": "64", **({GPU: str(gpus)} if gpus else {})}
    metadata = {"name": name, "namespace": "", "labels": labels}
    return {"kind": "Node", "metadata": metadata, "spec": spec, "status": {"allocatable": allocatable}}


def holder(name: str, on: str, gpus: int = 1, *, leaving: bool = False, phase: str = "Running", **spec: Any) -> Object:
    container = {"name": "main", "resources": {"limits": {GPU: str(gpus)}}}
    metadata: Object = {"name": name, "namespace": "batch", "uid": name}
    if leaving:
        metadata["deletionTimestamp"] = "2026-11-21T10:00:00Z"
    spec = {"nodeName": on, "containers": [container], **spec}
    return {"kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": phase}}


def free(nodes: GpuNodes, outranks: int = 0) -> dict[str, int]:
    return {name: facts.free_gpus for facts, names in nodes.alike(outranks) for name in names}


async def test_pods_hold_what_they_ask_for_until_they_end_or_leave(api: KubernetesStandIn, cluster: Cluster) -> None:
    nodes = cluster.gpu_nodes
    api.put(
        node("a"),
        node("b", gpus=4),
        node("without", gpus=0),
        holder("one", "a", 3),
        holder("done", "a", phase="Failed"),
    )
    await nodes.whole()
    assert free(nodes) == {"a": 5, "b": 4}
    assert len(nodes) == 2
    api.put(holder("two", "b", 4), holder("three", "a", 2), holder("waits", "", 2))
    await until(lambda: free(nodes) == {"a": 3, "b": 0})
    assert nodes.hosts("batch/two")
    assert not nodes.hosts("batch/waits")
    api.put(holder("one", "a", 3, leaving=True), holder("three", "a", 2, phase="Succeeded"))
    api.remove(holder("two", "b", 4))
    await until(lambda: free(nodes) == {"a": 8, "b": 4})
    assert not nodes.hosts("batch/one")
    api.remove(node("b"))
    await until(lambda: free(nodes) == {"a": 8})


async def test_pods_of_a_lower_priority_hold_nothing_against_a_higher_one(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    nodes = cluster.gpu_nodes
    api.put(
        node("a"),
        holder("ballast", "a", 4, priority=-10),
        holder("batch", "a", 2),
        holder("peer", "a", 1, priority=100),
    )
    await nodes.whole()
    assert [free(nodes, outranks)["a"] for outranks in (-100, 0, 100, 101)] == [1, 5, 7, 8]
    api.put(holder("more", "a", 1, priority=100))
    await until(lambda: [free(nodes, outranks)["a"] for outranks in (-100, 0, 100, 101)] == [0, 4, 6, 8])


async def test_nodes_alike_stand_together(api: KubernetesStandIn, cluster: Cluster) -> None:
    nodes = cluster.gpu_nodes
    api.put(*(node(f"n{number}") for number in range(6)), holder("one", "n3"))
    await nodes.whole()
    assert sorted(len(names) for _, names in nodes.alike(0)) == [1, 5]


@pytest.mark.parametrize("right", ["list nodes", "list pods"])
async def test_without_the_right_it_says_which(api: KubernetesStandIn, cluster: Cluster, right: str) -> None:
    api.denied.add(right)
    with pytest.raises(RefusedError, match=f'lacks the right "{right}"'):
        await cluster.gpu_nodes.whole()
    assert not any(watch.subject == right.removeprefix("list ") for watch in cluster.gpu_nodes.watches)


async def test_while_one_node_cannot_be_read_nothing_is_known(api: KubernetesStandIn, cluster: Cluster) -> None:
    nodes, broken = cluster.gpu_nodes, node("b")
    broken["status"]["allocatable"][GPU] = "many"
    api.put(node("a"), broken)
    with pytest.raises(NotObservedError, match="node 'b' cannot be read: status"):
        await nodes.whole()
    api.remove(broken)
    await until(lambda: set(free(nodes)) == {"a"} and len(nodes) == 1)
    await nodes.whole()


def test_a_thousand_nodes_and_their_pods_are_few_megabytes() -> None:
    """With 50 labels each, and a pod for each of eight GPUs; five thousand are five times as much."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept: list[object] = []
    for number in range(1_000):
        made = node(f"node-{number}")
        made["metadata"]["labels"] |= {f"example.dev/label-{each}": f"value-{each}" for each in range(50)}
        made["status"]["images"] = [{"names": ["x" * 100]} for _ in range(50)]
        kept.append(GpuNodes._read_node(made))
    kept += [_holder(holder(f"pod-{number}", f"node-{number % 1_000}")) for number in range(8_000)]
    megabytes = (tracemalloc.get_traced_memory()[0] - before) / 2**20
    tracemalloc.stop()
    assert None not in kept
    assert megabytes < 9
