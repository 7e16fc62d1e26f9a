"""Which processes of a pod are vLLM's, so that one that is not seen now is missed; no I/O.

A pod may run several and be scraped at each, and one whose scrape fails shows nothing: what is left looks whole and
may look idle. Other ports of a pod, a proxy's say, never showed vLLM and are not missed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from cluster.prometheus_queries import PodIndex

# A sweep may name a part of the pods only; one that none has named for so long is gone.
FORGOTTEN_AFTER_SECONDS: Final = 3600.0

Instances = Mapping[int, Collection[str]]
Ups = Mapping[int, Mapping[str, bool]]
"""By a pod's place, whether the latest scrape of each of its instances succeeded."""


class Processes:
    """The instances of each pod that show vLLM, or did and are still scraped."""

    def __init__(self) -> None:
        self._by_pod: dict[tuple[str, str], tuple[float, frozenset[str]]] = {}

    def in_doubt(self, index: PodIndex, shown: Instances, ups: Ups) -> bool:
        """Whether a pod that is new to us has a process whose scrape fails beside one that shows vLLM."""
        return any(
            pod not in self._by_pod and not all(up or port in shown[place] for port, up in ups.get(place, {}).items())
            for pod, place in index.pods.items()
            if place in shown
        )

    def judge(self, index: PodIndex, shown: Instances, shown_lately: Instances, ups: Ups, now: float) -> Instances:
        """By a pod's place those that are vLLM's, of what shows it now, did lately or did at an earlier look."""
        found: dict[int, frozenset[str]] = {}
        for pod, place in index.pods.items():
            _, before = self._by_pod.get(pod, (now, frozenset[str]()))
            scraped = before.union(shown_lately.get(place, ())).intersection(ups.get(place, ()))
            kept = scraped.union(shown.get(place, ()))
            # One that is no longer scraped is missed once: the pod's sums fall by what it had counted.
            found[place] = kept if before.isdisjoint(shown.get(place, ())) else kept | before
            if kept:
                self._by_pod[pod] = (now, kept)
            else:
                self._by_pod.pop(pod, None)
        self._by_pod = {pod: seen for pod, seen in self._by_pod.items() if seen[0] > now - FORGOTTEN_AFTER_SECONDS}
        return found
