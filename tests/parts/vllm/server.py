"""A real vLLM server on a CPU: started on a free port, waited for, and ended for certain."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.parts.processes import Process, free_ports, wait_until
from tests.parts.vllm.install import Installation

MODEL_NAME = "tiny"
BOOT_LIMIT_SECONDS = 300.0
"""Boots were seen to take 24 s on two idle cores and 85 s on two busy ones."""

KV_CACHE_BYTES = 32 * 1024 * 1024
"""8,192 tokens of the tiny model: little enough that a test can fill it."""

CONTEXT_TOKENS = 8000
"""Four times what the model says of itself, and nearly all of the cache. An answer of this length takes tens of seconds
even alone: a client that hangs up has then left before its end, however late the machine lets it."""

ON_START = Path(__file__).parent / "on_start"

MAX_RUNNING = 16
"""Requests in one batch; the seventeenth waits."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    port: int
    process: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def start(installation: Installation, *, core: int, folder: Path, options: tuple[str, ...] = ()) -> Server:
    """Start a server on one core; it answers only after `wait_healthy`."""
    (port,) = free_ports(1)
    command: list[str | Path] = [
        installation.command, "serve", installation.model,
        "--served-model-name", MODEL_NAME,
        "--load-format", "dummy",
        # Without AVX-512 bfloat16 is four times slower than this.
        "--dtype", "float32",
        "--enforce-eager",
        "--kv-cache-memory-bytes", str(KV_CACHE_BYTES),
        "--block-size", "32",
        "--max-model-len", str(CONTEXT_TOKENS),
        "--hf-overrides", json.dumps({"max_position_embeddings": CONTEXT_TOKENS}),
        "--max-num-seqs", str(MAX_RUNNING),
        # Prompts of the tests are random, but a cache hit would make a prompt cheaper than it is counted.
        "--no-enable-prefix-caching",
        "--host", "127.0.0.1",
        "--port", str(port),
        *options,
    ]  # fmt: skip
    environment = {
        **os.environ,
        # "auto" would give the first core to every server.
        "VLLM_CPU_OMP_THREADS_BIND": str(core),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(ON_START),
    }
    # Where set, each of vLLM's three processes compiles every module anew, at every start.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return Server(port, Process(f"vLLM on {port}", command, folder / f"vllm-{port}.log", env=environment, cwd=folder))


def wait_healthy(server: Server) -> None:
    """Return once it takes requests."""

    def is_healthy() -> bool:
        try:
            return requests.get(f"{server.url}/health", timeout=30).ok
        except requests.RequestException:
            return False

    server.process.wait_ready(is_healthy, within=BOOT_LIMIT_SECONDS)


def warm_up(server: Server) -> None:
    """Let it answer once: the first answer takes seconds, and no test shall pay for them."""
    question = {"model": MODEL_NAME, "prompt": "ba be bi", "max_tokens": 2}
    requests.post(f"{server.url}/v1/completions", json=question, timeout=120).raise_for_status()


def metrics_page(server: Server) -> str:
    answer = requests.get(f"{server.url}/metrics", timeout=30)
    answer.raise_for_status()
    return answer.text


def stop(servers: Sequence[Server]) -> None:
    """End servers and all their children. While an engine boots it ignores SIGTERM: it is sent again, then killed."""
    for _ in range(3):
        for server in servers:
            if server.process.status is None:
                server.process.signal(signal.SIGTERM)
        with suppress(AssertionError):
            wait_until(lambda: all(server.process.status is not None for server in servers), within=5, what="their end")
            break
    for server in servers:
        server.process.stop(within=0)  # whatever is left of the group is killed


@contextmanager
def serving(
    installation: Installation, folder: Path, *, count: int = 1, options: tuple[str, ...] = ()
) -> Iterator[tuple[Server, ...]]:
    """That many healthy servers that have answered nothing yet, booted side by side.

    Each has a core of its own if there are enough.
    """
    cores = sorted(os.sched_getaffinity(0))
    servers: list[Server] = []
    try:
        for index in range(count):
            core = cores[index % len(cores)]
            servers.append(start(installation, core=core, folder=folder, options=options))
        for server in servers:
            wait_healthy(server)
        yield tuple(servers)
    finally:
        stop(servers)
