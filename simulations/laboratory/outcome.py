"""What a comparison of policies found: plain values, which the table, the JSON, the CSVs and the report are made of.

One policy's figures for each seed, the whole replay of the first seed, and between which bounds the seeds leave
them. Nothing here simulates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from simulations.laboratory.scenario import Scenario
from simulations.replay import Replay

CONFIDENCE = 0.95
CLAIRVOYANT = ("oracle", "foreseeable")
"""Policies that know what is to come: marks to measure others by, never called the best."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy under one seed. Latencies are of the answered requests among those scored."""

    seed: int
    slo_attainment: float
    """Share, 0 to 1, of all requests that arrived from `score_from_seconds` on; what was not answered is a miss."""
    gpu_hours: float
    """From `score_from_seconds` to the end, each replica from its creation to its removal, drain included."""
    requests: int
    """Those scored."""
    finished: int
    refused: int
    """Requests of the whole trace whose prompt is larger than the KV cache."""
    ttft_seconds: dict[str, float]
    """`p50`, `p90`, `p99`; NaN where nothing was answered."""
    tpot_seconds: dict[str, float]
    replica_changes: int
    max_replicas: int
    under_provisioned_seconds: float
    """From `score_from_seconds` on: fewer replicas were ready than that minute's requests would keep busy."""
    wall_seconds: float
    """Of the simulation's loop alone; of a search, all its replays."""
    requests_per_second: float
    """Requests simulated in a second of that, the unscored ones included."""
    decision_hash: str
    """Of each tick's time, number asked and wish."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the seeds: its mean, and Student's interval for it at 95 %; without a second seed no interval."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        mean = math.fsum(values) / len(values)
        if len(values) < 2:
            return cls(mean, None, None)
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        half = error * float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
        return cls(mean, mean - half, mean + half)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one policy made of the trace."""

    name: str
    """As it was asked for; a file's name with what of it was replayed, as in `hpa.yaml (as written)`."""
    label: str
    """Whose law it is and at which version, for people."""
    notes: tuple[str, ...]
    """What must be said of it, one sentence each."""
    min_replicas: int
    max_replicas: int
    """The bounds it ruled within; those of its file win over the scenario's."""
    figures: tuple[Figures, ...]
    """One a seed, in the order of the seeds."""
    replay: Replay
    """Under the first seed: every decision, every tick, every request."""
    inputs_hash: str
    """Of trace, engine, settings, policy, first seed and version: where it is the same, so are the decisions."""

    @property
    def is_clairvoyant(self) -> bool:
        return self.name.partition(":")[0] in CLAIRVOYANT

    def spread(self, figure: Callable[[Figures], float]) -> Spread:
        return Spread.of([figure(each) for each in self.figures])

    @property
    def slo_attainment(self) -> Spread:
        return self.spread(lambda each: each.slo_attainment)

    @property
    def gpu_hours(self) -> Spread:
        return self.spread(lambda each: each.gpu_hours)

    def reaches(self, attainment: float) -> bool:
        """Whether the objective is kept, by the whole interval where there is one."""
        spread = self.slo_attainment
        return (spread.mean if spread.low is None else spread.low) >= attainment


@dataclass(frozen=True, slots=True)
class LowerBound:
    """GPU-hours that no policy can go below at the attainment, and the sentence that says why."""

    gpu_hours: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several policies over the same traffic, in the order they were asked for."""

    scenario: Scenario
    seeds: tuple[int, ...]
    outcomes: tuple[Outcome, ...]
    lower_bound: LowerBound
    gpu_hour_price: float | None = None
    version: str = ""
    """Of Preheat."""
    command: str = ""
    """What reproduces it, as typed."""
    notes: tuple[str, ...] = ()
    """What must be said of trace, engine and settings, one sentence each."""

    @property
    def oracle(self) -> Outcome | None:
        """The clairvoyant one, where it was asked for."""
        return next((each for each in self.outcomes if each.name.partition(":")[0] == "oracle"), None)

    def regret(self, outcome: Outcome) -> float | None:
        """GPU-hours beyond the oracle's, as a share of these; None without an oracle that reached the attainment."""
        oracle = self.oracle
        if oracle is None or not oracle.reaches(self.scenario.objectives.attainment):
            return None
        least = oracle.gpu_hours.mean
        return outcome.gpu_hours.mean / least - 1 if least > 0 else None

    def dollars(self, outcome: Outcome) -> float | None:
        """What the GPU-hours cost; None without a price."""
        return None if self.gpu_hour_price is None else outcome.gpu_hours.mean * self.gpu_hour_price

    def dollars_per_thousand_requests(self, outcome: Outcome) -> float | None:
        """Of the scored requests, answered or not; None without a price or a request."""
        dollars, requests = self.dollars(outcome), outcome.figures[0].requests
        return None if dollars is None or requests == 0 else 1000 * dollars / requests

    @property
    def rivals(self) -> tuple[Outcome, ...]:
        """The policies that could be had."""
        return tuple(each for each in self.outcomes if not each.is_clairvoyant)

    @property
    def seeds_differ(self) -> bool:
        """Whether the seeds drew anything that made a difference to any policy: else they say nothing of chance."""
        return any(len({(run.slo_attainment, run.gpu_hours) for run in each.figures}) > 1 for each in self.outcomes)

    @property
    def best(self) -> Outcome | None:
        """The one that keeps the objective at the fewest GPU-hours, if several seeds leave no doubt; else None.

        No doubt means: its interval of attainment is not below the objective, and that of its GPU-hours ends below
        where that of every other policy begins which keeps the objective or may keep it.
        """
        attainment, rivals = self.scenario.objectives.attainment, self.rivals
        keeping = [each for each in rivals if each.reaches(attainment)]
        if not self.seeds_differ or len(rivals) < 2 or not keeping:
            return None
        first = min(keeping, key=lambda each: each.gpu_hours.mean)
        others = [each for each in rivals if each is not first and _may_reach(each, attainment)]
        return first if all(_below(first.gpu_hours, each.gpu_hours) for each in others) else None


def _may_reach(outcome: Outcome, attainment: float) -> bool:
    spread = outcome.slo_attainment
    return (spread.mean if spread.high is None else spread.high) >= attainment


def _below(one: Spread, other: Spread) -> bool:
    return one.high is not None and other.low is not None and one.high < other.low
