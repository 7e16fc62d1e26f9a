"""The cluster as the autoscaler meets it: see a target, scale it, tell about it, ask what is allowed.

Seeing costs no requests: pods, their owners and the targets are watched, a namespace at a time, and a target's
state is put together from what the watches hold. Only a custom kind's `scale` is read, once for each change.
"""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Self

from kubernetes_asyncio.client import ApiClient

from cluster import credentials, deletion_cost, ownership, rights
from cluster.api import Api, Counters, Pace, StatusError, meaning
from cluster.autoscalers import Autoscalers
from cluster.budgets import Budget, budgets_watch, kept
from cluster.discovery import Discovery, Resource
from cluster.errors import ClusterError, RefusedError, TargetNotFoundError
from cluster.events import Events, EventType, Subject
from cluster.gpu_nodes import GpuNodes
from cluster.lease import Lease, Terms
from cluster.node_autoscalers import NodeAutoscalers
from cluster.objects import (
    FULLY_READ_KINDS,
    Controller,
    Scale,
    TargetState,
    WatchedPod,
    Workload,
    watched_pod,
    workload_of,
)
from cluster.ownership import CHAINS, KindKey
from cluster.quotas import Quota, quotas_watch, room
from cluster.rivals import Rival, rivals_watch, target_key
from cluster.scale import read_scale, write_scale
from cluster.selectors import Selector
from cluster.watch import Watch
from policies.scaling.endings import Ending
from policies.scaling.observation import Kept, Room
from policies.scaling.resource import ScaleTargetRef

GIVEN_UP_AT_MOST = 10_000
"""Uids remembered; forgetting them costs each of their targets one more short wait."""


class Cluster:
    """One API server. Made by `connect`; `close` ends its watches."""

    def __init__(self, client: ApiClient, *, pace: Pace | None = None) -> None:
        self.counters = Counters()
        self._client = client
        self._pace = pace or Pace()
        self._api = Api(client, pace=self._pace, counters=self.counters)
        self._discovery = Discovery(self._api, pace=self._pace)
        self._events = Events(self._api, self.counters)
        self.gpu_nodes = GpuNodes(self._api, self._pace, self.counters)
        """Of all the cluster; not looked at before somebody asks."""
        self.node_autoscalers = NodeAutoscalers(self._api)
        self._namespaces: dict[str, _Namespace] = {}
        self._scales: dict[tuple[str, str], Scale] = {}

    @classmethod
    async def connect(
        cls, kubeconfig: str | None = None, context: str | None = None, *, pace: Pace | None = None
    ) -> Self:
        """By the file that is named, else `KUBECONFIG`, else in-cluster; nothing is asked of the server yet."""
        return cls(await credentials.client_for(kubeconfig, context), pace=pace)

    @property
    def api(self) -> Api:
        """For what is asked of the server beside targets."""
        return self._api

    @property
    def host(self) -> str:
        return self._api.host

    @property
    def watch_age_seconds(self) -> float:
        """Of the watch that has been silent for longest; 0 while nothing is watched. A thread may ask."""
        watches = [watch for n in tuple(self._namespaces.values()) for watch in n.watches()]
        return max((w.seconds_since_heard for w in (*watches, *self.gpu_nodes.watches)), default=0.0)

    def autoscalers(self, namespace: str | None) -> Autoscalers:
        """The resources of one namespace, or of all."""
        return Autoscalers(self._api, self._discovery, namespace, pace=self._pace, counters=self.counters)

    def lease(self, namespace: str, name: str, identity: str, terms: Terms) -> Lease:
        """The Lease that this process seeks under this name."""
        return Lease(self._api, namespace, name, identity, terms)

    def write_only_while(self, seconds_left: Callable[[], float]) -> None:
        """From now on replicas are written only while this says how long a write may take."""
        self._api.seconds_to_write = seconds_left

    async def version(self) -> str:
        """The server's own version: the shortest way to learn whether it answers at all."""
        try:
            return str((await self._api.call("GET", "/version"))["gitVersion"])
        except StatusError as error:
            raise meaning(error, f"the API server at {self.host}") from error

    async def target(self, ref: ScaleTargetRef, namespace: str) -> TargetState:
        """What is asked of the target now, and its own pods.

        NotObservedError while that is not known well enough, RefusedError while somebody must mend it first.
        """
        resource = await self._discovery.scalable(ref.api_version, ref.kind)
        view = self._view(namespace)
        targets = view.workloads(resource)
        watches: list[Watch[Any]] = [view.pods, targets]
        watches += [view.workloads(kind) for kind in await self._kinds_between(resource)]
        for watch in watches:
            await watch.whole()
        subject = _subject(ref, namespace)
        workload = targets.store.get(ref.name)
        if workload is None:
            near = difflib.get_close_matches(ref.name, targets.store.names(), n=1)
            raise TargetNotFoundError(
                f"{subject} does not exist: "
                + (f"did you mean '{near[0]}'?" if near else "create it, or correct spec.scaleTargetRef")
            )
        if workload.being_deleted:
            raise TargetNotFoundError(f"{subject} is being deleted: remove its VLLMAutoscaler, or create it again")
        scale = await self._scale_of(resource, workload, namespace, subject)
        selector = _selector_of(scale, subject)
        claimed = await self._claim(view, resource, workload, selector)
        return ownership.state_of(resource.group, workload, scale.desired, str(selector), claimed, view)

    async def rivals(self, ref: ScaleTargetRef, namespace: str) -> tuple[Rival, ...]:
        """The HPAs and ScaledObjects that scale this target too."""
        watch = self._view(namespace).rivals()
        await watch.whole()
        return tuple(sorted(watch.store.under(target_key(ref)), key=str))

    async def room(self, namespace: str, state: TargetState) -> Room | None:
        """How many pods of this target the namespace's quotas allow; None where they say nothing of them."""
        watch = self._view(namespace).quotas()
        await watch.whole()
        return room(watch.store.all(), len(state.pods), state.requests)

    async def kept_available(self, namespace: str, own: Collection[str], desired: int) -> Kept | None:
        """What PodDisruptionBudgets keep of a target with these pods; None where they keep nothing."""
        view = self._view(namespace)
        watch = view.budgets()
        await watch.whole()
        return kept(watch.store.all(), view.pods.store, own, desired)

    def ending(self, namespace: str, own: Collection[str]) -> Ending | None:
        """How the youngest of these pods would end; None where there is none."""
        found = [pod for pod in map(self._view(namespace).pods.store.get, own) if pod is not None]
        youngest = max(found, key=lambda watched: watched.pod.created_at, default=None)
        return youngest.ending if youngest else None

    async def prefer_for_deletion(
        self, ref: ScaleTargetRef, namespace: str, own: Sequence[str], first: Sequence[str]
    ) -> None:
        """Have the target's controller take these of its `own` pods first when it shrinks, where it can be told."""
        resource = await self._discovery.scalable(ref.api_version, ref.kind)
        if (resource.group, resource.kind) not in deletion_cost.HONOURED_BY:
            return
        store = self._view(namespace).pods.store
        there = [pod for pod in map(store.get, own) if pod is not None]
        await deletion_cost.write(self._api, namespace, deletion_cost.changes(there, first))

    async def scale(self, ref: ScaleTargetRef, namespace: str, *, expected: int, replicas: int) -> int:
        """Ask for `replicas` where `expected` is still asked for; what is asked for now."""
        resource = await self._discovery.scalable(ref.api_version, ref.kind)
        path = f"{resource.path(namespace)}/{ref.name}/scale"
        subject = _subject(ref, namespace)
        try:
            scale = await write_scale(self._api, path, subject, expected=expected, replicas=replicas, pace=self._pace)
        except ClusterError:
            # Whatever was believed of this scale led here; let the next look be a fresh one.
            self._scales.pop((namespace, path), None)
            raise
        # The watch will show it in a moment; a tick in between must not decide from the old number.
        self._scales[namespace, path] = scale
        return scale.desired

    async def event(
        self,
        ref: ScaleTargetRef,
        namespace: str,
        uid: str,
        reason: str,
        message: str,
        type_: EventType = EventType.NORMAL,
    ) -> None:
        """Tell about the target where `kubectl describe` shows it; returns at once, and never fails."""
        subject = Subject(ref.api_version, ref.kind, namespace, ref.name, uid)
        self._events.take(subject, reason, message, type_)

    async def missing_rights(
        self, ref: ScaleTargetRef, namespace: str, *, writes: bool = True
    ) -> tuple[rights.Right, ...]:
        """The rights that this target needs and we lack."""
        resource = await self._discovery.scalable(ref.api_version, ref.kind)
        between = [await self._discovery.resource(*kind) for kind in CHAINS.get((resource.group, resource.kind), ())]
        return await rights.missing(self._api, namespace, rights.rights_for(resource, between, writes=writes))

    async def close(self, seconds: float = 1.0) -> None:
        """Write the events that wait, for no longer than this; then end every watch."""
        await self._events.close(seconds)
        await asyncio.gather(*(watch.stop() for n in self._namespaces.values() for watch in n.watches()))
        await self.gpu_nodes.stop()
        await self._client.close()
        await asyncio.sleep(0)  # the transports close in the next round of the loop

    # -- how -----------------------------------------------------------------------------------------------

    async def _kinds_between(self, resource: Resource) -> list[Resource]:
        kinds = CHAINS.get((resource.group, resource.kind), ())
        return [await self._discovery.resource(*kind) for kind in kinds]

    def _view(self, namespace: str) -> _Namespace:
        if namespace not in self._namespaces:
            self._namespaces[namespace] = _Namespace(self._api, namespace, self._pace, self.counters)
        return self._namespaces[namespace]

    async def _scale_of(self, resource: Resource, workload: Workload, namespace: str, subject: str) -> Scale:
        """What the watch shows, or what was read or written since; else the scale is read."""
        path = f"{resource.path(namespace)}/{workload.name}/scale"
        known = self._scales.get((namespace, path))
        if known and known.uid == workload.uid and _is_at_least(known.resource_version, workload.resource_version):
            return known
        self._scales.pop((namespace, path), None)
        if workload.desired is not None:
            return Scale(workload.desired, str(workload.selector or ""), workload.resource_version, workload.uid)
        scale = await read_scale(self._api, path, subject)
        self._scales[namespace, path] = scale
        return scale

    async def _claim(
        self, view: _Namespace, resource: Resource, workload: Workload, selector: Selector
    ) -> ownership.Claim:
        """The target's own pods; an owner that a watch has not shown yet is waited for, a moment and once."""
        deadline = time.monotonic() + self._pace.catch_up_seconds
        while True:
            pods = ownership.selected(view.pods.store, selector)
            claimed = ownership.claim(resource.group, workload, pods, view)
            missing = [owner for owner in claimed.unknown if owner.uid not in view.given_up]
            if not missing:
                return claimed
            for owner in missing:
                watch = view.known(owner)
                if watch is None:
                    watch = await self._watch_met(view, owner)
                    if watch is not None:
                        await watch.whole()
                elif not await watch.next_change(max(0.0, deadline - time.monotonic())):
                    watch = None
                if watch is None:
                    view.give_up(owner)

    async def _watch_met(self, view: _Namespace, owner: Controller) -> Watch[Workload] | None:
        """The watch on a kind that is met for the first time between a target and its pods.

        None for what cannot stand there, such as the node that controls a static pod.
        """
        try:
            return view.workloads(await self._discovery.resource(owner.api_version, owner.kind))
        except RefusedError:
            return None


class _Namespace:
    """The watches of one namespace, and who owns whom there."""

    def __init__(self, api: Api, name: str, pace: Pace, counters: Counters) -> None:
        self._api = api
        self._name = name
        self._pace = pace
        self._counters = counters
        self.pods: Watch[WatchedPod] = Watch(
            api,
            f"/api/v1/namespaces/{name}/pods",
            subject=f"pods in namespace '{name}'",
            read=watched_pod,
            keys_of=ownership.index_keys,
            pace=pace,
            counters=counters,
        )
        self._workloads: dict[KindKey, Watch[Workload]] = {}
        self._rivals: Watch[Rival] | None = None
        self._quotas: Watch[Quota] | None = None
        self._budgets: Watch[Budget] | None = None
        self.given_up: set[str] = set()
        """Owners that did not appear when they were waited for: their pods are somebody else's, or orphans."""
        self.pods.start()

    def give_up(self, owner: Controller) -> None:
        if len(self.given_up) >= GIVEN_UP_AT_MOST:
            self.given_up.clear()
        self.given_up.add(owner.uid)

    def watches(self) -> list[Watch[Any]]:
        others: list[Watch[Any] | None] = [self._rivals, self._quotas, self._budgets]
        return [self.pods, *self._workloads.values(), *(watch for watch in others if watch)]

    def quotas(self) -> Watch[Quota]:
        if self._quotas is None:
            self._quotas = quotas_watch(self._api, self._name, self._pace, self._counters)
            self._quotas.start()
        return self._quotas

    def budgets(self) -> Watch[Budget]:
        if self._budgets is None:
            self._budgets = budgets_watch(self._api, self._name, self._pace, self._counters)
            self._budgets.start()
        return self._budgets

    def rivals(self) -> Watch[Rival]:
        if self._rivals is None:
            self._rivals = rivals_watch(self._api, self._name, self._pace, self._counters)
            self._rivals.start()
        return self._rivals

    def workloads(self, resource: Resource) -> Watch[Workload]:
        key = (resource.api_version, resource.kind)
        if key not in self._workloads:

            def read(thing: Mapping[str, Any], before: Workload | None) -> Workload:
                return workload_of(resource.kind, thing)

            self._workloads[key] = Watch(
                self._api,
                resource.path(self._name),
                subject=f"{resource.plural} in namespace '{self._name}'",
                read=read,
                keys_of=_workload_keys,
                only_metadata=(resource.group, resource.kind) not in FULLY_READ_KINDS,
                pace=self._pace,
                counters=self._counters,
            )
            self._workloads[key].start()
        return self._workloads[key]

    def known(self, owner: Controller) -> Watch[Workload] | None:
        return self._workloads.get((owner.api_version, owner.kind))

    def workload(self, controller: Controller) -> Workload | None:
        watch = self.known(controller)
        found = watch.store.get(controller.name) if watch else None
        return found if found and found.uid == controller.uid else None

    def controlled_by(self, uid: str, kind: KindKey) -> list[Workload]:
        watch = self._workloads.get(kind)
        return watch.store.under(uid) if watch else []


def _workload_keys(workload: Workload) -> tuple[str, ...]:
    return (workload.controller.uid,) if workload.controller else ()


def _subject(ref: ScaleTargetRef, namespace: str) -> str:
    return f"{ref.kind} '{ref.name}' in namespace '{namespace}'"


def _selector_of(scale: Scale, subject: str) -> Selector:
    if not scale.selector:
        raise RefusedError(
            f"{subject} has no status.selector in its scale, so its pods cannot be told: "
            "its controller must set one (labelSelectorPath of its CRD)"
        )
    try:
        return _parsed(scale.selector)
    except ValueError as error:
        raise RefusedError(f"{subject}: {error}") from error


@lru_cache(maxsize=4096)
def _parsed(selector: str) -> Selector:
    # A thousand targets ask for the same thousand selectors at every tick.
    return Selector.of_string(selector)


def _is_at_least(version: str, other: str) -> bool:
    """Whether a resourceVersion is no older; those of one server are numbers that only grow."""
    if version.isdecimal() and other.isdecimal():
        return int(version) >= int(other)
    return version == other
