"""The nodes with GPUs and what pods hold of them, watched once for the whole program.

Of a node about ten fields, its labels and its taints are kept, of a pod on a node the GPUs that it holds; of all
others nothing. Nodes alike stand together, so that thousands of them are judged as some dozens are.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cluster.api import Api, Counters, Pace
from cluster.errors import NotObservedError
from cluster.gpu_objects import UnreadableObjectError, place_of, seen_node
from cluster.node_choice import NodeWords, node_words
from cluster.placement import nodes_watch, pods_watch
from cluster.watch import Watch
from policies.placement.nodes import read_node
from policies.placement.products import ProductTable, shipped_products
from policies.placement.supply import NodeFacts, SeenNode

Json = Mapping[str, Any]

MOST_VIEWS: Final = 8
"""Priorities for which free GPUs are kept reckoned; a fleet of models has one or two."""


@dataclass(frozen=True, slots=True)
class GpuNode:
    """A node that offers GPUs, or slices of them."""

    seen: SeenNode
    words: NodeWords
    problem: str = ""
    """Why nobody can say what it offers."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A pod on a node, which holds GPUs there until it ends."""

    node: str
    gpus: Mapping[str, int]
    priority: int


class GpuNodes:
    """Nothing is asked of the server before `whole` is awaited for the first time."""

    def __init__(self, api: Api, pace: Pace, counters: Counters) -> None:
        self._nodes: Watch[GpuNode] = nodes_watch(api, self._read_node, self._note_node, pace, counters)
        self._pods: Watch[Holder] = pods_watch(api, _holder, self._note_pod, pace, counters)
        self._products: ProductTable | None = None
        self._unreadable: dict[str, str] = {}
        """Why, by name."""
        self._on_node: dict[str, dict[str, Holder]] = {}
        self._node_of: dict[str, str] = {}
        self._views: dict[int, _View] = {}

    async def whole(self) -> None:
        """Return when all nodes and pods are seen; a ClusterError says why they are not."""
        await self._nodes.whole()
        await self._pods.whole()
        for name, problem in self._unreadable.items():
            raise NotObservedError(f"node '{name}' cannot be read: {problem}")

    @property
    def watches(self) -> list[Watch[Any]]:
        """Those that have shown something; a right that nobody gave is no watch that fell silent."""
        return [watch for watch in (self._nodes, self._pods) if watch.listed]

    async def stop(self) -> None:
        await self._nodes.stop()
        await self._pods.stop()

    def __len__(self) -> int:
        return len(self._nodes.store)

    def words(self, name: str) -> NodeWords:
        node = self._nodes.store.get(name)
        return node.words if node else NodeWords(name)

    def hosts(self, key: str) -> bool:
        """Whether the pod "namespace/name" is on a node, to stay."""
        return key in self._node_of

    def alike(self, outranks: int) -> Iterator[tuple[NodeFacts, Collection[str]]]:
        """Each kind of nodes with their names; free is what no pod holds but those of a priority below `outranks`."""
        view = self._views.get(outranks)
        if view is None:
            if len(self._views) >= MOST_VIEWS:
                del self._views[next(iter(self._views))]
            view = self._views[outranks] = _View(self._nodes.store.names())
        for name in view.changed:
            view.put(name, self._facts(name, outranks))
        view.changed.clear()
        yield from view.alike.items()

    # -- how -----------------------------------------------------------------------------------------------

    def _facts(self, name: str, outranks: int) -> NodeFacts | None:
        node = self._nodes.store.get(name)
        if node is None:
            return None
        held: Counter[str] = Counter()
        for holder in self._on_node.get(name, {}).values():
            if holder.priority >= outranks:
                held.update(holder.gpus)
        self._products = self._products or shipped_products()
        return read_node(replace(node.seen, held=held), self._products)

    @staticmethod
    def _read_node(node: Json) -> GpuNode | None:
        try:
            seen = seen_node(node)
        except UnreadableObjectError as error:
            return GpuNode(SeenNode(), NodeWords(node["metadata"]["name"]), str(error))
        if not any(seen.allocatable.values()):
            return None
        return GpuNode(seen, node_words(node))

    def _note_node(self, name: str, node: GpuNode | None) -> None:
        self._unreadable.pop(name, None)
        if node is not None and node.problem:
            self._unreadable[name] = node.problem
        self._touch(name)

    def _note_pod(self, key: str, holder: Holder | None) -> None:
        before = self._node_of.pop(key, None)
        if before is not None:
            there = self._on_node[before]
            del there[key]
            if not there:
                del self._on_node[before]
            self._touch(before)
        if holder is not None:
            self._node_of[key] = holder.node
            self._on_node.setdefault(holder.node, {})[key] = holder
            self._touch(holder.node)

    def _touch(self, name: str) -> None:
        for view in self._views.values():
            view.changed.add(name)


class _View:
    """Nodes alike, by what is free on them for pods of one priority."""

    def __init__(self, names: Iterable[str]) -> None:
        self.changed = set(names)
        self.alike: dict[NodeFacts, set[str]] = {}
        self._facts: dict[str, NodeFacts] = {}

    def put(self, name: str, facts: NodeFacts | None) -> None:
        before = self._facts.pop(name, None)
        if before is not None:
            names = self.alike[before]
            names.discard(name)
            if not names:
                del self.alike[before]
        if facts is not None:
            self._facts[name] = facts
            self.alike.setdefault(facts, set()).add(name)


def _holder(pod: Json) -> Holder | None:
    """None for a pod that holds nothing, or will not for long: one that is being deleted leaves its GPUs to others."""
    if pod["metadata"].get("deletionTimestamp"):
        return None
    try:
        place = place_of(pod)
    except UnreadableObjectError:
        return None
    if place is None or not place.node or not any(place.gpus.values()):
        return None
    gpus = {sys.intern(resource): count for resource, count in place.gpus.items() if count}
    return Holder(place.node, gpus, int(pod["spec"].get("priority") or 0))
