"""Days of traffic on which policies are compared, and what is promised there.

Recorded ones are read by their file's name from a folder that the caller names; one is made here, of a kind that no
public trace has: a model that reasons, whose answers are long and heavy-tailed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.parts.made import arrivals
from policies.scaling.resource import Objectives
from simulations.laboratory.scenario import Scenario
from simulations.model.cold_start import ColdStart, Constant
from simulations.model.conditions import Conditions
from simulations.model.engine import shipped_engine
from simulations.traces import Trace, read, shipped_trace

CLIP_PROMPT_TOKENS: Final = 12_000
DAY_SECONDS: Final = 86_400.0

SHIFT_SECONDS: Final = 60.0
"""Between copies of a request, so that a larger fleet has the same minutes and not the same instants."""

ANSWER_MEAN_TOKENS: Final = 1_500.0
ANSWER_SIGMA: Final = 1.26
"""Of the log-normal whose P99 is 12,700 tokens at that mean."""
ANSWER_LIMIT_TOKENS: Final = 32_768
GUST_SHAPE: Final = 4.0
"""Where a model reasons: a coefficient of variation of a half from minute to minute."""


@dataclass(frozen=True, slots=True)
class Served:
    """How traffic is served, and how much of it there is."""

    engine: str = "llama2-7b_a40_tp1"
    attainment: float = 0.99
    tick_seconds: float = 15.0
    traffic: float = 1.0
    """In multiples of what was recorded; the most replicas go with it."""
    cold_start: ColdStart | None = None
    """In place of one that is the same for every replica."""
    spot_losses_per_hour: float = 0.0
    """Of a replica's life."""


USUAL: Final = Served()


def promised(attainment: float) -> Objectives:
    """3 s to the first token and 100 ms a token, for this share of the requests."""
    return Objectives(ttft_seconds=3, tpot_seconds=0.1, attainment=attainment)


@dataclass(frozen=True, slots=True)
class Days:
    """One trace, from when on it is scored (before that, policies learn), and the fleet that may serve it."""

    name: str
    what: str
    score_from_seconds: float
    file: str = ""
    """In the folder of recorded traces; "" for the made one."""
    beside: str = ""
    """Another file there, whose requests come as well for as long as both last."""
    is_turned: bool = False
    """Whether the last request comes first: rises become falls, and what announced a step follows it."""
    start_replicas: int = 3
    max_replicas: int = 24

    def trace(self, folder: Path) -> Trace:
        """With long prompts cut; a TraceError where the folder lacks it."""
        found = read(folder / self.file) if self.file else reasoning()
        if self.beside:
            found = together(found, read(folder / self.beside))
        return (turned(found) if self.is_turned else found).clipped(CLIP_PROMPT_TOKENS)

    def scenario(self, trace: Trace, cold_start_seconds: float, served: Served = USUAL) -> Scenario:
        """By how it is served."""
        return Scenario(
            trace if served.traffic == 1 else scaled(trace, served.traffic),
            shipped_engine(served.engine),
            promised(served.attainment),
            Conditions(
                cold_start=served.cold_start or Constant(cold_start_seconds),
                spot_losses_per_hour=served.spot_losses_per_hour,
            ),
            max_replicas=max(1, round(self.max_replicas * served.traffic)),
            start_replicas=max(1, round(self.start_replicas * served.traffic)),
            tick_seconds=served.tick_seconds,
            score_from_seconds=self.score_from_seconds,
        )


RECORDED: Final = (
    Days("m-mid", "m-mid, 1 day: one client is half of the load", 21_600.0, "servegen_m-mid_1d.csv.gz"),
    Days("m-large", "m-large, 3 days: level shifts", DAY_SECONDS, "servegen_m-large_3d.csv.gz"),
    Days("m-small", "m-small, 7 days: a daily cycle", DAY_SECONDS, "servegen_m-small_7d.csv.gz"),
)
HOURS: Final = (
    Days("azure-conv", "Azure's conversations, 1 hour without a past", 0.0, "azure2023_conv.csv.gz", start_replicas=4),
    Days(
        "azure-code", "Azure's code completion, 1 hour without a past", 0.0, "azure2023_code.csv.gz", start_replicas=4
    ),
)
REASONING: Final = Days(
    "reasoning", "a model that reasons, 2 days: answers of 1,500 tokens", DAY_SECONDS, max_replicas=60
)

OTHERWISE: Final = (
    Days("m-mid-turned", "m-mid, the last request first", 21_600.0, RECORDED[0].file, is_turned=True),
    Days("m-large-turned", "m-large, the last request first", DAY_SECONDS, RECORDED[1].file, is_turned=True),
    Days("m-small-turned", "m-small, the last request first", DAY_SECONDS, RECORDED[2].file, is_turned=True),
    Days("m-mid+m-large", "both at once, 1 day", 21_600.0, RECORDED[0].file, RECORDED[1].file, max_replicas=48),
)
"""Other traffic, made of what is recorded. Of the policy's constants only how much a step is heard
(`MOST_LATE` and `EVENT_USE` of `policies.scaling.utilisation`) was looked at on it."""


def turned(trace: Trace) -> Trace:
    """From its last request to its first."""
    at = trace.arrived_at_seconds[-1] - trace.arrived_at_seconds
    return Trace.of(f"{trace.name} turned", at[::-1], trace.prompt_tokens[::-1], trace.output_tokens[::-1])


def together(one: Trace, other: Trace) -> Trace:
    """The requests of both, until the shorter one ends."""
    at = np.concatenate([one.arrived_at_seconds, other.arrived_at_seconds])
    prompts = np.concatenate([one.prompt_tokens, other.prompt_tokens])
    outputs = np.concatenate([one.output_tokens, other.output_tokens])
    kept = at <= min(one.arrived_at_seconds[-1], other.arrived_at_seconds[-1])
    return Trace.of(f"{one.name} and {other.name}", at[kept], prompts[kept], outputs[kept])


def scaled(trace: Trace, times: float, seed: int = 1) -> Trace:
    """So many times the requests: drawn from those there are, each at up to a minute from when it came."""
    rng = np.random.default_rng(seed)
    count = round(trace.requests * times)
    if times < 1:
        drawn = np.sort(rng.choice(trace.requests, count, replace=False))
        at = trace.arrived_at_seconds[drawn]
    else:
        drawn = rng.permutation(np.resize(np.arange(trace.requests), count))
        at = trace.arrived_at_seconds[drawn] + rng.uniform(0.0, SHIFT_SECONDS, count)
        order = np.argsort(at, kind="stable")
        drawn, at = drawn[order], at[order]
    return Trace.of(f"{times:g} × {trace.name}", at, trace.prompt_tokens[drawn], trace.output_tokens[drawn])


def reasoning(days: float = 2.0, seed: int = 1) -> Trace:
    """1 to 2 requests/s over the day, in bursts of a minute; log-normal answers, prompts of Azure's conversations."""
    rng = np.random.default_rng(seed)
    second = np.arange(round(days * DAY_SECONDS))
    at = arrivals(1.5 + 0.5 * np.sin(2 * np.pi * ((second + 0.5) / DAY_SECONDS - 0.3)), GUST_SHAPE, rng)
    middle = np.log(ANSWER_MEAN_TOKENS) - ANSWER_SIGMA**2 / 2
    answers = np.clip(np.exp(rng.normal(middle, ANSWER_SIGMA, len(at))), 1, ANSWER_LIMIT_TOKENS).astype(np.int64)
    prompts = shipped_trace().prompt_tokens
    return Trace.of("reasoning", at, rng.choice(prompts, len(at)), answers)
