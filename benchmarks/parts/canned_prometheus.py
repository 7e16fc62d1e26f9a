"""A Prometheus that knows its answers beforehand: whole bodies of the true size, so that serving them costs little.

Run as a program it is a process of its own: what it takes is nobody's measurement. An instant query is evaluated
once, over one pod that shows vLLM's recorded page, and its rows are written out for every pod of a fleet of targets;
a range query is answered with a wave of the right number of values. A body is made when it is asked for the first
time, or for a later tick when `/prepare` says so, and kept.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, product
from math import pi, sin
from typing import Any, Final

import orjson
from aiohttp import web

from cluster.vllm_metrics import page_series
from tests.stand_ins import vllm_pages
from tests.stand_ins.promql import Store, parse

TICK_SECONDS: Final = 15.0
SCRAPED_SECONDS_AGO: Final = 7.321
RECORDED_REQUESTS: Final = 489
"""In the page that all others are made from."""
REQUESTS_A_TICK: Final = 24
MODEL: Final = "meta-llama/Llama-3.1-8B-Instruct"
NAMESPACES: Final = 20
PODS_A_TARGET: Final = 3


@dataclass(frozen=True, slots=True)
class Named:
    """How a pod is named, as a Deployment's are."""

    namespace: str
    name: str
    ip: str


def target_name(target: int) -> tuple[str, str]:
    """Namespace and name of a target's Deployment."""
    return f"team-{target % NAMESPACES:02d}", f"vllm-llama3-8b-{target:04d}"


def pods_of(target: int) -> tuple[Named, ...]:
    namespace, name = target_name(target)
    return tuple(
        Named(namespace, f"{name}-6b7c8d9f4d-x7k{pod}p", f"10.{target // 250}.{target % 250}.{pod + 1}")
        for pod in range(PODS_A_TARGET)
    )


def page_at(tick: int) -> str:
    """The recorded page of a pod under load, its counters as far on as the tick."""
    page = vllm_pages.page("loaded").replace('model_name="tiny"', f'model_name="{MODEL}"')
    growth = 20 + tick * REQUESTS_A_TICK / RECORDED_REQUESTS

    def grown(found: re.Match[str]) -> str:
        value = float(found[2])
        return f"{found[1]} {value * growth if value % 1 else float(round(value * growth))!r}"

    counters = r"^(\S*(?:_total|_count|_sum|_bucket)(?:\{[^}]*\})?) (\S+)$"
    page = re.sub(counters, grown, page, flags=re.MULTILINE)
    return vllm_pages.showing(page, num_requests_running=8.0, kv_cache_usage_perc=0.31742857142857145)


@dataclass
class Answers:
    """Every body that was made, by query and tick."""

    targets: int
    start: float
    tick: int = 0
    asked: dict[int, list[str]] = field(default_factory=dict)
    """Instant queries by the tick that they were asked in."""
    ranges: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)
    """Forms of the range queries."""
    bodies: dict[tuple[str, ...], bytes] = field(default_factory=dict)
    stores: dict[int, Store] = field(default_factory=dict)
    """What one pod shows at each tick."""

    def instant(self, query: str, tick: int) -> bytes:
        key = (query, str(tick))
        if key not in self.bodies:
            self.bodies[key] = self._for_the_fleet(query, tick)
        return self.bodies[key]

    def prepare(self, ticks: int) -> None:
        """Every known query's body for the ticks to come."""
        for query, tick in product(dict.fromkeys(chain(*self.asked.values())), range(ticks)):
            self.instant(query, tick)

    def _for_the_fleet(self, query: str, tick: int) -> bytes:
        (original, *_), fleet = pods_of(0), [pod for target in range(self.targets) for pod in pods_of(target)]
        rows = [orjson.dumps(row).decode() for row in self._of_one_pod(query, tick, original)]
        several = [row for row in rows if original.ip in row]
        marks = (f'"{original.namespace}"', f'"{original.name}"', f'"{original.ip}:')
        written = [row for row in rows if original.ip not in row]
        for row, pod in product(several, fleet):
            for mark, text in zip(marks, (f'"{pod.namespace}"', f'"{pod.name}"', f'"{pod.ip}:'), strict=True):
                row = row.replace(mark, text)
            written.append(row)
        return f'{{"status":"success","data":{{"resultType":"vector","result":[{",".join(written)}]}}}}'.encode()

    def _of_one_pod(self, query: str, tick: int, pod: Named) -> list[dict[str, Any]]:
        now = self.start + tick * TICK_SECONDS
        if tick not in self.stores:
            store = self.stores[tick] = Store()
            scraped = {"namespace": pod.namespace, "pod": pod.name, "instance": f"{pod.ip}:8000", "job": "vllm"}
            store.add({"__name__": "up", **scraped}, 1.0, now - SCRAPED_SECONDS_AGO)
            for name, labels, value in page_series(page_at(tick)):
                store.add({"__name__": name, **labels, **scraped}, value, now - SCRAPED_SECONDS_AGO)
        found = parse(query).at(self.stores[tick], now)
        return [{"metric": labels, "value": [now, repr(value).removesuffix(".0")]} for labels, value in found]

    def over_range(self, query: str, start: float, end: float, step: float) -> bytes:
        series = re.findall(r'"preheat_target", "(\d+/\w+)"', query)
        key = (*series, str(start), str(end), str(step))
        if key not in self.bodies:
            rows = [
                {"metric": {"preheat_target": name}, "values": list(wave(name, start, end, step))} for name in series
            ]
            body = {"status": "success", "data": {"resultType": "matrix", "result": rows}}
            self.bodies[key] = orjson.dumps(body)
        return self.bodies[key]


def wave(name: str, start: float, end: float, step: float) -> Iterator[tuple[float, str]]:
    """A day's wave with the digits that an increase has after its extrapolation; scrapes are the same in each bin."""
    quantity = name.partition("/")[2]
    scale = {"scrapes": 0.0, "arrivals": step, "prompt": 1000 * step, "generation": 200 * step}
    for number in range(round((end - start) / step) + 1):
        at = start + number * step
        rate = 1.6 * (1.0 + 0.5 * sin(2 * pi * at / 86_400)) * (1.0 + 0.1 * sin(at / 211.0))
        yield at, str(int(step // TICK_SECONDS)) if quantity == "scrapes" else repr(rate * scale[quantity])


def application(answers: Answers) -> web.Application:
    """The two paths of Prometheus, and five of our own."""

    async def query(request: web.Request) -> web.Response:
        form = await request.post()
        answers.asked.setdefault(answers.tick, []).append(str(form["query"]))
        body = answers.instant(str(form["query"]), answers.tick)
        return web.Response(body=body, content_type="application/json")

    async def query_range(request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        answers.ranges[tuple(form.values())] = form
        start, end = (float(form[name]) for name in ("start", "end"))
        body = answers.over_range(form["query"], start, end, float(form["step"].removesuffix("s")))
        return web.Response(body=body, content_type="application/json")

    async def set_tick(request: web.Request) -> web.Response:
        answers.tick = int(request.query["number"])
        return web.Response()

    async def prepare(request: web.Request) -> web.Response:
        answers.prepare(int(request.query["ticks"]))
        return web.Response()

    async def asked(request: web.Request) -> web.Response:
        return web.json_response(answers.asked[int(request.query["tick"])])

    async def ranges(_: web.Request) -> web.Response:
        return web.json_response(list(answers.ranges.values()))

    async def empty(_: web.Request) -> web.Response:
        return web.Response()

    served = web.Application(client_max_size=2**24)
    served.router.add_post("/api/v1/query", query)
    served.router.add_post("/api/v1/query_range", query_range)
    served.router.add_get("/tick", set_tick)
    served.router.add_get("/prepare", prepare)
    served.router.add_get("/asked", asked)
    served.router.add_get("/ranges", ranges)
    served.router.add_get("/empty", empty)
    return served


@contextmanager
def running(targets: int, start: float) -> Iterator[str]:
    """The URL of one that runs in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.parts.canned_prometheus", str(targets), repr(start)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the canned Prometheus did not start: its own message stands above")
            yield url
        finally:
            process.terminate()


async def serve(answers: Answers) -> None:
    """Until terminated; the first line says where."""
    runner = web.AppRunner(application(answers), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Answers(int(sys.argv[1]), float(sys.argv[2]))))
