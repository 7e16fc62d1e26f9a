"""Our re-implementation of crane's EffectiveHPA: pkg/controller/ehpa and pkg/metricprovider of 2b0ddae (Dec 2024).

An HPA on the metric as it is, and on the highest that is foreseen of it within the prediction window, whichever asks
for more. What is foreseen comes from `simulations.peers.crane_signal`, anew every 12 hours, of at most the last
7 days in steps of a minute; before two whole days were seen, or where no period of a day or a week is found, it is
an HPA and nothing more. Foreseen values lose their fractions, as they do there.
Its metrics are those of an HPA; ours by default is the requests that all pods run or have waiting, 16 a replica.
Without data the steps are filled on a straight line, and the HPA holds. Left out: cron, and its preview mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from policies.scaling.decision import Decision
from policies.scaling.observation import Observation
from simulations.peers import reading
from simulations.peers.crane_signal import next_cycle, period_seconds, without_outliers
from simulations.peers.hpa import ExternalAverageMetric, Hpa, HpaState, Proposal
from simulations.peers.parameters import Positive, Setting

LABEL = "our re-implementation of crane's EffectiveHPA (pkg/prediction/dsp, pkg/controller/ehpa at 2b0ddae)"
DAY_SECONDS, WEEK_SECONDS = 86_400.0, 604_800.0
LONGEST_GAP_SECONDS = 3600.0
"""What lies before a longer one is forgotten."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Foreseen values, one a step from a time on."""

    start: float
    values: tuple[float, ...]

    def highest(self, since: float, until: float, step_seconds: float) -> float | None:
        """Of that window; None where it lies beyond what was foreseen."""
        first = max(0, math.ceil((since - self.start) / step_seconds - 1e-9))
        last = math.floor((until - self.start) / step_seconds + 1e-9)
        within = self.values[first : max(0, last + 1)]
        return max(within) if within else None


@dataclass(frozen=True, slots=True)
class CraneState:
    hpa: HpaState
    begun_at: float | None = None
    last_at: float | None = None
    """The step of the newest sample."""
    samples: tuple[float, ...] = ()
    learnt_at: float | None = None
    forecast: Forecast | None = None


@dataclass(frozen=True, slots=True)
class Crane:
    """One EHPA with one metric."""

    hpa: Hpa
    readings: tuple[str, ...]
    target: float
    prediction_window_seconds: float = 3600.0
    sample_seconds: float = 60.0
    history_seconds: float = WEEK_SECONDS
    update_seconds: float = 12 * 3600.0
    periods_seconds: tuple[float, ...] = (DAY_SECONDS, WEEK_SECONDS)

    @property
    def reads_histograms(self) -> bool:
        return False

    def begin(self) -> CraneState:
        return CraneState(self.hpa.begin())

    def decide(self, observation: Observation, state: CraneState) -> tuple[Decision, CraneState]:
        now = observation.time
        shown = reading.values(observation.pods, self.readings)
        total = math.fsum(shown) if shown else None
        state = self._sampled(now, total, state)
        if reading.due(now, state.learnt_at, self.update_seconds):
            state = replace(state, learnt_at=now, forecast=self._learnt(state) or state.forecast)
        foreseen = None
        if state.forecast is not None:
            foreseen = state.forecast.highest(now, now + self.prediction_window_seconds, self.sample_seconds)
        outdated = state.forecast is not None and foreseen is None

        def propose(seen: Observation) -> Proposal:
            now_wanted = None if total is None else self.hpa.for_total(seen, math.ceil(total * 1000), self.target)
            wishes: list[Proposal] = [now_wanted]
            if foreseen is not None:
                number, said = self.hpa.for_total(seen, int(foreseen) * 1000, self.target)
                wishes.append((number, f"foreseen {said}"))
            elif outdated:
                wishes.append(None)
            return self.hpa.greatest(seen, wishes)

        decision, hpa = self.hpa.follow(observation, state.hpa, propose)
        return decision, replace(state, hpa=hpa)

    def _sampled(self, now: float, total: float | None, state: CraneState) -> CraneState:
        """A sample a step, those missed on a straight line between the two beside them."""
        step = math.floor(now / self.sample_seconds + 1e-9) * self.sample_seconds
        if total is None or (state.last_at is not None and step <= state.last_at):
            return state
        if state.last_at is None or step - state.last_at > LONGEST_GAP_SECONDS:
            return replace(state, last_at=step, samples=(total,))
        missed = round((step - state.last_at) / self.sample_seconds)
        last = state.samples[-1]
        between = tuple(last + (total - last) * i / missed for i in range(1, missed + 1))
        most = round((self.history_seconds + 3600.0) / self.sample_seconds)
        return replace(state, last_at=step, samples=(*state.samples, *between)[-most:])

    def _learnt(self, state: CraneState) -> Forecast | None:
        if state.last_at is None or len(state.samples) * self.sample_seconds < 2 * min(self.periods_seconds):
            return None
        samples = without_outliers(state.samples)
        period = period_seconds(samples, self.sample_seconds, self.periods_seconds)
        cycle = None if period is None else next_cycle(samples, self.sample_seconds, period)
        if cycle is None:
            return None
        cycles = len(samples) // len(cycle)
        return Forecast(state.last_at + self.sample_seconds, tuple(cycle.tolist()) * cycles)


def build(
    setting: Setting,
    *,
    metric: Literal["in-flight", "running", "waiting"] = "in-flight",
    target: Positive = 16.0,
    prediction_window: Positive = 3600.0,
    history_days: Positive = 7.0,
    update_hours: Positive = 12.0,
) -> Crane:
    """`target` of the sum over all pods a replica."""
    readings = reading.METRICS[metric]
    hpa = Hpa((ExternalAverageMetric(readings, target),), setting.min_replicas, setting.max_replicas)
    return Crane(
        hpa,
        readings,
        target,
        prediction_window,
        history_seconds=history_days * DAY_SECONDS,
        update_seconds=update_hours * 3600.0,
    )
