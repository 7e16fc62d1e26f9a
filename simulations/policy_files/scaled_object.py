"""A KEDA ScaledObject of a file: read and refused as KEDA v2.21.0 reads and refuses, and what is wrong with it.

Triggers of type `prometheus` and `cron` are replayed. What KEDA itself would not take is replayed as that: the
number of replicas stays what it is.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from policies.scaling.cron import CronError, read_schedule, zone
from simulations.peers.hpa import Behavior, Hpa, Rules, Select
from simulations.policy_files.fields import Count, Fields, FieldsError, Positive, checked
from simulations.policy_files.formula import FormulaError, read_formula
from simulations.policy_files.hpa_file import NO_CPU, TOLERANCE, BehaviorFields, behavior_of
from simulations.policy_files.keda_law import (
    CronTrigger,
    Fallback,
    FallbackBehavior,
    Modifiers,
    PrometheusTrigger,
    Refused,
    ScaledObject,
    Trigger,
    WrittenKeda,
)
from simulations.policy_files.measures import Measure, Target, is_gone_at_zero, mistakes, shape
from simulations.policy_files.metric_names import Definitions, MetricError, of_query
from simulations.policy_files.promql import Aggregate, Number, PromQLError, selectors
from simulations.policy_files.scrapes import Needs
from simulations.replay import Schedule as FixedReplicas

MetricType = Literal["AverageValue", "Value"]
NEVER_WAKES = "at zero replicas nothing of what its triggers read is there, so it can never wake from zero"
DEFAULT_MAX_REPLICAS = 100


class _TriggerFields(Fields):
    type: str
    name: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)
    metric_type: MetricType = "AverageValue"
    use_cached_metrics: bool = False
    authentication_ref: dict[str, Any] | None = None


class _FallbackFields(Fields):
    failure_threshold: Count
    replicas: Count
    behavior: FallbackBehavior = "static"


class _ModifierFields(Fields):
    formula: str = ""
    target: str = ""
    activation_target: str = ""
    metric_type: MetricType = "AverageValue"


class _HpaFields(Fields):
    behavior: BehaviorFields | None = None
    name: str = ""


class _Advanced(Fields):
    horizontal_pod_autoscaler_config: _HpaFields = _HpaFields()
    restore_to_original_replica_count: bool = False
    scaling_modifiers: _ModifierFields | None = None


class _Spec(Fields):
    scale_target_ref: dict[str, Any]
    polling_interval: Positive = 30
    cooldown_period: Count = 300
    initial_cooldown_period: Count = 0
    idle_replica_count: Count | None = None
    min_replica_count: Count = 0
    max_replica_count: Positive = DEFAULT_MAX_REPLICAS
    advanced: _Advanced = _Advanced()
    triggers: Annotated[list[_TriggerFields], Field(min_length=1)]
    fallback: _FallbackFields | None = None


@dataclass(frozen=True, slots=True)
class ReadScaledObject:
    """One document, in the ways that it can be replayed."""

    written: WrittenKeda | Refused | FixedReplicas
    meant: WrittenKeda | None
    notes: tuple[str, ...]
    mistakes: tuple[str, ...]
    min_replicas: int
    max_replicas: int
    meant_min_replicas: int


def read_scaled_object(
    document: Mapping[str, Any], definitions: Definitions, starts_at: dt.datetime, max_replicas: int
) -> ReadScaledObject:
    """The policy of a document; a FieldsError says all that is wrong with it. `max_replicas`: where it says none."""
    spec = checked(_Spec, document.get("spec", {}), "spec")
    if "max_replica_count" not in spec.model_fields_set:
        spec = spec.model_copy(update={"max_replica_count": max_replicas})
    annotations = _annotations(document)
    problems: list[str] = []
    notes: list[str] = []
    # As KEDA compares: what is written as 0 counts as 1, what is left out as 0.
    least = max(1, spec.min_replica_count) if "min_replica_count" in spec.model_fields_set else 0
    if least > spec.max_replica_count:
        problems.append(
            f"spec: MinReplicaCount={least} must be less than MaxReplicaCount={spec.max_replica_count}, as KEDA says: "
            "lower minReplicaCount or raise maxReplicaCount"
        )
    triggers: list[Trigger] = []
    for number, fields in enumerate(spec.triggers):
        try:
            trigger, said = _trigger(number, fields, definitions)
            triggers.append(trigger)
            notes += said
        except (FieldsError, MetricError, PromQLError, CronError) as error:
            problems.append(f"spec.triggers[{number}]: {error}")
    names = [trigger.name for trigger in spec.triggers if trigger.name]
    problems += [
        f'spec.triggers: triggerName "{name}" is defined multiple times in the ScaledObject/ScaledJob, but it must be '
        "unique, as KEDA says: rename one"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    modifiers = None
    try:
        modifiers = _modifiers(spec)
    except (FieldsError, FormulaError) as error:
        problems.append(f"spec.advanced.scalingModifiers: {error}")
    if problems:
        raise FieldsError(problems)
    fallback = spec.fallback
    told = ScaledObject(
        tuple(triggers),
        spec.max_replica_count,
        spec.min_replica_count,
        spec.idle_replica_count,
        float(spec.polling_interval),
        float(spec.cooldown_period),
        float(spec.initial_cooldown_period),
        None if fallback is None else Fallback(fallback.failure_threshold, fallback.replicas, fallback.behavior),
        modifiers,
        pauses_in=_says(annotations, "paused-scale-in", "paused-scale-down"),
        pauses_out=_says(annotations, "paused-scale-out"),
        forces_activation=_says(annotations, "force-activation"),
    )
    written, meant = _policy(told, spec, starts_at), None
    wrong, mended = _mended(told, least)
    if wrong:
        meant = _policy(mended, spec, starts_at)
    result: WrittenKeda | Refused | FixedReplicas = written
    fixed: int | None = None
    if _is_refused(told, least):
        result = Refused(_refusal(told, least))
    elif "autoscaling.keda.sh/paused-replicas" in annotations:
        count = annotations["autoscaling.keda.sh/paused-replicas"]
        if not count.isdigit():
            raise FieldsError([f"metadata.annotations: paused-replicas is '{count}': write a whole number"])
        result, meant = FixedReplicas.static(int(count)), None
        fixed = int(count)
        notes.append(f"it is paused at {count} replicas by its annotation")
    elif _says(annotations, "paused"):
        result, meant = Refused("it is paused by its annotation"), None
    notes += _said(told)
    bounds = (min(told.rests_at, told.min_replicas), told.max_replicas)
    if fixed is not None:
        bounds = (fixed, fixed)
    elif isinstance(result, Refused):
        # A Deployment that nobody scales has one replica, if it does not say another number.
        bounds = (max(1, bounds[0]), bounds[1])
    return ReadScaledObject(
        result, meant, tuple(dict.fromkeys(notes)), tuple(wrong), *bounds, min(mended.rests_at, mended.min_replicas)
    )


def _annotations(document: Mapping[str, Any]) -> dict[str, str]:
    metadata = document.get("metadata")
    found = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, Mapping) else {}


def _says(annotations: Mapping[str, str], *names: str) -> bool:
    """As KEDA reads a flag: what is no truth value counts as yes."""
    values = [annotations.get(f"autoscaling.keda.sh/{name}") for name in names]
    return any(value is not None and value.lower() not in ("0", "f", "false") for value in values)


def _trigger(number: int, fields: _TriggerFields, definitions: Definitions) -> tuple[Trigger, tuple[str, ...]]:
    metadata = fields.metadata
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise FieldsError([f"metadata.{key} is {value!r}: KEDA takes text only, put it in quotes"])
    kind: Target = "average" if fields.metric_type == "AverageValue" else "value"
    name = fields.name or f"trigger {number + 1}"
    if fields.type == "cron":
        return _cron(name, metadata, kind), ()
    if fields.type in ("cpu", "memory"):
        raise FieldsError([f"type {fields.type}: {NO_CPU}"])
    if fields.type != "prometheus":
        raise FieldsError([f"type {fields.type} cannot be replayed: prometheus and cron triggers are"])
    query = metadata.get("query", "")
    if not query.strip():
        raise FieldsError(["metadata.query is missing: write the query in PromQL"])
    threshold = _number(metadata, "threshold")
    if threshold is None:
        raise FieldsError(['metadata.threshold is missing: write the share of a replica, as in threshold: "5"'])
    if round(threshold, 3) <= 0:
        raise FieldsError([f"metadata.threshold is {threshold:g}: it must be more than 0"])
    meaning = of_query(query, definitions)
    measure = Measure(name, meaning.tree, kind, round(threshold, 3))
    ignores = metadata.get("ignoreNullValues", "true").lower()
    if ignores not in ("true", "t", "1", "false", "f", "0"):
        raise FieldsError([f'metadata.ignoreNullValues is \'{ignores}\': write "true" or "false"'])
    activation = _number(metadata, "activationThreshold") or 0.0
    return PrometheusTrigger(name, measure, activation, ignores in ("true", "t", "1")), meaning.notes


def _number(metadata: Mapping[str, str], key: str) -> float | None:
    text = metadata.get(key)
    return None if text is None else _of_text(f"metadata.{key}", text)


def _cron(name: str, metadata: Mapping[str, str], kind: Target) -> CronTrigger:
    missing = [key for key in ("timezone", "start", "end", "desiredReplicas") if not metadata.get(key)]
    if missing:
        raise FieldsError([f"metadata.{missing[0]} is missing: a cron trigger needs it"])
    replicas = _number(metadata, "desiredReplicas") or 0.0
    if replicas < 1 or not replicas.is_integer():
        raise FieldsError(["metadata.desiredReplicas: no desiredReplicas specified, as KEDA says: write 1 or more"])
    if metadata["start"] == metadata["end"]:
        raise FieldsError(["metadata: start and end can not have exactly same time input, as KEDA says: change one"])
    start, end = read_schedule(metadata["start"]), read_schedule(metadata["end"])
    measure = Measure(name, Number(replicas), kind, 1.0)
    return CronTrigger(name, measure, start, end, zone(metadata["timezone"]), int(replicas))


def _modifiers(spec: _Spec) -> Modifiers | None:
    fields = spec.advanced.scaling_modifiers
    if fields is None or not fields.model_fields_set:
        if spec.fallback is not None and spec.fallback.behavior == "scalingModifiers":
            raise FieldsError(
                ["scalingModifiers fallback behavior requires scalingModifiers.formula to be defined, as KEDA says"]
            )
        return None
    if not fields.formula:
        raise FieldsError(["error ScalingModifiers.Formula is mandatory, as KEDA says: write formula"])
    if not fields.target:
        raise FieldsError(["formula is given but target is empty, as KEDA says: write target"])
    target, activation = (
        _of_text(key, text)
        for key, text in (("target", fields.target), ("activationTarget", fields.activation_target or "0"))
    )
    if target <= 0:
        raise FieldsError([f"target is {fields.target}: it must be more than 0"])
    names = [trigger.name for trigger in spec.triggers]
    formula = read_formula(fields.formula)
    unknown = [name for name in formula.names if name not in names]
    if unknown:
        raise FieldsError([f"formula names '{unknown[0]}', which is no trigger: give a trigger that name"])
    kind: Target = "average" if fields.metric_type == "AverageValue" else "value"
    formula.value(dict.fromkeys(names, -1.0))  # KEDA tries it so
    return Modifiers(formula, Measure(fields.formula, Number(0.0), kind, target), activation)


def _of_text(key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FieldsError([f"{key} is '{text}': write a number"])
    return number


def _is_refused(told: ScaledObject, least: int) -> bool:
    return told.idle_replicas is not None and told.idle_replicas >= least


def _refusal(told: ScaledObject, least: int) -> str:
    return f"IdleReplicaCount={told.idle_replicas} must be less than MinReplicaCount={least}"


def _policy(told: ScaledObject, spec: _Spec, starts_at: dt.datetime) -> WrittenKeda:
    fields = spec.advanced.horizontal_pod_autoscaler_config.behavior
    behavior, given = behavior_of(fields), fields or BehaviorFields()
    if told.pauses_in or told.pauses_out:
        behavior = behavior or Behavior()
        up, down = behavior.up, behavior.down
        behavior = Behavior(_paused(up) if told.pauses_out else up, _paused(down) if told.pauses_in else down)
    up_tolerance, down_tolerance = given.scale_up.tolerance, given.scale_down.tolerance
    hpa = Hpa(
        (),
        max(1, told.min_replicas),
        told.max_replicas,
        behavior,
        TOLERANCE if up_tolerance is None else up_tolerance,
        TOLERANCE if down_tolerance is None else down_tolerance,
    )
    return WrittenKeda(told, hpa, Needs.of(trigger.measure.tree for trigger in told.triggers), starts_at)


def _paused(rules: Rules) -> Rules:
    return replace(rules, select=Select.DISABLED)


def _mended(told: ScaledObject, least: int) -> tuple[list[str], ScaledObject]:
    """What is wrong, and the object without it."""
    wrong: list[str] = []
    mended: list[Trigger] = []
    for trigger in told.triggers:
        measure = trigger.measure
        if isinstance(trigger, PrometheusTrigger):
            if shape(measure.tree).by_pod:
                measure = replace(measure, tree=Aggregate("sum", measure.tree))
                wrong.append(
                    f"{measure.name} is not aggregated: with two pods it answers two series, which KEDA takes for an "
                    "error; their sum was meant"
                )
            # A formula makes its own number of them: what it divides is its own business.
            for mistake in mistakes(measure) if told.modifiers is None else ():
                measure = mistake.meant
                wrong.append(mistake.sentence)
        mended.append(replace(trigger, measure=measure))
    new = replace(told, triggers=tuple(mended))
    if _is_refused(told, least):
        wrong.append(f"KEDA refuses it: {_refusal(told, least)}; without idleReplicaCount it rests at minReplicaCount")
        new = replace(new, idle_replicas=None)
    if new.rests_at == 0 and all(
        isinstance(trigger, PrometheusTrigger) and is_gone_at_zero(trigger.measure.tree) for trigger in told.triggers
    ):
        wrong.append(
            f"{NEVER_WAKES}: a least of {max(1, told.min_replicas)} is the only way to keep serving by such a signal"
        )
        new = replace(new, idle_replicas=None, min_replicas=max(1, told.min_replicas))
    return wrong, new


def _said(told: ScaledObject) -> list[str]:
    """What must be said of it that is no mistake of the text."""
    read = [s.series for trigger in told.triggers for s in selectors(trigger.measure.tree)]
    if told.rests_at == 0 and read and all("waiting" in series for series in read):
        return [
            "its triggers look at waiting requests only: a service that never queues is put to rest while it serves"
        ]
    return []
