"""A fleet of GPU nodes to pack, the pods that come and go, and what the kubelet makes of a placement.

The fleet has the node counts of a public list (A10, A100, A800, H800) and, in place of that list's unnamed nodes,
PCIe, bridged and older ones. Which devices a pod gets is the kubelet's choice: here it has a device plugin that
prefers linked GPUs, and takes the linked group that is just large enough.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Final

import numpy as np

from policies.placement.demand import GPU_RESOURCE, Container, PodDemand, SeenPod
from policies.placement.models import shipped_models
from policies.placement.nodes import read_node
from policies.placement.products import shipped_products
from policies.placement.reading import read_demand
from policies.placement.supply import Links, NodeFacts, SeenNode

FLEET: Final = Path(__file__).parents[1] / "data" / "gpu_fleet_4278.csv.gz"

CUBE_QUAD: Final = 4
"""GPUs of a V100's cube that are all linked with each other."""

MODELS: Final = {
    1: (
        "meta-llama/Llama-3.2-1B-Instruct",
        "meta-llama/Llama-3.2-3B-Instruct",
        "Qwen/Qwen2.5-7B-Instruct",
        "meta-llama/Llama-3.1-8B-Instruct",
        "microsoft/phi-4",
        "Qwen/Qwen3-32B-AWQ",
    ),
    2: ("Qwen/Qwen3-14B", "Qwen/Qwen3-32B", "google/gemma-2-27b-it", "meta-llama/Llama-3.3-70B-Instruct-FP8"),
    4: ("meta-llama/Llama-3.3-70B-Instruct", "Qwen/Qwen2.5-72B-Instruct", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
    8: (
        "meta-llama/Llama-3.3-70B-Instruct",
        "mistralai/Mixtral-8x22B-Instruct-v0.1",
        "Qwen/Qwen3-235B-A22B-FP8",
        "meta-llama/Llama-3.1-405B-Instruct-FP8",
    ),
}
SHARES: Final = {1: 0.55, 2: 0.20, 4: 0.15, 8: 0.10}

State = tuple[int, ...]
"""Free GPUs of each linked group, largest first."""


@dataclass(frozen=True, slots=True)
class NodeType:
    """Nodes that are the same but for their name."""

    product: str
    gpus: int
    memory_mib: int
    cpus: int
    memory_gib: int
    groups: State
    """Of an empty one."""

    def facts(self, free: int) -> NodeFacts:
        """What the extender sees of one with so many free."""
        return read_node(
            SeenNode(
                labels={
                    "nvidia.com/gpu.product": self.product,
                    "nvidia.com/gpu.memory": str(self.memory_mib),
                    "nvidia.com/gpu.count": str(self.gpus),
                },
                allocatable={GPU_RESOURCE: self.gpus},
                held={GPU_RESOURCE: self.gpus - free},
            ),
            shipped_products(),
        )


@dataclass(frozen=True, slots=True)
class Pod:
    size: int
    model: str
    leaves_at: int | None
    """After how many arrivals; None: stays."""


def fleet() -> tuple[list[NodeType], list[int]]:
    """Types, and the type of each node."""
    types: dict[NodeType, int] = {}
    nodes = []
    with gzip.open(FLEET, "rt", newline="") as file:
        for row in csv.DictReader(file):
            gpus = int(row["gpu_count"])
            kind = NodeType(
                row["gpu_product"],
                gpus,
                int(row["gpu_memory_mib"]),
                int(row["cpu"]),
                int(row["memory_gib"]),
                linked_groups(row["gpu_product"], gpus),
            )
            nodes.append(types.setdefault(kind, len(types)))
    return list(types), nodes


def linked_groups(product: str, gpus: int) -> State:
    """As the hardware is, whatever is known of it: groups within which every pair is linked."""
    row = shipped_products().find(product)
    links, group = row.linked(gpus) if row else (Links.NONE, 1)
    size = {Links.FULL_MESH: gpus, Links.GROUPS: group or 1, Links.CUBE: CUBE_QUAD}.get(links, 1)
    return (size,) * (gpus // size)


def demand_of(size: int, model: str) -> PodDemand:
    """Of a pod that serves the model with tensor parallelism of this size, 8,192 tokens of context."""
    words = (model, "--tensor-parallel-size", str(size), "--max-model-len", "8192")
    container = Container("vllm", "vllm/vllm-openai:v0.11.0", args=words, gpus={GPU_RESOURCE: size})
    return read_demand(SeenPod(containers=(container,)), shipped_models())


def stream(rng: np.random.Generator, gpus: int, *, departing: float) -> Iterator[Pod]:
    """Pods until 1.3 times so many GPUs were asked for; a share of them leaves at some later arrival."""
    sizes, shares = list(SHARES), list(SHARES.values())
    expected = int(1.3 * gpus / sum(size * share for size, share in SHARES.items()))
    asked = arrived = 0
    while asked < 1.3 * gpus:
        size = int(rng.choice(sizes, p=shares))
        leaves = rng.random() < departing
        later = int(rng.integers(arrived + 1, max(arrived + 2, expected)))
        yield Pod(size, str(rng.choice(MODELS[size])), later if leaves else None)
        asked, arrived = asked + size, arrived + 1


def take(state: State, size: int) -> tuple[State, tuple[int, ...], bool]:
    """The kubelet's choice: what is left of each group, what was taken of each, whether it is linked."""
    left = list(state)
    enough = [i for i, free in enumerate(left) if free >= size]
    if enough:
        best = min(enough, key=lambda i: left[i])
        left[best] -= size
        taken = tuple(size if i == best else 0 for i in range(len(left)))
        return tuple(left), taken, True
    taken_of = [0] * len(left)
    # Nothing is linked: the fullest groups are broken up first.
    for i in sorted(range(len(left)), key=lambda i: -left[i]):
        taken_of[i] = min(left[i], size - sum(taken_of))
        left[i] -= taken_of[i]
    return tuple(left), tuple(taken_of), False


class Cluster:
    """Nodes by kind and state; the lowest-numbered node of each is at hand."""

    def __init__(self, types: list[NodeType], nodes: list[int]) -> None:
        self.types = types
        self._kind = nodes
        self._state = [types[kind].groups for kind in nodes]
        self._heaps: dict[tuple[int, State], list[int]] = {}
        self.counts: dict[tuple[int, State], int] = {}
        for number in range(len(nodes)):
            self._enter(number)

    def lowest(self, key: tuple[int, State]) -> int:
        """The lowest-numbered node of this kind and state."""
        heap = self._heaps[key]
        while self._kind[heap[0]] != key[0] or sorted_state(self._state[heap[0]]) != key[1]:
            heappop(heap)
        return heap[0]

    def place(self, number: int, size: int) -> tuple[tuple[int, ...], bool]:
        """What was taken of each group, and whether the GPUs are linked."""
        self._leave(number)
        self._state[number], taken, linked = take(self._state[number], size)
        self._enter(number)
        return taken, linked

    def release(self, number: int, taken: tuple[int, ...]) -> None:
        self._leave(number)
        self._state[number] = tuple(left + given for left, given in zip(self._state[number], taken, strict=True))
        self._enter(number)

    def _enter(self, number: int) -> None:
        key = self._kind[number], sorted_state(self._state[number])
        heappush(self._heaps.setdefault(key, []), number)
        self.counts[key] = self.counts.get(key, 0) + 1

    def _leave(self, number: int) -> None:
        key = self._kind[number], sorted_state(self._state[number])
        self.counts[key] -= 1
        if not self.counts[key]:
            del self.counts[key]


def sorted_state(state: State) -> State:
    return tuple(sorted(state, reverse=True))
