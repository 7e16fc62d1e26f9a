"""Pods that wait although they would now be admitted are touched, so that their scheduler asks again.

kube-scheduler tries a rejected pod again when something in the cluster moves, and its own watch may have shown it
that before ours showed it to us; an edited table moves nothing at all. Only a change of the pod itself helps then.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cluster.errors import ClusterError, OvertakenError, RefusedError
from cluster.gpu_objects import Identity
from policies.placement.demand import PodDemand
from scheduler_extender.config import TouchSettings
from scheduler_extender.facts import Facts, KnownPod
from scheduler_extender.telemetry import Telemetry

log = logging.getLogger(__name__)

SPREAD_SECONDS: Final = 0.2
"""Replicas have the same news; the one that waits longer sees that the other has written."""
AGAIN_SECONDS: Final = 1.0
"""After a write that nobody answered, or that the pod had changed under."""

Touch = Callable[[Identity, datetime], Awaitable[None]]


@dataclass(slots=True)
class _Due:
    turned_at: float
    """Unix time at which its verdict turned."""
    at: float
    """Unix time at which it may be written."""


class Toucher:
    """Hears what the board admits, and writes on the pods that this is news for."""

    def __init__(self, facts: Facts, touch: Touch, settings: TouchSettings, telemetry: Telemetry) -> None:
        self.settings = settings
        self._facts = facts
        self._touch = touch
        self._telemetry = telemetry
        self._due: dict[str, _Due] = {}
        self._written_at: dict[str, float] = {}
        """By uid, of pods that still wait."""
        self._looked: set[str] = set()
        """Uids of the waiting pods that a scheduler was seen to have rejected."""
        self._wake = asyncio.Event()

    # -- news -----------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Take in which pods wait; to be called when pods or nodes have changed and the board is in step."""
        waiting = self._facts.waiting.values()
        # Pods that ask alike share one object: thousands of them are told apart without being compared.
        self._facts.board.watch({id(pod.demand): pod.demand for pod in waiting}.values())
        rejected = {pod.who.uid for pod in waiting if _is_rejected(pod)}
        fresh = rejected - self._looked
        self._looked = rejected
        if fresh:
            # Rejected while the nodes were as the scheduler saw them, and not yet as we see them now.
            recent = self._facts.recently_changed()
            for key, pod in self._facts.waiting.items():
                if pod.who.uid in fresh and self._facts.board.fits_any(pod.demand, recent):
                    self._put_due(key, pod)
        uids = {pod.who.uid for pod in waiting}
        for uid in self._written_at.keys() - uids:
            del self._written_at[uid]

    def admitted(self, demand: PodDemand) -> None:
        """Some node has come to pass for it."""
        for key, pod in self._facts.waiting.items():
            if pod.demand == demand and _is_rejected(pod):
                self._put_due(key, pod)

    def _put_due(self, key: str, pod: KnownPod) -> None:
        if not self.settings.enabled or not self._is_ours(pod):
            return
        now = time.time()
        at = max(now + random.uniform(0.0, SPREAD_SECONDS), self._last_touch(pod) + self.settings.seconds)
        before = self._due.get(key)
        self._due[key] = _Due(now, at if before is None else min(at, before.at))
        self._wake.set()

    def _is_ours(self, pod: KnownPod) -> bool:
        waiting = pod.place.waiting
        return waiting is not None and (not self.settings.schedulers or waiting.scheduler in self.settings.schedulers)

    def _last_touch(self, pod: KnownPod) -> float:
        """By whichever replica; 0 where there was none."""
        told = 0.0
        if pod.place.waiting is not None and pod.place.waiting.touched:
            try:
                told = datetime.fromisoformat(pod.place.waiting.touched).timestamp()
            except ValueError:
                told = 0.0  # somebody else's words
        # Of a clock that is ahead of ours we would otherwise wait for the future.
        return max(min(told, time.time()), self._written_at.get(pod.who.uid, 0.0))

    # -- writing --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write what is due, for as long as it runs."""
        while True:
            self._wake.clear()
            now = time.time()
            for key in [key for key, due in self._due.items() if due.at <= now]:
                await self._write(key, self._due.pop(key))
            next_at = min((due.at for due in self._due.values()), default=None)
            try:
                async with asyncio.timeout(None if next_at is None else max(0.0, next_at - time.time())):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _write(self, key: str, due: _Due) -> None:
        pod = self._facts.waiting.get(key)
        if pod is None or not _is_rejected(pod):
            return  # bound, gone, or being looked at again
        last = self._last_touch(pod)
        if last > due.turned_at:
            return  # another replica was first
        if time.time() - last < self.settings.seconds:
            self._due[key] = _Due(due.turned_at, last + self.settings.seconds)
            return
        result = "written"
        try:
            await self._touch(pod.who, datetime.now(UTC))
            self._written_at[pod.who.uid] = time.time()
            log.info("touched pod %s: some node passes for it now", key)
        except OvertakenError:
            result = "overtaken"
            self._due.setdefault(key, _Due(due.turned_at, time.time() + AGAIN_SECONDS))
        except RefusedError as error:
            result = "refused"
            log.warning("pod %s waits for a node that passes, and may not be touched: %s", key, error)
        except ClusterError:
            result = "unanswered"
            self._due.setdefault(key, _Due(due.turned_at, time.time() + AGAIN_SECONDS))
        except Exception:
            result = "failed"
            log.exception("a mistake of ours: pod %s could not be touched", key)
        self._telemetry.touched.labels(result).inc()


def _is_rejected(pod: KnownPod) -> bool:
    return pod.place.waiting is not None and pod.place.waiting.unschedulable
