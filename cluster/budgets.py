"""PodDisruptionBudgets as a floor: what `minAvailable` leaves of a target when others' pods count towards it too.

A scale-down is no eviction, so no budget stops it; whoever shrinks must look himself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from cluster import ownership
from cluster.api import Api, Counters, Pace
from cluster.objects import WatchedPod
from cluster.selectors import Selector
from cluster.store import Store
from cluster.watch import Watch
from policies.scaling.observation import Kept, PodStage


@dataclass(frozen=True, slots=True)
class Budget:
    """One that says how many must stay."""

    name: str
    selector: Selector
    number: int = 0
    share: float = 0.0
    """Of all pods that it selects, 0 to 1; one of the two is 0."""

    def least(self, pods: int) -> int:
        return max(self.number, ceil(self.share * pods - 1e-9))


def budget_of(pdb: Mapping[str, Any], before: Budget | None = None) -> Budget | None:
    """None for one that says how many may be missing: a shrink makes nothing miss."""
    spec = pdb.get("spec") or {}
    stated, selector = spec.get("minAvailable"), spec.get("selector")
    if stated is None or selector is None:  # no selector selects no pod, an empty one all
        return None
    name, chosen = pdb["metadata"]["name"], Selector.of_workload(selector)
    if isinstance(stated, str) and stated.endswith("%"):
        return Budget(name, chosen, share=float(stated[:-1]) / 100)
    return Budget(name, chosen, number=int(stated))


def budgets_watch(api: Api, namespace: str, pace: Pace, counters: Counters) -> Watch[Budget]:
    """Every budget of the namespace that has a `minAvailable`."""
    return Watch(
        api,
        f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets",
        subject=f"poddisruptionbudgets in namespace '{namespace}'",
        read=budget_of,
        pace=pace,
        counters=counters,
    )


def kept(budgets: Iterable[Budget], pods: Store[WatchedPod], own: Collection[str], desired: int) -> Kept | None:
    """The strictest of the budgets that select any of the `own` pods; None where none does."""
    strictest: Kept | None = None
    for budget in budgets:
        selected = ownership.selected(pods, budget.selector)
        others = [each.pod for each in selected if each.pod.name not in own]
        if len(others) == len(selected):
            continue
        least = budget.least(desired + len(others))
        replicas = max(0, least - sum(pod.stage is PodStage.READY for pod in others))
        if strictest is None or replicas > strictest.replicas:
            strictest = Kept(replicas, f"PodDisruptionBudget '{budget.name}' keeps {least} available")
    return strictest
