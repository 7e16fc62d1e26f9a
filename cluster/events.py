"""Kubernetes events on a target: aggregated, limited, never in the way.

Written as core/v1 with `count` and `lastTimestamp`, not as events.k8s.io/v1 with `series`: every reader of
events knows these two fields, `kubectl get events` sorts by them, and a core event without them reads as
"<unknown>" there. The rules are those of the controllers' own recorder: the same event again raises a count;
more than ten different ones of one reason in ten minutes become one; after a burst of 25 an object is heard once
in five minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cluster.api import MERGE_PATCH, Api, Counters, StatusError, UnansweredError, meaning
from cluster.errors import ClusterError

COMPONENT = "preheat"
BURST = 25
REFILL_SECONDS = 300.0
SIMILAR_AT_MOST = 10
SIMILAR_WITHIN_SECONDS = 600.0
REMEMBERED = 4096
"""Objects and events remembered for aggregation; the longest unused are forgotten."""
QUEUED_AT_MOST = 1000
LONGEST_MESSAGE = 1024
LONGEST_NAME = 230
"""Of 253, the rest being for the number that sets an event apart."""

log = logging.getLogger(__name__)


class EventType(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


@dataclass(slots=True)
class _Written:
    name: str
    count: int


@dataclass(slots=True)
class _Similar:
    messages: OrderedDict[str, None] = field(default_factory=OrderedDict)
    last_at: float = 0.0


@dataclass(frozen=True, slots=True)
class _Entry:
    subject: Subject
    reason: str
    message: str
    type: EventType
    time: datetime


class _Recent(OrderedDict[Any, Any]):
    """Forgets the longest unused."""

    def touch(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self:
            self[key] = make()
            if len(self) > REMEMBERED:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


class Events:
    """Takes events at once and writes them when it can."""

    def __init__(self, api: Api, counters: Counters, *, clock: Callable[[], float] = time.time) -> None:
        self._api = api
        self._counters = counters
        self._clock = clock
        self._queue: deque[_Entry] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._buckets = _Recent()
        self._similar = _Recent()
        self._written = _Recent()
        self._task: asyncio.Task[None] | None = None
        self._told: set[str] = set()
        self._number = 0

    def take(self, subject: Subject, reason: str, message: str, type_: EventType) -> None:
        """Never waits and never fails; an event too many is counted and dropped."""
        now = self._clock()
        if not self._is_allowed(subject, now) or len(self._queue) >= QUEUED_AT_MOST:
            self._counters.events_suppressed += 1
            return
        message = self._combined(subject, reason, message, type_, now)[:LONGEST_MESSAGE]
        self._queue.append(_Entry(subject, reason, message, type_, datetime.fromtimestamp(now, UTC)))
        self._idle.clear()
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="events")

    async def close(self, seconds: float) -> None:
        """Write what is queued, for no longer than this."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _is_allowed(self, subject: Subject, now: float) -> bool:
        bucket: _Bucket = self._buckets.touch(subject, lambda: _Bucket(BURST, now))
        bucket.tokens = min(BURST, bucket.tokens + max(0.0, now - bucket.at) / REFILL_SECONDS)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _combined(self, subject: Subject, reason: str, message: str, type_: EventType, now: float) -> str:
        similar: _Similar = self._similar.touch((subject, reason, type_), _Similar)
        if now - similar.last_at > SIMILAR_WITHIN_SECONDS:
            similar.messages.clear()
        similar.last_at = now
        similar.messages[message] = None
        if len(similar.messages) <= SIMILAR_AT_MOST:
            return message
        similar.messages.popitem(last=False)
        return f"(combined from similar events): {message}"

    async def _run(self) -> None:
        while True:
            while self._queue:
                entry = self._queue.popleft()
                try:
                    await self._write(entry)
                    self._counters.events_written += 1
                except ClusterError as error:
                    self._counters.events_failed += 1
                    self._tell(error, entry)
                except Exception:
                    self._counters.events_failed += 1
                    log.exception("an event on %s could not be written", entry.subject.name)
            self._idle.set()
            self._wake.clear()
            await self._wake.wait()

    def _tell(self, error: ClusterError, entry: _Entry) -> None:
        """Once a reason: an event is a courtesy, and its failure must not fill the log instead."""
        about = f"events in namespace '{entry.subject.namespace}'"
        text = str(meaning(error, about)) if isinstance(error, StatusError) else f"{about}: {error}"
        if text not in self._told and len(self._told) < REMEMBERED:
            self._told.add(text)
            log.warning("%s", text)

    async def _write(self, entry: _Entry) -> None:
        subject = entry.subject
        # The combined ones differ in their message and are one all the same.
        is_combined = entry.message.startswith("(combined from similar events): ")
        key = (subject, entry.reason, entry.type, "" if is_combined else entry.message)
        path = f"/api/v1/namespaces/{subject.namespace}/events"
        moment = entry.time.strftime("%Y-%m-%dT%H:%M:%SZ")
        written: _Written | None = self._written.get(key)
        if written is not None:
            self._written.move_to_end(key)
            body = {"count": written.count + 1, "lastTimestamp": moment, "message": entry.message}
            try:
                await self._api.call("PATCH", f"{path}/{written.name}", body=body, content_type=MERGE_PATCH)
            except StatusError as error:
                if error.status != 404:
                    raise
                # Events live for an hour by default: this one is over, the next begins.
            else:
                written.count += 1
                return
        self._number = max(self._number + 1, int(entry.time.timestamp() * 1e6))
        name = f"{subject.name[:LONGEST_NAME]}.{self._number:x}"
        await self._create(path, name, entry, moment)
        self._written.pop(key, None)
        self._written.touch(key, lambda: _Written(name, 1))

    async def _create(self, path: str, name: str, entry: _Entry, moment: str) -> None:
        subject = entry.subject
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": subject.namespace},
            "involvedObject": {
                "apiVersion": subject.api_version,
                "kind": subject.kind,
                "namespace": subject.namespace,
                "name": subject.name,
                "uid": subject.uid,
            },
            "reason": entry.reason,
            "message": entry.message,
            "type": entry.type.value,
            "count": 1,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
        }
        try:
            await self._api.call("POST", path, body=event)
        except UnansweredError:
            try:
                await self._api.call("POST", path, body=event)
            except StatusError as error:
                if error.status != 409:  # the first one had worked, its answer was lost
                    raise
