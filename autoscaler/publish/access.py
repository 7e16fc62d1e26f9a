"""Who asks the metrics API, and whether he may: the cluster decides, as for every server behind its API server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Final, TypeVar

from aiohttp import web

from cluster import delegation
from cluster.api import Api
from cluster.delegation import Asker, FrontProxy
from cluster.errors import ClusterError
from cluster.tls import Tls

log = logging.getLogger(__name__)

T = TypeVar("T")

BELIEVED_SECONDS: Final = 10.0
"""How long an answer of the cluster is believed, as Kubernetes' own servers do."""
REMEMBERED: Final = 1000
REFRESH_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 5.0
MASTERS: Final = "system:masters"
"""May do everything, also while nobody can be asked about it."""


class DeniedError(Exception):
    """`status` is 401 where nobody can be recognised, 403 where somebody may not."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Access:
    """The cluster's word on requests. `run` keeps up with the authority that issues the front proxy's certificate."""

    def __init__(self, api: Api, tls: Tls) -> None:
        self._api = api
        self._tls = tls
        self._proxy: FrontProxy | None = None
        self._answers: dict[tuple[object, ...], tuple[float, object]] = {}

    async def refresh(self) -> None:
        """Read how the API server hands requests on; ClusterError if that cannot be read."""
        proxy = await delegation.front_proxy(self._api)
        if proxy != self._proxy:
            self._tls.trust(proxy.authorities if proxy else "")
            self._proxy = proxy

    async def run(self) -> None:
        """Refresh now and then, for as long as it runs; a failure is told once."""
        told = ""
        while True:
            try:
                await self.refresh()
                told = ""
            except ClusterError as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("requests to the metrics API are judged by what was known before: %s", error)
            except Exception:  # a certificate that is none; the last sound one stands
                log.exception("the front proxy's authority cannot be taken")
            await asyncio.sleep(REFRESH_SECONDS if self._proxy else RETRY_SECONDS)

    async def asker(self, request: web.Request) -> Asker:
        """Whose request it is; DeniedError (401) if that cannot be told."""
        shown = request.get_extra_info("peercert")
        if shown:
            return self._handed_on(request, shown)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise DeniedError(401, "who asks is not known: ask through the API server, or with a bearer token")
        found = await self._believed(("token", token), lambda: delegation.asker_of(self._api, token))
        if found is None:
            raise DeniedError(401, "the bearer token is nobody's: it may have expired")
        return found

    async def check(self, asker: Asker, attributes: Mapping[str, Any]) -> None:
        """DeniedError (403) unless he may."""
        if MASTERS in asker.groups:
            return
        (inner,) = attributes.values()
        key = ("may", asker.key, tuple(sorted(inner.items())))
        if not await self._believed(key, lambda: delegation.may(self._api, asker, attributes)):
            what = inner.get("resource") or inner.get("path")
            raise DeniedError(403, f'user "{asker.name}" cannot {inner["verb"]} {what}: give it a Role that says so')

    def _handed_on(self, request: web.Request, certificate: Mapping[str, Any]) -> Asker:
        # Only the front proxy's authority is trusted in the handshake, so whoever shows a certificate got it there.
        proxy = self._proxy
        subject = certificate.get("subject", ())
        names = [value for part in subject for name, value in part if name == "commonName"]
        if proxy is None or (proxy.names and not set(names) & set(proxy.names)):
            raise DeniedError(401, f"a certificate for {', '.join(names) or 'nobody'} may hand no requests on")
        user = _first(request, proxy.user_headers)
        if not user:
            raise DeniedError(401, f"a request was handed on without its user ({', '.join(proxy.user_headers)})")
        extra: dict[str, tuple[str, ...]] = {}
        for header in request.headers:
            for prefix in proxy.extra_prefixes:
                if header.lower().startswith(prefix.lower()):
                    extra[header[len(prefix) :].lower()] = tuple(request.headers.getall(header))
        groups = tuple(group for header in proxy.group_headers for group in request.headers.getall(header, ()))
        return Asker(user, groups, extra=extra)

    async def _believed(self, key: tuple[object, ...], ask: Callable[[], Awaitable[T]]) -> T:
        now = monotonic()
        known = self._answers.get(key)
        if known is not None and now - known[0] < BELIEVED_SECONDS:
            return known[1]  # type: ignore[return-value]  # what was asked under this key before
        if len(self._answers) >= REMEMBERED:
            self._answers.clear()
        answer = await ask()
        self._answers[key] = (now, answer)
        return answer


def _first(request: web.Request, headers: tuple[str, ...]) -> str:
    return next((request.headers[header] for header in headers if request.headers.get(header)), "")
