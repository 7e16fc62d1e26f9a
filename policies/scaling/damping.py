"""From a wish to a number: a fleet shrinks only on complete sight, after a whole window of small wishes, and never
below what the remaining replicas can carry; bounds and step limits come last.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.scaling.capacity import LEAST_RUNNING
from policies.scaling.decision import Binding
from policies.scaling.demand import Activity
from policies.scaling.history import History
from policies.scaling.observation import Observation
from policies.scaling.settings import ScalingPolicy
from policies.scaling.sight import blind


@dataclass(frozen=True, slots=True)
class Outcome:
    """The number, what set it, and what changed the wish on its way."""

    replicas: int
    binding: Binding
    clips: tuple[str, ...]


def damp(
    wanted: int,
    binding: Binding,
    now: Observation,
    history: History,
    done: Activity | None,
    policy: ScalingPolicy,
    fewest: int,
    horizon_seconds: float,
    *,
    rests: bool = False,
) -> Outcome:
    """`fewest` is what the present signals need after a shrink, the horizon how long it takes to undo one.

    What `rests` was watched for longer than a wish is held.
    """
    clips: list[str] = []
    replicas = wanted
    if replicas <= now.desired:
        reason = blind(now, done) or _untaught(now, done, history)
        if reason:
            clips.append(f"no shrink: {reason}")
            replicas, binding = now.desired, Binding.HOLD
        elif replicas < now.desired and not rests:
            replicas, binding = _held(replicas, binding, now, history, policy, fewest, horizon_seconds, clips)
    replicas, binding = _stepped(replicas, binding, now, policy, clips)
    if now.kept is not None and replicas < (least := min(now.kept.replicas, now.desired)):
        clips.append(f"held at {least}: {now.kept.reason}")
        replicas, binding = least, Binding.FLOOR
    if replicas > policy.max_replicas:
        clips.append(f"cut from {replicas} to the ceiling {policy.max_replicas}")
        replicas, binding = policy.max_replicas, Binding.CEILING
    elif replicas < policy.min_replicas:
        clips.append(f"raised from {replicas} to the floor {policy.min_replicas}")
        replicas, binding = policy.min_replicas, Binding.FLOOR
    most = _most(now)
    if now.room is not None and most is not None and replicas > most:
        clips.append(f"cut from {replicas} to {most}: {now.room.reason}")
        replicas, binding = most, Binding.ROOM
    return Outcome(replicas, binding, tuple(clips))


def _untaught(now: Observation, done: Activity | None, history: History) -> str:
    """Why nothing may shrink by what another template bore: "" once this one has shown it, or while it idles."""
    teaching = done is not None and any(pod.running >= LEAST_RUNNING for pod in done.pods.values())
    if history.is_new(now.template) and teaching:
        return "what a replica of the new template bears is not learnt yet"
    return ""


def _most(now: Observation) -> int | None:
    """What cannot be created is not asked for; what was asked for by somebody else stays, unless it only waits."""
    if now.room is None:
        return None
    return now.room.replicas if now.room.takes_back else max(now.desired, now.room.replicas)


def _held(
    replicas: int,
    binding: Binding,
    now: Observation,
    history: History,
    policy: ScalingPolicy,
    fewest: int,
    horizon_seconds: float,
    clips: list[str],
) -> tuple[int, Binding]:
    """The number that a wish to shrink may become now."""
    # A wish speaks of the instant one horizon after it: those of a horizon ago are only now refuted.
    window = max(policy.scale_down_window_seconds, horizon_seconds)
    greatest = history.greatest_wish(now.time, window, policy.max_gap_seconds)
    if greatest is None:
        clips.append(f"no shrink: the last {window:.0f} s are not wholly seen")
        return now.desired, Binding.HOLD
    held = min(now.desired, max(replicas, greatest, fewest))
    if held > replicas:
        why = "wished within the window" if greatest >= fewest else "needed for what runs now"
        clips.append(f"held at {held}: {max(greatest, fewest)} {why}")
        binding = Binding.HOLD
    return held, binding


def _stepped(
    replicas: int, binding: Binding, now: Observation, policy: ScalingPolicy, clips: list[str]
) -> tuple[int, Binding]:
    """The number within the limits of one step."""
    up, down = policy.scale_up_step, policy.scale_down_step
    if up is not None and replicas > now.desired + up:
        clips.append(f"one step up is {up}")
        return now.desired + up, binding
    if down is not None and replicas < now.desired - down:
        clips.append(f"one step down is {down}")
        return now.desired - down, binding
    return replicas, binding
