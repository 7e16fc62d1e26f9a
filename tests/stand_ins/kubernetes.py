"""A small API server at the seam: lists, watches, scales, events and reviews, and fails as it is told.

It answers as kube-apiserver 1.36 was seen to answer, down to the zero replicas that a Scale leaves out and the
wordless 422 of a failed test. It checks nothing that is not asked of it here.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import itertools
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from cluster.api import Pace
from cluster.pages import Runner
from tests.stand_ins.kubernetes_objects import Object, deployment, ready_pod, replica_set

QUICK = Pace(
    write_pause_seconds=0.01,
    blind_after_seconds=0.5,
    watch_seconds=20.0,
    silence_seconds=25.0,
    retry_first_seconds=0.01,
    retry_longest_seconds=0.05,
    catch_up_seconds=0.5,
    discovery_seconds=0.1,
)
"""Quick to try again, and patient with a busy machine: a test that waits a bound out sets its own."""


@dataclass
class Fault:
    """What is answered instead, to how many of the requests that match."""

    status: int
    times: int = 1
    method: str = ""
    path: str = ""
    query: str = ""
    message: str = "told to"
    headers: dict[str, str] = field(default_factory=dict)
    after_effect: bool = False
    """The request is carried out first, then its answer is lost."""

    def matches(self, request: web.Request) -> bool:
        return (
            self.times > 0
            and self.method in ("", request.method)
            and self.path in request.path
            and (not self.query or self.query in request.query)
        )


@dataclass
class Kind:
    api_version: str
    kind: str
    plural: str
    has_scale: bool = True
    namespaced: bool = True


KINDS = [
    Kind("v1", "Pod", "pods", has_scale=False),
    Kind("v1", "Node", "nodes", has_scale=False, namespaced=False),
    Kind("apps/v1", "Deployment", "deployments"),
    Kind("apps/v1", "ReplicaSet", "replicasets"),
    Kind("apps/v1", "StatefulSet", "statefulsets"),
    Kind("apps/v1", "DaemonSet", "daemonsets", has_scale=False),
    Kind("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "leaderworkersets"),
    Kind("example.dev/v1", "ModelServer", "modelservers"),
]


EVERYWHERE = "*"
"""In a namespace's place: all of them."""


class KubernetesStandIn:
    """Start it, `put` objects into it, and read from `requests` what was asked."""

    def __init__(self) -> None:
        self.kinds = list(KINDS)
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.events: dict[str, Object] = {}
        self.faults: list[Fault] = []
        self.denied: set[str] = set()
        """Rights that we do not have, as in "patch deployments/scale"."""
        self.requests: list[tuple[str, str]] = []
        self.tokens: list[str | None] = []
        self.accepted: list[tuple[str, str]] = []
        """Path and `Accept` of each request."""
        self.bodies: list[Any] = []
        self.silent = False
        """Watches stay open and say nothing."""
        self.watches_end_at_once = False
        self.drop_answers = 0
        """So many requests are carried out, and then their connection breaks."""
        self.page = 500
        self._versions = itertools.count(100)
        self.version = 99
        self._history: list[tuple[int, str, str, Object]] = []
        self._oldest_version = 0
        self._watchers: dict[asyncio.Queue[str | None], str] = {}
        self._runner: Runner | None = None
        self._port = 0
        self.scheme = "http"

    # -- its life ------------------------------------------------------------------------------------------

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Also after `stop`, on the same port."""
        self.scheme = "https" if tls else "http"
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = Runner(application, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=tls)
        await site.start()
        assert site._server is not None
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.cut_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self._port}"

    def kubeconfig(self, path: Path, ca: str | None = None, **user: Any) -> str:
        cluster: Object = {"server": self.url}
        if ca is not None:
            cluster["certificate-authority-data"] = base64.b64encode(ca.encode()).decode()
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "us", "user": user or {"token": "a-token"}}],
            "contexts": [{"name": "ours", "context": {"cluster": "here", "user": "us"}}],
            "current-context": "ours",
        }
        path.write_text(yaml.safe_dump(content))
        return str(path)

    # -- its objects ---------------------------------------------------------------------------------------

    def put(self, *things: Object) -> None:
        """Add or replace; the watches are told, the generation rises where the spec changed."""
        for thing in things:
            stored = copy.deepcopy(thing)
            metadata = stored["metadata"]
            key = (self._plural(stored["kind"]), metadata["namespace"], metadata["name"])
            before = self.objects.get(key)
            if before and before.get("spec") != stored.get("spec"):
                metadata["generation"] = before["metadata"].get("generation", 1) + 1
            self._record("MODIFIED" if before else "ADDED", key, stored)
            self.objects[key] = stored

    def deploy(self, name: str = "vllm-a", replicas: int = 2) -> tuple[Object, Object]:
        """A Deployment with its ReplicaSet and its pods, all ready."""
        target = deployment(name, replicas)
        made = replica_set(target)
        self.put(target, made)
        for number in range(replicas):
            self.put(ready_pod(made, f"{name}-6b7c8d9f4-b000{number}", ip=f"10.0.0.{number}"))
        return target, made

    def remove(self, thing: Object) -> None:
        metadata = thing["metadata"]
        key = (self._plural(thing["kind"]), metadata["namespace"], metadata["name"])
        self._record("DELETED", key, self.objects.pop(key))

    def get(self, thing: Object) -> Object:
        metadata = thing["metadata"]
        return self.objects[self._plural(thing["kind"]), metadata["namespace"], metadata["name"]]

    def replicas(self, thing: Object) -> int:
        return int(self.get(thing)["spec"]["replicas"])

    def bookmark(self) -> None:
        self.version = next(self._versions)
        for queue, collection in self._watchers.items():
            thing = {"kind": collection, "metadata": {"resourceVersion": str(self.version)}}
            queue.put_nowait(json.dumps({"type": "BOOKMARK", "object": thing}))

    def forget_history(self, before: int | None = None) -> None:
        """What etcd's compaction does: watches that would go on from before get 410."""
        self._oldest_version = self.version if before is None else before
        self._history = [entry for entry in self._history if entry[0] > self._oldest_version]

    def cut_watches(self) -> None:
        for queue in self._watchers:
            queue.put_nowait(None)
        self._watchers.clear()

    @property
    def open_watches(self) -> int:
        return len(self._watchers)

    def number_of(self, method: str, path: str = "") -> int:
        return sum(m == method and path in p for m, p in self.requests)

    def _plural(self, kind: str) -> str:
        return next(k.plural for k in self.kinds if k.kind == kind)

    def _record(self, change: str, key: tuple[str, str, str], thing: Object) -> None:
        self.version = next(self._versions)
        thing["metadata"]["resourceVersion"] = str(self.version)
        collection = f"{key[1]}/{key[0]}"
        shown = copy.deepcopy(thing)
        self._history.append((self.version, change, collection, shown))
        for queue, watched in self._watchers.items():
            if watched in (collection, f"{EVERYWHERE}/{key[0]}") and not self.silent:
                queue.put_nowait(json.dumps({"type": change, "object": shown}))

    # -- its answers ---------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        self.tokens.append(request.headers.get("Authorization"))
        self.accepted.append((request.path, request.headers.get("Accept", "")))
        body = await request.json() if request.can_read_body else None
        self.bodies.append(body)
        for fault in self.faults:
            if fault.matches(request):
                fault.times -= 1
                if fault.after_effect:
                    await self._route(request, body)
                return _status(fault.status, fault.message, fault.headers)
        if self.drop_answers:
            self.drop_answers -= 1
            carried_out = await self._route(request, body)
            assert request.transport is not None
            request.transport.abort()
            return carried_out
        return await self._route(request, body)

    async def _route(self, request: web.Request, body: Any) -> web.StreamResponse:
        match request.path.strip("/").split("/"):
            case ["version"]:
                return web.json_response({"gitVersion": "v1.36.3"})
            case ["apis"]:
                return web.json_response({"groups": list(self._groups())})
            case ["apis", group]:
                served = [k.api_version.split("/")[1] for k in self.kinds if k.api_version.startswith(f"{group}/")]
                versions = [{"version": version} for version in dict.fromkeys(served)]
                return web.json_response({"versions": versions}) if served else _status(404, "not found")
            case ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"]:
                return self._review(body["spec"]["resourceAttributes"])
            case ["api", "v1", "namespaces", namespace, "events", *name]:
                return self._event(request.method, namespace, name[0] if name else "", body)
            case ["api", "v1", ("nodes" | "pods" | "configmaps") as plural]:
                return await self._collection(request, "" if plural == "nodes" else EVERYWHERE, plural)
            case ["api", "v1", "namespaces", namespace, "pods", name]:
                return self._pod(request.method, ("pods", namespace, name), body)
            case ["api", version] | ["apis", *_, version] if len(request.path.strip("/").split("/")) < 4:
                return self._resources(request.path.strip("/").split("/", 1)[1], version)
            case ["apis", _, _, plural]:
                return await self._collection(request, EVERYWHERE, plural)
            case [*_, "namespaces", namespace, plural]:
                return await self._collection(request, namespace, plural)
            case [*_, "namespaces", namespace, plural, name, "scale"]:
                return self._scale(request.method, (plural, namespace, name), body)
            case _:
                return _status(404, "the server could not find the requested resource")

    def _groups(self) -> Iterator[Object]:
        for api_version in sorted({k.api_version for k in self.kinds if "/" in k.api_version}):
            yield {"name": api_version.split("/")[0], "versions": [{"groupVersion": api_version}]}

    def _resources(self, api_version: str, version: str) -> web.Response:
        kinds = [k for k in self.kinds if k.api_version == api_version]
        if not kinds:
            return _status(404, "the server could not find the requested resource")
        found = [{"name": k.plural, "kind": k.kind, "namespaced": k.namespaced} for k in kinds]
        found += [{"name": f"{k.plural}/scale", "kind": "Scale", "namespaced": True} for k in kinds if k.has_scale]
        return web.json_response({"kind": "APIResourceList", "groupVersion": api_version, "resources": found})

    def _forbidden(self, verb: str, resource: str, namespace: str) -> web.Response | None:
        if f"{verb} {resource}" not in self.denied:
            return None
        return _status(
            403,
            f'{resource} is forbidden: User "us" cannot {verb} resource "{resource}" in API group "" '
            f'in the namespace "{namespace}"',
        )

    async def _collection(self, request: web.Request, namespace: str, plural: str) -> web.StreamResponse:
        watches = "watch" in request.query
        denied = self._forbidden("watch" if watches else "list", plural, namespace)
        if denied is not None:
            return denied
        bare = "as=PartialObjectMetadata" in request.headers["Accept"]
        if watches:
            return await self._watch(request, f"{namespace}/{plural}", bare=bare)
        things = [
            thing
            for key, thing in sorted(self.objects.items())
            if key[0] == plural and namespace in (EVERYWHERE, key[1])
        ]
        first = int(request.query.get("continue", "0"))
        last = first + min(self.page, int(request.query.get("limit", self.page)))
        metadata = {"resourceVersion": str(self.version)}
        if last < len(things):
            metadata["continue"] = str(last)
        # A list's items say neither apiVersion nor kind.
        items = [
            {part: value for part, value in thing.items() if part not in ("apiVersion", "kind")}
            for thing in (_bared(thing) if bare else thing for thing in things[first:last])
        ]
        return web.json_response({"kind": "List", "metadata": metadata, "items": items})

    async def _watch(self, request: web.Request, collection: str, *, bare: bool) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if since < self._oldest_version:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": f"too old resource version: {since}"}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        for version, change, watched, thing in self._history:
            plural = watched.partition("/")[2]
            if version > since and collection in (watched, f"{EVERYWHERE}/{plural}") and not self.silent:
                queue.put_nowait(json.dumps({"type": change, "object": thing}))
        if self.watches_end_at_once:
            queue.put_nowait(None)
        self._watchers[queue] = collection
        try:
            async with asyncio.timeout(float(request.query["timeoutSeconds"])):
                while (line := await queue.get()) is not None:
                    event = json.loads(line)
                    if bare:
                        event["object"] = _bared(event["object"])
                    await response.write(json.dumps(event).encode() + b"\n")
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self._watchers.pop(queue, None)
        return response

    def _scale(self, method: str, key: tuple[str, str, str], body: Any) -> web.Response:
        denied = self._forbidden(method.lower(), f"{key[0]}/scale", key[1])
        if denied is not None:
            return denied
        if key not in self.objects:
            return _status(404, f'{key[0]} "{key[2]}" not found')
        thing = self.objects[key]
        if "replicas" not in thing["spec"]:
            return _status(
                500 if method == "GET" else 422,
                'Internal error occurred: the spec replicas field ".spec.replicas" does not exist',
            )
        if method == "PATCH":
            test, change = body
            assert (test["op"], test["path"]) == ("test", "/spec/replicas")
            shown = thing["spec"]["replicas"] or None
            if test["value"] != shown or (change["op"] == "replace" and shown is None):
                return _status(422, "the server rejected our request due to an error in our request")
            if (most := thing["spec"].get("maximum")) is not None and change["value"] > most:
                causes = {"causes": [{"field": "spec.replicas", "message": "too many"}]}
                return _status(422, f"spec.replicas: must be at most {most}", details=causes)
            changed = copy.deepcopy(thing)
            changed["spec"]["replicas"] = change["value"]
            self.put(changed)
            thing = self.objects[key]
        selector = thing["spec"].get("selector", {}).get("matchLabels")
        return web.json_response(
            {
                "kind": "Scale",
                "metadata": {part: thing["metadata"][part] for part in ("name", "uid", "resourceVersion")},
                "spec": {"replicas": thing["spec"]["replicas"]} if thing["spec"]["replicas"] else {},
                "status": {
                    "selector": ",".join(f"{k}={v}" for k, v in selector.items())
                    if selector
                    else thing["status"].get("selector", "")
                },
            }
        )

    def _pod(self, method: str, key: tuple[str, str, str], body: Any) -> web.Response:
        denied = self._forbidden(method.lower(), "pods", key[1])
        if denied is not None:
            return denied
        if key not in self.objects:
            return _status(404, f'pods "{key[2]}" not found')
        if method == "PATCH":
            changed = copy.deepcopy(self.objects[key])
            if body["metadata"].get("resourceVersion") not in (None, changed["metadata"]["resourceVersion"]):
                return _status(409, "the object has been modified; please apply your changes to the latest version")
            changed["metadata"].setdefault("annotations", {}).update(body["metadata"]["annotations"])
            self.put(changed)
        return web.json_response(self.objects[key])

    def _event(self, method: str, namespace: str, name: str, body: Any) -> web.Response:
        denied = self._forbidden("create" if method == "POST" else "patch", "events", namespace)
        if denied is not None:
            return denied
        if method == "POST":
            name = body["metadata"]["name"]
            if name in self.events:
                return _status(409, f'events "{name}" already exists')
            self.events[name] = body
        elif name not in self.events:
            return _status(404, f'events "{name}" not found')
        else:
            self.events[name].update(body)
        return web.json_response(self.events[name], status=201 if method == "POST" else 200)

    def _review(self, asked: Object) -> web.Response:
        resource = "/".join(part for part in (asked["resource"], asked["subresource"]) if part)
        return web.json_response({"status": {"allowed": f"{asked['verb']} {resource}" not in self.denied}})


def _bared(thing: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "metadata": thing["metadata"]}


def _status(
    code: int, message: str, headers: dict[str, str] | None = None, details: Object | None = None
) -> web.Response:
    status = {"kind": "Status", "status": "Failure", "message": message, "code": code, "details": details or {}}
    return web.json_response(status, status=code, headers=headers)
