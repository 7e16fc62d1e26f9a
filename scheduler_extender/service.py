"""One extender: its facts, whoever shows them, what it answers from them, and what it does when they change."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from cluster.errors import ClusterError, RefusedError
from cluster.files import ConfigError
from cluster.gpu_objects import Identity, Json, UnreadableObjectError
from cluster.placement import PlacementCluster, pod_named
from cluster.tls import Tls
from cluster.watch import Watch
from policies.placement.demand import PodDemand
from scheduler_extender import inventory
from scheduler_extender.answers import Answers
from scheduler_extender.board import Board
from scheduler_extender.config import Configuration, load
from scheduler_extender.demands import Demands
from scheduler_extender.explain import explanation
from scheduler_extender.facts import Facts, KnownNode, KnownPod, Unreadable
from scheduler_extender.mix import learnt_mix
from scheduler_extender.telemetry import Telemetry
from scheduler_extender.touching import Touch, Toucher
from scheduler_extender.web import Pages

log = logging.getLogger(__name__)

FILES_SECONDS: Final = 2.0
"""Between two looks at whether a file has changed."""
MIX_SECONDS: Final = 60.0
FOLLOW_SECONDS: Final = 0.1
"""A burst of pods is taken in at once."""


class Extender:
    """Made with what is known at the start; `run` keeps it in step until it is cancelled."""

    def __init__(
        self,
        configuration: Configuration,
        telemetry: Telemetry,
        *,
        config: Path | None = None,
        inventory_file: Path | None = None,
        cluster: PlacementCluster | None = None,
        tls: Tls | None = None,
        files_seconds: float = FILES_SECONDS,
    ) -> None:
        self.configuration = configuration
        self.telemetry = telemetry
        self._config = config
        self._inventory_file = inventory_file
        self._cluster = cluster
        self._tls = tls
        self._files_seconds = files_seconds
        self._settles: asyncio.Handle | None = None
        self._follows: asyncio.Handle | None = None
        self.board = Board(configuration.settings.placement, admitted=self._admitted)
        self.facts = Facts(self.board, Demands(configuration.models), configuration.products)
        self.facts.changed = self._settle_soon
        has_source = cluster is not None or inventory_file is not None
        self.answers = Answers(self.facts, telemetry, has_source=has_source)
        self.toucher: Toucher | None = None
        if cluster is not None:
            touch = cluster.touch if inventory_file is None else _touch_whatever_version(cluster)
            self.toucher = Toucher(self.facts, touch, configuration.settings.touch, telemetry)
        self._inventory_signature = _signature(_paths(inventory_file))
        if inventory_file is not None:
            inventory.show(inventory.read(inventory_file), self.facts)
            self.answers.whole = True
        telemetry.add_source(self._numbers)

    def pages(self) -> Pages:
        megabytes = self.configuration.settings.largest_body_megabytes
        return Pages(self.answers, self.telemetry, self.explain, largest_body_bytes=int(megabytes * 1e6))

    async def run(self) -> None:
        """Watch what there is to watch."""
        tasks: list[Coroutine[Any, Any, None]] = [self._keep_files_in_step(), self._keep_mix_in_step()]
        if self.toucher is not None:
            tasks.append(self.toucher.run())
        if self._cluster is not None and self._inventory_file is None:
            tasks.append(self._watch(self._cluster))
        self._settle_soon()
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(task)

    # -- the cluster ----------------------------------------------------------------------------------------

    async def _watch(self, cluster: PlacementCluster) -> None:
        watches: tuple[Watch[KnownNode | Unreadable], Watch[KnownPod | Unreadable]] = (
            cluster.watch_nodes(self.facts.read_node, self.facts.put_node),
            cluster.watch_pods(self.facts.read_pod, self.facts.put_pod),
        )
        told = ""
        while not all(watch.listed for watch in watches):
            problem = "; ".join(cluster.problems)
            if problem and problem != told:
                told = problem
                log.warning("nodes and pods are not known yet: %s", problem)
            waiting = [asyncio.create_task(watch.next_change(1.0)) for watch in watches if not watch.listed]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        self.answers.whole = True
        self._settle()
        # What has come until now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        log.info(
            "all nodes and pods are known: %d nodes, %d pods with GPUs", len(self.facts.nodes), len(self.facts.pods)
        )

    def _settle_soon(self) -> None:
        if self._settles is None:
            with contextlib.suppress(RuntimeError):  # without a loop it is still being made: a question settles
                self._settles = asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        self._settles = None
        try:
            self.facts.settle()
            if self.toucher is not None and self.answers.whole and self._follows is None:
                self._follows = asyncio.get_running_loop().call_later(FOLLOW_SECONDS, self._follow)
        except Exception:
            log.exception("a mistake of ours: what changed could not be taken in")

    def _follow(self) -> None:
        self._follows = None
        try:
            if self.toucher is not None:
                self.facts.settle()
                self.toucher.follow()
        except Exception:
            log.exception("a mistake of ours: the pods that wait could not be taken in")

    def _admitted(self, demand: PodDemand) -> None:
        if self.toucher is not None and self.answers.whole:
            self.toucher.admitted(demand)

    # -- files ----------------------------------------------------------------------------------------------

    async def _keep_files_in_step(self) -> None:
        """Read again what has changed; what cannot be used leaves all as it was, counted and told."""
        watched: list[tuple[str, Callable[[], tuple[Path, ...]], Callable[[], Awaitable[None]]]] = [
            ("config", lambda: self.configuration.files, self._reload_config),
            ("inventory", lambda: _paths(self._inventory_file), self._reload_inventory),
            ("tls", lambda: self._tls.files.paths if self._tls else (), self._reload_tls),
        ]
        seen = {name: await asyncio.to_thread(_signature, paths()) for name, paths, _ in watched}
        seen["inventory"] = self._inventory_signature
        while True:
            for name, paths, reload in watched:
                signature = await asyncio.to_thread(_signature, paths())
                if signature == seen[name]:
                    continue
                try:
                    await reload()
                    seen[name] = await asyncio.to_thread(_signature, paths()) if name == "config" else signature
                    self.telemetry.reloads.labels(name, "used").inc()
                    log.info("read the changed %s", name, extra={"event": f"{name}-reloaded"})
                except ConfigError as error:
                    seen[name] = signature
                    self.telemetry.reloads.labels(name, "refused").inc()
                    log.warning(
                        "the changed %s cannot be used, what was read before holds on: %s",
                        *(name, "; ".join(error.problems)),
                        extra={"event": f"{name}-refused"},
                    )
                except Exception:
                    seen[name] = signature
                    log.exception("a mistake of ours: the changed %s could not be read", name)
            await asyncio.sleep(self._files_seconds)

    async def _reload_config(self) -> None:
        before = self.configuration
        self.configuration = await asyncio.to_thread(load, self._config)
        if self.toucher is not None:
            self.toucher.settings = self.configuration.settings.touch
        self.board.settings = self.configuration.settings.placement
        self._learn_mix()
        self.facts.replace_products(self.configuration.products)
        if self.configuration.models != before.models:
            self._reread_demands()

    def _reread_demands(self) -> None:
        """Of the pods that wait; those that are bound are not asked about again."""
        self.facts.settle()
        self.facts.demands = Demands(self.configuration.models)
        for key, pod in tuple(self.facts.waiting.items()):
            if pod.seen is None:
                continue
            demand = self.facts.demands.of_seen(pod.seen)
            if demand != pod.demand:
                turned = self.board.admits_more(demand, pod.demand)
                self.facts.put_pod(key, KnownPod(pod.who, pod.place, demand, pod.seen))
                if turned:
                    self._admitted(demand)

    async def _reload_inventory(self) -> None:
        if self._inventory_file is not None:
            inventory.show(await asyncio.to_thread(inventory.read, self._inventory_file), self.facts)

    async def _reload_tls(self) -> None:
        if self._tls is not None:
            await asyncio.to_thread(self._tls.reload)

    async def _keep_mix_in_step(self) -> None:
        while True:
            self._learn_mix()
            await asyncio.sleep(MIX_SECONDS)

    def _learn_mix(self) -> None:
        settings = self.configuration.settings
        if settings.learn_mix and "mix" not in settings.placement.model_fields_set:
            mix = learnt_mix(self.facts.tensor_parallel_sizes())
            if mix is not None:
                self.board.settings = settings.placement.model_copy(update={"mix": mix})

    # -- pages ----------------------------------------------------------------------------------------------

    async def explain(self, request: web.Request) -> web.StreamResponse:
        """`GET ?pod=NAMESPACE/NAME`, or `POST` with the pod itself."""
        try:
            pod = await (self._posted_pod(request) if request.method == "POST" else self._named_pod(request))
            demand = self.facts.demands.of(pod)
        except (_NoPodError, ClusterError) as error:
            status = error.status if isinstance(error, _NoPodError) else 404 if isinstance(error, RefusedError) else 503
            return _json({"error": str(error)}, status=status)
        except UnreadableObjectError as error:
            return _json({"error": f"the pod cannot be read: {error}"}, status=400)
        metadata = pod.get("metadata") or {}
        name = f"{metadata.get('namespace') or 'default'}/{metadata.get('name') or ''}"
        self.facts.settle()
        nodes, settings, whole = self.facts.all_known(), self.board.settings, self.answers.whole

        def explained() -> web.Response:
            told = explanation(name, demand, nodes(), settings)
            return _json(told if whole else {**told, "remark": "not all nodes and pods are known yet"})

        return await asyncio.to_thread(explained)

    async def _posted_pod(self, request: web.Request) -> Json:
        try:
            value = orjson.loads(await request.read())
        except (ValueError, web.HTTPRequestEntityTooLarge) as error:
            raise _NoPodError(400, f"the request is no pod as JSON: {error}") from error
        if isinstance(value, dict) and "spec" not in value:
            # A question of the scheduler holds one, too.
            value = {key.lower(): part for key, part in value.items()}.get("pod", value)
        if not isinstance(value, dict):
            raise _NoPodError(400, "the request is JSON, but not a pod")
        return value

    async def _named_pod(self, request: web.Request) -> Json:
        named = pod_named(request.query.get("pod", ""))
        if named is None:
            said = "pod must be NAMESPACE/NAME, both as Kubernetes takes them"
            raise _NoPodError(400, f"{said}: ask /explain?pod=NAMESPACE/NAME, or POST the pod itself")
        namespace, name = named
        if self._inventory_file is not None:
            found = (await asyncio.to_thread(inventory.read, self._inventory_file)).pods.get(f"{namespace}/{name}")
            if found is None:
                raise _NoPodError(404, f"pod {namespace}/{name} with GPUs is not in {self._inventory_file}")
            return found
        if self._cluster is None:
            raise _NoPodError(404, "no cluster is watched: POST the pod itself")
        return await self._cluster.pod(namespace, name)

    def _numbers(self) -> list[tuple[str, str, float]]:
        numbers: list[tuple[str, str, float]] = [
            ("ready", "1 once all nodes and pods are known", float(self.answers.whole)),
            ("nodes", "Nodes known", len(self.facts.nodes)),
            ("node_classes", "Different ones among them", len(set(self.board.nodes.values()))),
            ("pods", "Pods known that hold GPUs or wait for some", len(self.facts.pods)),
            ("pods_waiting", "Those that wait", len(self.facts.waiting)),
            ("objects_unreadable", "Nodes and pods that cannot be read as they are now", len(self.facts.unreadable)),
        ]
        if self._cluster is not None:
            counters = self._cluster.counters
            numbers += [
                ("watch_age_seconds", "Since the most silent watch was heard", self._cluster.watch_age_seconds),
                ("watch_failures", "Watches that broke and were begun anew", counters.watch_failures),
            ]
        return numbers


def _touch_whatever_version(cluster: PlacementCluster) -> Touch:
    """The versions in a file are those of when it was written."""

    async def touch(pod: Identity, now: datetime) -> None:
        await cluster.touch(replace(pod, resource_version=""), now)

    return touch


class _NoPodError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value, default=_plain), content_type="application/json", status=status)


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else str(value)


def _paths(path: Path | None) -> tuple[Path, ...]:
    return () if path is None else (path,)


def _signature(paths: tuple[Path, ...]) -> tuple[tuple[int, int, int] | None, ...]:
    """Changes when a file is written, replaced, or a link leads elsewhere."""
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)
