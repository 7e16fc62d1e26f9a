"""Our re-implementation of llm-d's latency law for KEDA: guides/workload-autoscaling/README.slo-aware.md, d38c9f0.

The worse of P90 TTFT and P90 TPOT over a minute, each against its objective, cut at 2 and smoothed over 45 s, is the
saturation; the replicas follow from it and from how many of them are ready; KEDA serves that number to an HPA.
The guide's router predicts latencies where it may, and falls back to measured ones; here they are vLLM's, measured.

A P90 needs all buckets of a histogram, and two around the objective are shown. It is approximated: below the lower
edge by the P90 of a log-normal distribution with the measured mean and a usual spread, narrowed where the share
beyond the edge shows it to be narrower; between the edges by a straight line, as `histogram_quantile` has it; beyond
them by the mean, at least the upper edge. Measured on the shipped trace, with nine engines in fixed fleets of 2 to
12 and objectives of 2 s and 60 ms (6,102 minutes): half the P90s are within 21 % of the true ones for TTFT and 6 %
for TPOT, and whether they lie below 0.40, above 0.55 or between is told otherwise in 2 % and 5 % of the minutes.

An idle pool reads 0, and so does one that cannot be seen: the guide maps a P90 of nothing to 0, so it drains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

from policies.scaling.decision import Decision
from policies.scaling.observation import Distribution, Observation
from simulations.peers import reading
from simulations.peers.hpa import Behavior, Hpa, HpaState, RatePolicy, Rules
from simulations.peers.parameters import Positive, Setting
from simulations.peers.reading import Entries

LABEL = "our re-implementation of llm-d's SLO-aware KEDA law (README.slo-aware.md at d38c9f0)"
RATE_WINDOW_SECONDS = 60.0
SMOOTHING_SECONDS = 45.0
CLAMP = 2.0
TTFT_SPREAD = 0.8
"""Standard deviation of the logarithm, where nothing narrows it."""
TPOT_SPREAD = 0.1
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Latencies:
    """What a histogram counted over some time, in all pods."""

    sum_seconds: float = 0.0
    count: float = 0.0
    lower_count: float = 0.0
    upper_count: float = 0.0

    def __add__(self, other: Latencies) -> Latencies:
        return Latencies(
            self.sum_seconds + other.sum_seconds,
            self.count + other.count,
            self.lower_count + other.lower_count,
            self.upper_count + other.upper_count,
        )


def quantile_seconds(latencies: Latencies, lower: float, upper: float, share: float, spread: float) -> float | None:
    """The approximated latency that so large a share keeps; None of nothing."""
    count = latencies.count
    if count <= 0:
        return None
    rank, average = share * count, latencies.sum_seconds / count
    if rank <= latencies.lower_count:
        return min(lower, _log_normal(average, share, _spread(latencies, lower, spread)))
    if rank > latencies.upper_count or math.isinf(upper):
        return max(lower if math.isinf(upper) else upper, average)
    within = (rank - latencies.lower_count) / (latencies.upper_count - latencies.lower_count)
    return lower + within * (upper - lower)


def _log_normal(average: float, share: float, spread: float) -> float:
    return average * math.exp(_NORMAL.inv_cdf(share) * spread - spread * spread / 2)


def _spread(latencies: Latencies, lower: float, usual: float) -> float:
    """The one that has this mean and this share below the edge; where none is beyond it, that is the widest."""
    average = latencies.sum_seconds / latencies.count
    if not 0 < average < lower:
        return usual
    beyond = 1 - latencies.lower_count / latencies.count
    z = _NORMAL.inv_cdf(1 - max(beyond, 0.5 / max(1.0, latencies.count)))
    found = z - math.sqrt(max(0.0, z * z - 2 * math.log(lower / average)))
    return found if beyond > 0 else min(usual, found)


def replicas_for(saturation: float, provisioned: int, ready: int, *, up: float = 0.55, down: float = 0.40) -> int:
    """The guide's formula: growth is credited with what still boots, a shrink is not."""
    if saturation > up:
        credit = ready / provisioned if 0 < ready < provisioned else 1.0
        return provisioned + reading.rounded_up(provisioned * (saturation * credit / up - 1))
    if saturation < down:
        return provisioned - reading.rounded_down(provisioned * (1 - saturation / down))
    return provisioned


Cumulated = Mapping[str, tuple[Distribution | None, Distribution | None]]
"""By pod, its TTFT and TPOT histograms as last read."""


@dataclass(frozen=True, slots=True)
class SloKedaState:
    hpa: HpaState
    last: Cumulated = field(default_factory=dict)
    steps: tuple[tuple[float, Latencies, Latencies], ...] = ()
    """What both histograms counted from look to look, of the rate window."""
    saturations: Entries = ()


@dataclass(frozen=True, slots=True)
class SloKeda:
    """The recording rules, the formula and the HPA behind it."""

    hpa: Hpa
    ttft_objective_seconds: float
    tpot_objective_seconds: float
    quantile: float = 0.9
    up: float = 0.55
    down: float = 0.40

    @property
    def reads_histograms(self) -> bool:
        return True

    def begin(self) -> SloKedaState:
        return SloKedaState(self.hpa.begin())

    def decide(self, observation: Observation, state: SloKedaState) -> tuple[Decision, SloKedaState]:
        now = observation.time
        cumulated = {pod.name: (pod.sample.ttft, pod.sample.tpot) for pod in observation.ready_pods if pod.sample}
        steps = tuple(step for step in state.steps if step[0] > now - RATE_WINDOW_SECONDS)
        steps = (*steps, (now, _grown(state.last, cumulated, 0), _grown(state.last, cumulated, 1)))
        raw = max(
            self._against(steps, cumulated, 0, self.ttft_objective_seconds, TTFT_SPREAD),
            self._against(steps, cumulated, 1, self.tpot_objective_seconds, TPOT_SPREAD),
        )
        saturations = (*reading.since(state.saturations, now - SMOOTHING_SECONDS), (now, min(raw, CLAMP)))
        saturation = reading.mean(saturations) or 0.0

        def propose(seen: Observation) -> tuple[int, str]:
            there, ready = reading.replicas_there(seen), len(seen.ready_pods)
            wish = max(0, replicas_for(saturation, there, ready, up=self.up, down=self.down))
            number, _ = self.hpa.for_total(seen, wish * 1000, 1.0)
            return number, f"saturation {saturation:.3f}, {ready} of {there} ready, the formula has {wish}"

        decision, hpa = self.hpa.follow(observation, state.hpa, propose)
        return decision, SloKedaState(hpa, cumulated, steps, saturations)

    def _against(
        self,
        steps: tuple[tuple[float, Latencies, Latencies], ...],
        shown: Cumulated,
        which: int,
        objective: float,
        spread: float,
    ) -> float:
        """The quantile over the rate window as a share of its objective; 0 of nothing."""
        histogram = next((pair[which] for pair in shown.values() if pair[which] is not None), None)
        if histogram is None:
            return 0.0
        window = Latencies()
        for _, ttft, tpot in steps:
            window += (ttft, tpot)[which]
        found = quantile_seconds(
            window, histogram.lower_edge_seconds, histogram.upper_edge_seconds, self.quantile, spread
        )
        return 0.0 if found is None else found / objective


def _grown(before: Cumulated, after: Cumulated, which: int) -> Latencies:
    """What was counted since; a pod not seen before begins the next time, one that counts anew from zero."""
    total = Latencies()
    for name, pair in after.items():
        now, past = pair[which], before.get(name, (None, None))[which]
        if now is None or past is None:
            continue
        if now.count < past.count:
            past = Distribution(0.0, 0.0, now.lower_edge_seconds, 0.0, now.upper_edge_seconds, 0.0)
        total += Latencies(
            now.sum_seconds - past.sum_seconds,
            now.count - past.count,
            now.lower_count - past.lower_count,
            now.upper_count - past.upper_count,
        )
    return total


def build(
    setting: Setting,
    *,
    up: Positive = 0.55,
    down: Positive = 0.40,
    quantile: Positive = 0.9,
) -> SloKeda:
    """The guide's thresholds; its objectives are the replay's."""
    behavior = Behavior(
        Rules((RatePolicy(100, 60.0, percent=True), RatePolicy(4, 60.0)), 30.0),
        Rules((RatePolicy(1, 120.0),), 180.0),
    )
    hpa = Hpa((), setting.min_replicas, setting.max_replicas, behavior)
    objectives = setting.objectives
    return SloKeda(hpa, objectives.ttft_seconds, objectives.tpot_seconds, quantile, up, down)
