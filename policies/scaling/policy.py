"""`decide`: from what is seen and remembered to a number of replicas with its reasons.

Four needs are reckoned and the greatest is the wish: the demand foreseen at the lead time, the demand now, the
queue that must be worked off, and what the KV cache and the time per output token show. A forecast can only
raise. Then the wish is damped on its way down and bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from policies.scaling import damping
from policies.scaling.capacity import Mix, ReplicaCapacity, StepTime, replica_capacity
from policies.scaling.decision import Binding, Decision, Forecast
from policies.scaling.demand import Activity
from policies.scaling.forecast import foresee, level
from policies.scaling.forecasters.views import Past
from policies.scaling.history import History
from policies.scaling.lead_time import prior_seconds
from policies.scaling.observation import Observation, PodStage
from policies.scaling.sentences import told
from policies.scaling.settings import ScalingPolicy
from policies.scaling.supply import Supply, supply

__all__ = ["ScalingPolicy", "decide"]

ROUNDING = 1e-9
"""Taken off before rounding up, so that 3.0000000000000004 replicas are three on every machine."""


@dataclass(frozen=True, slots=True)
class Need:
    """A number of replicas and what asks for it."""

    replicas: float
    binding: Binding

    @property
    def whole(self) -> int:
        return max(0, ceil(self.replicas - ROUNDING))


def decide(now: Observation, history: History, policy: ScalingPolicy) -> Decision:
    """How many replicas to ask for now."""
    done = history.activity(now, policy)
    lead = _lead_seconds(now, history, policy)
    horizon = lead + policy.tick_seconds + policy.actuation_seconds + _sample_age(now)
    coming = supply(
        now,
        lead_seconds=_lead_seconds(now, history, policy, cold=False),
        cold_lead_seconds=_lead_seconds(now, history, policy, cold=True),
        cold_pull_seconds=policy.cold_pull_seconds,
    )
    mix = history.mix.mix
    capacity = _capacity(history, mix, policy)
    past = _with_newest(history, now, done, policy)
    present, forecast = _demand(past, history, now, done, horizon, policy)
    needs = [Need(0.0, Binding.FLOOR)]
    if capacity is not None:
        if history.fitted_at is None:
            capacity = _no_worse_than_shown(capacity, now, done, present, policy)
        needs += _needs(now, done, capacity, present, forecast, coming, horizon, policy)
    need = max(needs, key=lambda each: each.whole)
    wanted = need.whole if need.whole > 0 or present is not None else now.desired
    binding = need.binding if need.whole > 0 else Binding.FLOOR
    outcome = damping.damp(wanted, binding, now, history, done, policy, _bearable(now, capacity, policy))
    return Decision(
        time=now.time,
        replicas=outcome.replicas,
        wanted=wanted,
        desired=now.desired,
        binding=outcome.binding,
        sentence=told(now, outcome, wanted, need.binding, present, forecast, capacity, coming, horizon, policy),
        horizon_seconds=horizon,
        forecast=forecast,
        demand=present,
        capacity=capacity.requests_per_second if capacity else None,
        ready=coming.ready,
        coming=coming.coming,
        clips=outcome.clips,
    )


def _lead_seconds(now: Observation, history: History, policy: ScalingPolicy, cold: bool | None = None) -> float:
    return history.lead_time.then(now.pods).seconds(
        configured_seconds=policy.cold_start_seconds,
        prior_seconds=prior_seconds(
            now.model_name,
            base_seconds=policy.prior_lead_base_seconds,
            seconds_per_billion=policy.prior_lead_per_billion_seconds,
        ),
        cold_pull_seconds=policy.cold_pull_seconds,
        cold=cold,
    )


def _sample_age(now: Observation) -> float:
    """Age of the oldest sample that a ready pod shows: how late what is seen was."""
    ages = [now.time - p.sample.time for p in now.ready_pods if p.sample and p.sample.time is not None]
    return max(0.0, max(ages, default=0.0))


def _capacity(history: History, mix: Mix | None, policy: ScalingPolicy) -> ReplicaCapacity | None:
    """What a replica bears of the present mix; None before the first request was seen."""
    if mix is None:
        return None
    return replica_capacity(
        history.steps.step_time if history.steps else StepTime.prior(policy.tpot_objective_seconds),
        mix,
        ttft_objective_seconds=policy.ttft_objective_seconds,
        tpot_objective_seconds=policy.tpot_objective_seconds,
        kv_cache_tokens=history.kv_cache_tokens,
        most_in_flight=history.most_in_flight,
        tpot_margin=policy.tpot_margin,
        kv_cache_margin=policy.kv_cache_margin,
        greatest_utilisation=policy.greatest_utilisation,
    )


def _with_newest(history: History, now: Observation, done: Activity | None, policy: ScalingPolicy) -> Past:
    """The past with the stretch that ends now, of which only the recent part is needed to look ahead."""
    past = history.past(policy)
    fine = past.fine.tail(round(30 * policy.level_seconds / policy.fine_step_seconds))
    if done is not None and done.trusted and done.seconds > 0:
        fine = fine.add(done.start, now.time, (done.seconds, done.arrivals, 0.0, 0.0, 0.0))
    return Past(fine, past.coarse)


def _demand(
    past: Past,
    history: History,
    now: Observation,
    done: Activity | None,
    horizon: float,
    policy: ScalingPolicy,
) -> tuple[float | None, Forecast | None]:
    """(requests/s now, forecast at the horizon)."""
    present = level(past, policy.level_seconds)
    if present is None and done is not None and done.trusted and done.seconds > 0:
        present = done.arrivals / done.seconds
    forecast = foresee(
        past,
        policy.views,
        history.forecast,
        now=now.time,
        horizon_seconds=horizon,
        quantile=policy.quantile,
    )
    return present, forecast


def _needs(
    now: Observation,
    done: Activity | None,
    capacity: ReplicaCapacity,
    present: float | None,
    forecast: Forecast | None,
    coming: Supply,
    horizon: float,
    policy: ScalingPolicy,
) -> list[Need]:
    """Every consideration's number of replicas."""
    bears = capacity.requests_per_second
    flow = 0.0 if present is None else present
    needs = [Need(flow / bears, capacity.binding)]
    if forecast is not None:
        needs.append(Need(forecast.upper / bears, Binding.FORECAST))
    waiting = now.requests_waiting
    if waiting > 0:
        # The queue as it will be when a replica ordered now is there, after what boots has helped.
        backlog = waiting + flow * horizon - bears * coming.replica_seconds(now.time, now.time + horizon)
        if backlog > 0:
            needs.append(Need((flow + backlog / policy.drain_seconds) / bears, Binding.QUEUE))
    samples = now.ready_samples
    if done is not None and _too_slow(done, policy):
        needs.append(Need(_running(now) / capacity.in_flight, Binding.TPOT))
    usage = [sample.kv_cache_usage or 0.0 for sample in samples]
    if usage and max(usage) > policy.kv_cache_margin:
        needs.append(Need(sum(usage) / policy.kv_cache_margin, Binding.KV_CACHE))
    return needs


def _running(now: Observation) -> float:
    return sum(sample.requests_running or 0.0 for sample in now.ready_samples)


def _too_slow(done: Activity, policy: ScalingPolicy) -> bool:
    """Whether the mean time between tokens breaks the objective now."""
    seconds = sum(pod.inter_token_seconds for pod in done.pods.values())
    tokens = sum(pod.inter_tokens for pod in done.pods.values())
    return tokens >= policy.fewest_tokens and seconds / tokens > policy.tpot_objective_seconds


def _no_worse_than_shown(
    capacity: ReplicaCapacity, now: Observation, done: Activity | None, present: float | None, policy: ScalingPolicy
) -> ReplicaCapacity:
    """A prior does not speak against what is seen: a fleet that keeps its objectives bears what it bears."""
    ready = now.count(PodStage.READY)
    if ready == 0 or present is None or done is None or now.requests_waiting > 0 or _too_slow(done, policy):
        return capacity
    return replace(
        capacity,
        requests_per_second=max(capacity.requests_per_second, present / ready),
        in_flight=max(capacity.in_flight, _running(now) / ready),
    )


def _bearable(now: Observation, capacity: ReplicaCapacity | None, policy: ScalingPolicy) -> int:
    """Fewest replicas that the present signals allow: what runs, and the cache it holds, spread over those left."""
    if capacity is None:
        return now.desired
    if any((sample.requests_waiting or 0.0) >= 1 for sample in now.ready_samples):
        return now.count(PodStage.READY)
    usage = sum(sample.kv_cache_usage or 0.0 for sample in now.ready_samples)
    return ceil(max(_running(now) / capacity.in_flight, usage / policy.kv_cache_margin) - ROUNDING)
