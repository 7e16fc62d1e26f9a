"""What is replayed, but for the policy: whose requests, on which engine, what is promised and what is allowed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from cluster.files import ConfigError
from policies.scaling.resource import Objectives
from simulations.model.cold_start import Changing, ColdStart, Constant, Jittered, Sampled, WarmAndColdNodes
from simulations.model.conditions import Conditions
from simulations.model.engine import Engine
from simulations.replay import Policy, Replay, S, Schedule, replay
from simulations.traces.trace import Trace

DAY_SECONDS = 86_400.0
LONGEST_DAYS = 50
"""Of a trace. The simulated clock ends after 53 days (`kernel.NEVER`); what follows the last request is done by then:
an hour of work, a tick, and the start of a replica."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Traffic, engine, promise and bounds; every policy of a comparison meets the same one.

    A ConfigError says all that contradicts itself or the trace.
    """

    trace: Trace
    engine: Engine
    objectives: Objectives
    conditions: Conditions
    """Its seed is the first one of a comparison."""
    max_replicas: int
    min_replicas: int = 1
    start_replicas: int | None = None
    """Ready at time 0; None: as few as the policy's bounds allow, or what a schedule begins with."""
    tick_seconds: float = 15.0
    score_from_seconds: float = 0.0

    def __post_init__(self) -> None:
        if problems := tuple(self._problems()):
            raise ConfigError(problems)

    def _problems(self) -> Iterator[str]:
        if self.min_replicas < 0:
            yield f"--min is {self.min_replicas}: 0 is the fewest replicas there can be"
        if self.max_replicas < 1:
            yield f"--max is {self.max_replicas}: a fleet that may not have one replica serves nobody"
        elif self.max_replicas < self.min_replicas:
            yield f"--max ({self.max_replicas}) is less than --min ({self.min_replicas}): raise --max or lower --min"
        if self.start_replicas is not None and self.start_replicas < 0:
            yield f"--start is {self.start_replicas}: 0 is the fewest replicas there can be"
        if not (self.tick_seconds > 0 and math.isfinite(self.tick_seconds)):
            yield f"--tick is {self.tick_seconds:g}: seconds between decisions must be more than 0"
        elif self.tick_seconds > DAY_SECONDS:
            yield f"--tick is {self.tick_seconds:g}: give at most {DAY_SECONDS:.0f} s between decisions, a day"
        if (longest := _longest_seconds(self.conditions.cold_start)) > DAY_SECONDS:
            yield f"a cold start takes up to {longest:g} s: give at most {DAY_SECONDS:.0f} s, a day, jitter included"
        if self.trace.end_seconds > LONGEST_DAYS * DAY_SECONDS:
            days = self.trace.end_seconds / DAY_SECONDS
            yield (
                f"trace {self.trace.name} ends {days:.4g} days after its time 0: at most {LONGEST_DAYS} are replayed, "
                "cut its file into shorter ones, or begin its times at 0"
            )
        if not (self.score_from_seconds >= 0 and math.isfinite(self.score_from_seconds)):
            yield f"--score-from is {self.score_from_seconds:g}: give seconds from the trace's time 0, at least 0"
        elif self.score_from_seconds > self.trace.end_seconds:
            yield (
                f"--score-from ({self.score_from_seconds:g} s) is after the last request "
                f"({self.trace.end_seconds:g} s): nothing would be scored, give less"
            )

    @property
    def engines(self) -> tuple[Engine, ...]:
        """All that replicas run."""
        rollout = self.conditions.rollout
        return (self.engine,) if rollout is None else (self.engine, rollout.engine)

    @property
    def cold_start_seconds(self) -> float:
        """The mean, where it is drawn; the first, where it changes; that of a node made first, where there are such."""
        return _mean_seconds(self.conditions.cold_start)

    def replayed(
        self,
        policy: Policy[S] | Schedule,
        *,
        min_replicas: int,
        max_replicas: int,
        start_replicas: int,
        progress: Callable[[float], None] | None = None,
    ) -> Replay:
        """What the policy would have done, within bounds of its own."""
        return replay(
            self.trace,
            self.engine,
            policy,
            objectives=self.objectives,
            conditions=self.conditions,
            tick_seconds=self.tick_seconds,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            start_replicas=start_replicas,
            score_from_seconds=self.score_from_seconds,
            progress=progress,
        )

    def seeded(self, seed: int) -> Scenario:
        """The same, with other draws of all that is drawn."""
        return replace(self, conditions=replace(self.conditions, seed=seed))

    def hash(self) -> str:
        """Of all that it says, arrays included, the same on any machine."""
        digest = hashlib.sha256()
        for part in self._parts():
            digest.update(part)
            digest.update(b"\n")
        return digest.hexdigest()

    def _parts(self) -> Iterator[bytes]:
        trace = self.trace
        yield (trace.arrived_at_seconds * 1e6).round().astype("<i8").tobytes()
        yield trace.prompt_tokens.astype("<i8").tobytes()
        yield trace.output_tokens.astype("<i8").tobytes()
        if trace.prompt_blocks is not None:
            yield str(trace.prompt_blocks.tokens_per_block).encode()
            yield trace.prompt_blocks.offsets.astype("<i8").tobytes()
            yield trace.prompt_blocks.hashes.astype("<i8").tobytes()
        yield repr(self.engine).encode()
        yield repr(self.objectives).encode()
        yield repr(self.conditions).encode()
        rest = (self.min_replicas, self.max_replicas, self.start_replicas, self.tick_seconds, self.score_from_seconds)
        yield repr(rest).encode()


def _mean_seconds(cold_start: ColdStart) -> float:
    match cold_start:
        case Constant() | Jittered():
            return cold_start.seconds
        case Sampled():
            return math.fsum(cold_start.samples_seconds) / len(cold_start.samples_seconds)
        case Changing():
            return _mean_seconds(cold_start.first)
        case WarmAndColdNodes():
            return _mean_seconds(cold_start.cold)


def _longest_seconds(cold_start: ColdStart) -> float:
    match cold_start:
        case Constant():
            return cold_start.seconds
        case Jittered():
            return cold_start.seconds + cold_start.jitter_seconds
        case Sampled():
            return max(cold_start.samples_seconds)
        case Changing():
            return max(_longest_seconds(cold_start.first), _longest_seconds(cold_start.then))
        case WarmAndColdNodes():
            return max(_longest_seconds(cold_start.warm), _longest_seconds(cold_start.cold))
