"""A decision told in plain English, from the values that were compared, with their units."""

from __future__ import annotations

from policies.scaling.capacity import ReplicaCapacity
from policies.scaling.damping import Outcome
from policies.scaling.decision import Binding, Forecast
from policies.scaling.observation import Observation
from policies.scaling.settings import ScalingPolicy
from policies.scaling.supply import Supply


def told(
    now: Observation,
    outcome: Outcome,
    wanted: int,
    asked_by: Binding,
    present: float | None,
    forecast: Forecast | None,
    capacity: ReplicaCapacity | None,
    coming: Supply,
    horizon: float,
    policy: ScalingPolicy,
) -> str:
    """One sentence: "wants 9: 8.1–11 requests/s foreseen in 3 min 10 s (95 %), …; 7 ready; goes from 7 to 9"."""
    parts = [f"wants {wanted}: {_because(asked_by, now, present, forecast, capacity, horizon, policy)}"]
    parts.append(_supply(coming))
    parts.extend(outcome.clips)
    if outcome.replicas == now.desired:
        parts.append(f"stays at {now.desired}")
    else:
        parts.append(f"goes from {now.desired} to {outcome.replicas}")
    return "; ".join(parts)


def _because(
    asked_by: Binding,
    now: Observation,
    present: float | None,
    forecast: Forecast | None,
    capacity: ReplicaCapacity | None,
    horizon: float,
    policy: ScalingPolicy,
) -> str:
    if capacity is None:
        return "no request was seen yet, so what a replica bears is unknown"
    bears = (
        f"one replica bears {_rate(capacity.requests_per_second)} requests/s "
        f"within {policy.ttft_objective_seconds:g} s and {policy.tpot_objective_seconds * 1000:g} ms"
        f" ({capacity.binding.value} binds)"
    )
    if asked_by is Binding.FORECAST and forecast is not None:
        return (
            f"{_rate(forecast.expected)}–{_rate(forecast.upper)} requests/s foreseen in {_duration(horizon)} "
            f"({forecast.quantile:.0%}, {forecast.view}), {bears}"
        )
    if asked_by is Binding.QUEUE:
        return (
            f"{now.requests_waiting:.0f} requests wait and {_rate(present)} requests/s arrive, to be worked off within "
            f"{_duration(policy.drain_seconds)} of the lead time, {bears}"
        )
    if asked_by is Binding.KV_CACHE:
        use = max((p.sample.kv_cache_usage or 0.0 for p in now.ready_pods if p.sample), default=0.0)
        return f"KV cache {use:.0%} full at its fullest pod, {_rate(present)} requests/s arrive, {bears}"
    return f"{_rate(present)} requests/s arrive, {bears}"


def _supply(coming: Supply) -> str:
    parts = [f"{coming.ready} ready"]
    for number, what in (
        (coming.coming, "booting"),
        (coming.unschedulable, "unschedulable"),
        (coming.stuck, "stuck"),
        (coming.terminating, "terminating"),
    ):
        if number:
            parts.append(f"{number} {what}")
    return ", ".join(parts)


def _rate(rate: float | None) -> str:
    if rate is None:
        return "an unknown number of"
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{rest} s" if minutes == 0 else f"{minutes} min" if rest == 0 else f"{minutes} min {rest} s"
