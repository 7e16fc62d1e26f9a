"""Who asks, and whether he may: the cluster says both, by the bearer token that is shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Final, TypeVar

from aiohttp import web

from cluster import delegation
from cluster.api import Api
from cluster.delegation import Asker

T = TypeVar("T")

BELIEVED_SECONDS: Final = 10.0
"""How long an answer of the cluster is believed, as Kubernetes' own servers do."""
REMEMBERED: Final = 1000
MASTERS: Final = "system:masters"
"""May do everything, also while nobody can be asked about it."""


class DeniedError(Exception):
    """`status` is 401 where nobody can be recognised, 403 where somebody may not, 429 where he asks too often."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Access:
    """The cluster's word on requests."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._answers: dict[tuple[object, ...], tuple[float, object]] = {}

    async def asker(self, request: web.Request) -> Asker:
        """Whose request it is; DeniedError (401) if that cannot be told."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise DeniedError(401, "who asks is not known: send a bearer token (Authorization: Bearer …)")
        found = await self._believed(("token", token), lambda: delegation.asker_of(self._api, token))
        if found is None:
            raise DeniedError(401, "the bearer token is nobody's: it may have expired")
        return found

    async def check(self, asker: Asker, attributes: Mapping[str, Any]) -> None:
        """DeniedError (403) unless he may; `attributes` holds `resourceAttributes` or `nonResourceAttributes`."""
        if MASTERS in asker.groups:
            return
        (inner,) = attributes.values()
        key = ("may", asker.key, tuple(sorted(inner.items())))
        if not await self._believed(key, lambda: delegation.may(self._api, asker, attributes)):
            what = "/".join(inner[part] for part in ("resource", "subresource") if part in inner) or inner.get("path")
            raise DeniedError(403, f'user "{asker.name}" cannot {inner["verb"]} {what}: give it a Role that says so')

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
