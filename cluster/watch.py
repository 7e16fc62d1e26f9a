"""A list that stays true: one collection of the API server, listed once and watched from then on.

What is known here alone: how the watch protocol continues, ends, expires (410) and is started over, and how
long ago the collection was last known to be whole.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import orjson

from cluster.api import JSON, METADATA, METADATA_LIST, Api, Counters, Pace, StatusError, meaning
from cluster.errors import ClusterError, NotObservedError, RefusedError
from cluster.store import Store

T = TypeVar("T")

PAGE = 500
"""Objects a list answers at once; a larger answer would hold the event loop for longer than a tick likes."""

FAILURES_BEFORE_A_NEW_LIST = 3


class ExpiredError(ClusterError):
    """The server no longer knows the version that the watch would go on from."""


def _no_keys(_: object) -> tuple[Hashable, ...]:
    return ()


def _name_of(thing: Mapping[str, Any]) -> str:
    return str(thing["metadata"]["name"])


def namespaced_name_of(thing: Mapping[str, Any]) -> str:
    """What tells the objects of all namespaces apart."""
    return f"{thing['metadata']['namespace']}/{thing['metadata']['name']}"


class Watch(Generic[T]):
    """Keeps a store in step with one collection for as long as it runs, through every failure."""

    def __init__(
        self,
        api: Api,
        path: str,
        *,
        subject: str,
        read: Callable[[Mapping[str, Any], T | None], T | None],
        pace: Pace,
        counters: Counters,
        keys_of: Callable[[T], Iterable[Hashable]] = _no_keys,
        only_metadata: bool = False,
        name_of: Callable[[Mapping[str, Any]], str] = _name_of,
        changed: Callable[[str, T | None], None] | None = None,
        page: int = PAGE,
    ) -> None:
        """`name_of` an object is its name in the store; `changed` hears of each that is new, other or gone."""
        self.store: Store[T] = Store(keys_of)
        self.subject = subject
        self.problem: NotObservedError | RefusedError | None = None
        """What the latest attempt died of; None while the watch is well."""
        self.version: str | None = None
        """The resourceVersion up to which the collection is known; None when it must be listed."""
        self._api = api
        self._path = path
        self._read = read
        self._name_of = name_of
        self._changed = changed
        self._page = page
        self._list_as, self._watch_as = (METADATA_LIST, METADATA) if only_metadata else (JSON, JSON)
        self._pace = pace
        self._counters = counters
        self._listed = False
        self._refused = False
        self._open = False
        self._opened_at = self._heard_at = time.monotonic()
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    # -- what others ask ---------------------------------------------------------------------------------

    @property
    def seconds_since_heard(self) -> float:
        """Since the server last said anything, were it only that nothing changed."""
        return time.monotonic() - self._heard_at

    @property
    def blind_seconds(self) -> float:
        """For how long it has been broken; 0 while it is well."""
        return 0.0 if self._open else self.seconds_since_heard

    @property
    def listed(self) -> bool:
        """Whether the collection has been seen whole."""
        return self._listed

    async def whole(self) -> None:
        """Return when the store is fit to judge by; raise what stands in the way if it does not become so."""
        self.start()
        if not self._listed and not isinstance(self.problem, RefusedError):
            await self._first_sight()
        if isinstance(self.problem, RefusedError):
            # A new one each time: an exception that is raised again and again keeps every traceback.
            raise RefusedError(str(self.problem), right=self.problem.right) from self.problem.__cause__
        if not self._listed:
            raise NotObservedError(
                f"{self.subject} could not be listed within {self._pace.first_sight_seconds:g} s{self._because()}"
            )
        if self.blind_seconds > self._pace.blind_after_seconds:
            raise NotObservedError(f"{self.subject} were last seen {self.blind_seconds:.0f} s ago{self._because()}")

    def _because(self) -> str:
        return f": {str(self.problem).removeprefix(f'{self.subject}: ')}" if self.problem else ""

    async def _first_sight(self) -> None:
        deadline = time.monotonic() + self._pace.first_sight_seconds
        while not self._listed and not isinstance(self.problem, RefusedError):
            left = deadline - time.monotonic()
            if left <= 0 or not await self.next_change(left):
                return

    async def next_change(self, seconds: float) -> bool:
        """Wait for anything to change here; False when nothing did."""
        change = asyncio.get_running_loop().create_future()
        self._waiting.append(change)
        done, _ = await asyncio.wait([change], timeout=seconds)
        return bool(done)

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"watch {self._path}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # -- the protocol ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        failures = 0
        while True:
            pause = 0.0
            try:
                if self.version is None:
                    await self._list()
                await self._follow()
            except ExpiredError:
                # One expiry is ordinary (a long break, a compaction) and starts over at once.
                self.version = None
                failures += 1
                pause = self._pause(failures) if failures > 1 else 0.0
            except Exception as error:
                # Whatever it was, a watch that died unseen would leave an old picture looking new.
                failures = 1 if self._has_lived() else failures + 1
                self._counters.watch_failures += 1
                self.problem = self._to_be_told(self._problem_of(error))
                if failures % FAILURES_BEFORE_A_NEW_LIST == 0:
                    self.version = None
                pause = self._pause(failures)
                if isinstance(error, StatusError) and error.retry_after_seconds:
                    pause = max(pause, min(error.retry_after_seconds, self._pace.retry_longest_seconds))
            else:
                failures = 0
            finally:
                self._open = False
            self._tell()
            await asyncio.sleep(pause)

    def _has_lived(self) -> bool:
        return self._open and time.monotonic() - self._opened_at > self._pace.watch_seconds / 10

    def _pause(self, failures: int) -> float:
        longest = min(self._pace.retry_longest_seconds, self._pace.retry_first_seconds * 2.0 ** min(failures - 1, 16))
        # Spread, so that all watches of all programs do not come back in the same instant.
        return longest * random.uniform(0.5, 1.0)

    def _problem_of(self, error: Exception) -> NotObservedError | RefusedError:
        if isinstance(error, StatusError):
            problem = meaning(error, self.subject)
        elif isinstance(error, NotObservedError | RefusedError):
            return error
        else:
            problem = NotObservedError(f"{self.subject} could not be read: {type(error).__name__}: {error}")
        problem.__cause__ = error
        return problem

    def _to_be_told(self, problem: NotObservedError | RefusedError) -> NotObservedError | RefusedError:
        """A refusal of what was allowed is told when it is repeated.

        An API server that has just started refuses everybody until it has read its own roles.
        """
        first_refusal = isinstance(problem, RefusedError) and self._listed and not self._refused
        self._refused = isinstance(problem, RefusedError)
        return NotObservedError(str(problem)) if first_refusal else problem

    async def _list(self) -> None:
        found: dict[str, T] = {}
        query = [("limit", str(self._page))]
        while True:
            try:
                page = await self._api.call("GET", self._path, query=query, accept=self._list_as)
            except StatusError as error:
                if error.status == 410:
                    raise ExpiredError(str(error)) from error
                raise
            for item in page.get("items") or ():
                name = self._name_of(item)
                read = self._read(item, self.store.get(name))
                if read is not None:
                    found[name] = read
            if not page["metadata"].get("continue"):
                break
            query = [("limit", str(self._page)), ("continue", page["metadata"]["continue"])]
        for name in [name for name in self.store.names() if name not in found]:
            self._keep(name, None)
        for name, read in found.items():
            self._keep(name, read)
        self.version = page["metadata"]["resourceVersion"]
        if self._listed:
            self._counters.relists += 1
        self._listed = True
        self._well()
        self._hear()

    async def _follow(self) -> None:
        # Not all at the same second, and never longer than silence is believed.
        seconds = self._pace.watch_seconds * random.uniform(0.75, 1.0)
        query = [
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self.version or ""),
            ("timeoutSeconds", str(max(1, round(seconds)))),
        ]
        try:
            async with self._api.lines(self._path, query=query, accept=self._watch_as) as lines:
                self._open = True
                self._opened_at = time.monotonic()
                self._well()
                self._hear()
                async for line in lines:
                    self._take(orjson.loads(line))
                    self._hear()
        except StatusError as error:
            if error.status == 410:
                raise ExpiredError(str(error)) from error
            raise
        self._hear()
        if not self._has_lived():
            # It ended as soon as it had begun: without a pause this would be a loop of requests.
            raise NotObservedError(f"{self.subject}: the API server ends the watch as soon as it begins")

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, thing = event["type"], event["object"]
        if kind == "ERROR":
            if thing.get("code") == 410 or thing.get("reason") in ("Expired", "Gone"):
                raise ExpiredError(thing.get("message", ""))
            raise StatusError(thing.get("code", 500), thing.get("message", "the watch failed"))
        metadata = thing["metadata"]
        if kind != "BOOKMARK":
            name = self._name_of(thing)
            self._keep(name, None if kind == "DELETED" else self._read(thing, self.store.get(name)))
            self._tell()
        self.version = metadata["resourceVersion"]

    def _keep(self, name: str, read: T | None) -> None:
        before = self.store.get(name)
        if read is None:
            self.store.drop(name)
        else:
            self.store.put(name, read)
        if self._changed is not None and read != before:
            self._changed(name, read)

    def _well(self) -> None:
        self.problem = None
        self._refused = False

    def _hear(self) -> None:
        self._heard_at = time.monotonic()
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.done():
                change.set_result(None)
