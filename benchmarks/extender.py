"""How fast the extender answers, against a server that does nothing, in the same run.

The null server is aiohttp with the same JSON library: it parses the question and answers with the names that were
sent. Both run as processes of their own, and one client asks them in turn, so that whatever else the machine does
falls on both. Then: nodes judged a second, a cold start over 5,000 nodes and 20,000 pods, memory, and whole nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import web

from benchmarks.parts.measuring import Row, high, seconds, show, show_machine, size, times, within
from policies.placement.demand import PodDemand
from policies.placement.models import shipped_models
from policies.placement.nodes import read_node
from policies.placement.products import shipped_products
from scheduler_extender import wire
from scheduler_extender.answers import Answers
from scheduler_extender.board import Board, Classes, Opinion, Table
from scheduler_extender.config import load
from scheduler_extender.demands import Demands
from scheduler_extender.facts import Facts
from scheduler_extender.telemetry import Telemetry

Json = dict[str, Any]

NODES: Final = 5_000
PODS: Final = 20_000
ROUNDS: Final = 400
WARM: Final = 40
PRODUCTS: Final = (
    ("NVIDIA-H100-80GB-HBM3", 81559, 8),
    ("NVIDIA-A100-SXM4-80GB", 81920, 8),
    ("NVIDIA-A100-80GB-PCIe", 81920, 4),
    ("NVIDIA-L40S", 46068, 4),
    ("NVIDIA-A10", 23028, 1),
)


def node(number: int, product: str, memory_mib: int, gpus: int, *, images: int = 0) -> Json:
    labels = {
        "kubernetes.io/hostname": f"gpu-node-{number:05}.example",
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.memory": str(memory_mib),
        "nvidia.com/gpu.count": str(gpus),
    }
    status: Json = {"allocatable": {"cpu": "64", "nvidia.com/gpu": str(gpus)}}
    if images:
        chance = random.Random(number)
        status["images"] = [
            {"names": [f"registry.example/team/image@sha256:{chance.getrandbits(256):064x}"], "sizeBytes": 10**9 + n}
            for n in range(images)
        ]
    return {
        "kind": "Node",
        "metadata": {"name": f"gpu-node-{number:05}.example", "uid": f"uid-{number}", "labels": labels},
        "spec": {},
        "status": status,
    }


def pod(name: str, gpus: int, *, on: str = "") -> Json:
    limits = {"nvidia.com/gpu": str(gpus)}
    args = ["--model=meta-llama/Llama-3.1-8B-Instruct", f"--tensor-parallel-size={gpus}", "--max-model-len=8192"]
    container = {"name": "vllm", "image": "vllm/vllm-openai:v0.32.0", "args": args, "resources": {"limits": limits}}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "inference", "uid": name},
        "spec": {"containers": [container], **({"nodeName": on} if on else {})},
        "status": {"phase": "Running" if on else "Pending"},
    }


def cluster() -> tuple[list[Json], list[Json]]:
    """Nodes of five products; a fifth of their GPUs is held, and most pods hold none."""
    chance = random.Random(1)
    nodes = [node(number, *chance.choice(PRODUCTS)) for number in range(NODES)]
    pods: list[Json] = []
    for each in nodes:
        gpus = int(each["status"]["allocatable"]["nvidia.com/gpu"])
        if gpus >= 4 and chance.random() < 0.5:
            held = chance.choice([1, 2])
            pods.append(pod(f"holder-{len(pods)}", held, on=each["metadata"]["name"]))
    return nodes, pods


def question(names: list[str], asking: Json) -> bytes:
    return orjson.dumps({"Pod": asking, "Nodes": None, "NodeNames": names})


# -- two servers, one client -------------------------------------------------------------------------------------


async def _null_filter(request: web.Request) -> web.Response:
    asked = orjson.loads(await request.read())
    answer = {"Nodes": None, "NodeNames": asked["NodeNames"], "FailedNodes": {}, "Error": ""}
    return web.Response(body=orjson.dumps(answer), content_type="application/json")


async def _null_prioritize(request: web.Request) -> web.Response:
    asked = orjson.loads(await request.read())
    answer = [{"Host": name, "Score": 0} for name in asked["NodeNames"]]
    return web.Response(body=orjson.dumps(answer), content_type="application/json")


def serve_nothing(port: int) -> None:
    app = web.Application(client_max_size=1 << 28)
    app.add_routes([web.post("/filter", _null_filter), web.post("/prioritize", _null_prioritize)])
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


@contextlib.asynccontextmanager
async def running(*command: str) -> AsyncIterator[int]:
    """A program until it is no longer needed; its process id."""
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": "."}
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


async def answers_at(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url):
                    return
            await asyncio.sleep(0.05)


async def asked(session: aiohttp.ClientSession, url: str, body: bytes) -> float:
    began = time.perf_counter()
    async with session.post(url, data=body) as answer:
        await answer.read()
    return time.perf_counter() - began


async def compared(
    session: aiohttp.ClientSession, ours: str, null: str, path: str, bodies: list[bytes]
) -> tuple[list[float], list[float]]:
    """Seconds of each question, ours and the null server's, asked in turn; every question has an order of its own."""
    of_ours, of_null = [], []
    for number in range(WARM + ROUNDS):
        body = bodies[number % len(bodies)]
        of_null.append(await asked(session, f"{null}{path}", body))
        of_ours.append(await asked(session, f"{ours}{path}", body))
    return of_ours[WARM:], of_null[WARM:]


def latency_row(path: str, count: int, what: str, ours: list[float], null: list[float], worked: float) -> Row:
    p50, p99 = median(ours), high(ours)
    kept = p99 <= 0.005 if count <= 500 else p50 <= 0.003 and p99 <= 0.020
    target = "p99 ≤ 5 ms" if count <= 500 else "p50 ≤ 3, p99 ≤ 20 ms"
    ratio = p50 / median(null)
    return Row(
        f"{path[1:]}, {count:,} names, {what}",
        f"p50 {seconds(p50)}, p99 {seconds(p99)}",
        f"null p50 {seconds(median(null))}, p99 {seconds(high(null))}",
        f"{ratio:.2f} × (processor {worked:.2f} ×)",
        f"{within(target, kept)}; {within('≤ 1.3 ×', ratio <= 1.3)}",
    )


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int, field: str = "VmRSS") -> int:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024


async def over_http(nodes: list[Json], pods: list[Json]) -> None:
    from tests.parts.processes import free_ports

    asking = pod("asking", 4)
    extender_port, null_port = free_ports(2)
    facts = known(nodes, pods)
    passing = sorted(facts.board.table(facts.demands.of(asking)).passing)
    every = [each["metadata"]["name"] for each in nodes]
    with tempfile.TemporaryDirectory() as folder:
        inventory = Path(folder) / "inventory.json"
        inventory.write_bytes(orjson.dumps({"kind": "List", "items": [*nodes, *pods]}))
        program = [sys.executable, "-m", "preheat", "extender", "--host", "127.0.0.1", "--port", str(extender_port)]
        async with (
            running(*program, "--inventory", str(inventory)) as pid,
            running(sys.executable, __file__, "null", str(null_port)) as null_pid,
            aiohttp.ClientSession() as session,
        ):
            ours, null = (f"http://127.0.0.1:{port}" for port in (extender_port, null_port))
            await answers_at(session, f"{ours}/readyz")
            await answers_at(session, null)
            rows = []
            chance = random.Random(2)
            for path in ("/filter", "/prioritize"):
                for what, names in (("all pass", passing), ("most refused", every)):
                    for count in (500, 5_000):
                        bodies = []
                        for _ in range(20):
                            some = chance.sample(names, min(count, len(names)))
                            some += chance.choices(names, k=count - len(some))
                            bodies.append(question(some, asking))
                        before = cpu_seconds(pid), cpu_seconds(null_pid)
                        taken = await compared(session, ours, null, path, bodies)
                        worked = cpu_seconds(pid) - before[0], cpu_seconds(null_pid) - before[1]
                        rows.append(latency_row(path, count, what, *taken, worked[0] / worked[1]))
            show(
                "Questions by name, over HTTP (a fifth of the GPUs held; names in an order of their own each time)",
                rows,
            )
            base = memory_bytes(pid)
            rows = [Row("memory with 5,000 nodes, names asked", size(base), "", "", within("≤ 250 MB", base <= 250e6))]
            few = question(chance.sample(passing, 500), asking)
            rows += await whole_nodes(session, ours, null, pid, few, asking)
            show("Whole nodes, and memory", rows)


async def send(url: str, file: Path) -> float:
    """Seconds from sending the file to the last byte of the answer."""
    with file.open("rb") as body:
        async with aiohttp.ClientSession() as session:
            began = time.perf_counter()
            async with session.post(url, data=body) as answer:
                async for _ in answer.content.iter_any():
                    pass
            return time.perf_counter() - began


async def whole_nodes(
    session: aiohttp.ClientSession, ours: str, null: str, pid: int, names: bytes, asking: Json
) -> list[Row]:
    """The null server is asked too: it reads no nodes, so what it loses meanwhile the processors are short of."""
    alone, null_alone = await compared(session, ours, null, "/filter", [names])
    chance = random.Random(3)
    items = [orjson.dumps(node(number, *chance.choice(PRODUCTS), images=110)) for number in range(NODES)]
    pieces = (b'{"Pod":' + orjson.dumps(asking) + b',"Nodes":{"metadata":{},"items":[', b",".join(items))
    body = b"".join((*pieces, b']},"NodeNames":null}'))
    length = len(body)
    before, peak = memory_bytes(pid), 0
    meanwhile: list[float] = []
    null_meanwhile: list[float] = []
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115  closed below
    file.write(body)
    file.flush()
    del items, pieces, body

    async def large() -> float:
        """From a process of its own: this one is not to be busy with the reply while it measures."""
        sender = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "send", f"{ours}/filter", file.name),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": "."},
        )
        said, _ = await sender.communicate()
        return float(said)

    task = asyncio.create_task(large())
    while not task.done():
        null_meanwhile.append(await asked(session, f"{null}/filter", names))
        meanwhile.append(await asked(session, f"{ours}/filter", names))
        peak = max(peak, memory_bytes(pid))
        await asyncio.sleep(0.002)
    took = await task
    file.close()
    kept = high(meanwhile) <= 2 * high(alone)
    return [
        Row(f"filter, 5,000 whole nodes of {size(length)}", seconds(took), "", "", within("≤ 5 s", took <= 5)),
        Row("memory over the base meanwhile", size(peak - before), "", "", within("≤ 100 MB", peak - before <= 100e6)),
        _slower(f"500 names meanwhile ({len(meanwhile)} questions)", meanwhile, alone, within("p99 ≤ 2 ×", kept)),
        _slower("the same of the null server", null_meanwhile, null_alone, ""),
    ]


def _slower(what: str, meanwhile: list[float], alone: list[float], target: str) -> Row:
    return Row(
        what,
        f"p50 {seconds(median(meanwhile))}, p99 {seconds(high(meanwhile))}",
        f"alone {seconds(median(alone))}, {seconds(high(alone))}",
        f"{times(median(meanwhile), median(alone))}, {times(high(meanwhile), high(alone))}",
        target,
    )


# -- without HTTP --------------------------------------------------------------------------------------------------


def known(nodes: list[Json], pods: list[Json]) -> Facts:
    configuration = load(None)
    facts = Facts(Board(configuration.settings.placement), Demands(shipped_models()), shipped_products())
    for each in nodes:
        facts.put_node(each["metadata"]["name"], facts.read_node(each))
    for each in pods:
        facts.put_pod(f"inference/{each['metadata']['name']}", facts.read_pod(each))
    facts.settle()
    return facts


def best(call: Callable[[], object], rounds: int = 15) -> float:
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)


def in_process(nodes: list[Json], pods: list[Json]) -> None:
    facts = known(nodes, pods)
    demand: PodDemand = facts.demands.of(pod("asking", 4))
    classes = Classes()
    for name in facts.nodes:
        node_facts = facts.known(name)
        assert node_facts is not None
        classes.of_node[name] = classes.number(node_facts)
    fresh = best(lambda: Table(Opinion(demand, classes, facts.board.settings), classes))
    answers = Answers(facts, Telemetry("benchmark"))
    answers.whole = True
    asked_of = question(list(facts.nodes), pod("asking", 4))
    again = best(lambda: answers.filter(wire.question(wire.fields_of(asked_of))))
    seen = facts.nodes[next(iter(facts.nodes))].seen
    read = best(lambda: [read_node(seen, shipped_products()) for _ in range(100)]) / 100
    rate = NODES / fresh
    rows = [
        Row("nodes judged a second, a demand never seen", f"{rate:,.0f}", "", "", within("≥ 1 M", rate >= 1e6)),
        Row(
            "nodes judged a second, a question with its JSON",
            f"{NODES / again:,.0f}",
            "",
            "",
            within("≥ 1 M", NODES / again >= 1e6),
        ),
        Row("classes among 5,000 nodes", f"{len(classes)}"),
        Row("one node's labels read", seconds(read)),
    ]
    show("Judging", rows)


def main() -> None:
    if sys.argv[1:2] == ["null"]:
        serve_nothing(int(sys.argv[2]))
        return
    if sys.argv[1:2] == ["send"]:
        print(asyncio.run(send(sys.argv[2], Path(sys.argv[3]))))
        return
    show_machine()
    nodes, pods = cluster()
    in_process(nodes, pods)
    asyncio.run(over_http(nodes, pods))


if __name__ == "__main__":
    main()
