"""The fewest replicas of somebody else's HPA or ScaledObject: raised, kept in mind on the object, given back.

What the owner had stands in an annotation, so whoever comes after us knows it. A write holds only for the object as
it was read; the owner's own changes win, and become what is given back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cluster.api import MERGE_PATCH, Api, StatusError, meaning
from cluster.errors import OvertakenError, RefusedError
from cluster.objects import controller_of, group_of
from policies.scaling.resource import ScaleTargetRef

ANNOTATION: Final = "autoscaling.preheat.dev/raised-floor"

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Holder:
    """A kind of object that has a floor for somebody's replicas."""

    kind: str
    api: str
    plural: str
    fewest: str
    """The field of its spec."""
    most: str
    fewest_unstated: int
    """What holds where the field is left out."""
    most_unstated: int

    def path(self, namespace: str | None, name: str = "") -> str:
        """Of one, or of all in a namespace or everywhere."""
        within = f"/namespaces/{namespace}" if namespace else ""
        return f"/apis/{self.api}{within}/{self.plural}" + (f"/{name}" if name else "")


HPA: Final = Holder(
    "HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers", "minReplicas", "maxReplicas", 1, 1
)
SCALED_OBJECT: Final = Holder(
    "ScaledObject", "keda.sh/v1alpha1", "scaledobjects", "minReplicaCount", "maxReplicaCount", 0, 100
)


@dataclass(frozen=True, slots=True)
class Raised:
    """What the annotation says."""

    original: int | None
    """As the owner had it; None where it was left out."""
    to: int
    by: str
    """`namespace/name` of the VLLMAutoscaler."""


@dataclass(frozen=True, slots=True)
class Floor:
    """One object as it was read."""

    holder: Holder
    namespace: str
    name: str
    resource_version: str
    stated: int | None
    most: int
    scales: tuple[str, str, str]
    """Group, kind and name of its target."""
    raised: Raised | None = None

    @property
    def subject(self) -> str:
        return f"{self.holder.kind} '{self.name}' in namespace '{self.namespace}'"

    def is_of(self, ref: ScaleTargetRef) -> bool:
        """Whatever its version, it is one object."""
        return self.scales == (group_of(ref.api_version), ref.kind, ref.name)

    @property
    def fewest(self) -> int:
        return self.holder.fewest_unstated if self.stated is None else self.stated

    @property
    def overwritten(self) -> bool:
        """Whether somebody has set it since we raised it."""
        return self.raised is not None and self.raised.to != self.fewest

    @property
    def original(self) -> int | None:
        """What is given back: the owner's, and his newest where he has changed it since."""
        return self.raised.original if self.raised and not self.overwritten else self.stated

    @property
    def own(self) -> int:
        """The owner's, as a number."""
        return self.holder.fewest_unstated if self.original is None else self.original


class Floors:
    """Those of one API server."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def of(self, ref: ScaleTargetRef, namespace: str) -> Floor:
        """Of the one object that scales this target; RefusedError where there is none, or several."""
        found = [floor for floor in await self._all(namespace) if floor.is_of(ref)]
        subject = f"{ref.kind} '{ref.name}' in namespace '{namespace}'"
        if not found:
            raise RefusedError(
                f"no HorizontalPodAutoscaler or ScaledObject scales {subject}, so there is no floor to raise: "
                "create one, or set mode Active"
            )
        if len(found) > 1:
            named = " and ".join(f"{floor.holder.kind} '{floor.name}'" for floor in found)
            raise RefusedError(f"{named} both scale {subject}: delete one of them")
        return found[0]

    async def raised(self, namespace: str | None) -> list[Floor]:
        """All that are raised in a namespace, or everywhere."""
        return [floor for floor in await self._all(namespace) if floor.raised]

    async def set(self, floor: Floor, to: int, by: str) -> Floor:
        """Raise it, or change how far; OvertakenError where the object has changed since it was read."""
        raised = {"original": floor.original, "to": to, "by": by}
        return await self._write(floor, to, json.dumps(raised))

    async def give_back(self, floor: Floor) -> Floor:
        """As its owner had it; what he has changed since stays."""
        return await self._write(floor, floor.original, None)

    async def _write(self, floor: Floor, fewest: int | None, annotation: str | None) -> Floor:
        body = {
            "metadata": {"resourceVersion": floor.resource_version, "annotations": {ANNOTATION: annotation}},
            "spec": {floor.holder.fewest: fewest},
        }
        path = floor.holder.path(floor.namespace, floor.name)
        query = [("fieldManager", "preheat")]
        try:
            written = await self._api.call(
                "PATCH", path, query=query, body=body, content_type=MERGE_PATCH, leader_only=True
            )
        except StatusError as error:
            if error.status in (404, 409):
                raise OvertakenError(f"{floor.subject} has changed meanwhile") from error
            raise meaning(error, floor.subject) from error
        return _floor_of(floor.holder, written)

    async def _all(self, namespace: str | None) -> list[Floor]:
        """Every floor; of what KEDA made itself, only KEDA's own object."""
        scaled = await self._listed(SCALED_OBJECT, namespace)
        hpas = [each for each in await self._listed(HPA, namespace) if not _is_kedas(each)]
        listed = [(SCALED_OBJECT, each) for each in scaled] + [(HPA, each) for each in hpas]
        return [_floor_of(holder, each) for holder, each in listed]

    async def _listed(self, holder: Holder, namespace: str | None) -> list[Json]:
        try:
            return list((await self._api.call("GET", holder.path(namespace))).get("items") or ())
        except StatusError as error:
            if error.status == 404 and holder is SCALED_OBJECT:
                return []  # KEDA is not installed
            where = f"in namespace '{namespace}'" if namespace else "of the cluster"
            raise meaning(error, f"{holder.plural} {where}") from error


def _floor_of(holder: Holder, thing: Json) -> Floor:
    metadata, spec = thing["metadata"], thing["spec"]
    target = spec.get("scaleTargetRef") or {}
    group, kind = group_of(target.get("apiVersion") or "apps/v1"), target.get("kind") or "Deployment"
    return Floor(
        holder=holder,
        namespace=metadata["namespace"],
        name=metadata["name"],
        resource_version=metadata.get("resourceVersion", ""),
        stated=spec.get(holder.fewest),
        most=spec.get(holder.most) or holder.most_unstated,
        scales=(group, kind, target.get("name", "")),
        raised=_raised_of((metadata.get("annotations") or {}).get(ANNOTATION)),
    )


def _raised_of(annotation: str | None) -> Raised | None:
    """None where there is none, or where somebody has made nonsense of it."""
    try:
        said = json.loads(annotation or "null")
        return Raised(said["original"], int(said["to"]), str(said["by"])) if said else None
    except (ValueError, KeyError, TypeError):
        return None


def _is_kedas(hpa: Json) -> bool:
    owner = controller_of(hpa["metadata"])
    return owner is not None and (owner.group, owner.kind) == ("keda.sh", SCALED_OBJECT.kind)
