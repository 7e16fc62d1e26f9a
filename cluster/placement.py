"""The cluster as the scheduler extender meets it: all nodes, all pods, and pods that are to be judged anew.

Nodes and pods are watched in the whole cluster. What is kept of each is the reader's choice, since five thousand
nodes of 14 kB must not be held for the ten fields that anybody asks for.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

from kubernetes_asyncio.client import ApiClient

from cluster import credentials
from cluster.api import MERGE_PATCH, Api, Counters, Pace, StatusError, meaning
from cluster.errors import OvertakenError
from cluster.gpu_objects import TOUCHED, Identity
from cluster.watch import Watch, namespaced_name_of

Json = Mapping[str, Any]
T = TypeVar("T")

NODES_A_PAGE = 100
"""Nodes are large: so many take as long to parse as a request may wait for the event loop."""

_LABEL: Final = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_POD: Final = re.compile(rf"(?=[^/]{{1,63}}/.{{1,253}}$)({_LABEL})/({_LABEL}(?:\.{_LABEL})*)")


def pod_named(text: str) -> tuple[str, str] | None:
    """Namespace and name of NAMESPACE/NAME; None where Kubernetes would let no pod be called so."""
    found = _POD.fullmatch(text)
    return (found[1], found[2]) if found else None


def _pod_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"


def nodes_watch(
    api: Api, read: Callable[[Json], T | None], changed: Callable[[str, T | None], None], pace: Pace, counters: Counters
) -> Watch[T]:
    """Every node of the cluster by name, as `read` cuts it down."""
    return _watch(api, "nodes", read, changed, pace, counters, page=NODES_A_PAGE)


def pods_watch(
    api: Api, read: Callable[[Json], T | None], changed: Callable[[str, T | None], None], pace: Pace, counters: Counters
) -> Watch[T]:
    """Every pod of the cluster by "namespace/name", as `read` cuts it down, None for one that is of no interest."""
    return _watch(api, "pods", read, changed, pace, counters, name_of=namespaced_name_of)


def _watch(
    api: Api,
    plural: str,
    read: Callable[[Json], T | None],
    changed: Callable[[str, T | None], None],
    pace: Pace,
    counters: Counters,
    **how: Any,
) -> Watch[T]:
    return Watch(
        api,
        f"/api/v1/{plural}",
        subject=plural,
        read=lambda thing, before: read(thing),
        pace=pace,
        counters=counters,
        changed=changed,
        **how,
    )


class PlacementCluster:
    """One API server. Made by `connect`; `close` ends its watches."""

    def __init__(self, client: ApiClient, *, pace: Pace | None = None) -> None:
        self.counters = Counters()
        self._client = client
        self._pace = pace or Pace()
        self._api = Api(client, pace=self._pace, counters=self.counters)
        self._watches: list[Watch[Any]] = []

    @classmethod
    async def connect(
        cls, kubeconfig: str | None = None, context: str | None = None, *, pace: Pace | None = None
    ) -> Self:
        """By the file that is named, else `KUBECONFIG`, else in-cluster; nothing is asked of the server yet."""
        return cls(await credentials.client_for(kubeconfig, context), pace=pace)

    @property
    def host(self) -> str:
        return self._api.host

    @property
    def watch_age_seconds(self) -> float:
        """Of the watch that has been silent for longest; 0 while nothing is watched."""
        return max((watch.seconds_since_heard for watch in self._watches), default=0.0)

    @property
    def problems(self) -> list[str]:
        """What the watches that are not well last died of."""
        return [str(watch.problem) for watch in self._watches if watch.problem is not None]

    def watch_nodes(self, read: Callable[[Json], T | None], changed: Callable[[str, T | None], None]) -> Watch[T]:
        """Every node by name, as `read` cuts it down; started."""
        return self._started(nodes_watch(self._api, read, changed, self._pace, self.counters))

    def watch_pods(self, read: Callable[[Json], T | None], changed: Callable[[str, T | None], None]) -> Watch[T]:
        """Every pod by "namespace/name", as `read` cuts it down, None for one that is of no interest; started."""
        return self._started(pods_watch(self._api, read, changed, self._pace, self.counters))

    def _started(self, watch: Watch[T]) -> Watch[T]:
        self._watches.append(watch)
        watch.start()
        return watch

    async def pod(self, namespace: str, name: str) -> Json:
        """The pod as it is now; RefusedError where it is not there, NotObservedError where nobody answers."""
        try:
            return await self._api.call("GET", _pod_path(namespace, name))
        except StatusError as error:
            raise meaning(error, f"pod {namespace}/{name}") from error

    async def read(self, path: str) -> Json | None:
        """Any object; None where there is none."""
        try:
            return await self._api.call("GET", path)
        except StatusError as error:
            if error.status == 404:
                return None
            raise meaning(error, path) from error

    async def touch(self, pod: Identity, now: datetime) -> None:
        """Write the time on a pod, so that the scheduler looks at it again; OvertakenError if it has changed.

        The version is tested where it is known, so that of several replicas with the same news one writes.
        """
        when = now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        metadata: dict[str, Any] = {"annotations": {TOUCHED: when}}
        if pod.resource_version:
            metadata["resourceVersion"] = pod.resource_version
        path = _pod_path(pod.namespace, pod.name)
        try:
            await self._api.call("PATCH", path, body={"metadata": metadata}, content_type=MERGE_PATCH)
        except StatusError as error:
            if error.status in (404, 409):
                raise OvertakenError(f"pod {pod.key} has changed meanwhile") from error
            raise meaning(error, f"pod {pod.key}") from error

    async def close(self) -> None:
        """End every watch."""
        await asyncio.gather(*(watch.stop() for watch in self._watches))
        await self._client.close()
        await asyncio.sleep(0)  # the transports close in the next round of the loop
