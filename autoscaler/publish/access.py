"""Who asks the metrics API: whom the API server hands on by its front proxy's certificate, or who shows a token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from autoscaler.access import Access, DeniedError
from autoscaler.wake import TOO_MANY, Allowance
from cluster import delegation
from cluster.api import Api
from cluster.delegation import Asker, FrontProxy
from cluster.errors import ClusterError
from cluster.tls import Tls

log = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 5.0


class ProxiedAccess(Access):
    """`run` keeps up with the authority that issues the front proxy's certificate."""

    def __init__(self, api: Api, tls: Tls, allowance: Allowance | None = None) -> None:
        super().__init__(api)
        self._tls = tls
        self._allowance = allowance or Allowance()
        self._proxy: FrontProxy | None = None

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
        """Whose request it is; DeniedError if that cannot be told (401), or was asked too often (429)."""
        shown = request.get_extra_info("peercert")
        if shown:
            return self._handed_on(request, shown)  # of all HPAs, from one address
        if not self._allowance.take(request.remote or ""):
            raise DeniedError(429, TOO_MANY)
        return await super().asker(request)

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


def _first(request: web.Request, headers: tuple[str, ...]) -> str:
    return next((request.headers[header] for header in headers if request.headers.get(header)), "")
