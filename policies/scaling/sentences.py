"""A decision told in plain English, from the values that were compared, with their units."""

from __future__ import annotations

from policies.scaling.capacity import ReplicaCapacity
from policies.scaling.damping import Outcome
from policies.scaling.decision import Forecast
from policies.scaling.idleness import Idleness
from policies.scaling.observation import Observation
from policies.scaling.settings import ScalingPolicy
from policies.scaling.supply import Supply


def told(
    now: Observation,
    wanted: int,
    evidence: str,
    capacity: ReplicaCapacity | None,
    coming: Supply,
    outcome: Outcome,
    policy: ScalingPolicy,
) -> str:
    """One sentence: "wants 9: 8.1–11 requests/s foreseen in 3 min 10 s (95%), …; 7 ready; goes from 7 to 9"."""
    parts = [f"wants {wanted}: {evidence}", serving(coming), *outcome.clips]
    if capacity is not None:
        parts[0] += (
            f", one replica bears {rate(capacity.requests_per_second)} requests/s within "
            f"{policy.ttft_objective_seconds:g} s and {policy.tpot_objective_seconds * 1000:g} ms"
            f" ({capacity.binding.value} binds)"
        )
    stays = outcome.replicas == now.desired
    parts.append(f"stays at {now.desired}" if stays else f"goes from {now.desired} to {outcome.replicas}")
    return "; ".join(parts)


def foreseen(forecast: Forecast, horizon_seconds: float) -> str:
    return (
        f"{rate(forecast.expected)}–{rate(forecast.upper)} requests/s foreseen in {duration(horizon_seconds)} "
        f"({forecast.quantile:.0%}, {forecast.view})"
    )


def resting(now: Observation, idle_seconds: float) -> str:
    """Why no replica is needed."""
    return "nobody asks for it" if now.desired == 0 else f"nothing was asked of it for {duration(idle_seconds)}"


def awake(now: Observation, idleness: Idleness, idle_seconds: float) -> str:
    """Why one replica is needed though nothing arrives."""
    rest = f"it rests after {duration(idle_seconds)} of idleness"
    if idleness.quiet_seconds > 0:
        return f"{rest}, of which {duration(idleness.quiet_seconds)} were seen"
    if idleness.asked_at is not None:
        return f"{idleness.asked_by} asked for it {duration(now.time - idleness.asked_at)} ago, and {rest}"
    return f"{rest}, of which none was seen yet"


def serving(coming: Supply) -> str:
    others = (
        (coming.coming, "booting"),
        (coming.unschedulable, "unschedulable"),
        (coming.stuck, "stuck"),
        (coming.terminating, "terminating"),
    )
    return ", ".join([f"{coming.ready} ready", *(f"{number} {what}" for number, what in others if number)])


def rate(requests_per_second: float | None) -> str:
    if requests_per_second is None:
        return "an unknown number of"
    return f"{requests_per_second:.0f}" if requests_per_second >= 100 else f"{requests_per_second:.3g}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{rest} s" if minutes == 0 else f"{minutes} min" if rest == 0 else f"{minutes} min {rest} s"
