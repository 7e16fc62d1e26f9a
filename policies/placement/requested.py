"""How many devices a pod holds, as kube-scheduler counts them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def requested(
    containers: Iterable[Mapping[str, int]], start: Iterable[tuple[Mapping[str, int], bool]]
) -> Mapping[str, int]:
    """By resource: containers and sidecars together, or the largest step of the start if that is more.

    `start` has the init containers in their order, each with whether it is a sidecar: one runs beside those after it.
    """
    running: dict[str, int] = {}
    for container in containers:
        _add(running, container)
    beside: dict[str, int] = {}
    largest: dict[str, int] = {}
    for container, is_sidecar in start:
        if is_sidecar:
            _add(beside, container)
        step = beside if is_sidecar else {**beside, **{k: beside.get(k, 0) + n for k, n in container.items()}}
        largest |= {resource: max(largest.get(resource, 0), count) for resource, count in step.items()}
    _add(running, beside)
    return running | {resource: count for resource, count in largest.items() if count > running.get(resource, 0)}


def _add(to: dict[str, int], counts: Mapping[str, int]) -> None:
    for resource, count in counts.items():
        to[resource] = to.get(resource, 0) + count
