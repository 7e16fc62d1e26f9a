"""One request to the API server and its answer; and what an answer that is not the wished one means.

The client library carries the requests; JSON stays JSON, since its models cover no custom resource and cost
much for fields that nobody here asks for.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import aiohttp
import orjson
from kubernetes_asyncio.client import ApiClient
from kubernetes_asyncio.config import ConfigException

from cluster.errors import ClusterError, NotObservedError, RefusedError, WithheldError
from cluster.tls import untrusted

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
METADATA_LIST = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{JSON}"

PASSING = frozenset({408, 409, 429, 500, 502, 503, 504})
"""Statuses that may be gone when the same is asked again."""

_RBAC = re.compile(r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)"')


@dataclass(frozen=True, slots=True)
class Pace:
    """Every wait of the Kubernetes side, so that a test can live faster than a cluster does."""

    request_seconds: float = 5.0
    write_seconds: float = 4.0
    """All attempts of one write together: after SIGTERM the last one must end within 5 s."""
    write_pause_seconds: float = 0.2
    """Before the second attempt; doubles with each."""
    first_sight_seconds: float = 10.0
    """How long a caller waits for a list that has never been whole."""
    blind_after_seconds: float = 30.0
    """A watch broken for longer makes what it last showed unfit to judge by."""
    watch_seconds: float = 60.0
    """The server ends each watch after this long, so that a live one says so at least this often."""
    silence_seconds: float = 75.0
    """A watch that says nothing for longer is broken, whatever its connection pretends."""
    retry_first_seconds: float = 0.2
    retry_longest_seconds: float = 10.0
    catch_up_seconds: float = 1.0
    """How long a pod may be ahead of its owner: two watches, two streams."""
    discovery_seconds: float = 30.0
    """How long an answer "there is no such kind" is believed; a CRD may be installed meanwhile."""


@dataclass(slots=True)
class Counters:
    """What the Kubernetes side did, for telemetry to read."""

    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """By HTTP status, "timeout" or "connection"."""
    relists: int = 0
    watch_failures: int = 0
    events_written: int = 0
    events_failed: int = 0
    events_suppressed: int = 0


class Lane(StrEnum):
    """Requests of one lane wait for each other, and for no others."""

    LEASE = "lease"
    LEADER = "leader"
    """What only the leader may send, a scale first of all."""
    REVIEWS = "reviews"
    """For those who ask us, whoever they are and however many."""
    OTHERS = "others"


# A thousand targets that changed together must not become a thousand connections.
AT_ONCE: Final = {Lane.LEASE: 2, Lane.LEADER: 16, Lane.REVIEWS: 4, Lane.OTHERS: 16}
"""How many requests of a lane wait for their answers."""


class UnansweredError(NotObservedError):
    """No answer: whether the request had its effect is not known."""


class StatusError(ClusterError):
    """The API server answered, and it was no."""

    def __init__(
        self, status: int, message: str, *, explained: bool = False, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.explained = explained
        """It names the field that is wrong, as validation does and a failed test of a patch does not."""
        self.retry_after_seconds = retry_after_seconds


class Api:
    """The API server as one connection sees it."""

    def __init__(self, client: ApiClient, *, pace: Pace, counters: Counters) -> None:
        self._client = client
        self._pace = pace
        self._counters = counters
        self.seconds_to_write: Callable[[], float] = lambda: math.inf
        """How long a write that is begun now may take; 0 where it may not be begun, since another replica leads."""
        self._lanes = {lane: asyncio.Semaphore(at_once) for lane, at_once in AT_ONCE.items()}

    @property
    def host(self) -> str:
        return str(self._client.configuration.host)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Iterable[tuple[str, str]] = (),
        body: Any = None,
        content_type: str = JSON,
        accept: str = JSON,
        seconds: float | None = None,
        leader_only: bool = False,
        lane: Lane = Lane.OTHERS,
    ) -> dict[str, Any]:
        """The JSON that answers; StatusError or UnansweredError otherwise.

        What only the leader may send is WithheldError where we are none, judged at the last moment.
        """
        limit = self._pace.request_seconds if seconds is None else seconds
        slots = self._lanes[Lane.LEADER if leader_only else lane]
        try:
            async with asyncio.timeout(limit) as waited, slots:
                if leader_only:
                    limit = min(limit, self._seconds_to_lead())
                    waited.reschedule(min(waited.when() or math.inf, asyncio.get_running_loop().time() + limit))
                response = await self._send(method, path, query, body, content_type, accept, None)
                async with response:
                    raw = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError, ConfigException) as error:
            raise self._unanswered(error, limit) from error
        if response.status >= 300:
            raise self._status_error(response.status, raw, response.headers.get("Retry-After"))
        try:
            answer: dict[str, Any] = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise self._unanswered(error, limit) from error
        return answer

    def _seconds_to_lead(self) -> float:
        left = self.seconds_to_write()
        if left <= 0:
            raise WithheldError("this replica does not lead, or not for long enough yet or still", kind="lease")
        return left

    @asynccontextmanager
    async def lines(
        self, path: str, *, query: Iterable[tuple[str, str]], accept: str = JSON
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of an answer that goes on; TimeoutError where it falls silent for longer than it may."""
        limits = aiohttp.ClientTimeout(total=None, sock_read=self._pace.silence_seconds)
        try:
            async with asyncio.timeout(self._pace.request_seconds):
                response = await self._send("GET", path, query, None, JSON, accept, limits)
        except (TimeoutError, aiohttp.ClientError, OSError, ConfigException) as error:
            raise self._unanswered(error, self._pace.request_seconds) from error
        try:
            if response.status >= 300:
                raw = await response.read()
                raise self._status_error(response.status, raw, response.headers.get("Retry-After"))
            yield _lines_of(response.content)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise self._unanswered(error, self._pace.silence_seconds) from error
        finally:
            # A stream that is left in its middle serves no other request; and a polite goodbye by TLS would wait
            # for a server that may be gone.
            if response.connection is not None and response.connection.transport is not None:
                response.connection.transport.abort()
            response.close()

    async def _send(
        self,
        method: str,
        path: str,
        query: Iterable[tuple[str, str]],
        body: Any,
        content_type: str,
        accept: str,
        limits: aiohttp.ClientTimeout | None,
    ) -> aiohttp.ClientResponse:
        self._counters.requests += 1
        response: aiohttp.ClientResponse = await self._client.call_api(
            path,
            method,
            query_params=list(query),
            header_params={"Accept": accept, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=limits,
        )
        return response

    def _unanswered(self, error: Exception, seconds: float) -> UnansweredError:
        if isinstance(error, TimeoutError):
            self._counters.errors["timeout"] += 1
            return UnansweredError(f"the API server at {self.host} did not answer within {seconds:.2g} s")
        self._counters.errors["connection"] += 1
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            words = untrusted(
                error.certificate_error,
                authority="name its authority in the kubeconfig",
                host="name it by a host that its certificate names",
            )
            return UnansweredError(f"the API server at {self.host} {words}")
        return UnansweredError(f"the API server at {self.host} could not be asked: {reason}")

    def _status_error(self, status: int, raw: bytes, retry_after: str | None) -> StatusError:
        self._counters.errors[str(status)] += 1
        message = raw.decode(errors="replace").strip()[:500]
        details: dict[str, Any] = {}
        try:
            answer = orjson.loads(raw)
            message, details = answer["message"], answer.get("details") or {}
        except (orjson.JSONDecodeError, KeyError, TypeError):
            pass  # a proxy in between speaks for itself
        seconds = str(retry_after or details.get("retryAfterSeconds"))
        return StatusError(
            status,
            f"HTTP {status}: {message}" if message else f"HTTP {status}",
            explained=bool(details.get("causes")),
            retry_after_seconds=float(seconds) if seconds.isdecimal() else None,
        )


async def _lines_of(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Split by hand: the reader's own `readline` gives up at a length that one large object can pass."""
    rest = b""
    async for chunk in content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line


def meaning(error: StatusError, subject: str) -> NotObservedError | RefusedError:
    """What the caller does next about a status: ask again later, or tell and hold."""
    if error.status in PASSING:
        return NotObservedError(f"{subject}: {error}")
    if error.status == 401:
        return RefusedError(
            f"{subject}: the API server does not accept these credentials; renew the token or the certificate"
        )
    if error.status == 403:
        # Admission says 403 too (a webhook, a quota); only the authorizer names a verb and a resource.
        denied = _RBAC.search(str(error))
        if denied:
            right = f"{denied['verb']} {denied['resource']}"
            return RefusedError(
                f'{subject}: user "{denied["user"]}" lacks the right "{right}"; add it to its Role', right=right
            )
    return RefusedError(f"{subject}: {error}")
