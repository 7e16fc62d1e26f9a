"""One whole tick of 1,000 targets of 3 pods on one Prometheus: readings, observations, decisions, memory.

All of it is the autoscaler's own code, from `Service.turn` down to the sockets; only the servers are not. Prometheus
is another process that knows its answers beforehand (bodies of the true size, what `sum by` and `max by` leave of the
recorded page of vLLM 0.32, once a pod), and the Kubernetes side is a dictionary: what watching and patching cost is
not in it. Every target remembers eight days, and each tick refits its share of them. Memory is that of one heap for
all threads, which the image and `make bench` ask glibc for (`MALLOC_ARENA_MAX=1`).

The bound is the same bodies, fetched by bare aiohttp and parsed by orjson, four at once as we ask for them; beside it
stands an empty GET, which is what a request costs that asks nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

import aiohttp
import numpy as np
import orjson

from autoscaler.cluster_fleet import ClusterFleet, Pasts, Readings, shared_pasts, shared_readings
from autoscaler.program import collect_rarely
from autoscaler.service import Service, Target, target_of
from autoscaler.telemetry import Telemetry
from benchmarks.parts import canned_prometheus
from benchmarks.parts.canned_prometheus import TICK_SECONDS
from benchmarks.parts.measuring import (
    Row,
    Took,
    held_bytes,
    median_cpu,
    median_wall,
    resident_bytes,
    seconds,
    show,
    show_machine,
    size,
    timed_async,
    times,
    within,
)
from benchmarks.parts.weeks import full_story
from cluster.events import EventType
from cluster.objects import TargetState
from cluster.prometheus import Prometheus
from policies.scaling.history import History
from policies.scaling.observation import Pod, PodStage
from policies.scaling.resource import API_VERSION, KIND, ScaleTargetRef, VLLMAutoscaler
from policies.scaling.resource_reading import read
from policies.scaling.series import Series
from tests.policies.scaling.story import policy

TARGETS: Final = 1_000
TICKS: Final = 8
EMPTY_REQUESTS: Final = 200
TOLD: Final = ("preheat_turns_total", "preheat_errors_total")


class KubernetesForNothing:
    """The targets' state, ready made."""

    def __init__(self, states: dict[str, TargetState]) -> None:
        self.states = states
        self.writes = 0

    async def target(self, ref: ScaleTargetRef, namespace: str) -> TargetState:
        return self.states[ref.name]

    async def scale(self, ref: ScaleTargetRef, namespace: str, *, expected: int, replicas: int) -> int:
        self.writes += 1
        return replicas

    async def room(self, namespace: str, state: TargetState) -> None:
        return None

    async def rivals(self, ref: ScaleTargetRef, namespace: str) -> tuple[()]:
        return ()

    async def kept_available(self, namespace: str, own: Collection[str], desired: int) -> None:
        return None

    async def prefer_for_deletion(
        self, ref: ScaleTargetRef, namespace: str, own: Sequence[str], first: Sequence[str]
    ) -> None: ...

    async def event(
        self,
        ref: ScaleTargetRef,
        namespace: str,
        uid: str,
        reason: str,
        message: str,
        type_: EventType = EventType.NORMAL,
    ) -> None: ...


class Bench:
    """The autoscaler's parts, joined as its program joins them."""

    def __init__(self, url: str, start: float, history: History) -> None:
        self.now = self.start = start
        self.resources = [resource(number, url) for number in range(TARGETS)]
        states = {r.spec.scale_target_ref.name: state(n, start) for n, r in enumerate(self.resources)}
        self.kubernetes = KubernetesForNothing(states)
        self.prometheus = Prometheus(self.resources[0].spec.prometheus)
        self.readings = shared_readings(self.prometheus, clock=lambda: self.now)
        self.pasts = shared_pasts(self.prometheus, clock=lambda: self.now)
        self.targets = [self._target(r, self.readings, self.pasts, history) for r in self.resources]
        self.service = Service(self.targets, Telemetry("0"), tick_seconds=TICK_SECONDS)

    def _target(self, stated: VLLMAutoscaler, readings: Readings, pasts: Pasts, history: History) -> Target:
        fleet = ClusterFleet(stated, self.kubernetes, readings, pasts, clock=lambda: self.now)
        target = target_of(stated, fleet, tick_seconds=TICK_SECONDS)
        target.history = own_copy(history)
        return target

    async def turns(self) -> None:
        await asyncio.gather(*(self.service.turn(target) for target in self.targets))


def resource(number: int, url: str) -> VLLMAutoscaler:
    namespace, name = canned_prometheus.target_name(number)
    return read(
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "scaleTargetRef": {"name": name},
                "minReplicas": 3,
                "maxReplicas": 8,
                "onConflict": "Override",  # nothing here ever scales, which looks like somebody who puts back
                "objectives": {"ttftSeconds": 2, "tpotSeconds": 0.06},
                "prometheus": {"url": url},
            },
        }
    )


def state(number: int, now: float) -> TargetState:
    """Three pods that have been ready for a day."""
    then = now - 86_400.0
    named = canned_prometheus.pods_of(number)
    pods = tuple(
        Pod(pod.name, PodStage.READY, then, then + 1, then + 5, then + 70, uid=f"uid-of-{pod.name}") for pod in named
    )
    _, name = canned_prometheus.target_name(number)
    return TargetState(f"uid-of-{name}", len(pods), f"app={name}", pods, {pod.name: pod.ip for pod in named})


def own_copy(history: History) -> History:
    """A history whose arrays are no other target's, and whose last look is not of other pods."""

    def own(series: Series | None) -> Series | None:
        return series and replace(series, sums=np.array(series.sums))

    return replace(
        history,
        last=None,
        ticks=np.array(history.ticks),
        recent=np.array(history.recent),
        fine=own(history.fine),
        coarse=own(history.coarse),
    )


async def main() -> None:
    """Print one table."""
    show_machine()
    collect_rarely()
    story = full_story(canned_prometheus.PODS_A_TARGET, policy(min_replicas=3, max_replicas=8))
    start = story.observations[-1].time + TICK_SECONDS
    with canned_prometheus.running(TARGETS, start) as url:
        bench = Bench(url, start, story.history)
        async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(60)) as session:
            await bench.turns()  # the first look: it learns the buckets' edges, and every question is asked once
            async with session.get("/prepare", params={"ticks": TICKS}):
                pass
            ticks, requests, refits = await measured_ticks(bench, session)
            _, peak_bytes = resident_bytes()
            async with session.get("/asked", params={"tick": 1}) as response:
                questions: list[str] = orjson.loads(await response.read())
            bare = [await timed_async(fetch_and_parse(session, questions)) for _ in ticks]
            empty = [await timed_async(empty_get(session)) for _ in range(EMPTY_REQUESTS)]
    bench.prometheus.close()
    bound, nothing = [took for _, took in bare], [took for _, took in empty]
    work, wall = median_cpu(ticks), median_wall(ticks)
    parsing = f"fetch + orjson {seconds(median_cpu(bound))}"
    show(
        f"a tick of {TARGETS} targets of {canned_prometheus.PODS_A_TARGET} pods, each with eight days of memory: "
        f"median of {len(ticks)}, {min(refits)}–{max(refits)} targets refitted in each",
        [
            Row(
                "processor time of a tick",
                seconds(work),
                parsing,
                times(work, median_cpu(bound)),
                within("<= 1.5 s", work <= 1.5),
            ),
            Row("", "", f"empty GET {seconds(median_cpu(nothing))}", times(work, median_cpu(nothing))),
            Row(
                "wall time of a tick",
                seconds(wall),
                f"fetch + orjson {seconds(median_wall(bound))}",
                times(wall, median_wall(bound)),
            ),
            Row("answers a tick", size(bare[0][0])),
            Row("HTTP requests a tick", str(max(requests)), target=within("<= 20", max(requests) <= 20)),
            Row(
                "memory at its highest",
                size(peak_bytes),
                f"histories {size(histories_bytes(bench.targets))}",
                times(peak_bytes, histories_bytes(bench.targets)),
                within("<= 300 MB", peak_bytes <= 300e6),
            ),
        ],
    )
    outcomes: Counter[str] = Counter()
    for target in bench.targets:
        outcomes.update({label: n for (name, label), n in target.figures.counts.items() if name in TOLD})
    print("  turns and errors:", ", ".join(f"{label} {n}" for label, n in sorted(outcomes.items())), end="\n\n")


def histories_bytes(targets: Sequence[Target]) -> int:
    return sum(held_bytes(target.history) for target in targets)


async def measured_ticks(bench: Bench, session: aiohttp.ClientSession) -> tuple[list[Took], list[int], list[int]]:
    """Of each tick what it took, its requests to Prometheus, and how many targets refitted."""
    ticks, requests, refits = [], [], []
    for number in range(1, TICKS):
        async with session.get("/tick", params={"number": number}):
            bench.now = bench.start + number * TICK_SECONDS
        fitted = [target.history.fitted_at for target in bench.targets]
        before = bench.prometheus.connection.requests_made
        _, took = await timed_async(bench.turns())
        ticks.append(took)
        requests.append(bench.prometheus.connection.requests_made - before)
        refits.append(sum(t.history.fitted_at != at for t, at in zip(bench.targets, fitted, strict=True)))
    return ticks, requests, refits


async def fetch_and_parse(session: aiohttp.ClientSession, questions: Sequence[str]) -> int:
    """The bound: how many bytes came."""
    places = asyncio.Semaphore(4)

    async def ask(question: str) -> int:
        async with places, session.post("/api/v1/query", data={"query": question}) as response:
            body = await response.read()
            orjson.loads(body)
            return len(body)

    return sum(await asyncio.gather(*map(ask, questions)))


async def empty_get(session: aiohttp.ClientSession) -> None:
    async with session.get("/empty") as response:
        await response.read()


if __name__ == "__main__":
    asyncio.run(main())
