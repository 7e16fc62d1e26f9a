"""The simulated fleet as a cluster would show it: pods with their stages, samples as of the last scrape.

A policy sees of it what Prometheus and the API server would tell, and nothing finer; the truth about each
request is kept for the score alone. Times are seconds of the trace, which begins at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from cluster.vllm_metrics import edges_around
from policies.scaling.observation import (
    Distribution,
    Observation,
    Pod,
    PodSample,
    PodStage,
    SampleState,
    with_idleness,
)
from policies.scaling.resource import Objectives
from simulations import kernel
from simulations.cold_start import WarmAndColdNodes
from simulations.conditions import Conditions as Conditions
from simulations.conditions import ConditionsError, not_yet
from simulations.engine import PICOSECONDS, Engine
from simulations.kernel import Ints
from simulations.servers import HISTOGRAM_EDGES, Servers, picoseconds
from simulations.shown import Histogram, RequestTimes, WholeSample
from simulations.traces.trace import Trace

SCHEDULING = PICOSECONDS
"""From creation to a node, on a cluster with room; a twentieth of the cold start where that is shorter."""
STARTING = 4 * PICOSECONDS
"""From a node to a running container whose image is there; a tenth of the cold start where that is shorter."""


View = bool | Literal["whole"]
"""Which histograms are read: none, the buckets around the objectives, or all buckets, as a `WholeSample`."""
_HISTOGRAMS = ("ttft", "tpot", "inter_token", "queue_time")
"""In the order of the event loop's."""


class FleetError(ValueError):
    """The fleet cannot be set up so; the message names the setting and the remedy."""


@dataclass(slots=True)
class _Member:
    """A pod of ours, while it lives."""

    serial: int
    created_at: int
    slot: int | None = None
    """None while no node has room for it."""
    bound_at: int | None = None
    ready_at: int | None = None
    terminating_at: int | None = None

    @property
    def name(self) -> str:
        return f"replica-{self.serial}"


class SimulatedFleet:
    """One target whose replicas run an engine and serve a trace."""

    def __init__(
        self,
        trace: Trace,
        engine: Engine,
        *,
        objectives: Objectives,
        conditions: Conditions,
        start_replicas: int = 1,
    ) -> None:
        """`start_replicas` are ready at time 0."""
        if start_replicas < 0:
            raise FleetError(f"start replicas is {start_replicas}: it must be at least 0")
        missing = not_yet(conditions)
        if missing:
            raise ConditionsError(f"{', '.join(missing)}: not simulated yet, leave the default")
        self.servers = Servers(trace, engine)
        self.engine = engine
        self._objectives = objectives
        self._cold_start = conditions.cold_start
        self._seed = conditions.seed
        self._scrape_interval = conditions.scraping.interval_seconds
        self._scrape_offset = conditions.scraping.offset_seconds
        self._slots_left = conditions.replica_slots
        self._members: list[_Member] = []
        self._lives: list[tuple[int, int]] = []
        """When each replica that is gone took its GPUs, and when it gave them back."""
        self._now = 0
        self._created = 0
        self._desired = start_replicas
        self._around = [
            edges_around(objective, edges)
            for objective, edges in zip(
                (objectives.ttft_seconds, objectives.tpot_seconds, objectives.tpot_seconds, objectives.ttft_seconds),
                HISTOGRAM_EDGES,
                strict=True,
            )
        ]
        for _ in range(start_replicas):
            self._create(ready=True)
        self._scraped_at: float | None = None
        self._scrape: Ints = self.servers.numbers[:0, : kernel.PHASE].copy()
        self._scraped_kv: list[float] = []
        self._request_times = RequestTimes()
        self.advance(0.0)

    @property
    def time(self) -> float:
        """Where the simulation stands."""
        return self._now / PICOSECONDS

    @property
    def desired(self) -> int:
        """The number last asked for."""
        return self._desired

    def advance(self, now: float) -> None:
        """Lets time go by up to `now`."""
        until = picoseconds(now)
        if until < self._now:
            raise FleetError(f"time goes forward only: it is {self.time:g} s, {now:g} s was asked")
        interval = self._scrape_interval
        scrape = now
        if interval > 0:
            scrape = math.floor((now - self._scrape_offset) / interval + 1e-9) * interval + self._scrape_offset
        if scrape >= 0 and (self._scraped_at is None or scrape > self._scraped_at):
            self._step(picoseconds(scrape))
            self._take_scrape(scrape)
        self._step(until)

    def _step(self, until: int) -> None:
        self.servers.advance(until)
        self._now = until
        gone = self.servers.numbers[:, kernel.STATE] == kernel.GONE
        if gone.any():
            for member in [m for m in self._members if m.slot is not None and gone[m.slot]]:
                self._bury(member)

    def _bury(self, member: _Member) -> None:
        self._members.remove(member)
        if member.slot is None or member.bound_at is None:
            return
        gone_at = int(self.servers.numbers[member.slot, kernel.GONE_AT])
        self._lives.append((member.bound_at, gone_at))
        self.servers.free(member.slot)
        if self._slots_left is not None:
            self._slots_left += 1
            for waiting in self._members:
                if waiting.slot is None:
                    self._bind(waiting, self._cold_start_of(waiting))
                    break

    def _create(self, *, ready: bool = False) -> None:
        member = _Member(self._created, self._now)
        self._created += 1
        self._members.append(member)
        self._bind(member, 0 if ready else self._cold_start_of(member))

    def _cold_start_of(self, member: _Member) -> int:
        rng = np.random.default_rng([self._seed, member.serial])
        match self._cold_start:
            case WarmAndColdNodes():
                raise ConditionsError("warm and cold nodes: not simulated yet, give another cold start")
            case cold_start:
                return picoseconds(cold_start.draw(rng))

    def _bind(self, member: _Member, cold_start: int) -> None:
        if self._slots_left is not None:
            if self._slots_left == 0:
                return
            self._slots_left -= 1
        member.bound_at = self._now
        member.ready_at = self._now + cold_start
        member.slot = self.servers.start(member.ready_at)

    def _take_scrape(self, at: float) -> None:
        used = int(self.servers.slots_used)
        self._scraped_at = at
        self._scrape = self.servers.numbers[:used, : kernel.PHASE].copy()
        ready = self._scrape[:, kernel.STATE] == kernel.READY
        self._scraped_kv = [self.servers.kv_cache_usage(slot) if ready[slot] else math.nan for slot in range(used)]

    def observe(self, previous: Observation | None = None, *, histograms: View = True) -> Observation:
        """What a look at the API server and at Prometheus shows now; `histograms` may be left unread."""
        before = {} if previous is None else {pod.name: pod.sample for pod in previous.pods}
        samples = self._samples(histograms is not False)
        if histograms == "whole":
            samples = self._whole(samples)
        pods = tuple(self._pod(member, samples, before) for member in self._members)
        return Observation(time=self.time, desired=self._desired, pods=pods, model_name=self.engine.model)

    def _pod(self, member: _Member, samples: dict[int, PodSample], before: dict[str, PodSample | None]) -> Pod:
        now = self._now
        name, created = member.name, member.created_at / PICOSECONDS
        if member.bound_at is None or member.ready_at is None or member.slot is None:
            return Pod(name, PodStage.UNSCHEDULABLE, created, uid=name)
        boot = member.ready_at - member.bound_at
        scheduled = member.bound_at + min(SCHEDULING, boot // 20)
        started = scheduled + min(STARTING, boot // 10)
        sample = None
        if member.terminating_at is not None:
            stage = PodStage.TERMINATING
        elif now >= member.ready_at:
            stage = PodStage.READY
            sample = samples.get(member.slot)
            if sample is None or self._scraped_before(member.ready_at):
                sample = PodSample(time=None, state=SampleState.ABSENT)
            sample = with_idleness(sample, before.get(name), up=True)
        elif now >= started:
            stage = PodStage.STARTING
        else:
            stage = PodStage.SCHEDULED if now >= scheduled else PodStage.CREATED
        return Pod(
            name,
            stage,
            created,
            scheduled / PICOSECONDS if now >= scheduled else None,
            started / PICOSECONDS if now >= started else None,
            member.ready_at / PICOSECONDS if now >= member.ready_at else None,
            None if member.terminating_at is None else member.terminating_at / PICOSECONDS,
            uid=name,
            sample=sample,
        )

    def _scraped_before(self, time: int) -> bool:
        return self._scraped_at is None or picoseconds(self._scraped_at) < time

    def _samples(self, histograms: bool) -> dict[int, PodSample]:
        """By slot, what the last scrape of the pods then ready read."""
        rows = self._scrape
        if self._scraped_at is None or not len(rows):
            return {}
        distributions: list[list[Distribution | None]] = [[None] * len(rows)] * 4
        if histograms:
            buckets = rows[:, kernel.BUCKETS : kernel.PHASE].reshape(len(rows), -1, kernel.HISTOGRAM)
            reached = np.cumsum(buckets, axis=2)
            distributions = [self._histogram(rows, reached[:, which], which) for which in range(4)]
        samples: dict[int, PodSample] = {}
        columns = rows[:, : kernel.SUM_SECONDS].tolist()
        for slot, row in enumerate(columns):
            if row[kernel.STATE] != kernel.READY:
                continue
            samples[slot] = PodSample(
                time=self._scraped_at,
                state=SampleState.FRESH,
                requests_running=float(row[kernel.RUNNING]),
                requests_waiting=float(row[kernel.WAITING]),
                kv_cache_usage=self._scraped_kv[slot],
                kv_cache_tokens=float(self.engine.kv_blocks * self.engine.block_size),
                prompt_tokens=float(row[kernel.PROMPT_TOKENS]),
                generation_tokens=float(row[kernel.GENERATION_TOKENS]),
                requests_finished=float(row[kernel.FINISHED]),
                http_requests_ended=float(row[kernel.FINISHED]),
                preemptions=float(row[kernel.PREEMPTIONS]),
                engine_steps=float(row[kernel.ENGINE_STEPS]),
                ttft=distributions[kernel.TTFT][slot],
                tpot=distributions[kernel.TPOT][slot],
                inter_token=distributions[kernel.INTER_TOKEN][slot],
                queue_time=distributions[kernel.QUEUE][slot],
            )
        return samples

    def _whole(self, samples: dict[int, PodSample]) -> dict[int, PodSample]:
        """The same, each with all its buckets."""
        servers = self.servers
        scraped_at = -1 if self._scraped_at is None else picoseconds(self._scraped_at)
        members = {m.slot: m for m in self._members if m.slot is not None and m.slot in samples}
        ready = [(m.serial, slot, m.ready_at) for slot, m in members.items() if m.ready_at is not None]
        self._request_times.count(servers.requests, servers.arrived, scraped_at, ready)
        whole: dict[int, PodSample] = {}
        for slot, sample in samples.items():
            counts = self._scrape[slot, kernel.BUCKETS : kernel.PHASE].reshape(-1, kernel.HISTOGRAM)
            reached = np.cumsum(counts, axis=1).astype(float).tolist()
            shown = {
                name: Histogram(edges, (*row[: len(edges)], row[-1]), distribution.sum_seconds)
                for name, edges, row in zip(_HISTOGRAMS, HISTOGRAM_EDGES, reached, strict=True)
                if (distribution := getattr(sample, name)) is not None
            }
            if slot in members:
                shown |= self._request_times.histograms(members[slot].serial)
            kept = {field.name: getattr(sample, field.name) for field in fields(PodSample)}
            whole[slot] = WholeSample(**kept, histograms=shown)
        return whole

    def _histogram(self, rows: Ints, reached: Ints, which: int) -> list[Distribution | None]:
        """One a slot: sum, count, and the two buckets around the objective."""
        edges = HISTOGRAM_EDGES[which]
        lower, upper = self._around[which]
        sums = rows[:, kernel.SUM_SECONDS + which] + rows[:, kernel.SUM_PICOSECONDS + which] / PICOSECONDS
        counts = reached[:, -1]
        below = reached[:, edges.index(lower)] if lower > 0 else np.zeros_like(counts)
        above = reached[:, edges.index(upper)] if upper < math.inf else counts
        return [
            Distribution(total, float(count), lower, float(low), upper, float(high))
            for total, count, low, high in zip(
                sums.tolist(), counts.tolist(), below.tolist(), above.tolist(), strict=True
            )
        ]

    def scale(self, replicas: int) -> None:
        """Asks for that many: creates, or removes the youngest not yet ready, then the least loaded."""
        if replicas < 0:
            raise FleetError(f"{replicas} replicas were asked: 0 is the least")
        self._desired = replicas
        living = [m for m in self._members if m.terminating_at is None]
        for _ in range(replicas - len(living)):
            self._create()
        for member in sorted(living, key=self._removal_order)[: max(0, len(living) - replicas)]:
            member.terminating_at = self._now
            if member.slot is None:
                self._members.remove(member)
            else:
                self.servers.remove(member.slot, self._now)
        self._step(self._now)

    def _removal_order(self, member: _Member) -> tuple[int, int, int]:
        if member.slot is None or member.ready_at is None or member.ready_at > self._now:
            return (0, 0, -member.serial)
        row = self.servers.numbers[member.slot]
        return (1, int(row[kernel.RUNNING] + row[kernel.WAITING]), -member.serial)

    def counts(self) -> tuple[int, int, int]:
        """Replicas that were created and not asked to go, those of them ready, and those that drain."""
        living = [m for m in self._members if m.terminating_at is None]
        ready = sum(m.ready_at is not None and m.ready_at <= self._now for m in living)
        return len(living), ready, len(self._members) - len(living)

    def queued(self) -> tuple[int, int]:
        """Requests waiting, at the gateway included, and running; the truth, for reports."""
        numbers = self.servers.numbers
        waiting = int(numbers[:, kernel.WAITING].sum()) + self.servers.at_gateway
        return waiting, int(numbers[:, kernel.RUNNING].sum())

    def gpu_hours(self, since: float = 0.0) -> float:
        """GPU-hours held from that time until now, from each replica's binding until it is gone, drain included."""
        start = picoseconds(since)
        lives = [*self._lives, *((m.bound_at, self._now) for m in self._members if m.bound_at is not None)]
        held = sum(max(0, min(gone, self._now) - max(start, taken)) for taken, gone in lives)
        return held / PICOSECONDS / 3600 * self.engine.gpus
