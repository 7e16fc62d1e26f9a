"""Whose a pod is, and what a target's rollout stands at: a judgement over what the watches show, without I/O.

A selector alone would count the pods of a neighbour that uses the same labels; so a pod is a target's own when
the chain of its controllers ends there: pod → ReplicaSet → Deployment, pod → StatefulSet, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cluster.objects import LEADER_LABEL, Controller, TargetState, WatchedPod, Workload, pod_name_pattern
from cluster.selectors import Operator, Selector
from cluster.store import Store
from policies.scaling.observation import PodStage

LONGEST_CHAIN = 6

LEADERS_ONLY = ("leaderworkerset.x-k8s.io", "LeaderWorkerSet")

KindKey = tuple[str, str]
"""apiVersion and kind."""

CHAINS: Mapping[tuple[str, str], tuple[KindKey, ...]] = {
    ("apps", "Deployment"): (("apps/v1", "ReplicaSet"),),
    ("apps", "StatefulSet"): (),
    ("apps", "ReplicaSet"): (),
    LEADERS_ONLY: (("apps/v1", "StatefulSet"),),
}
"""By group and kind of a target: the kinds between it and its pods. Of kinds not named here any may be."""


class Owners(Protocol):
    """Finds what the watches know."""

    def workload(self, controller: Controller) -> Workload | None: ...

    def controlled_by(self, uid: str, kind: KindKey) -> list[Workload]: ...


@dataclass(frozen=True, slots=True)
class Claim:
    """A target's selected pods, told apart."""

    own: tuple[WatchedPod, ...]
    strangers: int
    unknown: tuple[Controller, ...]
    """Controllers met on the way that no watch has shown (yet)."""
    makers: tuple[Workload, ...]
    """Deployments, StatefulSets and ReplicaSets between target and pods, the highest of each chain: they fix
    the names and the template."""


def index_keys(pod: WatchedPod) -> Iterable[tuple[str, str]]:
    return pod.labels.items()


def selected(pods: Store[WatchedPod], selector: Selector) -> list[WatchedPod]:
    """By way of the label that tells most, so that a target does not leaf through its whole namespace."""
    required = [r for r in selector.requirements if r.operator is Operator.IN]
    if required:
        narrowest = min(required, key=lambda r: sum(pods.number_under((r.key, v)) for v in r.values))
        candidates = [pod for value in narrowest.values for pod in pods.under((narrowest.key, value))]
    else:
        candidates = pods.all()
    return [pod for pod in candidates if selector.selects(pod.labels)]


def claim(group: str, target: Workload, pods: Iterable[WatchedPod], owners: Owners) -> Claim:
    own: list[WatchedPod] = []
    unknown: dict[str, Controller] = {}
    makers: dict[str, Workload] = {}
    strangers = 0
    expected = CHAINS.get((group, target.kind))
    for pod in pods:
        if (group, target.kind) == LEADERS_ONLY and pod.labels.get(LEADER_LABEL) != "0":
            continue
        at, maker = pod.controller, None
        for _ in range(LONGEST_CHAIN):
            if at is None or at.uid == target.uid:
                break
            if expected is not None and (at.api_version, at.kind) not in expected:
                at = None
                break
            workload = owners.workload(at)
            if workload is None:
                unknown[at.uid] = at
                at = None
                break
            if at.group == "apps":
                maker = workload
            at = workload.controller
        if at is not None and at.uid == target.uid:
            own.append(pod)
            if maker is not None:
                makers[maker.uid] = maker
        else:
            strangers += 1
    return Claim(tuple(own), strangers, tuple(unknown.values()), tuple(makers.values()))


def newest_template(maker: Workload, owners: Owners) -> str:
    if maker.kind != "Deployment":
        return maker.template
    replica_sets = owners.controlled_by(maker.uid, ("apps/v1", "ReplicaSet"))
    return max(replica_sets, key=lambda rs: (rs.revision, rs.name)).template if replica_sets else ""


def state_of(group: str, target: Workload, desired: int, selector: str, claimed: Claim, owners: Owners) -> TargetState:
    """All that a decision about the target is made from, but its metrics."""
    pods = tuple(sorted((watched.pod for watched in claimed.own), key=lambda pod: pod.name))
    alive = [pod for pod in pods if pod.stage is not PodStage.TERMINATING]
    newest = max(claimed.own, key=lambda watched: watched.pod.created_at, default=None)
    maker = _maker_of(group, target, claimed)
    if maker is not None:
        template, rolling = newest_template(maker, owners), maker.rolling
        # The object may still be silent of a rollout that its pods already show; a StatefulSet's
        # partition or OnDelete, though, mixes templates for good.
        if maker.kind == "Deployment" and template:
            rolling = rolling or any(pod.template != template for pod in alive)
    else:
        youngest = max(alive, key=lambda pod: (pod.created_at, pod.name), default=None)
        template = youngest.template if youngest else ""
        rolling = len({pod.template for pod in alive}) > 1
    return TargetState(
        uid=target.uid,
        desired=desired,
        selector=selector,
        pods=pods,
        pod_ips={watched.pod.name: watched.ip for watched in claimed.own if watched.ip},
        template=template,
        rolling=rolling,
        pod_name_pattern=_pattern_of(group, target, maker),
        requests=newest.requests if newest else {},
        ask=newest.ask if newest else None,
        gpus=newest.ask.demand.gpus * newest.ask.pods if newest and newest.ask else target.gpus,
        replicas_manager=target.replicas_manager,
        strangers=claimed.strangers,
    )


def _maker_of(group: str, target: Workload, claimed: Claim) -> Workload | None:
    """The one workload whose template all pods of the target are made from, if there is one."""
    if (group, target.kind) in CHAINS and (group, target.kind) != LEADERS_ONLY:
        return target
    return claimed.makers[0] if len(claimed.makers) == 1 else None


def _pattern_of(group: str, target: Workload, maker: Workload | None) -> str:
    own = pod_name_pattern(group, target.kind, target.name)
    return own or (pod_name_pattern("apps", maker.kind, maker.name) if maker else "")
