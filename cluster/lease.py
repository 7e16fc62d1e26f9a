"""The Lease that says which of several replicas writes: what its state allows, and how it is taken and given back.

Clocks of two machines are never compared: a candidate waits until a record that it saw has stood unchanged for a
whole duration by its own monotonic clock. The times inside the record are for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cluster.api import Api, Lane, StatusError, meaning
from cluster.errors import OvertakenError

_GROUP: Final = "coordination.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Terms:
    """Durations in seconds. Whoever takes over after a death writes within 2·duration + 2·retry of its last renewal."""

    duration: float = 8.0
    """Unrenewed for so long it is free; and so long a new holder keeps still."""
    renew_deadline: float = 6.0
    """A holder that could not renew for so long is none; shorter than the duration."""
    retry: float = 1.0
    """Between two renewals, or two looks."""
    request: float = 2.0
    """For one request; what is begun with less left may end too late."""


@dataclass(frozen=True, slots=True)
class Record:
    """The Lease as it stands."""

    holder: str
    """"" where it was given back."""
    renewed: str
    transitions: int
    duration_seconds: float
    acquired: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Sight:
    """A record, and since when on the monotonic clock it was seen unchanged."""

    record: Record | None
    since: float


def looked(before: Sight | None, record: Record | None, now: float) -> Sight:
    """What is seen after one look more."""
    return before if before is not None and before.record == record else Sight(record, now)


def may_take(sight: Sight, identity: str, now: float, terms: Terms) -> bool:
    """Whether a candidate may write itself into the record."""
    record = sight.record
    if record is None or record.holder in ("", identity):
        return True
    return now - sight.since >= max(terms.duration, record.duration_seconds)


def quiet_seconds(record: Record | None, identity: str, terms: Terms) -> float:
    """How long a new holder keeps still, so that what its predecessor had on its way has ended.

    Who gave the lease back had ended it all before; but where there is no record one may have been deleted.
    """
    released = record is not None and record.holder in ("", identity)
    return 0.0 if released else terms.duration


class Lease:
    """One Lease object, as one candidate reads and writes it."""

    def __init__(self, api: Api, namespace: str, name: str, identity: str, terms: Terms) -> None:
        self.identity = identity
        self.terms = terms
        self.subject = f"lease '{name}' in namespace '{namespace}'"
        self._api = api
        self._collection = f"/apis/{_GROUP}/namespaces/{namespace}/leases"
        self._name = name

    async def read(self) -> Record | None:
        """The record, None where there is none."""
        try:
            return _record_of(await self._call("GET", f"{self._collection}/{self._name}"))
        except StatusError as error:
            if error.status == 404:
                return None
            raise meaning(error, self.subject) from error

    async def write(self, before: Record | None, holder: str) -> Record:
        """Put `holder` in place of the record; OvertakenError where it is no longer that record."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        same = before is not None and before.holder == holder
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": round(self.terms.duration) if holder else 1,
            "acquireTime": before.acquired if before and (same or not holder) and before.acquired else now,
            "renewTime": now,
            "leaseTransitions": before.transitions + (bool(holder) and not same) if before else 0,
        }
        metadata: dict[str, Any] = {"name": self._name}
        body = {"apiVersion": _GROUP, "kind": "Lease", "metadata": metadata, "spec": spec}
        try:
            if before is None:
                return _record_of(await self._call("POST", self._collection, body))
            metadata["resourceVersion"] = before.version
            return _record_of(await self._call("PUT", f"{self._collection}/{self._name}", body))
        except StatusError as error:
            if error.status in (404, 409):
                raise OvertakenError(f"{self.subject} was changed by another") from error
            raise meaning(error, self.subject) from error

    async def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return await self._api.call(method, path, body=body, seconds=self.terms.request, lane=Lane.LEASE)


def _record_of(lease: dict[str, Any]) -> Record:
    spec = lease.get("spec") or {}
    return Record(
        holder=spec.get("holderIdentity") or "",
        renewed=spec.get("renewTime") or "",
        transitions=spec.get("leaseTransitions") or 0,
        duration_seconds=spec.get("leaseDurationSeconds") or 0,
        acquired=spec.get("acquireTime") or "",
        version=lease["metadata"].get("resourceVersion", ""),
    )
