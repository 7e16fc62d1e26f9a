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
    """How fast it is, and how long its requests are. By default its KV cache is full at 3 requests/s.

    A step takes as real engines' do: a fixed part, a little for each sequence, more for each prompt token.
    """

    max_running: int = 256
    step_seconds: float = 0.02
    step_seconds_a_sequence: float = 0.00008
    step_seconds_a_prompt_token: float = 0.00009
    prompt_tokens: int = 100
    output_tokens: int = 200
    kv_cache_tokens: int = 3200


@dataclass
class Request:
    """On its way through the server; times on the server's clock."""

    arrived_at: float
    first_token_at: float | None = None
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

    @property
    def held_tokens(self) -> int:
        """Tokens in the KV cache."""
        return sum(self.speed.prompt_tokens + request.tokens for request in self.running)

    def _step(self) -> None:
        """Admit what fits, then one token for each that runs; the step ends when the batch is through."""
        if not self.running:
            self.clock = max(self.clock, self.waiting[0].arrived_at)
        prefilled = self._admit()
        speed, began = self.speed, self.clock
        self.clock += (
            speed.step_seconds
            + speed.step_seconds_a_sequence * len(self.running)
            + speed.step_seconds_a_prompt_token * prefilled
        )
        self.page.steps.observe(len(self.running) + prefilled)
        for request in self.running:
            self._generate(request, self.clock - began)
        self.running = [request for request in self.running if request.tokens < speed.output_tokens]
        while self.held_tokens > speed.kv_cache_tokens:  # the newest makes room, and is computed again later
            self.waiting.appendleft(self.running.pop())
            self.page.preemptions.inc()

    def _admit(self) -> int:
        """How many tokens the newly admitted must have computed."""
        prefilled, speed = 0, self.speed
        while self.waiting and self.waiting[0].arrived_at <= self.clock and len(self.running) < speed.max_running:
            request = self.waiting[0]
            needed = speed.prompt_tokens + request.tokens
            if self.held_tokens + needed + len(self.running) + 1 > speed.kv_cache_tokens:
                break
            self.running.append(self.waiting.popleft())
            prefilled += needed
            if request.first_token_at is None:
                waited = self.clock - request.arrived_at
                self.truth.waits.append((self.clock, waited))
                self.page.queue_time.observe(waited)
        return prefilled

    def _generate(self, request: Request, step_seconds: float) -> None:
        speed = self.speed
        request.tokens += 1
        self.page.generation_tokens.inc()
        if request.first_token_at is None:
            request.first_token_at = self.clock
            self.page.prompt_tokens.inc(speed.prompt_tokens)
            self.page.ttft.observe(self.clock - request.arrived_at)
        else:
            self.page.inter_token.observe(step_seconds)
        if request.tokens == speed.output_tokens:
            self.truth.finished += 1
            self.page.finished.inc()
            self.page.end_to_end.observe(self.clock - request.arrived_at)
            self.page.tpot.observe((self.clock - request.first_token_at) / (speed.output_tokens - 1))


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
        self.end_to_end = histogram("vllm:e2e_request_latency_seconds", QUEUE)
        self.inter_token = histogram("vllm:inter_token_latency_seconds", TPOT)
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
        self.running.set(len(server.running))
        self.waiting.set(len(server.waiting))
        self.kv_cache_usage.set(server.held_tokens / server.speed.kv_cache_tokens)

    def text(self) -> bytes:
        return generate_latest(self.registry)
