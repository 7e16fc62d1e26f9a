"""What other people's device managers write of a node's GPUs: HAMi's pair scores, Koordinator's partitions.

Both are read tolerantly: what does not parse says nothing, and a remark says so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from policies.placement.supply import Links

HAMI_REGISTER: Final = "hami.io/node-nvidia-register"
HAMI_SCORES: Final = "hami.io/node-nvidia-score"
KOORDINATOR_PARTITIONS: Final = "scheduling.koordinator.sh/gpu-partitions"
KOORDINATOR_ALLOCATED: Final = "scheduling.koordinator.sh/device-allocated"

HAMI_LINK_SCORE: Final = 100
"""Of one NVLink between two GPUs; what goes over PCIe scores 10 to 60."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an annotation tells; `groups` are the sets of GPUs that are linked with each other, by minor or by order."""

    links: Links
    groups: tuple[frozenset[int], ...]
    where: str


def told_links(annotations: Mapping[str, str]) -> tuple[Told | None, tuple[str, ...]]:
    """Links as an annotation shows them, and remarks of what could not be read.

    That HAMi sees no link at all says nothing: before its pull request 2103 no NVSwitch was seen.
    """
    for name, read in ((KOORDINATOR_PARTITIONS, _partitions), (HAMI_SCORES, _scores)):
        text = annotations.get(name)
        if not text:
            continue
        try:
            groups = read(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return None, (f"annotation {name} could not be read and is not regarded",)
        if groups and max(map(len, groups)) > 1:
            links = Links.FULL_MESH if len(groups) == 1 else Links.GROUPS
            return Told(links, tuple(groups), f"annotation {name}"), ()
    return None, ()


def shares_by_hami(annotations: Mapping[str, str]) -> bool:
    """Whether HAMi cuts the node's GPUs into several shares each."""
    text = annotations.get(HAMI_REGISTER, "")
    try:
        devices = json.loads(text) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        return False
    if isinstance(devices, list):
        return any(isinstance(device, Mapping) and _whole(device.get("count")) > 1 for device in devices)
    # The older form: `uuid,count,memory,cores,type,numa,health:` for each.
    return any(len(parts := device.split(",")) > 2 and _whole(parts[1]) > 1 for device in text.split(":"))


def held_by_koordinator(annotation: str) -> frozenset[int]:
    """Minor numbers of the GPUs that a pod was given, by its `device-allocated` annotation."""
    try:
        devices = json.loads(annotation)["gpu"]
        return frozenset(int(device["minor"]) for device in devices)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return frozenset()


def _partitions(table: Any) -> list[frozenset[int]]:
    """Koordinator: by size, sets of minors with the kind of link; the largest linked ones are the groups."""
    for size in sorted(table, key=int, reverse=True):
        linked = [
            frozenset(int(minor) for minor in part["minors"])
            for part in table[size]
            if str(part.get("gpuLinkType", "")).upper() == "NVLINK"
        ]
        if linked and int(size) > 1:
            return _disjoint(linked)
    return []


def _scores(rows: Any) -> list[frozenset[int]]:
    """HAMi: a score for every pair of GPUs; groups within which each pair is linked."""
    if isinstance(rows, Mapping):
        rows = [{"uuid": uuid, "score": scores} for uuid, scores in rows.items()]
    order = {row["uuid"]: number for number, row in enumerate(rows)}
    linked = {
        number: {order[other] for other, score in row["score"].items() if int(score) >= HAMI_LINK_SCORE} - {number}
        for number, row in enumerate(rows)
    }
    groups: list[frozenset[int]] = []
    for number in linked:
        if not any(number in group for group in groups):
            group = frozenset({number, *linked[number]})
            if any(linked[member] | {member} != group for member in group):
                return []  # linked in a chain or a cube, which is no group
            groups.append(group)
    return groups


def _disjoint(sets: Collection[frozenset[int]]) -> list[frozenset[int]]:
    chosen: list[frozenset[int]] = []
    for candidate in sets:
        if all(not candidate & other for other in chosen):
            chosen.append(candidate)
    return chosen


def _whole(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0
