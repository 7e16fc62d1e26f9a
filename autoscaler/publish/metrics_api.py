"""`external.metrics.k8s.io/v1beta1` as an HPA asks it: one number of one VLLMAutoscaler, or an error.

Never zero and never a sum: an HPA adds up all that a selector finds, so one that finds several is refused. An HPA
that is answered with an error holds what it has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from autoscaler.access import Access, DeniedError
from autoscaler.publish.numbers import LABEL, METRIC, Number, PublishedNumbers, StaleNumberError, UnknownNumberError
from cluster.errors import ClusterError
from cluster.selectors import Selector

GROUP: Final = "external.metrics.k8s.io"
VERSION: Final = "v1beta1"
GROUP_VERSION: Final = f"{GROUP}/{VERSION}"
HEALTH: Final = ("/healthz", "/livez", "/readyz")

REASONS: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}

_NUMBERS: Final = web.AppKey("numbers", PublishedNumbers)
_ACCESS: Final = web.AppKey("access", Access)


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def application(numbers: PublishedNumbers, access: Access) -> web.Application:
    """Discovery, the metric, and pages of health that anybody may read."""
    app = web.Application(middlewares=[_judged])
    app[_NUMBERS], app[_ACCESS] = numbers, access
    app.add_routes(
        [
            *(web.get(path, _healthy) for path in HEALTH),
            web.get("/apis", _groups),
            web.get(f"/apis/{GROUP}", _group),
            web.get(f"/apis/{GROUP_VERSION}", _resources),
            web.get(f"/apis/{GROUP_VERSION}/namespaces/{{namespace}}/{{metric}}", _metric),
        ]
    )
    return app


@web.middleware
async def _judged(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The cluster's access rules before, and every error as the Status that Kubernetes' clients read."""
    try:
        if request.path not in HEALTH:
            access = request.app[_ACCESS]
            await access.check(await access.asker(request), _attributes(request))
        return await handler(request)
    except (DeniedError, _RefusedError) as error:
        return _status(error.status, str(error))
    except web.HTTPException as error:
        return _status(error.status, f"{request.method} {request.path}: {error.reason}")
    except ClusterError as error:
        return _status(503, f"the cluster could not be asked whether this is allowed: {error}")


def _attributes(request: web.Request) -> dict[str, dict[str, str]]:
    """The request as the cluster's authorizer sees it."""
    verb = {"GET": "list", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(
        request.method, request.method.lower()
    )
    asked = request.match_info
    if "metric" not in asked:
        return {"nonResourceAttributes": {"path": request.path, "verb": request.method.lower()}}
    where = {"namespace": asked["namespace"], "resource": asked["metric"], "group": GROUP, "version": VERSION}
    return {"resourceAttributes": {**where, "verb": verb}}


async def _healthy(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _groups(request: web.Request) -> web.Response:
    return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": [_described()]})


async def _group(request: web.Request) -> web.Response:
    return web.json_response({"kind": "APIGroup", "apiVersion": "v1", **_described()})


def _described() -> dict[str, Any]:
    version = {"groupVersion": GROUP_VERSION, "version": VERSION}
    return {"name": GROUP, "versions": [version], "preferredVersion": version}


async def _resources(request: web.Request) -> web.Response:
    metric = {
        "name": METRIC,
        "singularName": "",
        "namespaced": True,
        "kind": "ExternalMetricValueList",
        "verbs": ["get"],
    }
    body = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION, "resources": [metric]}
    return web.json_response(body)


async def _metric(request: web.Request) -> web.Response:
    namespace, metric = request.match_info["namespace"], request.match_info["metric"]
    if metric != METRIC:
        raise _RefusedError(404, f"there is no external metric '{metric}': Preheat publishes {METRIC}")
    name, number = _chosen(request.app[_NUMBERS], namespace, request.query.get("labelSelector", ""))
    value = {
        "metricName": METRIC,
        "metricLabels": {LABEL: name},
        "timestamp": datetime.fromtimestamp(number.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "value": str(number.replicas),
    }
    return web.json_response(
        {"kind": "ExternalMetricValueList", "apiVersion": GROUP_VERSION, "metadata": {}, "items": [value]}
    )


def _chosen(numbers: PublishedNumbers, namespace: str, selector: str) -> tuple[str, Number]:
    try:
        wanted = Selector.of_string(selector)
    except ValueError as error:
        raise _RefusedError(400, str(error)) from error
    there = numbers.names(namespace)
    found = [name for name in there if wanted.selects({LABEL: name})]
    if not found:
        known = ", ".join(there) or "none"
        raise _RefusedError(
            404, f"no VLLMAutoscaler of mode Publish in namespace '{namespace}' has '{selector}' (there: {known})"
        )
    if len(found) > 1:
        raise _RefusedError(
            400,
            f"'{selector}' finds {', '.join(found)}, whose numbers must not be added up: "
            f"name one, as in selector: {{matchLabels: {{{LABEL}: {found[0]}}}}}",
        )
    try:
        return found[0], numbers.number(namespace, found[0])
    except StaleNumberError as error:
        raise _RefusedError(503, str(error)) from error
    except UnknownNumberError as error:  # it has gone since
        raise _RefusedError(404, str(error)) from error


def _status(code: int, message: str) -> web.Response:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": REASONS.get(code, ""),
        "code": code,
    }
    return web.json_response(body, status=code)
