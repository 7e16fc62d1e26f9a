"""The simulated fleet as a cluster would show it: pods with their stages, samples as of the last scrape.

A policy sees of it what Prometheus and the API server would tell, and nothing finer; the truth about each
request is kept for the score alone. Times are seconds of the trace, which begins at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from policies.scaling.observation import (
    Observation,
    Pod,
    PodSample,
    PodStage,
    SampleState,
    with_idleness,
)
from policies.scaling.resource import Objectives
from simulations.model import kernel
from simulations.model.cold_start import WarmAndColdNodes
from simulations.model.conditions import Conditions as Conditions
from simulations.model.conditions import Shortage
from simulations.model.engine import PICOSECONDS, Engine
from simulations.model.scrapes import Scrapes
from simulations.model.servers import HISTOGRAM_EDGES, Servers, picoseconds
from simulations.model.shown import Histogram, RequestTimes, WholeSample
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
    version: int
    """Of its pod template: 1 from a rollout on."""
    slot: int | None = None
    """None while no node has room for it."""
    bound_at: int | None = None
    ready_at: int | None = None
    terminating_at: int | None = None
    lost_at: int = kernel.NEVER
    """When its node is taken away, or it is killed."""
    on_warm_node: bool = False

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
        """`start_replicas` are ready at time 0: they were created a cold start before."""
        if start_replicas < 0:
            raise FleetError(f"start replicas is {start_replicas}: it must be at least 0")
        self.servers = Servers(trace, engine, conditions)
        self.engine = engine
        self._conditions = conditions
        self._slots_left = conditions.replica_slots
        shortage = conditions.shortage or Shortage(0.0, 0.0)
        self._shortage = (picoseconds(shortage.at_seconds), picoseconds(shortage.at_seconds + shortage.seconds))
        cold_start = conditions.cold_start
        warm_nodes = cold_start.warm_nodes if isinstance(cold_start, WarmAndColdNodes) else 0
        self._warm_until: list[float] = [math.inf] * warm_nodes
        """Of each node that is free and has the weights, until when it is kept, in picoseconds."""
        self._members: list[_Member] = []
        self._lives: list[tuple[int, int]] = []
        """When each replica that is gone took its GPUs, and when it gave them back."""
        self._now = 0
        self._next_loss = kernel.NEVER
        self._created = 0
        self._version = 0
        """Of the pod template that replicas are now created from."""
        self._desired = start_replicas
        for _ in range(start_replicas):
            self._create(ready=True)
        self.scrapes = Scrapes(self.servers, objectives, conditions.scraping, conditions.seed)
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
        scrape = self.scrapes.next_by(now)
        if scrape is not None:
            self._step(picoseconds(scrape))
            self.scrapes.take(scrape)
        self._step(until)

    def _step(self, until: int) -> None:
        while (event := min(self._next_loss, self._next_of_rollout(), self._end_of_shortage())) <= until:
            self._advance(event)
            for member in [m for m in self._members if m.lost_at <= self._now]:
                self._lose(member)
            self._next_loss = min((m.lost_at for m in self._members), default=kernel.NEVER)
            self._roll()
            self._bind_those_that_wait()
        self._advance(until)

    def _end_of_shortage(self) -> int:
        """When it will be over; never, once it is."""
        _, end = self._shortage
        return end if end > self._now else kernel.NEVER

    def _next_of_rollout(self) -> int:
        """When a rollout begins, or goes on since a new replica is ready."""
        rollout = self._conditions.rollout
        if rollout is None:
            return kernel.NEVER
        if self._version == 0:
            return picoseconds(rollout.at_seconds)
        if not self._rolling():
            return kernel.NEVER
        booting = [m.ready_at for m in self._members if m.version == self._version and m.ready_at is not None]
        return min((at for at in booting if at > self._now), default=kernel.NEVER)

    def _rolling(self) -> bool:
        """Whether there are replicas still of the template before."""
        return any(m.version < self._version and m.terminating_at is None for m in self._members)

    def _roll(self) -> None:
        rollout = self._conditions.rollout
        if rollout is not None:
            self._version = int(self._now >= picoseconds(rollout.at_seconds))
            # Where a start takes no time, the next step is due at once.
            while self._reconcile():
                pass

    def _advance(self, until: int) -> None:
        self.servers.advance(until)
        self._now = until
        if self.servers.any_gone():
            gone = self.servers.numbers[:, kernel.STATE] == kernel.GONE
            for member in [m for m in self._members if m.slot is not None and gone[m.slot]]:
                self._bury(member)

    def _lose(self, member: _Member) -> None:
        """A node is taken away, or the grace of a removed replica is over."""
        assert member.slot is not None
        self.servers.kill(member.slot, self._now)
        was_asked_to_go = member.terminating_at is not None
        self._bury(member, node_is_gone=not was_asked_to_go)
        if not was_asked_to_go:
            self._create()

    def _lost_by(self, member: _Member, time: int) -> None:
        member.lost_at = min(member.lost_at, time)
        self._next_loss = min(self._next_loss, member.lost_at)

    def _bury(self, member: _Member, *, node_is_gone: bool = False) -> None:
        self._members.remove(member)
        if member.slot is None or member.bound_at is None:
            return
        gone_at = int(self.servers.numbers[member.slot, kernel.GONE_AT])
        self._lives.append((member.bound_at, gone_at))
        self.servers.free(member.slot)
        cold_start = self._conditions.cold_start
        was_ready = member.ready_at is not None and member.ready_at <= gone_at
        if isinstance(cold_start, WarmAndColdNodes) and (was_ready or member.on_warm_node) and not node_is_gone:
            self._warm_until.append(gone_at + cold_start.kept_seconds * PICOSECONDS)
        if self._slots_left is not None:
            self._slots_left += 1
            self._bind_those_that_wait()

    def _bind_those_that_wait(self) -> None:
        for waiting in [m for m in self._members if m.slot is None]:
            self._bind(waiting)

    def _is_short(self) -> bool:
        begin, end = self._shortage
        return begin <= self._now < end

    def _create(self, *, ready: bool = False) -> None:
        member = _Member(self._created, self._now, self._version)
        self._created += 1
        self._members.append(member)
        self._bind(member, ready=ready)

    def _bind(self, member: _Member, *, ready: bool = False) -> None:
        """Gives it a node, if there is room on one."""
        if self._slots_left == 0 or (self._is_short() and not ready):
            return
        if self._slots_left is not None:
            self._slots_left -= 1
        rng = np.random.default_rng([self._conditions.seed, member.serial])
        cold_start = picoseconds(self._cold_start_of(member, rng, made_first=ready))
        if ready:
            member.created_at -= cold_start
        member.bound_at = member.created_at if ready else self._now
        member.ready_at = member.bound_at + cold_start
        member.slot = self.servers.start(member.ready_at, member.version)
        if self._conditions.spot_losses_per_hour > 0:
            lives = np.random.default_rng([self._conditions.seed, member.serial, 1]).exponential()
            self._lost_by(member, self._now + picoseconds(lives * 3600 / self._conditions.spot_losses_per_hour))

    def _cold_start_of(self, member: _Member, rng: np.random.Generator, *, made_first: bool) -> float:
        match self._conditions.cold_start:
            case WarmAndColdNodes() as nodes:
                self._warm_until = [until for until in self._warm_until if until > self._now]
                if self._warm_until and not made_first:
                    # The one that is kept longest, so that the others may go.
                    self._warm_until.remove(max(self._warm_until))
                    member.on_warm_node = True
                return (nodes.warm if member.on_warm_node else nodes.cold).draw(rng, self.time)
            case cold_start:
                return cold_start.draw(rng, self.time)

    def observe(self, previous: Observation | None = None, *, histograms: View = True) -> Observation:
        """What a look at the API server and at Prometheus shows now; `histograms` may be left unread."""
        before = {} if previous is None else {pod.name: pod.sample for pod in previous.pods}
        samples = self.scrapes.samples(self.time, histograms=histograms is not False)
        if histograms == "whole":
            samples = self._whole(samples)
        pods = tuple(self._pod(member, samples, before) for member in self._members)
        wake = self.scrapes.at_gateway(self.time)
        return Observation(
            time=self.time,
            desired=self._desired,
            pods=pods,
            template=self._template(self._version),
            rolling=self._rolling(),
            model_name=self.engine.model,
            wake=wake,
        )

    def _template(self, version: int) -> str:
        """As a pod tells it; told where there is more than one."""
        return "" if self._conditions.rollout is None else f"template-{version}"

    def _pod(self, member: _Member, samples: dict[int, PodSample], before: dict[str, PodSample | None]) -> Pod:
        now = self._now
        name, created = member.name, member.created_at / PICOSECONDS
        if member.bound_at is None or member.ready_at is None or member.slot is None:
            return Pod(name, PodStage.UNSCHEDULABLE, created, uid=name, template=self._template(member.version))
        boot = member.ready_at - member.bound_at
        scheduled = member.bound_at + min(SCHEDULING, boot // 20)
        started = scheduled + min(STARTING, boot // 10)
        sample = None
        if member.terminating_at is not None:
            stage = PodStage.TERMINATING
        elif now >= member.ready_at:
            stage = PodStage.READY
            sample = samples.get(member.slot)
            if sample is None or self.scrapes.is_before(member.ready_at):
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
            template=self._template(member.version),
            sample=sample,
        )

    def _whole(self, samples: dict[int, PodSample]) -> dict[int, PodSample]:
        """The same, each with all its buckets."""
        servers = self.servers
        scraped_at = -1 if self.scrapes.at is None else picoseconds(self.scrapes.at)
        members = {m.slot: m for m in self._members if m.slot is not None and m.slot in samples}
        ready = [(m.serial, slot, m.ready_at) for slot, m in members.items() if m.ready_at is not None]
        self._request_times.count(servers.requests, servers.arrived, scraped_at, ready)
        whole: dict[int, PodSample] = {}
        for slot, sample in samples.items():
            counts = self.scrapes.rows[slot, kernel.BUCKETS : kernel.PHASE].reshape(-1, kernel.HISTOGRAM)
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

    def scale(self, replicas: int) -> None:
        """Asks for that many: creates, or removes the youngest not yet ready, then the least loaded.

        While a rollout is under way, the old ones go first, and all that are created are new.
        """
        if replicas < 0:
            raise FleetError(f"{replicas} replicas were asked: 0 is the least")
        self._desired = replicas
        self._reconcile()
        self._step(self._now)

    def _reconcile(self) -> bool:
        """Removes what is more than was asked for and creates what is less, of a rollout the next step; says if any."""
        living = [m for m in self._members if m.terminating_at is None]
        new = [m for m in living if m.version == self._version]
        old = [m for m in living if m.version < self._version]
        serving = len(living) - sum(not self._is_ready(m) for m in new)
        spare_old, spare_new = max(0, serving - self._desired), max(0, len(new) - self._desired)
        going = sorted(old, key=self._removal_order)[:spare_old] + sorted(new, key=self._removal_order)[:spare_new]
        for member in going:
            self._remove(member)
        rollout = self._conditions.rollout
        most = self._desired if rollout is None or len(old) <= spare_old else self._desired + rollout.max_surge
        missing = min(self._desired - len(new), most - (len(living) - len(going)))
        for _ in range(missing):
            self._create()
        return bool(going) or missing > 0

    def _remove(self, member: _Member) -> None:
        member.terminating_at = self._now
        if member.slot is None:
            self._members.remove(member)
        else:
            self.servers.remove(member.slot, self._now)
            if self._conditions.grace_seconds is not None:
                self._lost_by(member, self._now + picoseconds(self._conditions.grace_seconds))

    def _is_ready(self, member: _Member) -> bool:
        return member.ready_at is not None and member.ready_at <= self._now

    def _removal_order(self, member: _Member) -> tuple[int, int, int]:
        if member.slot is None or not self._is_ready(member):
            return (0, 0, -member.serial)
        row = self.servers.numbers[member.slot]
        return (1, int(row[kernel.RUNNING] + row[kernel.WAITING]), -member.serial)

    def counts(self) -> tuple[int, int, int]:
        """Replicas that were created and not asked to go, those of them ready, and those that drain."""
        living = [m for m in self._members if m.terminating_at is None]
        ready = sum(map(self._is_ready, living))
        return len(living), ready, len(self._members) - len(living)

    def queued(self) -> tuple[int, int]:
        """Requests waiting, at the gateway included, and running; the truth, for reports."""
        waiting, running = self.servers.in_hand()
        return waiting + self.servers.at_gateway, running

    def gpu_hours(self, since: float = 0.0) -> float:
        """GPU-hours held from that time until now, from each replica's binding until it is gone, drain included."""
        start = picoseconds(since)
        lives = [*self._lives, *((m.bound_at, self._now) for m in self._members if m.bound_at is not None)]
        held = sum(max(0, min(gone, self._now) - max(start, taken)) for taken, gone in lives)
        return held / PICOSECONDS / 3600 * self.engine.gpus
