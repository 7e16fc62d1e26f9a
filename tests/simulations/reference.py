"""A plain, slow fleet: one iteration at a time, one object a request. The compiled one must equal it exactly.

Nothing is clever here. Events are taken one by one by (time, kind): iterations end, replicas become ready,
requests arrive, iterations start.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from simulations.engine import Engine

END, READY, ARRIVE, START = range(4)


@dataclass(eq=False)
class Request:
    index: int
    arrival: int
    prompt: int
    goal: int
    generated: int = 0
    computed: int = 0
    blocks: int = 0
    prefilling: bool = False
    entered: int = -1
    scheduled: int = -1
    first: int = -1
    last: int = -1
    done: bool = False
    refused: bool = False


@dataclass(eq=False)
class Replica:
    ready_at: int
    state: str = "booting"
    gone_at: int = 0
    running: list[Request] = field(default_factory=list)
    waiting: deque[Request] = field(default_factory=deque)
    iteration: list[tuple[Request, int]] | None = None
    started: int = 0
    ends: int = 0
    startable: int | None = None
    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: int = 0
    preemptions: int = 0
    engine_steps: int = 0
    ttft: list[int] = field(default_factory=list)
    tpot: list[int] = field(default_factory=list)
    inter_token: list[int] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)

    @property
    def load(self) -> int:
        return len(self.running) + len(self.waiting)


class ReferenceFleet:
    def __init__(self, engine: Engine, requests: list[tuple[int, int, int]]) -> None:
        self.engine = engine
        self.a, self.b, self.c, self.d, self.e = engine.coefficients_ps()
        self.dense = engine.dense_ps().tolist()
        room = engine.kv_blocks * engine.block_size
        self.requests = [
            Request(i, arrival, prompt, min(output, max(1, room - prompt + 1)))
            for i, (arrival, prompt, output) in enumerate(requests)
        ]
        self.to_come = deque(self.requests)
        self.gateway: deque[Request] = deque()
        self.replicas: list[Replica] = []
        self.refused = 0

    def start(self, ready_at: int) -> Replica:
        self.replicas.append(Replica(ready_at))
        return self.replicas[-1]

    def remove(self, replica: Replica, now: int) -> None:
        replica.state = "draining" if replica.load else "gone"
        replica.gone_at = now

    def advance(self, until: int) -> None:
        while True:
            events: list[tuple[int, int, int]] = []
            for i, replica in enumerate(self.replicas):
                if replica.iteration is not None:
                    events.append((replica.ends, END, i))
                if replica.startable is not None:
                    events.append((replica.startable, START, i))
                if replica.state == "booting":
                    events.append((replica.ready_at, READY, i))
            if self.to_come:
                events.append((self.to_come[0].arrival, ARRIVE, 0))
            if not events:
                return
            now, kind, i = min(events)
            if now > until or (kind == START and now == until):
                return
            if kind == END:
                self.end(self.replicas[i], now)
            elif kind == READY:
                # All that become ready at one instant do so before the gateway's requests are spread.
                for replica in self.replicas:
                    if replica.state == "booting" and replica.ready_at == now:
                        replica.state = "ready"
                while self.gateway:
                    self.route(self.gateway.popleft(), now)
            elif kind == ARRIVE:
                self.arrive(self.to_come.popleft(), now)
            else:
                self.begin(self.replicas[i], now)

    def arrive(self, request: Request, now: int) -> None:
        if request.prompt > self.engine.kv_blocks * self.engine.block_size:
            request.refused = True
            self.refused += 1
        elif any(replica.state == "ready" for replica in self.replicas):
            self.route(request, now)
        else:
            self.gateway.append(request)

    def route(self, request: Request, now: int) -> None:
        replica = min((r for r in self.replicas if r.state == "ready"), key=lambda r: r.load)
        request.entered = now
        replica.waiting.append(request)
        if replica.iteration is None and replica.startable is None:
            replica.startable = now

    def begin(self, replica: Replica, now: int) -> None:
        engine = self.engine
        replica.startable = None
        budget = engine.max_num_batched_tokens
        free = engine.kv_blocks - sum(q.blocks for q in replica.running)
        iteration: list[tuple[Request, int]] = []
        put_back = False
        for request in list(replica.running):
            if request not in replica.running:
                break
            if budget == 0:
                break
            new = min(request.prompt + request.generated - request.computed, budget)
            need = -(-(request.computed + new) // engine.block_size) - request.blocks
            while need > free and request in replica.running:
                victim = replica.running.pop()
                free += victim.blocks
                victim.blocks = victim.computed = 0
                replica.waiting.appendleft(victim)
                replica.preemptions += 1
                put_back = True
            if request not in replica.running:
                break
            free -= need
            request.blocks += need
            budget -= new
            iteration.append((request, new))
        while replica.waiting and budget > 0 and len(replica.running) < engine.max_num_seqs and not put_back:
            request = replica.waiting[0]
            target = request.prompt + request.generated
            if -(-target // engine.block_size) > free:
                break
            replica.waiting.popleft()
            if request.scheduled < 0:
                request.scheduled = now
            new = min(target, budget)
            request.blocks = -(-new // engine.block_size)
            request.prefilling = True
            free -= request.blocks
            budget -= new
            replica.running.append(request)
            iteration.append((request, new))
        decoding = [q for q, _ in iteration if not q.prefilling]
        chunks = [(q, new) for q, new in iteration if q.prefilling]
        prefill = sum(new for _, new in chunks)
        pairs = sum(new * (2 * q.computed + new) for q, new in chunks)
        context = sum(q.prompt + q.generated for q in decoding)
        took = self.a + self.b * len(decoding) + self.c * context + self.d * prefill + self.e * pairs // 2
        took += self.dense[len(decoding) + prefill]
        replica.iteration, replica.started, replica.ends = iteration, now, now + took

    def end(self, replica: Replica, now: int) -> None:
        assert replica.iteration is not None
        replica.engine_steps += 1
        for request, new in replica.iteration:
            request.computed += new
            if request.computed < request.prompt + request.generated:
                continue
            request.prefilling = False
            request.generated += 1
            replica.generation_tokens += 1
            if request.generated == 1:
                request.first = now
                replica.ttft.append(now - request.entered)
                replica.prompt_tokens += request.prompt
            else:
                replica.inter_token.append(now - request.last)
            request.last = now
            if request.generated == request.goal:
                request.done = True
                replica.running.remove(request)
                replica.finished += 1
                gaps = request.goal - 1
                replica.tpot.append(-(-(now - request.first) // gaps) if gaps else 0)
                replica.queue.append(request.scheduled - request.entered)
        replica.iteration = None
        if replica.load:
            replica.startable = now
        elif replica.state == "draining":
            replica.state, replica.gone_at = "gone", now

    def blocks_in_use(self, replica: Replica) -> int:
        return sum(q.blocks for q in replica.running)
