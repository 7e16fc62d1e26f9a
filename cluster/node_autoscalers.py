"""Whether something may add nodes for pods that wait: Karpenter by its API, cluster-autoscaler by what it writes."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime
from typing import Any, Final

from cluster.api import Api, StatusError, meaning
from cluster.errors import ClusterError, NotObservedError

BELIEVED_SECONDS: Final = 60.0
"""How long an answer is believed."""
UNTIL_ASKED_AGAIN_SECONDS: Final = 15.0
"""After none, such as a right that was missing."""
STALE_SECONDS: Final = 900.0
"""cluster-autoscaler writes every 10 s; one that has not for so long is gone, or adds no node now."""
STATUS: Final = "cluster-autoscaler-status"
"""ConfigMap in whichever namespace cluster-autoscaler was installed into."""
BY_GROUP: Final = {"karpenter.sh": "Karpenter", "autoscaling.openshift.io": "OpenShift's cluster autoscaler"}
"""Groups of APIs that are served where somebody may add nodes."""
LAST_UPDATED: Final = "cluster-autoscaler.kubernetes.io/last-updated"
# As Go prints a time: 2026-01-02 15:04:05.999999999 +0000 UTC
_GO_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d+)? ([+-]\d{4})")


class NodeAutoscalers:
    """Of one cluster; asked once for all who want to know."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._found = ""
        self._problem: ClusterError | None = None
        self._believed_until = float("-inf")
        self._asking = asyncio.Lock()

    async def name(self) -> str:
        """Of the one that is seen, "" where there is none; a ClusterError where it cannot be told."""
        async with self._asking:
            if time.monotonic() >= self._believed_until:
                await self._ask()
        if self._problem is not None:
            raise NotObservedError(str(self._problem)) from self._problem
        return self._found

    async def _ask(self) -> None:
        try:
            self._found, self._problem = await self._look(), None
        except ClusterError as error:
            self._problem = error
        believed = BELIEVED_SECONDS if self._problem is None else UNTIL_ASKED_AGAIN_SECONDS
        self._believed_until = time.monotonic() + believed

    async def _look(self) -> str:
        try:
            groups = (await self._api.call("GET", "/apis"))["groups"]
        except StatusError as error:
            raise meaning(error, "the API groups") from error
        served = {group["name"] for group in groups}
        for group, name in BY_GROUP.items():
            if group in served:
                return name
        try:
            # By its name, so that the right to it need not be one to all ConfigMaps.
            found = await self._api.call(
                "GET", "/api/v1/configmaps", query=[("fieldSelector", f"metadata.name={STATUS}")]
            )
        except StatusError as error:
            raise meaning(error, f"configmap {STATUS}") from error
        return "cluster-autoscaler" if any(_is_alive(each, time.time()) for each in found.get("items") or ()) else ""


def _is_alive(status: dict[str, Any], now: float) -> bool:
    """It writes when it last looked; where that cannot be read it is believed to."""
    stated = (status["metadata"].get("annotations") or {}).get(LAST_UPDATED, "")
    read = _GO_TIME.match(stated)
    if read is None:
        return True
    return now - datetime.strptime("".join(read.groups()), "%Y-%m-%d %H:%M:%S%z").timestamp() < STALE_SECONDS
