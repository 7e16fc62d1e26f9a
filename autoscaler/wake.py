"""`POST /wake/NAMESPACE/NAME`: somebody asks that a target which rests at zero be awake.

Whose the request is and whether he may is the cluster's to say: he needs the verb `create` on the subresource
`vllmautoscalers/wake` in that namespace. Anybody may ask often; beyond so many questions a second of one address
the cluster is not troubled with them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from aiohttp import web

from autoscaler.access import Access, DeniedError
from autoscaler.service import Service, Target
from cluster.errors import ClusterError
from policies.scaling.crd import GROUP, PLURAL, VERSION
from policies.scaling.resource import Mode

log = logging.getLogger(__name__)

PATH: Final = "/wake/{namespace}/{name}"
PER_SECOND: Final = 2.0
BURST: Final = 10.0
"""One who waits for a model asks now and then; this is a mistake, or no friend."""
ADDRESSES: Final = 1000
TOO_MANY: Final = f"too many at once: ask again in a second, {PER_SECOND:g} a second are heard"


@dataclass(slots=True)
class Allowance:
    """How many questions of each address are heard: a bucket that holds `BURST` and is filled with time."""

    clock: Callable[[], float] = monotonic
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By address, what is left and as of when."""

    def take(self, address: str) -> bool:
        """Whether one more is heard."""
        now = self.clock()
        if address not in self._left and len(self._left) >= ADDRESSES:
            self._left = {each: (_filled(left, now - at), now) for each, (left, at) in self._left.items()}
            self._left = {each: (left, at) for each, (left, at) in self._left.items() if left < BURST}
            if len(self._left) >= ADDRESSES:
                return False
        left, at = self._left.get(address, (BURST, now))
        left = _filled(left, now - at)
        heard = left >= 1
        self._left[address] = (left - 1 if heard else left, now)
        return heard


def _filled(left: float, seconds: float) -> float:
    return min(BURST, left + seconds * PER_SECOND)


@dataclass(frozen=True, slots=True)
class Waker:
    """Those who may be woken, for as long as it is we who scale them."""

    service: Service
    problem: Callable[[], str] = lambda: ""
    """Why it is not us to ask; "" if it is."""

    def find(self, key: str) -> Target | None:
        return next((target for target in self.service.targets if target.resource.key == key), None)


_WAKER: Final = web.AppKey("waker", Waker)
_ACCESS: Final = web.AppKey("access", Access)
_ALLOWANCE: Final = web.AppKey("allowance", Allowance)


def application(waker: Waker, access: Access, allowance: Allowance | None = None) -> web.Application:
    """The one page, for POST alone."""
    app = web.Application()
    app[_WAKER], app[_ACCESS], app[_ALLOWANCE] = waker, access, allowance or Allowance()
    app.add_routes([web.post(PATH, _wake)])
    return app


async def _wake(request: web.Request) -> web.Response:
    namespace, name = request.match_info["namespace"], request.match_info["name"]
    if not request.app[_ALLOWANCE].take(request.remote or ""):
        return _answer(429, TOO_MANY, {"Retry-After": "1"})
    access, waker = request.app[_ACCESS], request.app[_WAKER]
    try:
        asker = await access.asker(request)
        await access.check(asker, _attributes(namespace, name))
    except DeniedError as error:
        return _answer(error.status, str(error), {"WWW-Authenticate": "Bearer"} if error.status == 401 else {})
    except ClusterError as error:
        return _answer(503, f"the cluster could not be asked whether this is allowed: {error}")
    if problem := waker.problem():
        return _answer(503, problem, {"Retry-After": "5"})
    target = waker.find(f"{namespace}/{name}")
    if target is None:
        return _answer(404, f"no VLLMAutoscaler '{name}' in namespace '{namespace}' is followed here")
    target.wake()
    log.info("asked for by %s", asker.name, extra={"target": target.resource.key})
    return _answer(202, told_of(target))


def told_of(target: Target) -> str:
    """What comes of it, for who has asked."""
    resource, spec = target.resource, target.resource.spec
    if spec.min_replicas > 0:
        return f"{resource.key} never rests, as its minReplicas is {spec.min_replicas}"
    if spec.paused:
        return f"{resource.key} is paused, so nothing is written until spec.paused is false again"
    seconds = f"{target.policy.idle_seconds:g} s"
    awake = f"{resource.key} was asked for, and is kept awake until nothing was asked of it for {seconds}"
    match spec.mode:
        case Mode.ACTIVE:
            seen = target.history.last
            rests = seen is not None and seen.desired == 0
            return f"{awake}; it serves when its first replica has started" if rests else awake
        case Mode.SHADOW:
            return f"{resource.key} was asked for; in mode Shadow nothing is written"
        case Mode.PUBLISH | Mode.FLOOR:
            return f"{awake}, as far as those follow who scale it"


def _attributes(namespace: str, name: str) -> dict[str, dict[str, str]]:
    """The request as the cluster's authorizer sees it."""
    where = {"namespace": namespace, "group": GROUP, "version": VERSION, "resource": PLURAL}
    return {"resourceAttributes": {**where, "subresource": "wake", "name": name, "verb": "create"}}


def _answer(status: int, sentence: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=f"{sentence}\n", headers=headers)
