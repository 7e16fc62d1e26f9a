"""A plain, slow fleet: one iteration at a time, one object a request. The compiled one must equal it exactly.

Nothing is clever here. Events are taken one by one by (time, kind): iterations end, replicas become ready,
clients hang up, requests arrive, iterations start.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions
from simulations.model.engine import Engine

END, READY, HANG_UP, ARRIVE, START = range(5)
UNDISTURBED = Conditions(Constant(0))


@dataclass(eq=False)
class Request:
    index: int
    arrival: int
    prompt: int
    goal: int
    priority: int = 0
    parts: list[int] = field(default_factory=list)
    """Its prompt's whole blocks, by name."""
    generated: int = 0
    computed: int = 0
    prefilling: bool = False
    entered: int = -1
    scheduled: int = -1
    first: int = -1
    last: int = -1
    replica: Replica | None = None
    abandoned: bool = False
    fate: str = "to come"

    def again(self) -> Request:
        """The same request as if it had just come."""
        return Request(self.index, self.arrival, self.prompt, self.goal, self.priority, self.parts, fate="held")


@dataclass(eq=False)
class Replica:
    ready_at: int
    version: int = 0
    """Of the fleet's engines."""
    state: str = "booting"
    gone_at: int = 0
    running: list[Request] = field(default_factory=list)
    waiting: list[Request] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    """Blocks of prompts that nobody holds, the one to be forgotten next first."""
    iteration: list[tuple[Request, int]] | None = None
    started: int = 0
    ends: int = 0
    startable: int | None = None
    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: int = 0
    preemptions: int = 0
    engine_steps: int = 0
    hang_ups: int = 0
    cache_queries: int = 0
    cache_hits: int = 0
    ttft: list[int] = field(default_factory=list)
    tpot: list[int] = field(default_factory=list)
    inter_token: list[int] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)

    @property
    def load(self) -> int:
        return len(self.waiting) + sum(not q.abandoned for q in self.running)


class ReferenceFleet:
    def __init__(
        self,
        engine: Engine,
        requests: list[tuple[int, int, int]],
        conditions: Conditions = UNDISTURBED,
        *,
        priorities: list[int] | None = None,
        parts: list[list[int]] | None = None,
        part_tokens: int = 1,
    ) -> None:
        """`parts` are the names of each prompt's blocks of `part_tokens`, those not whole included."""
        self.engine = engine
        """Of which all hold as many tokens."""
        self.engines = [engine] if conditions.rollout is None else [engine, conditions.rollout.engine]
        self.conditions = conditions
        self.coefficients = [each.coefficients_ps() for each in self.engines]
        self.dense = [each.dense_ps().tolist() for each in self.engines]
        self.part_tokens = part_tokens
        room = engine.kv_blocks * engine.block_size
        self.requests = [
            Request(i, arrival, prompt, min(output, max(1, room - prompt + 1)))
            for i, (arrival, prompt, output) in enumerate(requests)
        ]
        for request in self.requests:
            if conditions.scheduling == "priority" and priorities is not None:
                request.priority = priorities[request.index]
            if conditions.prefix_cache and parts is not None:
                request.parts = parts[request.index][: request.prompt // part_tokens]
        patience = conditions.client_timeout_seconds
        self.hanging_up: deque[tuple[int, int, int]] = deque()
        if patience is not None:
            ends = [
                (arrival + attempt * round(patience * 10**12), attempt, i)
                for attempt in range(1, conditions.client_retries + 2)
                for i, (arrival, _, _) in enumerate(requests)
            ]
            self.hanging_up.extend(sorted(ends))
        self.to_come = deque(range(len(requests)))
        self.gateway: deque[Request] = deque()
        self.replicas: list[Replica] = []
        self.refused = 0
        self.hang_ups = 0
        self.requeued = 0
        self.turn = 0
        self.draws = 0

    def start(self, ready_at: int, version: int = 0) -> Replica:
        self.replicas.append(Replica(ready_at, version))
        return self.replicas[-1]

    def remove(self, replica: Replica, now: int) -> None:
        replica.state = "draining" if replica.running or replica.waiting else "gone"
        replica.gone_at = now

    def kill(self, replica: Replica, now: int) -> None:
        held = [q for q in replica.running if not q.abandoned] + replica.waiting
        replica.state, replica.gone_at = "gone", now
        replica.iteration = replica.startable = None
        replica.running, replica.waiting = [], []
        for request in held:
            self.requeued += 1
            self.requests[request.index] = request.again()
            self.receive(self.requests[request.index], now)

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
                events.append((self.requests[self.to_come[0]].arrival, ARRIVE, 0))
            if self.hanging_up:
                events.append((self.hanging_up[0][0], HANG_UP, 0))
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
                    self.receive(self.gateway.popleft(), now)
            elif kind == HANG_UP:
                _, attempt, index = self.hanging_up.popleft()
                self.lose_patience(self.requests[index], attempt, now)
            elif kind == ARRIVE:
                self.arrive(self.requests[self.to_come.popleft()], now)
            else:
                self.begin(self.replicas[i], now)

    def arrive(self, request: Request, now: int) -> None:
        if request.prompt > self.engine.kv_blocks * self.engine.block_size:
            request.fate = "refused"
            self.refused += 1
        else:
            request.fate = "held"
            self.receive(request, now)

    def lose_patience(self, request: Request, attempt: int, now: int) -> None:
        if request.fate != "held" or request.first >= 0:
            return
        self.hang_ups += 1
        replica = request.replica
        if replica is None:
            self.gateway.remove(request)
        else:
            replica.hang_ups += 1
            if request in replica.waiting:
                replica.waiting.remove(request)
            elif replica.iteration is not None:
                request.abandoned = True
            else:
                replica.running.remove(request)
                self.let_go(replica, request)
            if replica.iteration is None and not replica.running and not replica.waiting:
                replica.startable = None
                if replica.state == "draining":
                    replica.state, replica.gone_at = "gone", now
        self.requests[request.index] = request.again()
        if attempt <= self.conditions.client_retries:
            self.receive(self.requests[request.index], now)
        else:
            self.requests[request.index].fate = "hung up"

    def receive(self, request: Request, now: int) -> None:
        ready = [replica for replica in self.replicas if replica.state == "ready"]
        if not ready:
            self.gateway.append(request)
            return
        replica = self.route(ready)
        request.replica = replica
        request.entered = now
        self.enqueue(replica, request, len(replica.waiting))
        if replica.iteration is None and replica.startable is None:
            replica.startable = now

    def route(self, ready: list[Replica]) -> Replica:
        if self.conditions.router == "least-outstanding":
            return min(ready, key=lambda replica: replica.load)
        if self.conditions.router == "round-robin":
            slots = len(self.replicas)
            while self.replicas[self.turn % slots] not in ready:
                self.turn += 1
            self.turn = self.turn % slots + 1
            return self.replicas[self.turn - 1]
        first = ready[self.draw() % len(ready)]
        if self.conditions.router == "random" or len(ready) == 1:
            return first
        others = [replica for replica in ready if replica is not first]
        second = others[self.draw() % len(others)]
        return second if second.load < first.load else first

    def draw(self) -> int:
        """Splitmix64, as published."""
        mask = 2**64 - 1
        self.draws += 1
        z = (self.conditions.seed + self.draws * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return (z ^ (z >> 31)) >> 33

    def enqueue(self, replica: Replica, request: Request, place: int) -> None:
        replica.waiting.insert(place, request)
        if self.conditions.scheduling == "priority":
            replica.waiting.sort(key=order)

    def blocks(self, tokens: int) -> int:
        return -(-tokens // self.engine.block_size)

    def parts_held(self, request: Request) -> list[int]:
        return request.parts[: request.computed // self.part_tokens]

    def used(self, replica: Replica) -> int:
        """KV blocks held; what several requests share counts once."""
        parts = [part for q in replica.running for part in self.parts_held(q)]
        shared = (len(parts) - len(set(parts))) * (self.part_tokens // self.engine.block_size)
        return sum(self.blocks(q.computed) for q in replica.running) - shared

    def free(self, replica: Replica, reserved: int) -> int:
        return self.engine.kv_blocks - self.used(replica) - reserved

    def let_go(self, replica: Replica, request: Request) -> None:
        """Of a request that runs no more: its prompt's blocks are kept where nobody else holds them."""
        for part in reversed(self.parts_held(request)):
            if part not in replica.kept and not any(part in self.parts_held(q) for q in replica.running):
                replica.kept.append(part)
        request.computed = 0

    def forget(self, replica: Replica) -> None:
        """What is kept never takes more than the free blocks."""
        size = self.part_tokens // self.engine.block_size
        while replica.kept and len(replica.kept) * size > self.free(replica, 0):
            replica.kept.pop(0)

    def put_back(self, replica: Replica) -> Request:
        request = replica.running[-1]
        if self.conditions.scheduling == "priority":
            request = max(replica.running, key=order)
        replica.running.remove(request)
        self.let_go(replica, request)
        self.enqueue(replica, request, 0)
        replica.preemptions += 1
        return request

    def begin(self, replica: Replica, now: int) -> None:
        """What is computed in an iteration is booked when it ends; the blocks it asks for are reserved here."""
        engine = self.engines[replica.version]
        replica.startable = None
        budget = engine.max_num_batched_tokens
        iteration: list[tuple[Request, int]] = []
        put_back = False
        for request in list(replica.running):
            if request not in replica.running:
                continue
            new = min(request.prompt + request.generated - request.computed, budget)
            while self.needed(request, new) > self.free(replica, self.reserved(iteration)):
                put_back = True
                victim = self.put_back(replica)
                budget += sum(n for q, n in iteration if q is victim)
                iteration = [(q, n) for q, n in iteration if q is not victim]
                if victim is request:
                    break
            if request in replica.running:
                budget -= new
                iteration.append((request, new))
        chunks: list[tuple[int, int]] = []
        decoding = [q for q, _ in iteration if not q.prefilling]
        reserved = self.reserved([(q, 1) for q in decoding])
        for request, new in iteration:
            if request.prefilling:
                chunks.append((request.computed, new))
                self.compute(replica, request, new)
        while replica.waiting and budget > 0 and len(replica.running) < engine.max_num_seqs and not put_back:
            request = replica.waiting[0]
            target = request.prompt + request.generated
            found = self.found(replica, request, target)
            held = {part for q in replica.running for part in self.parts_held(q)}
            shared = sum(part in held for part in found) * (self.part_tokens // engine.block_size)
            if self.blocks(target) - shared > self.free(replica, reserved):
                break
            replica.waiting.pop(0)
            hit = len(found) * self.part_tokens
            if request.scheduled < 0:
                request.scheduled = now
                replica.cache_queries += request.prompt
                replica.cache_hits += hit
            new = min(target - hit, budget)
            request.prefilling = True
            replica.running.append(request)
            if hit:
                self.compute(replica, request, hit)
            self.compute(replica, request, new)
            budget -= new
            chunks.append((hit, new))
            iteration.append((request, new))
        prefill = sum(new for _, new in chunks)
        context = sum(q.prompt + q.generated for q in decoding)
        a, b, c, d, e = self.coefficients[replica.version]
        took = a + self.dense[replica.version][len(decoding) + prefill]
        if engine.tables is None:
            pairs = sum(new * (2 * computed + new) for computed, new in chunks)
            took += b * len(decoding) + c * context + d * prefill + e * pairs // 2
        else:
            took += self.attention(engine, len(decoding), context, chunks)
        replica.iteration, replica.started, replica.ends = iteration, now, now + took

    def attention(self, engine: Engine, decoding: int, context: int, chunks: list[tuple[int, int]]) -> int:
        decode, prefill = engine.attention_ps()  # type: ignore[misc]
        more = engine.batching_overhead_per_mille
        took = 0
        if decoding:
            column = min(math.ceil((context // decoding) / 64), decode.shape[1] - 1)
            one = int(decode[decoding - 1, column])
            took += one + (one * more // 1000 if decoding > 1 else 0)
        if chunks:
            chunk = round(math.sqrt(sum(new**2 for _, new in chunks)))
            column = min(sum(math.ceil(computed / 64) for computed, _ in chunks), prefill.shape[1] - 1)
            one = int(prefill[chunk - 1, column])
            took += one + (one * more // 1000 if len(chunks) > 1 else 0)
        return took

    def needed(self, request: Request, new: int) -> int:
        return self.blocks(request.computed + new) - self.blocks(request.computed)

    def reserved(self, iteration: list[tuple[Request, int]]) -> int:
        return sum(self.needed(request, new) for request, new in iteration)

    def found(self, replica: Replica, request: Request, target: int) -> list[int]:
        held = {part for q in replica.running for part in self.parts_held(q)}
        found: list[int] = []
        for part in request.parts[: (target - 1) // self.part_tokens]:
            if part not in held and part not in replica.kept:
                break
            found.append(part)
        return found

    def compute(self, replica: Replica, request: Request, tokens: int) -> None:
        """Prompts are booked as they are scheduled, so that the next one scheduled finds what they begin with."""
        request.computed += tokens
        for part in self.parts_held(request):
            if part in replica.kept:
                replica.kept.remove(part)
        self.forget(replica)

    def end(self, replica: Replica, now: int) -> None:
        assert replica.iteration is not None
        replica.engine_steps += 1
        iteration, replica.iteration = replica.iteration, None
        for request, _ in iteration:
            if not request.prefilling:
                request.computed += 1
        self.forget(replica)
        done: list[Request] = []
        for request, _ in iteration:
            if request.abandoned or request.computed < request.prompt + request.generated:
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
                done.append(request)
        # First the prompt under way is dropped, then those computed in full, then what is done goes.
        gone = sorted((q for q in replica.running if q.abandoned), key=lambda q: q.computed >= q.prompt)
        for request in gone + done:
            replica.running.remove(request)
            self.let_go(replica, request)
        for request in done:
            request.fate = "done"
            replica.finished += 1
            gaps = request.goal - 1
            replica.tpot.append(-(-(now - request.first) // gaps) if gaps else 0)
            replica.queue.append(request.scheduled - request.entered)
        if replica.running or replica.waiting:
            replica.startable = now
        elif replica.state == "draining":
            replica.state, replica.gone_at = "gone", now

    def blocks_in_use(self, replica: Replica) -> int:
        """Those of the iteration under way included."""
        under_way = [] if replica.iteration is None else replica.iteration
        return self.used(replica) + self.reserved([(q, 1) for q, _ in under_way if not q.prefilling])


def order(request: Request) -> tuple[int, int, int]:
    return request.priority, request.entered, request.index
