"""One vLLM server as its metrics show it: requests wait, are batched token by token, and are counted.

Small on purpose, and written apart from `simulations/` and from `cluster.vllm_metrics`: what is tested must not
also be what it is tested against. The page is written by the library that vLLM writes its own with.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0)
TPOT = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
QUEUE = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)


@dataclass(frozen=True)
class Speed:
    """How fast it is, and how long its requests are. The defaults bear about 6 requests/s."""

    max_running: int = 12
    step_seconds: float = 0.02
    step_seconds_a_request: float = 0.002
    prefill_seconds: float = 0.01
    prompt_tokens: int = 100
    output_tokens: int = 40
    kv_cache_tokens: int = 3200


@dataclass
class Request:
    """On its way through the server; times on the server's clock."""

    arrived_at: float
    first_token_at: float = 0.0
    tokens: int = 0


@dataclass
class Truth:
    """What really happened, for a test to compare with what was seen."""

    arrived: int = 0
    finished: int = 0
    waits: list[tuple[float, float]] = field(default_factory=list)
    """(when it was admitted, how long it had waited) of every request."""


class Server:
    """Runs on the times it is handed; `advance` brings it up to now."""

    def __init__(self, now: float, speed: Speed, truth: Truth, *, model: str = "tiny") -> None:
        self.clock = now
        self.speed = speed
        self.truth = truth
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.page = Page(model, speed)

    @property
    def requests(self) -> int:
        return len(self.waiting) + len(self.running)

    def take(self, arrived_at: float) -> None:
        self.truth.arrived += 1
        self.waiting.append(Request(arrived_at))

    def advance(self, now: float) -> None:
        while self.clock < now:
            if not self.requests:
                self.clock = now
            else:
                self._step()
        self.page.show(self)

    def _step(self) -> None:
        """Admit what fits, then one token for each that runs; the step ends when the batch is through."""
        speed = self.speed
        admitted = 0
        if not self.running:
            self.clock = max(self.clock, self.waiting[0].arrived_at)
        while self.waiting and self.waiting[0].arrived_at <= self.clock and len(self.running) < speed.max_running:
            request = self.waiting.popleft()
            waited = self.clock - request.arrived_at
            self.truth.waits.append((self.clock, waited))
            self.page.queue_time.observe(waited)
            self.running.append(request)
            admitted += 1
        self.clock += (
            speed.step_seconds + speed.step_seconds_a_request * len(self.running) + speed.prefill_seconds * admitted
        )
        self.page.prompt_tokens.inc(admitted * speed.prompt_tokens)
        self.page.generation_tokens.inc(len(self.running))
        self.page.steps.observe(len(self.running) + admitted * speed.prompt_tokens)
        for request in self.running:
            request.tokens += 1
            if request.tokens == 1:
                request.first_token_at = self.clock
                self.page.ttft.observe(self.clock - request.arrived_at)
            if request.tokens == speed.output_tokens:
                self.truth.finished += 1
                self.page.finished.inc()
                self.page.tpot.observe((self.clock - request.first_token_at) / (speed.output_tokens - 1))
        self.running = [request for request in self.running if request.tokens < speed.output_tokens]


class Page:
    """Its `/metrics`."""

    def __init__(self, model: str, speed: Speed) -> None:
        registry = self.registry = CollectorRegistry()
        labels = {"model_name": model, "engine": "0"}

        def gauge(name: str) -> Gauge:
            return Gauge(name, name, labels, registry=registry).labels(**labels)

        def counter(name: str, **more: str) -> Counter:
            every = labels | more
            return Counter(name, name, every, registry=registry).labels(**every)

        def histogram(name: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, name, labels, buckets=buckets, registry=registry).labels(**labels)

        self.running = gauge("vllm:num_requests_running")
        self.waiting = gauge("vllm:num_requests_waiting")
        self.kv_cache_usage = gauge("vllm:kv_cache_usage_perc")
        self.prompt_tokens = counter("vllm:prompt_tokens")
        self.generation_tokens = counter("vllm:generation_tokens")
        self.preemptions = counter("vllm:num_preemptions")
        self.finished = counter("vllm:request_success", finished_reason="length")
        self.ttft = histogram("vllm:time_to_first_token_seconds", TTFT)
        self.tpot = histogram("vllm:request_time_per_output_token_seconds", TPOT)
        self.queue_time = histogram("vllm:request_queue_time_seconds", QUEUE)
        self.steps = histogram("vllm:iteration_tokens_total", (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048))
        config = {
            "block_size": "16",
            "num_gpu_blocks": str(speed.kv_cache_tokens // 16),
            "kv_cache_size_tokens": str(speed.kv_cache_tokens),
            "engine": "0",
        }
        Gauge("vllm:cache_config_info", "cache", config, registry=registry).labels(**config).set(1)

    def show(self, server: Server) -> None:
        speed = server.speed
        self.running.set(len(server.running))
        self.waiting.set(len(server.waiting))
        held = sum(speed.prompt_tokens + request.tokens for request in server.running)
        self.kv_cache_usage.set(min(1.0, held / speed.kv_cache_tokens))

    def text(self) -> bytes:
        return generate_latest(self.registry)
