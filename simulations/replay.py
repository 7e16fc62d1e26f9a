"""What a policy would have done to a trace: ticks over a simulated fleet, and the score.

Policies are pure here too: one answers a decision and its next state to an observation and its last state.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from policies.scaling.decision import Binding, Decision
from policies.scaling.history import History
from policies.scaling.observation import Observation
from policies.scaling.policy import ScalingPolicy, judge
from policies.scaling.resource import Objectives, Spec
from simulations.model import kernel
from simulations.model.conditions import Conditions
from simulations.model.engine import PICOSECONDS, Engine
from simulations.model.fleet import SimulatedFleet, View
from simulations.model.servers import Servers, picoseconds
from simulations.traces.trace import Trace

S = TypeVar("S")

LONGEST_WORK_OFF_SECONDS = 3600.0
"""After the last arrival what is held is worked off for so long; what then remains was never answered."""


class Policy(Protocol[S]):
    """What judges a fleet: no clock, no memory but the state it is handed."""

    @property
    def reads_histograms(self) -> View: ...

    def begin(self) -> S: ...

    def decide(self, observation: Observation, state: S) -> tuple[Decision, S]: ...


@dataclass(frozen=True, slots=True)
class Preheat:
    """Our own policy, with the very functions that the autoscaler's loop calls."""

    policy: ScalingPolicy
    hears_gateway: bool = True
    """Whether it is told of requests that wait at the gateway, as by a wake query or a router's counter."""

    @property
    def reads_histograms(self) -> bool:
        return True

    @classmethod
    def of(cls, spec: Spec, *, tick_seconds: float = 15.0, epoch_seconds: float = 0.0) -> Preheat:
        """`epoch_seconds` is the Unix time of the trace's time 0, which its schedule goes by."""
        hears = spec.wake.query is not None or spec.prometheus.arrivals is not None
        policy = ScalingPolicy.of(spec, tick_seconds=tick_seconds)
        calendar = tuple(replace(floor, epoch_seconds=epoch_seconds) for floor in policy.calendar)
        return cls(replace(policy, calendar=calendar), hears)

    def begin(self) -> History:
        return History()

    def decide(self, observation: Observation, state: History) -> tuple[Decision, History]:
        if not self.hears_gateway:
            observation = replace(observation, wake=None)
        done = state.activity(observation, self.policy)
        decision = judge(observation, done, state, self.policy)
        return decision, state.after(observation, done, decision, self.policy)


@dataclass(frozen=True, slots=True)
class Schedule:
    """So many replicas at each time, settled beforehand."""

    name: str
    step_seconds: float
    replicas: tuple[int, ...]
    """One a step from time 0; the last one holds from there on."""

    @property
    def reads_histograms(self) -> bool:
        return False

    @classmethod
    def static(cls, replicas: int) -> Schedule:
        return cls(f"static:{replicas}", 1.0, (replicas,))

    def begin(self) -> None:
        return None

    def decide(self, observation: Observation, state: None) -> tuple[Decision, None]:
        return self.at(observation.time, observation.desired), None

    def at(self, now: float, desired: int) -> Decision:
        """What it says of a time; it looks at nothing."""
        wanted = self.replicas[min(int(now / self.step_seconds + 1e-9), len(self.replicas) - 1)]
        return Decision(now, wanted, wanted, desired, Binding.FORECAST, f"{wanted} by schedule")


@dataclass(frozen=True, slots=True)
class Timeline:
    """One entry a tick, after its decision was carried out."""

    time: NDArray[np.float64]
    created: NDArray[np.int64]
    """Replicas created and not asked to go, ready or not."""
    ready: NDArray[np.int64]
    draining: NDArray[np.int64]
    waiting: NDArray[np.int64]
    running: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of it. Latencies of answered requests that arrived from `score_from_seconds` on."""

    attainment: float
    """Share of all requests from then on whose TTFT and own mean TPOT kept their objectives."""
    gpu_hours: float
    requests: int
    finished: int
    refused: int
    ttft_seconds: dict[str, float]
    tpot_seconds: dict[str, float]
    replica_changes: int
    max_replicas: int
    score_from_seconds: float
    end_seconds: float
    decisions: tuple[Decision, ...]
    timeline: Timeline
    arrived_at_seconds: NDArray[np.float64]
    """Of every request of the trace, as are the three below; NaN where it has none."""
    ttft: NDArray[np.float64]
    tpot: NDArray[np.float64]
    attained: NDArray[np.bool_]
    """Answered in full, within both objectives."""
    loop_seconds: float = 0.0
    """What the ticks took on the clock, without setting up, compiling and scoring."""

    @property
    def decision_hash(self) -> str:
        """Of each tick's time, number asked and wish: the same on any machine."""
        lines = (f"{round(d.time * 1e6)},{d.replicas},{d.wanted}\n" for d in self.decisions)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def replay(
    trace: Trace,
    engine: Engine,
    policy: Policy[S] | Schedule,
    *,
    objectives: Objectives,
    conditions: Conditions,
    tick_seconds: float = 15.0,
    min_replicas: int = 1,
    max_replicas: int,
    start_replicas: int | None = None,
    score_from_seconds: float = 0.0,
    progress: Callable[[float], None] | None = None,
) -> Replay:
    """Lets the policy rule the fleet from time 0 until every request is answered, a tick at a time."""
    fleet = SimulatedFleet(
        trace,
        engine,
        objectives=objectives,
        conditions=conditions,
        start_replicas=min_replicas if start_replicas is None else start_replicas,
    )
    recorder = Recorder(fleet)
    decide_now = _judgement(policy, fleet)
    tick = 0
    begun = time.perf_counter()
    while True:
        now = tick * tick_seconds
        fleet.advance(now)
        if recorder.is_over():
            break
        decision = decide_now()
        asked = min(max(decision.replicas, min_replicas), max_replicas)
        if asked != fleet.desired:
            fleet.scale(asked)
        recorder.note(decision if asked == decision.replicas else replace(decision, replicas=asked))
        if progress is not None and tick % 64 == 0:
            progress(min(1.0, now / max(trace.end_seconds, tick_seconds)))
        tick += 1
    took = time.perf_counter() - begun
    return replace(recorder.result(objectives, score_from_seconds), loop_seconds=took)


def _judgement(policy: Policy[S] | Schedule, fleet: SimulatedFleet) -> Callable[[], Decision]:
    """What answers a decision at each tick; a schedule is not shown the fleet, which costs more than it does."""
    if isinstance(policy, Schedule):
        return lambda: policy.at(fleet.time, fleet.desired)
    state = policy.begin()
    previous: Observation | None = None

    def decide_now() -> Decision:
        nonlocal state, previous
        previous = fleet.observe(previous, histograms=policy.reads_histograms)
        decision, state = policy.decide(previous, state)
        return decision

    return decide_now


class Recorder:
    """Keeps what the report needs of each tick, for a replay and for the live loop alike."""

    def __init__(self, fleet: SimulatedFleet) -> None:
        self._fleet = fleet
        self._decisions: list[Decision] = []
        self._ticks: list[tuple[float, int, int, int, int, int]] = []

    def is_over(self) -> bool:
        """Whether all is answered, or too long after the last arrival to wait for more."""
        servers = self._fleet.servers
        return servers.is_idle() or self._fleet.time > servers.trace.end_seconds + LONGEST_WORK_OFF_SECONDS

    def note(self, decision: Decision) -> None:
        """A tick's decision, carried out."""
        self._decisions.append(decision)
        self._ticks.append((self._fleet.time, *self._fleet.counts(), *self._fleet.queued()))

    def result(self, objectives: Objectives, score_from_seconds: float = 0.0) -> Replay:
        """The score of the requests that arrived from then on."""
        fleet, servers = self._fleet, self._fleet.servers
        ticks = np.array(self._ticks, dtype=np.float64).reshape(-1, 6)
        columns = [ticks[:, i].astype(np.int64) for i in range(1, 6)]
        ttft, tpot = servers.time_to_first_token_ps(), servers.time_per_output_token_ps()
        scored = servers.trace.arrived_at_seconds >= score_from_seconds
        done = (servers.requests[:, kernel.FATE] == kernel.DONE) & scored
        created = columns[0]
        return Replay(
            attainment=attainment(servers, objectives, score_from_seconds),
            gpu_hours=fleet.gpu_hours(score_from_seconds),
            requests=int(scored.sum()),
            finished=int(done.sum()),
            refused=servers.refused,
            ttft_seconds=_percentiles(ttft[done]),
            tpot_seconds=_percentiles(tpot[done]),
            replica_changes=int((np.diff(created) != 0).sum()),
            max_replicas=int(created.max(initial=0)),
            score_from_seconds=score_from_seconds,
            end_seconds=fleet.time,
            decisions=tuple(self._decisions),
            timeline=Timeline(ticks[:, 0], *columns),
            arrived_at_seconds=servers.trace.arrived_at_seconds,
            ttft=np.where(ttft >= 0, ttft / PICOSECONDS, np.nan),
            tpot=np.where(tpot >= 0, tpot / PICOSECONDS, np.nan),
            attained=attained(servers, objectives),
        )


def attained(servers: Servers, objectives: Objectives) -> NDArray[np.bool_]:
    """Of each request, whether it was answered in full within both objectives."""
    ttft, tpot = servers.time_to_first_token_ps(), servers.time_per_output_token_ps()
    return np.asarray(
        (ttft >= 0)
        & (ttft <= picoseconds(objectives.ttft_seconds))
        & (tpot >= 0)
        & (tpot <= picoseconds(objectives.tpot_seconds))
        & ~servers.cut_short
    )


def attainment(servers: Servers, objectives: Objectives, score_from_seconds: float = 0.0) -> float:
    """Share of all requests arriving from then on that attained; NaN where none arrives."""
    scored = servers.trace.arrived_at_seconds >= score_from_seconds
    return float(attained(servers, objectives)[scored].mean()) if scored.any() else float("nan")


def _percentiles(ps: NDArray[np.int64]) -> dict[str, float]:
    if not ps.size:
        return {"p50": float("nan"), "p90": float("nan"), "p99": float("nan")}
    p50, p90, p99 = (np.percentile(ps, [50, 90, 99]) / PICOSECONDS).tolist()
    return {"p50": p50, "p90": p90, "p99": p99}
