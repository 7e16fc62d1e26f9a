"""What a policy has learnt at the end of a story of the simulated fleet."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from policies.scaling.decision import Decision
from policies.scaling.history import History
from policies.scaling.lateness import PRESSURES
from policies.scaling.observation import Observation
from policies.scaling.resource import Objectives
from policies.scaling.resource_reading import read
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions, Scraping
from simulations.model.engine import shipped_engine
from simulations.replay import Preheat, replay
from simulations.traces import Trace
from tests.policies.scaling.structural import DOCUMENT

COLD_SECONDS = 420.0
STATED = {"ttftSeconds": 3, "tpotSeconds": 0.1}
HOUR = 3_600.0


@dataclass
class Watched:
    """Our policy, and what it remembers."""

    policy: Preheat
    history: History = field(default_factory=History)

    @property
    def reads_histograms(self) -> bool:
        return self.policy.reads_histograms

    def begin(self) -> History:
        return self.policy.begin()

    def decide(self, observation: Observation, state: History) -> tuple[Decision, History]:
        decision, self.history = self.policy.decide(observation, state)
        return decision, self.history


def a_step(low: float, high: float) -> Trace:
    """Two hours at `low` requests/s, twenty minutes at `high`, and an hour at `low` again, evenly spaced."""
    parts = ((0.0, 2 * HOUR, low), (2 * HOUR, 2 * HOUR + 1_200, high), (2 * HOUR + 1_200, 3 * HOUR + 1_200, low))
    times = np.concatenate([np.arange(begin, end, 1 / rate) for begin, end, rate in parts])
    return Trace.of("a step", times, np.full(times.size, 1_155), np.full(times.size, 211))


def test_who_waits_through_a_cold_start_does_not_teach_that_full_replicas_are_late() -> None:
    """What waits is the reason, not how full they were: else one step would keep them emptier for days."""
    spec = read({**DOCUMENT, "spec": {**DOCUMENT["spec"], "coldStartSeconds": COLD_SECONDS, "objectives": STATED}}).spec
    watched = Watched(Preheat.of(spec))
    told = replay(
        a_step(2.0, 6.0),
        shipped_engine("llama2-7b_a40_tp1"),
        watched,
        objectives=Objectives(ttft_seconds=3, tpot_seconds=0.1),
        conditions=Conditions(Constant(COLD_SECONDS)),
        max_replicas=20,
        start_replicas=2,
    )
    learnt = watched.history.lateness
    assert told.attainment < 0.9
    assert learnt.late.sum() > 1_000
    assert learnt.late[PRESSURES < 1.0].sum() < 0.05 * learnt.late.sum()


@pytest.mark.parametrize("interval_seconds", [15, 60, 120])
def test_however_often_pods_are_scraped_what_comes_is_seen_and_met(interval_seconds: float) -> None:
    """Up to once in two minutes, which is seldom."""
    spec = read({**DOCUMENT, "spec": {**DOCUMENT["spec"], "objectives": STATED}}).spec
    watched = Watched(Preheat.of(spec))
    told = replay(
        a_step(2.0, 6.0).until(2 * HOUR + 1_200),
        shipped_engine("llama2-7b_a40_tp1"),
        watched,
        objectives=Objectives(ttft_seconds=3, tpot_seconds=0.1),
        conditions=Conditions(Constant(60.0), scraping=Scraping(interval_seconds)),
        max_replicas=20,
        start_replicas=2,
    )
    before, after = (next(d for d in told.decisions if d.time >= at) for at in (2 * HOUR - 60, 2 * HOUR + 1_100))
    assert before.demand == pytest.approx(2.0, rel=0.1)
    assert after.demand == pytest.approx(6.0, rel=0.1)
    assert after.ready >= 3
    assert watched.history.fitted_at is not None
