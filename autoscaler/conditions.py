"""What a turn says of its resource: the conditions, the one word of the table's last column, the numbers beside.

Nothing here keeps state or asks anybody: a turn goes in, a status comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from autoscaler.cluster_fleet import Conflict
from autoscaler.loop import Outcome, Turn
from autoscaler.wake_signals import wakes_by, warnings
from policies.scaling.decision import Binding, Decision
from policies.scaling.history import History
from policies.scaling.lead_time import FEWEST
from policies.scaling.observation import Interval, Limit, Observation, PodStage
from policies.scaling.resource import Mode, OnConflict, VLLMAutoscaler
from policies.scaling.settings import ScalingPolicy
from policies.scaling.shadow import hours_after
from policies.scaling.status import (
    DECISIONS_KEPT,
    ConditionType,
    Decided,
    Judgement,
    Learnt,
    Replicas,
    ShadowHour,
    Status,
    Truth,
    conditions_after,
    learnt_of,
    moment,
)

INVALID_SPEC: Final = "InvalidSpec"
_FAILED: Final = (Outcome.BLIND, Outcome.RAISED, Outcome.REFUSED, Outcome.UNANSWERED)
_REASONS: Final = {
    "prometheus": "MetricsUnavailable",
    "kubernetes": "TargetUnseen",
    "target-not-found": "TargetNotFound",
    "refused": "Refused",
}


def status_after(
    before: Status,
    turn: Turn,
    conflict: Conflict | None,
    resource: VLLMAutoscaler,
    policy: ScalingPolicy,
    attained: Interval | None,
    now: float,
) -> Status:
    """The status after a turn; what the turn did not see keeps what was last known."""
    generation = resource.metadata.generation
    judged = tuple(_judged(turn, conflict, resource))
    seen, decision = turn.observation, turn.decision
    replicas = _replicas(seen, decision) if seen and decision else before.replicas
    ready = next(each for each in judged if each.type is ConditionType.READY)
    return Status(
        observed_generation=generation,
        replicas_summary=f"{replicas.ready}/{replicas.created}/{replicas.wanted}" if replicas else None,
        replicas=replicas,
        attainment=_percent(attained) if attained else before.attainment,
        reason=decision.binding.value if decision and ready.status == "True" else ready.reason,
        last_decisions=_decisions(before.last_decisions, turn, moment(now)),
        learnt=_learnt(before.learnt, turn.history, decision),
        shadow_hours=_shadow_hours(before, decision, resource, policy, now),
        conditions=conditions_after(before.conditions, judged, moment(now), generation),
    )


def unusable(before: Status, reason: str, problem: str, generation: int, now: float) -> Status:
    """The status of a resource of which no turn is taken, and why."""
    judged = [
        Judgement(type=ConditionType.READY, status="False", reason=reason, message=problem),
        Judgement(type=ConditionType.SCALING_ACTIVE, status="False", reason=reason, message=problem),
    ]
    if reason == "SameTarget":
        judged.append(Judgement(type=ConditionType.CONFLICTED, status="True", reason=reason, message=problem))
    conditions = conditions_after(before.conditions, judged, moment(now), generation)
    return before.model_copy(update={"observed_generation": generation, "reason": reason, "conditions": conditions})


def _judged(turn: Turn, conflict: Conflict | None, resource: VLLMAutoscaler) -> Iterator[Judgement]:
    seen, decision = turn.observation, turn.decision
    yield _ready(turn)
    yield _metrics(turn, resource)
    yield _active(turn, conflict, resource)
    if seen and decision:
        yield _limited(seen, decision)
        yield _learning(turn.history)
        yield _conflicted(conflict)


def _ready(turn: Turn) -> Judgement:
    if turn.outcome in _FAILED:
        reason = "MissingRight" if turn.right else _REASONS.get(turn.kind, "Failed")
        return _judgement(ConditionType.READY, "False", reason, turn.problem)
    wrong = _wrong_query(turn.observation)
    if wrong:
        return _judgement(ConditionType.READY, "False", INVALID_SPEC, wrong)
    return _judgement(ConditionType.READY, "True", "TargetSeen", "the target is seen and decided on at every turn")


def _wrong_query(seen: Observation | None) -> str:
    """What Prometheus says of PromQL that it cannot read: nobody could tell before it was asked."""
    problems = seen.problems if seen else ()
    queries = ("prometheus.arrivals", "wake.query")
    wrong = (each for each in problems if each.startswith(queries) and "bad_data" in each)
    return next((f"spec.{each}" for each in wrong), "")


def _metrics(turn: Turn, resource: VLLMAutoscaler) -> Judgement:
    seen = turn.observation
    if turn.kind == "prometheus":
        return _judgement(ConditionType.METRICS_AVAILABLE, "False", "Unavailable", turn.problem)
    if seen is None:
        return _judgement(ConditionType.METRICS_AVAILABLE, "Unknown", "NotAsked", turn.problem)
    if seen.problems:
        return _judgement(ConditionType.METRICS_AVAILABLE, "False", "Incomplete", seen.problems[0])
    unseen = seen.unseen_ready_pods
    if unseen:
        told = f"{len(unseen)} of {seen.count(PodStage.READY)} ready pods have no whole sample, as {unseen[0]}"
        return _judgement(ConditionType.METRICS_AVAILABLE, "False", "Incomplete", told)
    if not seen.pods and seen.desired > 0:
        told = f"{seen.desired} replicas are asked for and no pod is there: does its selector match its pods?"
        return _judgement(ConditionType.METRICS_AVAILABLE, "Unknown", "NoPods", told)
    if not seen.pods and resource.spec.min_replicas == 0:
        told = next(warnings(resource.spec), f"what wakes it: {wakes_by(resource.spec)}")
        return _judgement(
            ConditionType.METRICS_AVAILABLE, "Unknown", "AtRest", f"no pod is there to be measured; {told}"
        )
    if not seen.ready_pods:
        told = "no pod is ready, so none is measured"
        return _judgement(ConditionType.METRICS_AVAILABLE, "Unknown", "NoneReady", told)
    return _judgement(ConditionType.METRICS_AVAILABLE, "True", "Fresh", "every ready pod has a whole sample")


def _active(turn: Turn, conflict: Conflict | None, resource: VLLMAutoscaler) -> Judgement:
    """Whether decisions are written."""
    mode = resource.spec.mode
    if mode is not Mode.ACTIVE:
        told = f"in mode {mode.value} decisions are not written to the target's scale"
        return _judgement(ConditionType.SCALING_ACTIVE, "False", mode.value, told)
    if turn.outcome in _FAILED:
        reason = "MissingRight" if turn.right else _REASONS.get(turn.kind, "Failed")
        return _judgement(ConditionType.SCALING_ACTIVE, "False", reason, turn.problem)
    if resource.spec.paused:
        told = "it is paused: decisions are told and not written"
        return _judgement(ConditionType.SCALING_ACTIVE, "False", "Paused", told)
    if conflict and not conflict.passing and resource.spec.on_conflict is OnConflict.YIELD:
        return _judgement(ConditionType.SCALING_ACTIVE, "False", conflict.reason, conflict.sentence)
    return _judgement(ConditionType.SCALING_ACTIVE, "True", "Writing", "decisions are written to the target's scale")


def _conflicted(conflict: Conflict | None) -> Judgement:
    if conflict:
        truth: Truth = "False" if conflict.passing else "True"
        return _judgement(ConditionType.CONFLICTED, truth, conflict.reason, conflict.sentence)
    return _judgement(ConditionType.CONFLICTED, "False", "Alone", "nobody else is known to scale the target")


def _limited(seen: Observation, decision: Decision) -> Judgement:
    """Whether something keeps the fleet from what is wanted."""
    clip = decision.clips[-1] if decision.clips else ""
    if decision.binding is Binding.ROOM:
        reason = seen.room.limit if seen.room else Limit.QUOTA
        return _judgement(ConditionType.SCALING_LIMITED, "True", reason, clip)
    homeless = seen.count(PodStage.UNSCHEDULABLE)
    if homeless:
        told = f"{homeless} of its pods fit on no node: add nodes, or free GPUs"
        return _judgement(ConditionType.SCALING_LIMITED, "True", "Unschedulable", told)
    if decision.binding is Binding.CEILING:
        return _judgement(ConditionType.SCALING_LIMITED, "True", "TooManyReplicas", clip)
    if decision.binding is Binding.FLOOR and clip:
        return _judgement(ConditionType.SCALING_LIMITED, "True", "TooFewReplicas", clip)
    if clip.startswith("one step"):
        return _judgement(ConditionType.SCALING_LIMITED, "True", "StepLimited", clip)
    if seen.room_unseen:
        told = f"what is wanted may be asked for, and may find no node: {seen.room_unseen}"
        return _judgement(ConditionType.SCALING_LIMITED, "Unknown", "NodesUnseen", told)
    return _judgement(ConditionType.SCALING_LIMITED, "False", "WithinBounds", "what is wanted may be asked for")


def _learning(history: History) -> Judgement:
    missing = []
    starts = len(history.lead_time.starts)
    if starts < FEWEST:
        missing.append(f"{starts} of {FEWEST} starts were measured")
    if history.fitted_at is None:
        missing.append("what a replica bears was not measured yet")
    if missing:
        return _judgement(ConditionType.LEARNING, "True", "TooLittleSeen", "; ".join(missing))
    told = "lead time and capacity are the target's own"
    return _judgement(ConditionType.LEARNING, "False", "Learnt", told)


def _judgement(type_: ConditionType, status: Truth, reason: str, message: str) -> Judgement:
    return Judgement(type=type_, status=status, reason=reason, message=message)


def _replicas(seen: Observation, decision: Decision) -> Replicas:
    return Replicas(
        desired=seen.desired,
        ready=seen.count(PodStage.READY),
        created=len(seen.pods) - seen.count(PodStage.TERMINATING),
        wanted=decision.replicas,
    )


def _decisions(before: tuple[Decided, ...], turn: Turn, now: str) -> tuple[Decided, ...]:
    decision = turn.decision
    if decision is None or turn.outcome not in (Outcome.RESCALED, Outcome.RAISED, Outcome.SHADOWED):
        return before
    if turn.outcome is Outcome.SHADOWED and before and before[0].after == decision.replicas:
        return before  # told already; only who writes makes an end of it
    newest = Decided(
        time=now,
        before=decision.desired,
        after=decision.replicas,
        reason=decision.binding.value,
        message=decision.sentence,
    )
    return (newest, *before)[:DECISIONS_KEPT]


def _shadow_hours(
    before: Status, decision: Decision | None, resource: VLLMAutoscaler, policy: ScalingPolicy, now: float
) -> tuple[ShadowHour, ...]:
    if resource.spec.mode is not Mode.SHADOW:
        return ()  # of an earlier mode they would only mislead
    return hours_after(before.shadow_hours, decision, policy.tick_seconds, now) if decision else before.shadow_hours


def _learnt(before: Learnt | None, history: History, decision: Decision | None) -> Learnt:
    capacity = decision.capacity if decision else before.capacity_requests_per_second if before else None
    learnt = learnt_of(history, history.lead_time.seconds(None), capacity)
    if learnt.step_time is None and before is not None:  # of a predecessor, until we have our own
        learnt = learnt.model_copy(update={"step_time": before.step_time})
    return learnt


def _percent(share: Interval) -> str:
    low, high = (f"{100 * bound:.1f}" for bound in (share.low, share.high))
    return f"{low}%" if low == high else f"{low}–{high}%"
