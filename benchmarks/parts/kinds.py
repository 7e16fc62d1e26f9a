"""Kinds of traffic that the recorded days are not: a rate over three days, and the lengths of Azure's conversations.

The policy was designed without them; of its constants only how much a single event is heard (`EVENT_USE` and
`MOST_LATE` of `policies.scaling.utilisation`) was set with a look at other draws of such kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from benchmarks.parts.days import CLIP_PROMPT_TOKENS, DAY_SECONDS, promised
from benchmarks.parts.made import Array, arrivals, conversations
from simulations.laboratory.scenario import Scenario
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions
from simulations.model.engine import shipped_engine
from simulations.traces import Trace

HOUR: Final = 3600.0
DAYS: Final = 3
COLD_START_SECONDS: Final = 180.0
ATTAINMENT: Final = 0.99
LONG_PROMPT: Final = 4.0
"""Times as long as usual, where prompts get longer now and then."""

Rate = Callable[[Array, Generator], Array]
"""Requests/s at each second."""


def daily(at: Array, quiet: float, busy: float) -> Array:
    """A sine of a day."""
    return (quiet + busy) / 2 + (busy - quiet) / 2 * np.sin(2 * np.pi * (at / DAY_SECONDS - 0.3))


def wandering(at: Array, rng: Generator, relaxation_seconds: float, sigma: float) -> Array:
    """A factor of mean 1 whose logarithm is an Ornstein-Uhlenbeck process of this standard deviation."""
    keep = np.exp(-60 / relaxation_seconds)
    moves = rng.normal(0.0, sigma * np.sqrt(1 - keep * keep), len(at) // 60 + 1)
    level, levels = rng.normal(0.0, sigma), []
    for move in moves.tolist():
        levels.append(level)
        level = keep * level + move
    return np.asarray(np.exp(np.repeat(levels, 60)[: len(at)] - sigma * sigma / 2), np.float64)


def shifting(at: Array, rng: Generator, low: float, high: float, hours: tuple[float, float]) -> Array:
    """A level drawn between these, evenly by its logarithm, for so many hours at a time."""
    levels, begin = np.empty(len(at)), 0
    while begin < len(at):
        end = begin + int(rng.uniform(*hours) * HOUR)
        levels[begin:end] = np.exp(rng.uniform(np.log(low), np.log(high)))
        begin = end
    return levels


def on_and_off(at: Array, rng: Generator, on_seconds: float, off_seconds: float) -> Array:
    """1 and 0 by turns, for exponential times of these means; 0 first."""
    found, begin, is_on = np.zeros(len(at)), 0, False
    while begin < len(at):
        end = begin + int(rng.exponential(on_seconds if is_on else off_seconds)) + 1
        found[begin:end] = is_on
        begin, is_on = end, not is_on
    return found


def at_times(at: Array, rng: Generator, a_day: float, seconds: int, times: float) -> Array:
    """A factor of so much, for so many seconds, so often a day, nobody knows when."""
    factor = np.ones(len(at))
    for begin in rng.integers(len(at), size=round(a_day * len(at) / DAY_SECONDS)).tolist():
        factor[begin : begin + seconds] *= times
    return factor


def of_day(at: Array) -> Array:
    """The hour, 0 to 24."""
    return at / HOUR % 24


@dataclass(frozen=True, slots=True)
class Kind:
    """What it is, and its rate before each minute's gust."""

    what: str
    rate: Rate
    variation: float = 0.2
    """The gusts' coefficient."""
    long_prompts: bool = False
    """Whether they are long now and then, for half an hour in the mean."""
    max_replicas: int = 24

    def trace(self, draw: int) -> Trace:
        """The same for the same draw, whatever other kinds there are."""
        rng = np.random.default_rng([draw, *self.what.encode()])
        at = np.arange(round(DAYS * DAY_SECONDS), dtype=np.float64)

        def longer(arrived: Array) -> Array:
            if not self.long_prompts:
                return np.ones_like(arrived)
            return np.where(on_and_off(at, rng, HOUR / 2, 2 * HOUR)[arrived.astype(np.int64)] > 0, LONG_PROMPT, 1.0)

        arrived = arrivals(self.rate(at, rng), self.variation**-2, rng)
        return conversations(self.what, arrived, rng, longer).clipped(CLIP_PROMPT_TOKENS)

    def scenario(self, draw: int) -> Scenario:
        """Llama-2-7B on an A40; the first day is not scored."""
        return Scenario(
            self.trace(draw),
            shipped_engine("llama2-7b_a40_tp1"),
            promised(ATTAINMENT),
            Conditions(cold_start=Constant(COLD_START_SECONDS)),
            max_replicas=self.max_replicas,
            start_replicas=3,
            score_from_seconds=DAY_SECONDS,
        )


KINDS: Final = (
    Kind("a request every ten seconds", lambda at, rng: np.full(len(at), 0.1)),
    Kind("minutes that vary by a half", lambda at, rng: daily(at, 3, 7), variation=0.5),
    Kind("minutes that vary by their mean", lambda at, rng: daily(at, 3, 7), variation=1.0),
    Kind(
        "one that wanders by 40 % within half an hour", lambda at, rng: daily(at, 3, 7) * wandering(at, rng, 1_800, 0.4)
    ),
    Kind("one that wanders by 40 % within two hours", lambda at, rng: daily(at, 3, 7) * wandering(at, rng, 7_200, 0.4)),
    Kind("a new level every two to six hours", lambda at, rng: 5 * shifting(at, rng, 0.5, 2, (2, 6))),
    Kind("a new level every six to twelve hours", lambda at, rng: 5 * shifting(at, rng, 0.3, 2.4, (6, 12))),
    Kind("twice as much each day", lambda at, rng: 1.5 * 2 ** (at / DAY_SECONDS)),
    Kind(
        "five requests/s more for the first ten minutes of each hour",
        lambda at, rng: daily(at, 2, 5) + np.where(at % HOUR < 600, 5.0, 0.0),
    ),
    Kind(
        "twice as much for 20 minutes, three times a day, nobody knows when",
        lambda at, rng: daily(at, 2, 6) * at_times(at, rng, 3, 1_200, 2.0),
    ),
    Kind(
        "three times as much for 10 minutes, three times a day",
        lambda at, rng: daily(at, 2, 5) * at_times(at, rng, 3, 600, 3.0),
    ),
    Kind(
        "one client as large as all others, there a quarter of the time",
        lambda at, rng: daily(at, 2, 4) + 3 * on_and_off(at, rng, 1_200, 3_600),
    ),
    Kind(
        "twenty clients, each there a sixth of the time",
        lambda at, rng: 0.2 + 0.8 * sum((on_and_off(at, rng, 600, 3_000) for _ in range(20)), np.zeros(len(at))),
    ),
    Kind(
        "office hours: nothing, then all within five minutes",
        lambda at, rng: np.where((of_day(at) > 8) & (of_day(at) < 18), 7 * np.minimum(1, (of_day(at) - 8) * 12), 0.05),
    ),
    Kind(
        "two steep hours a day",
        lambda at, rng: 1 + 5 * np.exp(-((of_day(at) - 9.5) ** 2)) + 6 * np.exp(-(((of_day(at) - 20) / 1.2) ** 2)),
    ),
    Kind("thirty requests/s", lambda at, rng: daily(at, 10, 30), variation=0.1, max_replicas=60),
    Kind(
        "prompts four times as long for half an hour, now and then", lambda at, rng: daily(at, 2, 4), long_prompts=True
    ),
)
