"""A fleet of flowing requests for tests of judgement: exact, without chance, told at any tick and any pace.

Requests are real numbers. Each ready pod takes its share of the load; n in flight make a token each per step of
t = a + k·n; what exceeds the most that a pod runs waits in its queue. All times are multiplied by `pace`, so that
the same story can be told slower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from policies.scaling.decision import Decision
from policies.scaling.history import History
from policies.scaling.observation import (
    Distribution,
    Observation,
    Pod,
    PodSample,
    PodStage,
    SampleState,
    with_idleness,
)
from policies.scaling.policy import ScalingPolicy, decide

PROMPT, OUTPUT, KV_TOKENS, MOST_RUNNING = 1000.0, 200.0, 100_000.0, 60.0
FIXED_SECONDS, SECONDS_PER_SEQUENCE = 0.025, 0.0015
"""A step of n sequences takes 25 + 1.5·n ms: 27 at 65 ms, two requests a second."""


@dataclass
class Server:
    """One pod's counters."""

    name: str
    created_at: float
    ready_at: float
    waiting: float = 0.0
    running: float = 0.0
    arrived: float = 0.0
    finished: float = 0.0
    steps_seconds: float = 0.0
    generated: float = 0.0
    steps: float = 0.0

    def serve(self, rate: float, seconds: float, pace: float) -> None:
        """Take `rate` for `seconds`: who has a place runs, each running request makes a token a step."""
        step = (FIXED_SECONDS + SECONDS_PER_SEQUENCE * self.running) * pace
        tokens = self.running * seconds / step
        done = min(self.running, tokens / OUTPUT)
        admitted = min(self.waiting + rate * seconds, MOST_RUNNING - self.running + done)
        self.arrived += rate * seconds
        self.waiting += rate * seconds - admitted
        self.running += admitted - done
        self.finished += done
        self.generated += tokens
        self.steps_seconds += tokens * step
        self.steps += seconds / step if self.running else 0.0

    def sample(self, time: float, objectives: tuple[float, float]) -> PodSample:
        begun = self.arrived - self.waiting
        return PodSample(
            time=time,
            state=SampleState.FRESH,
            requests_running=self.running,
            requests_waiting=self.waiting,
            kv_cache_usage=min(1.0, self.running * (PROMPT + OUTPUT / 2) / KV_TOKENS),
            kv_cache_tokens=KV_TOKENS,
            prompt_tokens=begun * PROMPT,
            generation_tokens=self.generated,
            requests_finished=self.finished,
            engine_steps=self.steps,
            ttft=Distribution(0.0, begun, objectives[0], begun, objectives[0], begun),
            tpot=Distribution(0.0, self.finished, objectives[1], self.finished, objectives[1], self.finished),
            inter_token=Distribution(
                self.steps_seconds, self.generated, objectives[1], self.generated, objectives[1], self.generated
            ),
        )


@dataclass
class Story:
    """A load, a fleet and a policy, told tick by tick."""

    load: Callable[[float], float]
    """Requests/s at a time of the story, told at pace 1."""
    policy: ScalingPolicy
    cold_start_seconds: float = 180.0
    pace: float = 1.0
    start: int = 1
    observed: Callable[[Observation], Observation] = lambda observation: observation
    """What the policy is shown of what is there."""
    slots: int = 1000
    """GPU slots: pods beyond them are unschedulable."""
    epoch: float = 1_699_999_200.0
    servers: list[Server] = field(default_factory=list)
    waiting_pods: list[tuple[str, float]] = field(default_factory=list)
    history: History = field(default_factory=History)
    decisions: list[Decision] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    born: int = 0

    def __post_init__(self) -> None:
        self.now = self.epoch * self.pace
        self.desired = self.start
        for _ in range(self.start):
            self._create(self.now - 1000 * self.pace, self.now - 900 * self.pace)

    def _create(self, created: float, ready: float) -> None:
        self.born += 1
        self.servers.append(Server(f"pod-{self.born:05d}", created, ready))

    def settled(self) -> Story:
        """The first replicas as they are when they have borne the first load for long: no rise from nothing."""
        rate = self.load(0.0) / len(self.servers)
        for server in self.servers:
            server.running = rate * OUTPUT * FIXED_SECONDS / (1 - rate * OUTPUT * SECONDS_PER_SEQUENCE)
        return self

    def tell(self, seconds: float) -> Story:
        """Go on for `seconds` of the story, at the policy's tick."""
        tick = self.policy.tick_seconds
        for _ in range(round(seconds * self.pace / tick)):
            self._flow(tick)
            self._turn()
        return self

    def _flow(self, tick: float) -> None:
        # Steps of 5 s, so that what is shown at a tick does not depend on how long it is.
        pieces = max(1, round(tick / self.pace / 5.0))
        for _ in range(pieces):
            width = tick / pieces
            rate = self.load(self.now / self.pace - self.epoch) / self.pace
            self.now += width
            ready = [s for s in self.servers if s.ready_at <= self.now - width]
            for server in ready:
                server.serve(rate / len(ready), width, self.pace)

    def _turn(self) -> None:
        seen = self.observed(self._observation())
        decision = decide(seen, self.history, self.policy)
        self.history = self.history.then(seen, decision, self.policy)
        self.observations.append(seen)
        self.decisions.append(decision)
        self._scale(decision.replicas)

    def _observation(self) -> Observation:
        objectives = (self.policy.ttft_objective_seconds, self.policy.tpot_objective_seconds)
        before = self.history.last
        shown = {p.name: p.sample for p in before.pods} if before else {}
        pods = []
        for place, server in enumerate(self.servers):
            if server.ready_at <= self.now:
                sample = with_idleness(server.sample(self.now, objectives), shown.get(server.name), up=True)
                pods.append(
                    Pod(
                        server.name,
                        PodStage.READY,
                        server.created_at,
                        server.created_at,
                        server.created_at,
                        server.ready_at,
                        uid=server.name,
                        sample=sample,
                    )
                )
            else:
                stage = PodStage.STARTING if place < self.slots else PodStage.UNSCHEDULABLE
                pods.append(Pod(server.name, stage, server.created_at, uid=server.name))
        return Observation(self.now, self.desired, tuple(pods))

    def _scale(self, replicas: int) -> None:
        self.desired = replicas
        while len(self.servers) < replicas:
            ready = self.now + self.cold_start_seconds * self.pace
            self._create(self.now, ready if len(self.servers) < self.slots else float("inf"))
        while len(self.servers) > replicas:
            booting = [s for s in self.servers if s.ready_at > self.now]
            gone = (booting or self.servers)[-1]
            self.servers.remove(gone)
            if gone.ready_at <= self.now:
                # Its requests go on elsewhere: here they simply end.
                gone.waiting = gone.running = 0.0

    @property
    def replicas(self) -> list[int]:
        return [decision.replicas for decision in self.decisions]


def policy(**changes: object) -> ScalingPolicy:
    """A policy with everyday objectives."""
    stated: dict[str, object] = {
        "min_replicas": 1,
        "max_replicas": 100,
        "ttft_objective_seconds": 2.5,
        "tpot_objective_seconds": 0.1,
        "attainment": 0.99,
        "cold_start_seconds": 180.0,
    }
    return ScalingPolicy(**{**stated, **changes})  # type: ignore[arg-type]
