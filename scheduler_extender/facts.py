"""What is known of nodes and pods, whoever shows it: which pods hold which GPUs, and which pods wait.

A source (the watches, `inventory`) says what changed; the board is brought in step before anybody is answered.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from cluster.gpu_objects import Identity, Json, Place, UnreadableObjectError, identity, place_of, seen_node, seen_pod
from policies.placement.demand import PodDemand, SeenPod
from policies.placement.nodes import read_node
from policies.placement.products import ProductTable
from policies.placement.supply import NodeFacts, SeenNode
from scheduler_extender.board import Board
from scheduler_extender.demands import Demands

T = TypeVar("T")

log = logging.getLogger(__name__)

RECENT_SECONDS: Final = 30.0
"""How far our watch of nodes may have been behind the scheduler's when it was answered."""


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A node, and what pods hold of it."""

    uid: str
    seen: SeenNode


@dataclass(frozen=True, slots=True)
class KnownPod:
    """A pod that holds GPUs or waits for some."""

    who: Identity
    place: Place
    demand: PodDemand
    seen: SeenPod | None = None
    """Kept of those that wait: another table of models makes another demand of it."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """In the place of an object that could not be read: it is there, and not regarded."""

    error: Exception


class Facts:
    """Nodes and pods of one source, and the board that is kept by them."""

    def __init__(self, board: Board, demands: Demands, products: ProductTable) -> None:
        self.board = board
        self.demands = demands
        self.nodes: dict[str, KnownNode] = {}
        """Replaced and never changed: another thread may read one while it is."""
        self.pods: dict[str, KnownPod] = {}
        self.unreadable: set[str] = set()
        """Nodes by name and pods by "namespace/name" that could not be read as they are now."""
        self.changed: Callable[[], None] = lambda: None
        """Called when something is to be settled."""
        self.waiting: dict[str, KnownPod] = {}
        """Pods that some scheduler is looking for a node for."""
        self._products = products
        self._on_node: dict[str, dict[str, Place]] = {}
        self._by_uid: dict[str, str] = {}
        self._dirty: set[str] = set()
        self._changed_at: dict[str, float] = {}

    # -- what a source says -------------------------------------------------------------------------------

    def read_node(self, node: Json) -> KnownNode | Unreadable:
        try:
            return KnownNode(identity(node).uid, seen_node(node))
        except Exception as error:  # a mistake of ours about one object must not hide all others from the watch
            return Unreadable(error)

    def read_pod(self, pod: Json) -> KnownPod | Unreadable | None:
        """None for a pod that neither holds GPUs nor waits for any."""
        try:
            place = place_of(pod)
            if place is None or not any(place.gpus.values()):
                return None
            seen = seen_pod(pod)
            return KnownPod(identity(pod), place, self.demands.of_seen(seen), seen if place.waiting else None)
        except Exception as error:  # likewise: anybody may create a pod
            return Unreadable(error)

    def put_node(self, name: str, node: KnownNode | Unreadable | None) -> None:
        node = self._readable(name, node)
        if node is None:
            self.nodes.pop(name, None)
        else:
            self.nodes[name] = node
        self._touch(name)

    def put_pod(self, key: str, pod: KnownPod | Unreadable | None) -> None:
        pod = self._readable(key, pod)
        before = self.pods.pop(key, None)
        self.waiting.pop(key, None)
        if before is not None:
            self._by_uid.pop(before.who.uid, None)
            if before.place.node:
                there = self._on_node[before.place.node]
                del there[key]
                if not there:
                    del self._on_node[before.place.node]
                self._touch(before.place.node)
        if pod is not None:
            self.pods[key] = pod
            self._by_uid[pod.who.uid] = key
            if pod.place.waiting is not None:
                self.waiting[key] = pod
            if pod.place.node:
                self._on_node.setdefault(pod.place.node, {})[key] = pod.place
                self._touch(pod.place.node)
        self.changed()

    def replace_products(self, products: ProductTable) -> None:
        if products != self._products:
            self._products = products
            self._dirty.update(self.nodes)
            self.changed()

    # -- what is known ------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Bring the board in step."""
        while self._dirty:
            name = self._dirty.pop()
            node = self.nodes.get(name)
            if node is None:
                self.board.drop(name)
                self._changed_at.pop(name, None)
                continue
            seen = self._with_holders(node.seen, self._on_node.get(name, {}).values())
            self.nodes[name] = KnownNode(node.uid, seen)
            self.board.put(name, read_node(seen, self._products))

    def asked(self, name: str, uid: str, seen: SeenNode) -> NodeFacts:
        """Of a node as a question shows it, less what pods hold on this very node as far as is known."""
        node = self.nodes.get(name)
        if node is not None and uid and node.uid == uid:
            seen = replace(seen, held=node.seen.held, held_devices=node.seen.held_devices)
        return read_node(seen, self._products)

    def known(self, name: str) -> NodeFacts | None:
        """Of a node of ours, with where each fact was read."""
        node = self.nodes.get(name)
        return None if node is None else read_node(node.seen, self._products)

    def all_known(self) -> Callable[[], dict[str, NodeFacts]]:
        """Every node of ours as it is now; to be called in another thread, since thousands take a while."""
        nodes, products = dict(self.nodes), self._products
        return lambda: {name: read_node(node.seen, products) for name, node in nodes.items()}

    def without(self, name: str, uids: Iterable[str]) -> NodeFacts | None:
        """What the node would have once these of its pods are gone; None for a node that is not known."""
        node = self.nodes.get(name)
        if node is None:
            return None
        gone = {self._by_uid.get(uid) for uid in uids}
        staying = [place for key, place in self._on_node.get(name, {}).items() if key not in gone]
        return read_node(self._with_holders(node.seen, staying), self._products)

    def recently_changed(self) -> list[str]:
        """Nodes that a scheduler may have asked about before we knew them as they are now."""
        since = time.monotonic() - RECENT_SECONDS
        return [name for name, at in self._changed_at.items() if at > since]

    def tensor_parallel_sizes(self) -> Counter[int]:
        """Of the pods that hold GPUs or wait for some, where it is known."""
        return Counter(size for pod in self.pods.values() if (size := pod.demand.tensor_parallel) is not None)

    # -- how ------------------------------------------------------------------------------------------------

    def _readable(self, key: str, thing: T | Unreadable | None) -> T | None:
        if isinstance(thing, Unreadable):
            if key not in self.unreadable:
                # What is not Kubernetes' own form says so in words; of a mistake of ours the place is wanted.
                mistake = None if isinstance(thing.error, UnreadableObjectError) else thing.error
                log.warning("%s cannot be read, and is not regarded: %s", key, thing.error, exc_info=mistake)
            self.unreadable.add(key)
            return None
        self.unreadable.discard(key)
        return thing

    def _touch(self, name: str) -> None:
        self._dirty.add(name)
        self._changed_at[name] = time.monotonic()
        self.changed()

    @staticmethod
    def _with_holders(seen: SeenNode, places: Iterable[Place]) -> SeenNode:
        held: Counter[str] = Counter()
        devices: frozenset[int] | None = frozenset()
        for place in places:
            held.update(place.gpus)
            devices = None if devices is None or place.devices is None else devices | place.devices
        return replace(seen, held=dict(held), held_devices=devices)
