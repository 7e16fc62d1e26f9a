"""`VLLMAutoscaler` objects as the API server keeps them: watched, and told what became of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cluster.api import MERGE_PATCH, Api, Counters, Pace, StatusError, meaning
from cluster.discovery import Discovery
from cluster.errors import OvertakenError, RefusedError
from cluster.watch import Watch, namespaced_name_of
from policies.scaling.resource import API_VERSION, KIND

APPLY: Final = "application/apply-patch+yaml"
FIELD_MANAGER: Final = "preheat-status"
PLURAL: Final = "vllmautoscalers"


@dataclass(frozen=True, slots=True)
class Stated:
    """One object as it is now."""

    namespace: str
    name: str
    uid: str
    generation: int
    created_at: str
    document: Mapping[str, Any]

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def being_deleted(self) -> bool:
        return "deletionTimestamp" in self.document["metadata"]

    @property
    def finalizers(self) -> tuple[str, ...]:
        """Of those who have something to do before it may go."""
        return tuple(self.document["metadata"].get("finalizers") or ())


Changed = Callable[[str, Stated | None], None]
"""Hears of each object that is new, other or gone, by `namespace/name`."""


class Autoscalers:
    """The collection of one namespace, or of all."""

    def __init__(
        self, api: Api, discovery: Discovery, namespace: str | None, *, pace: Pace, counters: Counters
    ) -> None:
        self._api = api
        self._discovery = discovery
        self._namespace = namespace
        self._pace = pace
        self._counters = counters

    async def watch(self, changed: Changed) -> Watch[Stated]:
        """A watch that runs; RefusedError where the cluster does not know the kind."""
        try:
            await self._discovery.resource(API_VERSION, KIND)
        except RefusedError as error:
            raise RefusedError(
                f"this release reads {KIND} of {API_VERSION}, which is not served here: apply its manifests/crds "
                f"({error})"
            ) from error
        within = f"namespaces/{self._namespace}/" if self._namespace else ""
        where = f"in namespace '{self._namespace}'" if self._namespace else "in all namespaces"
        watch: Watch[Stated] = Watch(
            self._api,
            f"/apis/{API_VERSION}/{within}{PLURAL}",
            subject=f"{PLURAL} {where}",
            read=stated,
            pace=self._pace,
            counters=self._counters,
            name_of=namespaced_name_of,
            changed=changed,
        )
        watch.start()
        return watch

    async def set_finalizers(self, of: Stated, finalizers: tuple[str, ...]) -> None:
        """Put these in place of those that the object was seen with; OvertakenError where it is another by now."""
        path = f"/apis/{API_VERSION}/namespaces/{of.namespace}/{PLURAL}/{of.name}"
        version = of.document["metadata"].get("resourceVersion")
        body = {"metadata": {"finalizers": list(finalizers), "resourceVersion": version, "uid": of.uid}}
        subject = f"{KIND} '{of.name}' in namespace '{of.namespace}'"
        try:
            await self._api.call("PATCH", path, body=body, content_type=MERGE_PATCH)
        except StatusError as error:
            if error.status in (404, 409):
                raise OvertakenError(f"{subject} was changed meanwhile") from error
            raise meaning(error, subject) from error

    async def write_status(self, of: Stated, status: Mapping[str, Any]) -> None:
        """Apply a status; of an object that is gone or another by now nothing is written, and nothing said."""
        path = f"/apis/{API_VERSION}/namespaces/{of.namespace}/{PLURAL}/{of.name}/status"
        metadata = {"name": of.name, "namespace": of.namespace, "uid": of.uid}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": status}
        query = [("fieldManager", FIELD_MANAGER), ("force", "true")]
        try:
            await self._api.call("PATCH", path, query=query, body=body, content_type=APPLY)
        except StatusError as error:
            if error.status not in (404, 409):
                raise meaning(error, f"the status of {KIND} '{of.name}' in namespace '{of.namespace}'") from error


def stated(thing: Mapping[str, Any], before: Stated | None = None) -> Stated:
    """The object without what only the API server needs."""
    metadata = thing["metadata"]
    kept = {name: value for name, value in metadata.items() if name != "managedFields"}
    return Stated(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        created_at=metadata.get("creationTimestamp", ""),
        document={**thing, "apiVersion": API_VERSION, "kind": KIND, "metadata": kept},
    )
