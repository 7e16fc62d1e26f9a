"""What the controller says back on a `VLLMAutoscaler`: its status, field by field, and what a new leader takes from it.

Times are written as Kubernetes writes them (`2026-11-21T10:55:00Z`), shares lie in 0…1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic.alias_generators import to_camel

from policies.scaling.capacity import StepTime, StepTimeFit
from policies.scaling.history import History
from policies.scaling.lead_time import LeadTime, Start

LONGEST_MESSAGE = 1024
DECISIONS_KEPT = 5


class Part(BaseModel):
    """Frozen, camelCase outside; what a later version wrote beside it is passed over."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        use_attribute_docstrings=True,
    )


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class ConditionType(StrEnum):
    """What is judged of a resource, each true or false on its own."""

    READY = "Ready"
    METRICS_AVAILABLE = "MetricsAvailable"
    SCALING_ACTIVE = "ScalingActive"
    SCALING_LIMITED = "ScalingLimited"
    LEARNING = "Learning"
    CONFLICTED = "Conflicted"


Truth = Literal["True", "False", "Unknown"]


class Condition(Part):
    """One judgement, since when it holds, and in which words."""

    type: str
    """Ready, MetricsAvailable, ScalingActive, ScalingLimited, Learning or Conflicted."""
    status: Truth
    """True, False or Unknown."""
    reason: str
    """One word for it."""
    message: str
    """One sentence for it."""
    last_transition_time: Time
    """Since when the status is so."""
    observed_generation: int | None = None
    """Of the spec that it speaks of."""


class Replicas(Part):
    """How many there are, at the last look."""

    desired: int
    """What the target's scale asked for."""
    ready: int
    """Pods that serve."""
    created: int
    """Pods that exist, ready or not; unschedulable ones among them."""
    wanted: int
    """What was decided."""


class Decided(Part):
    """One change of the number, or in Shadow mode one that would have been."""

    time: Time
    """When."""
    before: int
    """What was asked for until then."""
    after: int
    """What was asked for from then on."""
    reason: str
    """What set the number."""
    message: str
    """The whole story in a sentence."""


class MeasuredStart(Part):
    """One pod's way from created to ready."""

    uid: str
    """Of the pod."""
    created_at: float
    """Unix seconds."""
    total_seconds: float
    """Created to ready."""
    wait_seconds: float | None = None
    """Created to scheduled, where it was seen."""
    pull_seconds: float | None = None
    """Scheduled to started, where it was seen."""


class LearntStepTime(Part):
    """Seconds that a step of the engine takes, in its parts."""

    fixed: float
    """Of each step."""
    decode: float
    """More for each sequence."""
    context: float
    """More for each token of context."""
    prefill: float
    """More for each token of a prompt."""


class Learnt(Part):
    """What was measured of the target; whoever leads next begins with it."""

    lead_time_seconds: float | None = None
    """Created to ready, as nine of ten starts were; with what lies before, how far ahead is looked."""
    capacity_requests_per_second: float | None = None
    """What one replica bears within the objectives, of the present mix of lengths."""
    step_time: LearntStepTime | None = None
    """From which the capacity follows."""
    starts: tuple[MeasuredStart, ...] = ()
    """The newest starts, from which the lead time follows."""


class ShadowHour(Part):
    """One hour of Shadow mode, in replicas times hours."""

    hour: Time
    """Which: its beginning."""
    saved_replica_hours: float = 0.0
    """What the one in charge asked for, and ours would not have."""
    lost_replica_hours: float = 0.0
    """What ours would have asked for, and the one in charge did not."""


class Status(Part):
    """What the controller sees and does."""

    observed_generation: int | None = None
    """Of the spec that all of this speaks of."""
    replicas_summary: str | None = None
    """ready/created/wanted"""
    replicas: Replicas | None = None
    """How many there are."""
    attainment: str | None = None
    """Share of the latest requests that kept both objectives, in percent; a range where buckets leave it open."""
    reason: str | None = None
    """One word: what set the number, or what keeps it from being set."""
    last_decisions: tuple[Decided, ...] = ()
    """The newest changes, newest first."""
    learnt: Learnt | None = None
    """What was measured of the target."""
    shadow_hours: tuple[ShadowHour, ...] = ()
    """In Shadow mode: what would have been saved or lost against the one in charge; the last 24 hours, newest first."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": cast(JsonValue, ["type"]),
            }
        ),
    ] = ()
    """What is judged of it."""

    def condition(self, type_: ConditionType) -> Condition | None:
        return next((each for each in self.conditions if each.type == type_), None)


def status_of(document: Mapping[str, Any] | None) -> Status:
    """What a status says; one that nobody of ours wrote says nothing."""
    try:
        return Status.model_validate(document or {})
    except ValidationError:
        return Status()


def written(status: Status) -> dict[str, Any]:
    """The JSON of a status."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def moment(unix_seconds: float) -> str:
    """A time as Kubernetes writes it."""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Judgement(Part):
    """A condition before it is known since when it holds."""

    type: ConditionType
    status: Truth
    reason: str
    message: str


def conditions_after(
    before: Iterable[Condition], judged: Iterable[Judgement], now: str, generation: int | None
) -> tuple[Condition, ...]:
    """The conditions with each judgement in the place of the older one; its time is kept while its status is."""
    known = {condition.type: condition for condition in before}
    for each in judged:
        older = known.get(each.type)
        same = older is not None and older.status == each.status
        known[each.type] = Condition(
            type=each.type.value,
            status=each.status,
            reason=each.reason,
            message=each.message[:LONGEST_MESSAGE],
            last_transition_time=older.last_transition_time if same and older is not None else now,
            observed_generation=generation,
        )
    order = [type_.value for type_ in ConditionType]
    return tuple(sorted((known[type_] for type_ in known if type_ in order), key=lambda each: order.index(each.type)))


def learnt_of(history: History, lead_seconds: float | None, capacity: float | None) -> Learnt:
    """What a history knows of its target, as far as a successor can use it."""
    starts = tuple(
        MeasuredStart(
            uid=start.uid,
            created_at=start.created_at,
            total_seconds=start.total_seconds,
            wait_seconds=start.wait_seconds,
            pull_seconds=start.pull_seconds,
        )
        for start in history.lead_time.starts
    )
    time = history.steps.step_time if history.steps and history.fitted_at is not None else None
    return Learnt(
        lead_time_seconds=_short(lead_seconds),
        capacity_requests_per_second=_short(capacity),
        step_time=time
        and LearntStepTime(fixed=time.fixed, decode=time.decode, context=time.context, prefill=time.prefill),
        starts=starts,
    )


def history_of(learnt: Learnt | None) -> History:
    """The history to begin with for whoever takes over: measured starts, and the step time to begin from."""
    if learnt is None:
        return History()
    starts = tuple(
        Start(start.uid, start.created_at, start.total_seconds, start.wait_seconds, start.pull_seconds)
        for start in learnt.starts
    )
    time = learnt.step_time
    steps = StepTimeFit.empty("", StepTime(time.fixed, time.decode, time.context, time.prefill)) if time else None
    return History(lead_time=LeadTime(starts, frozenset(start.uid for start in starts)), steps=steps)


def _short(number: float | None) -> float | None:
    """Three figures: the fourth would change at every look and tell nobody anything."""
    return None if number is None else float(f"{number:.3g}")
