"""One connection to one Prometheus: identity, TLS, deadline, retry, and every failure as one clear sentence.

This module alone knows prometheus-api-client, which blocks, throws the server's warnings away, waits without end
unless told otherwise, and sends even a POST's query in the URL. It is given a `requests.Session` of ours that
mends this, and runs in daemon threads, a few at a time: a slow server delays its own targets, holds at most
those threads, and never keeps the program from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, Generic, NoReturn, TypeVar

import orjson
import requests
import urllib3
from prometheus_api_client import PrometheusConnect

from cluster.errors import NotObservedError
from cluster.prometheus_session import session_for, unreadable_files
from cluster.tls import untrusted
from policies.scaling.resource import Prometheus as Settings

MOST_AT_ONCE: Final = 4
ATTEMPTS: Final = 2
RETRY_AFTER_SECONDS: Final = 0.25
LARGEST_ANSWER_BYTES: Final = 256 * 2**20
LONGEST_QUOTE: Final = 200
"""Characters of what a server says when it fails."""
ERROR_TYPES: Final = frozenset(
    ("timeout", "canceled", "execution", "bad_data", "internal", "unavailable", "not_found", "not_acceptable")
)
"""As Prometheus spells them beside an error."""
_UNFOLDING: Final = threading.Lock()
"""Held from the parsing of an answer to its folding: unfolded it takes ten times the memory of its bytes, and threads
that parse side by side are no faster."""
# Beyond the deadline for what no timeout of a socket covers, such as a name server that is silent.
GRACE_SECONDS: Final = 0.5

log = logging.getLogger(__name__)

T = TypeVar("T")
Rows = list[dict[str, Any]]
"""A query's result as Prometheus writes it: [{"metric": {label: value}, "value": [time, "number"]}, …]."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What was made of the rows, and what the server remarked on them."""

    value: T
    warnings: tuple[str, ...] = ()
    """With any, the rows may not be all."""
    infos: tuple[str, ...] = ()
    """Hints on how the query is written."""

    @property
    def remarks(self) -> tuple[str, ...]:
        return (*self.warnings, *self.infos)


class QueryRefusedError(NotObservedError):
    """The server is well and takes this query for wrong: asking it again will not help, another one may."""


class _TroubleError(Exception):
    """Why one attempt failed; the words follow "Prometheus at URL", and `said` is what the server itself said."""

    def __init__(self, kind: str, words: str, *, passing: bool = False, said: str = "") -> None:
        super().__init__(words)
        self.kind = kind
        self.passing = passing
        self.said = said[:LONGEST_QUOTE]


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long an answer is waited for, in all; `until` is on the monotonic clock."""

    until: float
    seconds: float

    @property
    def left(self) -> float:
        return max(0.0, self.until - monotonic())

    def spent(self) -> _TroubleError:
        return _TroubleError("timeout", f"did not answer within {round(self.seconds, 1):g} s: is it overloaded?")


class Connection:
    """Questions to one server as one identity, with counts of what was asked and what went wrong.

    What a server says when it fails is for the log, unless `quotes` says that whoever reads the error may read all:
    a status is read by whoever wrote the URL, and it may be that of a server which answers us and not him.
    """

    def __init__(self, settings: Settings, *, quotes: bool = False) -> None:
        self.settings = settings
        self._quotes = quotes
        self._logged = ""
        self.requests_made = 0
        self.errors_by_kind: Counter[str] = Counter()
        self._kept = threading.local()
        """What one attempt's thread and the response hook, which runs in it, tell each other."""
        self._session = session_for(settings, self._keep)
        self._client = PrometheusConnect(
            settings.url,
            session=self._session,
            retry=urllib3.Retry(total=0, redirect=False),
            timeout=settings.timeout_seconds,
            method="POST",
        )
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        # Apart, so that reading back the past does not keep the present waiting.
        self._range_places = asyncio.Semaphore(MOST_AT_ONCE)

    def deadline(self) -> float:
        """The end, on the monotonic clock, of the time that the settings allow to whoever begins now."""
        return monotonic() + self.settings.timeout_seconds

    async def instant(
        self,
        promql: str,
        fold: Callable[[Rows], T],
        *,
        at: float | None = None,
        deadline: float | None = None,
    ) -> Answer[T]:
        """The rows of a query at one instant, the server's own now by default, folded in the thread."""
        when = {} if at is None else {"time": f"{at:.3f}"}

        def call(seconds: float) -> Rows:
            params = {**when, "timeout": _milliseconds(seconds)}
            rows: Rows = self._client.custom_query(promql, params=params, timeout=seconds)
            return rows

        return await self._ask(call, fold, deadline, self._places)

    async def over_range(
        self,
        promql: str,
        fold: Callable[[Rows], T],
        *,
        start: float,
        end: float,
        step_seconds: int,
        deadline: float | None = None,
    ) -> Answer[T]:
        """The rows of a query at every step from start to end."""

        def call(seconds: float) -> Rows:
            rows: Rows = self._client.custom_query_range(
                promql,
                datetime.fromtimestamp(start, UTC),
                datetime.fromtimestamp(end, UTC),
                f"{step_seconds}s",
                params={"timeout": _milliseconds(seconds)},
                timeout=seconds,
            )
            return rows

        return await self._ask(call, fold, deadline, self._range_places)

    async def series_names(self) -> Answer[tuple[str, ...]]:
        """Names of all series that the server has."""

        def call(seconds: float) -> Any:
            return self._client.all_metrics()

        return await self._ask(call, tuple, None, self._places)

    def close(self) -> None:
        self._session.close()

    async def _ask(
        self,
        call: Callable[[float], Any],
        fold: Callable[[Any], T],
        deadline: float | None,
        places: asyncio.Semaphore,
    ) -> Answer[T]:
        until = self.deadline() if deadline is None else deadline
        patience = _Patience(until, until - monotonic())
        attempt = 1
        while True:
            try:
                return await self._in_thread(lambda: self._attempt(call, fold, patience), patience, places)
            except _TroubleError as trouble:
                self.errors_by_kind[trouble.kind] += 1
                again = trouble.passing and patience.left > RETRY_AFTER_SECONDS
                if not again or attempt == ATTEMPTS:
                    kind = QueryRefusedError if trouble.kind == "refused" else NotObservedError
                    raise kind(f"Prometheus at {self.settings.url} {trouble}{self._quote(trouble.said)}") from trouble
            attempt += 1
            await asyncio.sleep(RETRY_AFTER_SECONDS)

    def _quote(self, said: str) -> str:
        if said and self._quotes:
            return f"; it says: {said}"
        if said and said != self._logged:
            log.warning("Prometheus at %s says: %s", self.settings.url, said)
            self._logged = said
        return ""

    async def _in_thread(self, work: Callable[[], T], patience: _Patience, places: asyncio.Semaphore) -> T:
        """Run it in a thread that nobody has to wait for: a place is taken until the thread itself ends."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(patience.left):
                await places.acquire()
        except TimeoutError:
            raise _TroubleError("timeout", "was not asked: earlier questions wait for answers") from None
        self.requests_made += 1
        future: asyncio.Future[T] = loop.create_future()

        def deliver(value: T | None, error: BaseException | None) -> None:
            places.release()
            if future.done():
                return
            if error is None:
                future.set_result(value)  # type: ignore[arg-type]  # without an error it is a T
            else:
                future.set_exception(error)

        def run() -> None:
            value, error = None, None
            try:
                value = work()
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(deliver, value, error)

        threading.Thread(target=run, name="prometheus", daemon=True).start()
        try:
            async with asyncio.timeout(patience.left + GRACE_SECONDS):
                return await future
        except TimeoutError as error:
            raise patience.spent() from error

    def _attempt(self, call: Callable[[float], Any], fold: Callable[[Any], T], patience: _Patience) -> Answer[T]:
        self._kept.patience = patience
        seconds = patience.left
        if not seconds:
            raise patience.spent()
        for problem in unreadable_files(self.settings):
            raise _TroubleError("identity", f"cannot be asked: {problem}")
        try:
            with contextlib.ExitStack() as self._kept.until_folded:
                return Answer(fold(call(seconds)), **self._kept.remarks)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            self._explain(error)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            words = "answers, but not in the form that was asked for"
            raise _TroubleError("not-prometheus", words) from error

    def _keep(self, response: requests.Response, **_: object) -> requests.Response:
        """Response hook: read within the deadline, parse fast, keep the remarks, refuse what is no answer."""
        if response.is_redirect:
            response.close()
            words = f"sends us on elsewhere (HTTP {response.status_code}): write the address meant as prometheus.url"
            raise _TroubleError("redirect", words, said=response.headers.get("location", ""))
        text = b"".join(self._chunks(response))
        self._kept.until_folded.enter_context(_UNFOLDING)
        try:
            body = orjson.loads(text)
        except orjson.JSONDecodeError:
            body = None
        good = response.status_code == 200 and isinstance(body, dict) and body.get("status") == "success"
        if not good:
            raise _refusal(response, body, text)
        self._kept.remarks = {kind: tuple(map(str, body.get(kind) or ())) for kind in ("warnings", "infos")}
        response.json = lambda **_: body  # type: ignore[method-assign]
        return response

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The body as it comes in: `response.content` would wait for a trickle without end."""
        size = 0
        while chunk := response.raw.read1(1 << 18, decode_content=True):
            size += len(chunk)
            if size > LARGEST_ANSWER_BYTES:
                response.close()
                words = f"answered with more than {LARGEST_ANSWER_BYTES >> 20} MiB: ask it for less at once"
                raise _TroubleError("too-large", words)
            if not self._kept.patience.left:
                response.close()
                raise self._kept.patience.spent()
            yield chunk

    def _explain(self, error: Exception) -> NoReturn:
        tls = _within(error, ssl.SSLError)
        if tls is not None or isinstance(error, requests.exceptions.SSLError):
            raise _TroubleError("tls", _tls_words(tls or error)) from error
        if _within(error, socket.gaierror) is not None:
            raise _TroubleError("unreachable", "has no address: look at the host of prometheus.url") from error
        if _within(error, ConnectionRefusedError) is not None:
            words = "refuses connections: is it running, and is the port of prometheus.url right?"
            raise _TroubleError("unreachable", words, passing=True) from error
        # After the two above: urllib3 counts every connection that did not come about among the timeouts.
        if _within(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)) is not None:
            raise self._kept.patience.spent() from error
        if _within(error, (ConnectionError, urllib3.exceptions.ProtocolError)) is not None:
            raise _TroubleError("unreachable", "broke the connection off", passing=True) from error
        raise _TroubleError("unreachable", f"cannot be reached: {error}", passing=True) from error


def _refusal(response: requests.Response, body: Any, text: bytes) -> _TroubleError:
    status = response.status_code
    told = body if isinstance(body, dict) else {}
    said = " ".join(str(told.get("error") or text[:LONGEST_QUOTE].decode("utf-8", "replace")).split())
    kind = told.get("errorType")
    if status == 200:
        return _TroubleError("not-prometheus", "answers, but not as Prometheus does", said=said)
    if status in (401, 403):
        words = f"does not let us in (HTTP {status}): set prometheus.bearerTokenFile or basicAuth"
        return _TroubleError("identity", words, said=said)
    if status == 404:
        words = "has no /api/v1: if it is served below a path, write the path into prometheus.url"
        return _TroubleError("not-prometheus", words)
    why = f"(HTTP {status}, {kind})" if isinstance(kind, str) and kind in ERROR_TYPES else f"(HTTP {status})"
    if status in (400, 405, 422):
        return _TroubleError("refused", f"refuses the question {why}", said=said)
    return _TroubleError(f"http-{status}", f"is not able to answer {why}", passing=True, said=said)


def _tls_words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return untrusted(
            error,
            authority="name its authority in prometheus.caFile",
            host="write the host that the certificate names into prometheus.url",
        )
    why = getattr(error, "reason", None) or str(error)
    if why in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        return f"does not speak TLS ({why}): write http:// in prometheus.url if it is meant to be plain"
    return f"cannot be spoken to over TLS ({why}): look at prometheus.caFile, certFile and keyFile"


Kind = TypeVar("Kind", bound=BaseException)


def _within(error: BaseException, kind: type[Kind] | tuple[type[Kind], ...]) -> Kind | None:
    """The first of that kind among the error, what it wraps and what led to it; libraries nest them deep."""
    seen: set[int] = set()
    left: list[BaseException] = [error]
    while left:
        current = left.pop()
        if isinstance(current, kind):
            return current
        if id(current) not in seen:
            seen.add(id(current))
            inner = (getattr(current, "reason", None), current.__cause__, current.__context__, *current.args)
            left.extend(item for item in inner if isinstance(item, BaseException))
    return None


def _milliseconds(seconds: float) -> str:
    return f"{max(1, int(seconds * 1000))}ms"
