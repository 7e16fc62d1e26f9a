"""`decide`: from what is seen and remembered to a number of replicas with its reasons.

Four needs are reckoned and the greatest is the wish: the demand foreseen at the lead time, the demand now, the
queue that must be worked off, and what the KV cache and the time per output token show. A forecast can only
raise. Then the wish is damped on its way down and bounded. While nothing is measured a fleet keeps what it has, and
after a while goes back up to what the hour before needed at most: it may have come back unseen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, exp, sqrt

from policies.scaling import damping, sentences
from policies.scaling.calendar_floor import floor_at
from policies.scaling.capacity import ReplicaCapacity
from policies.scaling.decision import Binding, Came, Decision, Forecast
from policies.scaling.demand import Activity
from policies.scaling.forecast import foresee
from policies.scaling.forecasters.views import Past
from policies.scaling.history import NEEDED, TIME, History, is_measure, row_of
from policies.scaling.lead_time import prior_seconds
from policies.scaling.observation import Observation, PodStage
from policies.scaling.sentences import told
from policies.scaling.series import ARRIVALS, SECONDS
from policies.scaling.settings import ScalingPolicy
from policies.scaling.supply import Supply, supply

__all__ = ["ScalingPolicy", "decide", "decide_unmeasured", "judge"]

ROUNDING = 1e-9
"""Taken off before rounding up, so that 3.0000000000000004 replicas are three on every machine."""


@dataclass(frozen=True, slots=True)
class Need:
    """A number of replicas, what asks for it, and the values that say so."""

    replicas: float
    binding: Binding
    evidence: str

    @property
    def whole(self) -> int:
        return max(0, ceil(self.replicas - ROUNDING))


def decide(now: Observation, history: History, policy: ScalingPolicy) -> Decision:
    """How many replicas to ask for now."""
    return judge(now, history.activity(now, policy), history, policy)


def decide_unmeasured(now: Observation, history: History, policy: ScalingPolicy) -> Decision | None:
    """Of a target whose metrics are away, as Kubernetes alone shows it: a rise, or nothing."""
    decision = decide(now, history, policy)
    return decision if decision.replicas > now.desired else None


def judge(now: Observation, done: Activity | None, history: History, policy: ScalingPolicy) -> Decision:
    """`decide`, by those who have reckoned already what was done since the last turn."""
    shown, now = now, history.seen(now, policy)
    lead_time = history.lead_time.then(now.pods)
    unmeasured = _unmeasured_lead_seconds(now, policy)
    lead = lead_time.seconds(unmeasured)
    horizon = lead + policy.tick_seconds + policy.actuation_seconds + _sample_age(now)
    coming = supply(
        now,
        lead_seconds=lead_time.boot_seconds(unmeasured, cold=False, cold_pull_seconds=policy.cold_pull_seconds),
        cold_lead_seconds=lead_time.boot_seconds(unmeasured, cold=True, cold_pull_seconds=policy.cold_pull_seconds),
        cold_pull_seconds=policy.cold_pull_seconds,
    )
    capacity = history.capacity(policy)
    idleness = history.idleness.then(shown, done) if policy.min_replicas == 0 else None
    rests = idleness is not None and idleness.rests(now, policy.idle_seconds)
    present = _present(history, now, done, policy)
    forecast = _forecast(history, now, done, horizon, policy)
    unseen = "no request was seen yet" if history.mix.mix is None else "nothing can be measured now"
    need = Need(0.0, Binding.FLOOR, "nothing arrives" if present == 0 else unseen)
    needed = need.whole
    if capacity is not None:
        if history.fitted_at is None:
            capacity = _no_worse_than_shown(capacity, now, done, present, policy)
        capacity = capacity.filled(history.utilisation.value)
        needs = _needs(now, done, capacity, present, forecast, coming, horizon, policy)
        need = max([need, *needs], key=lambda each: each.whole)
        needed = need.whole
        need = max([need, *_before_the_dark(now, history, policy)], key=lambda each: each.whole)
    if rests:
        # Means over the last minutes still tell of requests that are long answered.
        need = Need(0.0, Binding.IDLE, sentences.resting(now, policy.idle_seconds))
    elif idleness is not None and need.whole == 0:
        need = Need(1.0, Binding.AWAKE, sentences.awake(now, idleness, policy.idle_seconds))
    # Demand unseen is no reason to shrink; what is seen beside it may be one to grow.
    wanted = max(now.desired, need.whole) if present is None and not rests else need.whole
    bounded = _with_calendar(policy, now.time, horizon)
    fewest = _bearable(now, capacity, policy)
    outcome = damping.damp(wanted, need.binding, now, history, done, bounded, fewest, horizon, rests=rests)
    return Decision(
        time=now.time,
        replicas=outcome.replicas,
        wanted=wanted,
        desired=now.desired,
        binding=outcome.binding,
        sentence=told(now, wanted, need.evidence, capacity, coming, outcome, policy),
        horizon_seconds=horizon,
        forecast=forecast,
        demand=present,
        came=_came(history, now, done, policy),
        capacity=capacity.requests_per_second if capacity else None,
        ready=coming.ready,
        coming=coming.coming,
        within_objectives=done.share_within_both if done else None,
        needed=needed,
        clips=outcome.clips,
    )


def _with_calendar(policy: ScalingPolicy, now: float, horizon_seconds: float) -> ScalingPolicy:
    """The policy with the floor that the calendar sets for now and for when a replica ordered now is ready."""
    floor = floor_at(policy.calendar, now, horizon_seconds) if policy.calendar else 0
    return replace(policy, min_replicas=floor) if floor > policy.min_replicas else policy


def _unmeasured_lead_seconds(now: Observation, policy: ScalingPolicy) -> float:
    """What is believed of a start before any were seen."""
    if policy.cold_start_seconds is not None:
        return policy.cold_start_seconds
    return prior_seconds(
        now.model_name,
        base_seconds=policy.prior_lead_base_seconds,
        seconds_per_billion=policy.prior_lead_per_billion_seconds,
    )


def _sample_age(now: Observation) -> float:
    """Age of the oldest sample that a ready pod shows: how late what is seen was."""
    ages = [now.time - p.sample.time for p in now.ready_pods if p.sample and p.sample.time is not None]
    return max(0.0, max(ages, default=0.0))


def _present(history: History, now: Observation, done: Activity | None, policy: ScalingPolicy) -> float | None:
    """Requests' worth of work a second now; None when unseen.

    The mean of the last two minutes, or of the last half one less its counting error where that is more. What has
    just begun to arrive is believed as far as its number of requests allows, too, and counts as far as it is worked
    on so soon: of a burst of 30 s whose requests stay for 100 s a quarter is on the fleet at a time.
    """
    level = history.since(now.time, policy.level_seconds, done, policy)
    burst, stay = history.since(now.time, policy.burst_seconds, done, policy), history.stay_seconds
    if not is_measure(level, policy.level_seconds):
        if done is None or not done.trusted or done.seconds <= 0:
            return None
        # So little was seen: what came last counts less its error, too, or one second in which ten came is a step.
        return max(float(burst[ARRIVALS] / burst[SECONDS]), (done.arrivals - sqrt(done.arrivals)) / done.seconds)
    rate = history.load(level, policy) / float(level[SECONDS])
    if stay is None or not is_measure(burst, policy.burst_seconds):
        return rate
    arrived, worked, seconds = float(burst[ARRIVALS]), history.load(burst, policy), float(burst[SECONDS])
    soon = 1.0 - exp(-policy.burst_seconds / stay)
    arriving = rate + soon * ((arrived - sqrt(arrived)) / seconds - rate)
    return max(rate, arriving, (worked - sqrt(worked)) / seconds)


def _came(history: History, now: Observation, done: Activity | None, policy: ScalingPolicy) -> Came | None:
    """The newest mean that the back-test of forecasts would compare them with."""
    seen = history.since(now.time, policy.smooth_seconds, done, policy)
    if not is_measure(seen, policy.smooth_seconds):
        return None
    return Came(now.time - policy.smooth_seconds / 2, history.load(seen, policy) / float(seen[SECONDS]))


def _forecast(
    history: History, now: Observation, done: Activity | None, horizon: float, policy: ScalingPolicy
) -> Forecast | None:
    """The demand at the horizon, from a past that ends now; of its fine bins only the last hours are needed."""
    past = history.past(policy)
    fine = past.fine.tail(ceil((horizon + policy.day_seconds / 6) / policy.fine_step_seconds))
    if done is not None and done.trusted and done.seconds > 0:
        fine = fine.add(done.start, now.time, row_of(done, policy))
    return foresee(
        Past(fine, past.coarse, past.work),
        policy.views,
        history.forecast,
        now=now.time,
        horizon_seconds=horizon,
        quantile=policy.quantile,
    )


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
    arriving = f"{sentences.rate(present)} requests/s come"
    needs = [Need(flow / bears, capacity.binding, arriving)]
    if forecast is not None:
        needs.append(Need(forecast.upper / bears, Binding.FORECAST, sentences.foreseen(forecast, horizon)))
    waiting = now.requests_waiting
    if waiting > 0:
        # The queue as it will be when a replica ordered now is there, after what boots has helped.
        backlog = waiting + flow * horizon - bears * coming.replica_seconds(now.time, now.time + horizon)
        if backlog > 0:
            drain = sentences.duration(policy.drain_seconds)
            evidence = f"{waiting:.0f} requests wait and {arriving}, the backlog to be worked off in {drain}"
            needs.append(Need((flow + backlog / policy.drain_seconds) / bears, Binding.QUEUE, evidence))
    step_seconds = _step_seconds(done, policy)
    if step_seconds is not None and step_seconds > policy.tpot_objective_seconds:
        evidence = f"{_running(now):.0f} requests run at {step_seconds * 1000:.0f} ms a token and {arriving}"
        needs.append(Need(_running(now) / capacity.in_flight, Binding.TPOT, evidence))
    usage = [sample.kv_cache_usage or 0.0 for sample in now.ready_samples]
    if usage and max(usage) > policy.kv_cache_margin:
        evidence = f"the fullest KV cache is {max(usage):.0%} full and {arriving}"
        needs.append(Need(sum(usage) / policy.kv_cache_margin, Binding.KV_CACHE, evidence))
    return needs


def _before_the_dark(now: Observation, history: History, policy: ScalingPolicy) -> list[Need]:
    """The greatest need that is remembered, once nothing at all has been measured for a while; who rests sleeps on."""
    if now.ready_samples or now.desired == 0 or len(history.recent) == 0:
        return []
    since = float(history.recent[-1, TIME])
    dark_seconds = now.time - since
    if dark_seconds < policy.unmeasured_seconds:
        return []
    of_late = history.ticks[history.ticks[:, TIME] > since - policy.ticks_keep_seconds]
    greatest = float(of_late[:, NEEDED].max(initial=0.0))
    evidence = f"nothing was measured for {sentences.duration(dark_seconds)}, and {greatest:.0f} were wanted before"
    return [Need(greatest, Binding.UNMEASURED, evidence)]


def _running(now: Observation) -> float:
    return sum(sample.requests_running or 0.0 for sample in now.ready_samples)


def _step_seconds(done: Activity | None, policy: ScalingPolicy) -> float | None:
    """Mean time between tokens since the last look, None with too few of them."""
    if done is None:
        return None
    tokens = sum(pod.inter_tokens for pod in done.pods.values())
    if tokens < policy.fewest_tokens:
        return None
    return sum(pod.inter_token_seconds for pod in done.pods.values()) / tokens


def _no_worse_than_shown(
    capacity: ReplicaCapacity, now: Observation, done: Activity | None, present: float | None, policy: ScalingPolicy
) -> ReplicaCapacity:
    """A prior does not speak against what is seen: a fleet that keeps its objectives bears what it bears."""
    ready = now.count(PodStage.READY)
    step_seconds = _step_seconds(done, policy)
    slow = step_seconds is not None and step_seconds > policy.tpot_objective_seconds
    if ready == 0 or present is None or now.requests_waiting > 0 or slow:
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
