"""How long the extender takes from its start until it knows a large cluster, and what memory it then holds.

The API server is a stand-in with its pages made before: 5,000 nodes of some 14 kB with 50 images each, and 20,000
pods of some 4 kB, of which a fifth hold GPUs. It answers at once, so what is measured is the extender.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import yaml
from aiohttp import web

from benchmarks.extender import NODES, PODS, PRODUCTS, answers_at, cpu_seconds, memory_bytes, node, pod, running
from benchmarks.parts.measuring import Row, seconds, show, show_machine, size, within

Json = dict[str, Any]

IMAGES: Final = 100
ENVIRONMENT: Final = 40


def pages(things: list[Json], limit: int) -> list[bytes]:
    made = []
    for start in range(0, len(things), limit):
        end = start + limit
        metadata = {"resourceVersion": "1", **({"continue": str(end)} if end < len(things) else {})}
        made.append(orjson.dumps({"kind": "List", "metadata": metadata, "items": things[start:end]}))
    return made


def serve_cluster() -> None:
    nodes = [node(number, *PRODUCTS[number % len(PRODUCTS)], images=IMAGES) for number in range(NODES)]
    words = [{"name": f"SETTING_{number}", "value": "x" * 60} for number in range(ENVIRONMENT)]
    pods = []
    for number in range(PODS):
        made = pod(f"pod-{number}", 1 if number % 5 == 0 else 0, on=nodes[number % NODES]["metadata"]["name"])
        if number % 5:
            del made["spec"]["containers"][0]["resources"]
        made["spec"]["containers"][0]["env"] = words
        pods.append(made)
    collections: dict[str, list[Json]] = {"nodes": nodes, "pods": pods}
    made_pages: dict[tuple[str, int], list[bytes]] = {}
    for plural, limit in (("nodes", 100), ("nodes", 500), ("pods", 500)):
        made_pages[plural, limit] = pages(collections[plural], limit)

    async def collection(request: web.Request) -> web.StreamResponse:
        plural = request.match_info["plural"]
        if "watch" in request.query:
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.sleep(3600)
            return response
        limit = int(request.query["limit"])
        page = made_pages[plural, limit][int(request.query.get("continue", "0")) // limit]
        return web.Response(body=page, content_type="application/json")

    app = web.Application()
    app.add_routes([web.get("/api/v1/{plural}", collection), web.get("/version", collection)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), print=None, access_log=None, shutdown_timeout=0.1)


async def measure() -> list[Row]:
    from tests.parts.processes import free_ports

    api_port, port = free_ports(2)
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{api_port}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        kubeconfig.write_text(yaml.safe_dump(config))
        async with (
            running(sys.executable, __file__, "cluster", str(api_port)),
            aiohttp.ClientSession() as session,
        ):
            await answers_at(session, f"http://127.0.0.1:{api_port}/none")
            began = time.perf_counter()
            program = [sys.executable, "-m", "preheat", "extender", "--host", "127.0.0.1", "--port", str(port)]
            async with running(*program, "--kubeconfig", str(kubeconfig)) as pid:
                async with asyncio.timeout(120):
                    while True:
                        with contextlib.suppress(aiohttp.ClientError):
                            async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                                if answer.status == 200:
                                    break
                        await asyncio.sleep(0.02)
                took, worked = time.perf_counter() - began, cpu_seconds(pid)
                now, peak = memory_bytes(pid), memory_bytes(pid, "VmHWM")
    return [
        Row(
            f"start to ready, {NODES:,} nodes and {PODS:,} pods",
            f"{seconds(took)} (processor {seconds(worked)})",
            target=within("≤ 10 s", took <= 10),
        ),
        Row("memory then", size(now), target=within("≤ 250 MB", now <= 250e6)),
        Row("memory at its highest", size(peak)),
    ]


def main() -> None:
    if sys.argv[1:2] == ["cluster"]:
        serve_cluster()
        return
    show_machine()
    show("A large cluster, seen for the first time", asyncio.run(measure()))


if __name__ == "__main__":
    main()
