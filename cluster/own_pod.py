"""The pod that we run in: what it is called, and the label that a Service finds the leader by."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Final

from cluster.api import MERGE_PATCH, Api, StatusError, meaning
from cluster.credentials import own_namespace

LEADS: Final = "autoscaling.preheat.dev/leads"
"""On the pod that leads: what only the leader can answer is asked of it alone."""

MARK_SECONDS: Final = 1.0
"""It is on the way to an end, too, which must not wait for it."""


@dataclass(frozen=True, slots=True)
class OwnPod:
    """By the downward API's POD_NAMESPACE and POD_NAME, else by what a pod sees of itself."""

    namespace: str
    name: str

    async def mark(self, api: Api, *, leads: bool) -> None:
        """Set the label, or take it away; RefusedError or NotObservedError where that fails."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        body = {"metadata": {"labels": {LEADS: "true" if leads else None}}}
        try:
            await api.call("PATCH", path, body=body, content_type=MERGE_PATCH, seconds=MARK_SECONDS)
        except StatusError as error:
            raise meaning(error, f"pod '{self.name}' in namespace '{self.namespace}'") from error


def own_pod() -> OwnPod | None:
    """None outside of a cluster."""
    namespace = os.environ.get("POD_NAMESPACE") or own_namespace()
    name = os.environ.get("POD_NAME") or socket.gethostname()
    return OwnPod(namespace, name) if namespace else None
