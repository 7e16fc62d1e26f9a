"""Nodes and pods of a small cluster, and an extender that knows them, on the wire or without one."""

from __future__ import annotations

import asyncio
import copy
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from cluster.pages import listen
from scheduler_extender.config import Configuration, load
from scheduler_extender.service import Extender
from scheduler_extender.telemetry import Telemetry
from tests.checkout import ROOT

Json = dict[str, Any]

RECORDED = ROOT / "tests" / "data" / "extender_wire"
H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}
L40S = {"nvidia.com/gpu.product": "NVIDIA-L40S", "nvidia.com/gpu.memory": "46068"}
A100_PAIRS = {"nvidia.com/gpu.product": "NVIDIA-A100-80GB-PCIe", "nvidia.com/gpu.memory": "81920"}


def node(name: str, gpus: int = 8, labels: Json | None = None, **spec: Any) -> Json:
    labelled = {"nvidia.com/gpu.count": str(gpus), **(H100 if labels is None else labels)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": f"node/{name}", "labels": labelled, "namespace": ""},
        "spec": spec,
        "status": {"allocatable": {"cpu": "64", "nvidia.com/gpu": str(gpus)}},
    }


def pod(
    name: str,
    gpus: int = 4,
    *,
    on: str = "",
    args: Iterable[str] | None = None,
    annotations: Json | None = None,
    rejected: bool = False,
    phase: str = "",
) -> Json:
    """By default vLLM with tensor parallelism over all of its GPUs."""
    words = ["--model=meta-llama/Llama-3.1-8B-Instruct", "--max-model-len=8192", f"--tensor-parallel-size={gpus}"]
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}, "requests": {"nvidia.com/gpu": str(gpus)}} if gpus else {}
    container = {"name": "vllm", "image": "vllm/vllm-openai:v0.32.0", "args": list(words if args is None else args)}
    status: Json = {"phase": phase or ("Running" if on else "Pending")}
    if rejected:
        status["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "inference", "uid": f"pod/{name}", "annotations": annotations or {}},
        "spec": {"containers": [{**container, "resources": resources}], **({"nodeName": on} if on else {})},
        "status": status,
    }


def inventory(*things: Json) -> bytes:
    return orjson.dumps({"apiVersion": "v1", "kind": "List", "items": things})


def recorded(name: str) -> Json:
    body: Json = orjson.loads((RECORDED / f"v1.36.3-{name}.json").read_bytes())
    return body


def in_lower_case(body: Json) -> Json:
    """The extender's own keys as some callers write them; what is inside of pods and nodes is Kubernetes' own."""
    twin = {key.lower(): copy.deepcopy(value) for key, value in body.items()}
    for field in ("nodenametovictims", "nodenametometavictims"):
        for name, victims in (twin.get(field) or {}).items():
            folded = {key.lower(): value for key, value in victims.items()}
            if field.endswith("metavictims"):
                folded["pods"] = [{key.lower(): value for key, value in one.items()} for one in folded["pods"]]
            twin[field][name] = folded
    return twin


def names_question(pod: Json, *names: str) -> Json:
    return {"Pod": pod, "Nodes": None, "NodeNames": list(names)}


def nodes_question(pod: Json, *nodes: Json) -> Json:
    return {"Pod": pod, "Nodes": {"metadata": {}, "items": list(nodes)}, "NodeNames": None}


def knowing(*things: Json, configuration: Configuration | None = None) -> Extender:
    """An extender that has been shown these, and nothing else will come."""
    extender = Extender(configuration or load(None), Telemetry("test"))
    for thing in things:
        if thing["kind"] == "Node":
            extender.facts.put_node(thing["metadata"]["name"], extender.facts.read_node(thing))
        else:
            key = f"{thing['metadata']['namespace']}/{thing['metadata']['name']}"
            extender.facts.put_pod(key, extender.facts.read_pod(thing))
    extender.answers.whole = True
    return extender


class Served:
    """An extender on 127.0.0.1, asked as a scheduler would."""

    def __init__(self, extender: Extender, *, largest_body_bytes: int | None = None) -> None:
        self.extender = extender
        self._largest = largest_body_bytes
        self._runner = asyncio.Runner()

    def __enter__(self) -> Served:
        self._runner.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stop())
        self._runner.close()

    async def _start(self) -> None:
        pages = self.extender.pages()
        if self._largest is not None:
            pages._largest_body_bytes = self._largest
        self._web, self.port = await listen(pages.application(), "127.0.0.1", 0)
        self._session = aiohttp.ClientSession()

    async def _stop(self) -> None:
        await self._session.close()
        await self._web.cleanup()

    def post(self, path: str, body: object, **how: Any) -> Any:
        """The JSON of an answer, whose status must be 200."""
        status, answer = self._runner.run(self._ask("POST", path, body, **how))
        assert status == 200, answer
        return orjson.loads(answer)

    def get(self, path: str) -> tuple[int, str]:
        status, answer = self._runner.run(self._ask("GET", path, None))
        return status, answer.decode()

    async def _ask(self, method: str, path: str, body: object, *, chunked: bool = False) -> tuple[int, bytes]:
        data: Any = body if isinstance(body, bytes | None) else orjson.dumps(body)
        if chunked:

            async def pieces() -> Any:
                for start in range(0, len(data), 1000):
                    yield data[start : start + 1000]

            sent: Any = pieces()
        else:
            sent = None if data is None else io.BytesIO(data)
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self._session.request(method, url, data=sent) as answer:
            return answer.status, await answer.read()

    def metric(self, line: str) -> float | None:
        """The value of a series as `/metrics` writes it; None without it."""
        _, text = self.get("/metrics")
        return next((float(each.rpartition(" ")[2]) for each in text.splitlines() if each.startswith(f"{line} ")), None)


def written(folder: Path, *things: Json) -> Path:
    path = folder / "inventory.json"
    path.write_bytes(inventory(*things))
    return path
