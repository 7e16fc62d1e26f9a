"""What breaks forecasts: a day of ordinary traffic, then something that no day before has shown.

Ours is told it beside two reactive laws, and scored from an hour before the event to three hours after, or all of the
second day where nothing happens at one time. What it leaves behind is told apart: the 23 hours after, where those are
ordinary again. Every story is drawn several times. `make bench-robustness` writes both tables into
`docs/benchmarks.md`: shares of all requests within the objectives, and mean GPU-hours.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.parts.days import CLIP_PROMPT_TOKENS, DAY_SECONDS, promised
from benchmarks.parts.made import Array, arrivals, conversations
from benchmarks.parts.page import commit, written
from policies.scaling.decision import Binding, Decision
from policies.scaling.observation import Observation, PodSample, SampleState
from policies.scaling.policy import decide_unmeasured
from simulations.laboratory.candidates import candidates
from simulations.laboratory.scenario import Scenario
from simulations.model.cold_start import Changing, Constant
from simulations.model.conditions import Conditions, Rollout, Scraping, Shortage
from simulations.model.engine import shipped_engine
from simulations.replay import Policy, Preheat, Replay
from simulations.traces import Trace

BEGIN: Final = "<!-- robustness: written by make bench-robustness -->"
END: Final = "<!-- end of robustness -->"

AFTERWARDS_BEGIN: Final = "<!-- afterwards: written by make bench-robustness -->"
AFTERWARDS_END: Final = "<!-- end of afterwards -->"

HOUR: Final = 3600.0
COLD_START_SECONDS: Final = 180.0
EVENT: Final = DAY_SECONDS + 10 * HOUR
BEFORE, AFTER = HOUR, 3 * HOUR
AFTERWARDS: Final = (EVENT + AFTER + HOUR, EVENT + AFTER + DAY_SECONDS)
"""From when to when a story's day after is told."""
DRAWS: Final = (5, 6, 7)
"""Seeds of the traffic: four hours of one draw lie up to half a percent beside those of another."""
ATTAINMENT: Final = 0.99
POLICIES: Final = ("preheat", "hpa", "slo-keda")
GUST_SHAPE: Final = 25.0
"""A coefficient of variation of a fifth from minute to minute, as in chat traffic."""

ENGINE: Final = shipped_engine("llama2-7b_a40_tp1")
HALVES: Final = 1.5
"""Steps that take so many times as long leave half of what a replica bears within the objectives: 0.88 requests/s of
1.80, both found by bisection on six replicas."""
USUAL: Final = Conditions(cold_start=Constant(COLD_START_SECONDS))
SLOW_STARTS: Final = replace(
    USUAL, cold_start=Changing(Constant(COLD_START_SECONDS), Constant(3 * COLD_START_SECONDS), DAY_SECONDS)
)

Rate = Callable[[Array], Array]


def ordinary(at: Array) -> Array:
    """Requests/s: quiet at night, busy by day."""
    return 4.0 + 2.0 * np.sin(2 * np.pi * (at / DAY_SECONDS - 0.25))


def within(at: Array, start: float, seconds: float) -> NDArray[np.bool_]:
    """Whether it is then."""
    return (at >= start) & (at < start + seconds)


@dataclass(frozen=True, slots=True)
class Hindered(ABC):
    """A policy that meets a hindrance for a while."""

    policy: Policy[Any]
    start: float
    seconds: float

    @property
    def reads_histograms(self) -> Any:
        return self.policy.reads_histograms

    def begin(self) -> Any:
        return self.policy.begin()

    def decide(self, observation: Observation, state: Any) -> tuple[Decision, Any]:
        if self.start <= observation.time < self.start + self.seconds:
            return self.hindered(observation, state)
        return self.policy.decide(observation, state)

    @abstractmethod
    def hindered(self, observation: Observation, state: Any) -> tuple[Decision, Any]:
        """What it decides meanwhile."""


class Unmeasured(Hindered):
    """One for which Prometheus is away: the laws of others decide nothing, ours what it does of the target alone."""

    def hindered(self, observation: Observation, state: Any) -> tuple[Decision, Any]:
        desired = observation.desired
        raised = None
        if isinstance(self.policy, Preheat):
            pods = tuple(replace(pod, sample=None) for pod in observation.pods)
            bare = replace(observation, pods=pods, problems=("Prometheus is away",))
            raised = decide_unmeasured(bare, state, self.policy.policy)
        return raised or Decision(observation.time, desired, desired, desired, Binding.HOLD, "blind"), state


class Unread(Hindered):
    """One that cannot read the metrics of its first replica."""

    def hindered(self, observation: Observation, state: Any) -> tuple[Decision, Any]:
        nothing = PodSample(time=None, state=SampleState.ABSENT)
        first, *others = observation.pods
        return self.policy.decide(replace(observation, pods=(replace(first, sample=nothing), *others)), state)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a story: how many requests are scored, how many of them kept both objectives, and what it took."""

    requests: int
    kept: int
    gpu_hours: float

    @classmethod
    def of(cls, told: Replay) -> Outcome:
        kept = told.attained[told.arrived_at_seconds >= told.score_from_seconds]
        return cls(len(kept), int(kept.sum()), told.gpu_hours)

    @classmethod
    def mean(cls, draws: Sequence[Outcome]) -> Outcome:
        """The requests of all draws, the GPU-hours of one."""
        hours = sum(each.gpu_hours for each in draws) / len(draws)
        return cls(sum(each.requests for each in draws), sum(each.kept for each in draws), hours)

    @property
    def attainment(self) -> float:
        return self.kept / self.requests


@dataclass(frozen=True, slots=True)
class Story:
    """A rate, and what else is out of the ordinary."""

    what: str
    rate: Rate
    conditions: Conditions = USUAL
    prompts: Callable[[Array], Array] = np.ones_like
    """What prompts are multiplied with."""
    around: Callable[[Policy[Any]], Policy[Any]] = lambda policy: policy
    all_day: bool = False
    """Nothing happens at one time."""
    ends: bool = True
    """The day after is an ordinary one."""

    @property
    def scored(self) -> tuple[float, float]:
        """From when to when."""
        return (DAY_SECONDS, 2 * DAY_SECONDS) if self.all_day else (EVENT - BEFORE, EVENT + AFTER)

    def trace(self, draw: int, until: float) -> Trace:
        rng = np.random.default_rng(draw)
        second = np.arange(round(until), dtype=np.float64)
        at = arrivals(np.maximum(0.0, self.rate(second)), GUST_SHAPE, rng)
        return conversations(self.what, at, rng, self.prompts).clipped(CLIP_PROMPT_TOKENS)

    def told(self, draw: int, scored: tuple[float, float], policies: Sequence[str]) -> dict[str, Outcome]:
        """Under each policy."""
        begin, until = scored
        scenario = Scenario(
            self.trace(draw, until),
            ENGINE,
            promised(ATTAINMENT),
            self.conditions,
            max_replicas=40,
            start_replicas=3,
            score_from_seconds=begin,
        )
        found = {}
        for candidate in candidates(policies, scenario):
            policy = candidate.policy
            assert not isinstance(policy, str)
            around = self.around(policy)
            told = scenario.replayed(around, min_replicas=1, max_replicas=40, start_replicas=3)
            found[candidate.name] = Outcome.of(told)
        return found


def _during(seconds: float, of: Callable[[Array], Array]) -> Rate:
    return lambda at: np.where(within(at, EVENT, seconds), of(at), ordinary(at))


def _each_day_differs(at: Array) -> Array:
    day = (at // DAY_SECONDS).astype(np.int64)
    level, shift = np.array([0.6, 1.3])[day], np.array([0.0, 0.4])[day]
    return level * ordinary(at + shift * DAY_SECONDS)


TWICE: Final = _during(AFTER, lambda at: 2 * ordinary(at))
"""With nothing in the way in one story, hindered in four."""

ONE_UNREAD: Final = partial(Unread, start=EVENT, seconds=AFTER)
PROMETHEUS_AWAY: Final = partial(Unmeasured, start=EVENT, seconds=1800.0)
NO_GPUS: Final = replace(USUAL, shortage=Shortage(EVENT, HOUR))

STORIES: Final = (
    Story("nothing out of the ordinary", ordinary, all_day=True),
    Story("a step to ten times in one tick", _during(AFTER, lambda at: 10 * ordinary(at))),
    Story("twice the load from one tick on", TWICE),
    Story("a flash crowd: four times for 5 minutes", _during(300, lambda at: 4 * ordinary(at))),
    Story("a dead hour", _during(HOUR, np.zeros_like)),
    Story("down to nothing for 10 minutes, and back", _during(600, np.zeros_like)),
    Story(
        "the clocks change: everything an hour early", lambda at: ordinary(at + HOUR * (at >= DAY_SECONDS)), ends=False
    ),
    Story(
        "yesterday poisoned: ten times the load at this hour",
        lambda at: ordinary(at) * np.where(within(at, EVENT - DAY_SECONDS, HOUR), 10.0, 1.0),
    ),
    Story(
        "30 % of samples missing",
        ordinary,
        replace(USUAL, scraping=Scraping(missed_share=0.3)),
        all_day=True,
        ends=False,
    ),
    Story("the metrics of one replica cannot be read", ordinary, around=ONE_UNREAD),
    Story("the same, twice the load meanwhile", TWICE, around=ONE_UNREAD),
    Story("Prometheus away for 30 minutes", ordinary, around=PROMETHEUS_AWAY),
    Story("the same, twice the load meanwhile", TWICE, around=PROMETHEUS_AWAY),
    Story("no GPUs to be had for an hour", ordinary, NO_GPUS),
    Story("the same, twice the load meanwhile", TWICE, NO_GPUS),
    Story("cold starts of three times the length since midnight", ordinary, SLOW_STARTS, all_day=True, ends=False),
    Story("the same, then twice the load", TWICE, SLOW_STARTS, ends=False),
    Story(
        "a retry storm: five times for 10 minutes, clients ask three times again after 10 s",
        _during(600, lambda at: 5 * ordinary(at)),
        replace(USUAL, client_timeout_seconds=10.0, client_retries=3),
    ),
    Story(
        "a new version of the model, rolled out, on which a replica bears half",
        ordinary,
        replace(USUAL, rollout=Rollout(EVENT, ENGINE.slowed(HALVES))),
        ends=False,
    ),
    Story(
        "the same, all replicas at once",
        ordinary,
        replace(USUAL, rollout=Rollout(EVENT, ENGINE.slowed(HALVES), max_surge=40)),
        ends=False,
    ),
    Story(
        "prompts of three times the length", ordinary, prompts=lambda at: np.where(at >= EVENT, 3.0, 1.0), ends=False
    ),
    Story(
        "two periods at once: a day and 80 minutes",
        lambda at: ordinary(at) * (1 + 0.5 * np.sin(2 * np.pi * at / 4800)),
        all_day=True,
        ends=False,
    ),
    Story("every day differs", _each_day_differs, all_day=True, ends=False),
)


def main() -> None:
    """Tell every story, and write the tables into the page."""
    known = commit()
    lines = ["| story | " + " | ".join(POLICIES) + " | |", "|---" * (len(POLICIES) + 2) + "|"]
    ours_and_hpa = POLICIES[:2]
    after = ["| the day after | " + " | ".join(ours_and_hpa) + " |", "|---" * 3 + "|"]
    with ProcessPoolExecutor() as pool:
        for story, found in _all_told(pool, STORIES, POLICIES):
            lines.append(f"| {story.what} | {_cells(found)} | {_verdict(found)} |")
        ended = [story for story in STORIES if story.ends]
        for story, found in _all_told(pool, ended, ours_and_hpa, AFTERWARDS):
            after.append(f"| {story.what} | {_cells(found)} |")
    print(written(BEGIN, END, lines, known))
    print(written(AFTERWARDS_BEGIN, AFTERWARDS_END, after, known))


def _all_told(
    pool: ProcessPoolExecutor,
    stories: Sequence[Story],
    policies: Sequence[str],
    scored: tuple[float, float] | None = None,
) -> Iterator[tuple[Story, dict[str, Outcome]]]:
    """Each with what came of it in the mean of its draws, at its own time or at the one that is given."""
    asked = [(STORIES.index(story), draw, scored or story.scored, policies) for story in stories for draw in DRAWS]
    told = pool.map(_told, *zip(*asked, strict=True))
    for story in stories:
        print(story.what, file=sys.stderr)
        draws = list(islice(told, len(DRAWS)))
        yield story, {policy: Outcome.mean([draw[policy] for draw in draws]) for policy in policies}


def _told(place: int, draw: int, scored: tuple[float, float], policies: Sequence[str]) -> dict[str, Outcome]:
    return STORIES[place].told(draw, scored, policies)


def _cells(found: Mapping[str, Outcome]) -> str:
    return " | ".join(f"{each.attainment:.2%}, {each.gpu_hours:.1f}" for each in found.values())


def _verdict(found: Mapping[str, Outcome]) -> str:
    """Whether ours is worse than both: keeps less where it keeps too little, costs more where it keeps enough."""
    ours, *others = found.values()
    if ours.attainment < ATTAINMENT:
        return "worse than both" if all(each.attainment > ours.attainment for each in others) else ""
    dearer = all(each.attainment >= ATTAINMENT and each.gpu_hours < ours.gpu_hours for each in others)
    return "worse than both" if dearer else ""


if __name__ == "__main__":
    main()
