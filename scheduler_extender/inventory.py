"""`--inventory FILE`: nodes and pods as `kubectl get nodes,pods -A -o json` writes them, without a cluster.

The file is read item by item, since that of a large cluster has hundreds of megabytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.files import ConfigError, unreadable
from cluster.gpu_objects import Json, UnreadableObjectError, identity, place_of, seen_node
from scheduler_extender.facts import Facts, KnownNode
from scheduler_extender.spans import BrokenTextError, Span, Text, read_array, read_object


class Inventory:
    """What one reading of the file showed."""

    def __init__(self) -> None:
        self.nodes: dict[str, KnownNode] = {}
        self.pods: dict[str, Json] = {}
        """Those of interest, as the file has them."""
        self.raw_nodes: dict[str, Json] = {}
        """As the file has them, where that was asked for."""


def is_of_interest(pod: Json) -> bool:
    """Whether it holds devices, waits for some, or gets them by a claim; raises `UnreadableObjectError`."""
    place = place_of(pod)
    return place is not None and (any(place.gpus.values()) or bool((pod.get("spec") or {}).get("resourceClaims")))


def read(path: Path, *, raw_nodes: bool = False) -> Inventory:
    """The file; a ConfigError names the first object that cannot be used, and why."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError((f"--inventory {unreadable(path, error)}",)) from error
    inventory = Inventory()
    items_seen = False

    def take_items(text: Text, start: int) -> int:
        nonlocal items_seen
        items_seen = True
        number = 0

        def take(span: Span, item: Any) -> None:
            nonlocal number
            number += 1
            try:
                _take(inventory, item)
                if raw_nodes and item["kind"] == "Node":
                    inventory.raw_nodes[item["metadata"]["name"]] = item
            except UnreadableObjectError as error:
                raise ConfigError((f"--inventory {path}: item {number}: {error}: write the file anew",)) from error

        return read_array(text, start, take)

    try:
        end = read_object(text, 0, {"items": take_items})
        if text[end:].strip():
            raise BrokenTextError(end)
    except BrokenTextError as error:
        raise ConfigError((f"--inventory {path}: {error}: {_REMEDY}",)) from error
    if not items_seen:
        raise ConfigError((f"--inventory {path}: has no list `items`: {_REMEDY}",))
    return inventory


_REMEDY = "write it with kubectl get nodes,pods -A -o json"


def _take(inventory: Inventory, item: Any) -> None:
    if not isinstance(item, dict) or item.get("kind") not in ("Node", "Pod"):
        raise UnreadableObjectError("is neither a Node nor a Pod")
    who = identity(item)
    if item["kind"] == "Node":
        seen = seen_node(item)
        for resource, count in seen.allocatable.items():
            if count < 0:
                raise UnreadableObjectError(f"node {who.name} has {count} {resource} to allocate")
        inventory.nodes[who.name] = KnownNode(who.uid, seen)
        return
    place = place_of(item)
    if place is None:
        return
    for resource, count in place.gpus.items():
        if count < 0:
            raise UnreadableObjectError(f"pod {who.key} asks for {count} {resource}")
    if is_of_interest(item):
        inventory.pods[who.key] = item


def show(inventory: Inventory, facts: Facts) -> None:
    """Bring the facts in step with a reading."""
    for name in facts.nodes.keys() - inventory.nodes.keys():
        facts.put_node(name, None)
    for name, node in inventory.nodes.items():
        facts.put_node(name, node)
    for key in (facts.pods.keys() | facts.unreadable) - inventory.pods.keys():
        facts.put_pod(key, None)
    for key, pod in inventory.pods.items():
        facts.put_pod(key, facts.read_pod(pod))
