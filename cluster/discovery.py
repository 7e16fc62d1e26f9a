"""Which kinds the API server has, under which path, and whether they have a `scale`."""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass

from cluster.api import Api, Pace, StatusError, meaning
from cluster.errors import RefusedError
from cluster.objects import group_of

PROPOSALS = "name a Deployment, a StatefulSet, a LeaderWorkerSet or another kind that has one"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API server serves it."""

    api_version: str
    kind: str
    plural: str
    has_scale: bool

    @property
    def group(self) -> str:
        return group_of(self.api_version)

    def path(self, namespace: str) -> str:
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        return f"{root}/namespaces/{namespace}/{self.plural}"


class Discovery:
    """Asked once a kind; a kind that was not there is asked for again after a while."""

    def __init__(self, api: Api, *, pace: Pace) -> None:
        self._api = api
        self._pace = pace
        self._known: dict[tuple[str, str], Resource] = {}
        self._refused: dict[tuple[str, str], tuple[float, str]] = {}

    async def resource(self, api_version: str, kind: str) -> Resource:
        key = (api_version, kind)
        if key in self._known:
            return self._known[key]
        if key in self._refused:
            refused_at, reason = self._refused[key]
            if time.monotonic() - refused_at < self._pace.discovery_seconds:
                raise RefusedError(reason)
        try:
            self._known[key] = await self._found(api_version, kind)
        except RefusedError as error:
            self._refused[key] = (time.monotonic(), str(error))
            raise
        return self._known[key]

    async def scalable(self, api_version: str, kind: str) -> Resource:
        resource = await self.resource(api_version, kind)
        if not resource.has_scale:
            # A CRD may gain the subresource without a new version; then this kind is looked up anew.
            del self._known[api_version, kind]
            reason = f"kind '{kind}' of {api_version} has no scale subresource: {PROPOSALS}"
            self._refused[api_version, kind] = (time.monotonic(), reason)
            raise RefusedError(reason)
        return resource

    async def _found(self, api_version: str, kind: str) -> Resource:
        root = f"/apis/{api_version}" if group_of(api_version) else f"/api/{api_version}"
        try:
            resources = (await self._api.call("GET", root))["resources"]
        except StatusError as error:
            if error.status != 404:
                raise meaning(error, f"the kinds of {api_version}") from error
            raise RefusedError(await self._no_such_version(api_version, kind)) from error
        plurals = {resource["kind"]: resource for resource in resources if "/" not in resource["name"]}
        if kind not in plurals:
            near = difflib.get_close_matches(kind, plurals, n=1)
            raise RefusedError(
                f"{api_version} has no kind '{kind}': "
                + (f"did you mean '{near[0]}'?" if near else f"it has {', '.join(sorted(plurals))}")
            )
        if not plurals[kind]["namespaced"]:
            raise RefusedError(f"kind '{kind}' of {api_version} lives in no namespace: {PROPOSALS}")
        plural = plurals[kind]["name"]
        return Resource(api_version, kind, plural, any(resource["name"] == f"{plural}/scale" for resource in resources))

    async def _no_such_version(self, api_version: str, kind: str) -> str:
        group = group_of(api_version)
        try:
            groups = (await self._api.call("GET", "/apis"))["groups"]
        except StatusError:
            groups = []
        served = [v["groupVersion"] for g in groups if g["name"] == group for v in g["versions"]]
        if served:
            return f"the cluster does not serve {api_version}: write apiVersion {' or '.join(served)}"
        near = difflib.get_close_matches(group, [g["name"] for g in groups], n=1)
        return f"the cluster does not serve {api_version}, so there is no '{kind}': " + (
            f"did you mean the group '{near[0]}'?" if near else "install its CRD, or correct apiVersion"
        )
