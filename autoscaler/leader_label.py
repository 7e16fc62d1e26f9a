"""The label of our own pod, by which Services find who leads: written beside the work, until it is as it should be."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from cluster.api import Api
from cluster.errors import ClusterError
from cluster.own_pod import MARK_SECONDS, OwnPod

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0
"""Before the second attempt; doubles with each."""
RETRY_LONGEST_SECONDS: Final = 8.0


class LeaderLabel:
    """Of one process; outside of a cluster there is no pod to label."""

    def __init__(self, pod: OwnPod | None, api: Api) -> None:
        self._pod = pod
        self._api = api
        self._leads = False
        self._changed = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def set(self, *, leads: bool) -> None:
        """Returns at once; what cannot be written is tried until it is, or until something else is wished."""
        if self._pod is None:
            return
        self._leads = leads
        self._changed.set()
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(self._pod), name="label of the leader")

    async def close(self) -> None:
        """What is on its way may end, if it does so soon."""
        if self._writing:
            await asyncio.wait([self._writing], timeout=MARK_SECONDS)
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _write(self, pod: OwnPod) -> None:
        told, pause = "", RETRY_SECONDS
        while self._changed.is_set() or told:
            if self._changed.is_set():
                self._changed.clear()
                pause = RETRY_SECONDS
            try:
                await pod.mark(self._api, leads=self._leads)
                told = ""
            except ClusterError as error:
                if str(error) != told:
                    log.warning("who asks for numbers may not find the leader: %s", error)
                told = str(error)
                await self._change(within=pause)
                pause = min(RETRY_LONGEST_SECONDS, 2 * pause)

    async def _change(self, *, within: float) -> None:
        try:
            async with asyncio.timeout(within):
                await self._changed.wait()
        except TimeoutError:
            pass
