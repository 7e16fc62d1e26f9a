"""An `autoscaling/v2` HorizontalPodAutoscaler of a file: read as the API server reads it, ruled as its controller does.

Pods, External and Object metrics, every field of `behavior`. CPU and memory are refused: the simulated fleet has
neither. Values come as a Prometheus Adapter gives them: cut to thousandths, NaN as 0, nothing as nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from policies.scaling.decision import Decision
from policies.scaling.observation import Observation
from simulations.model.fleet import View
from simulations.peers.hpa import Behavior, Hpa, HpaState, Proposal, RatePolicy, Rules, Select
from simulations.policy_files.evaluation import QueryFailedError, Vector, evaluate
from simulations.policy_files.fields import Count, Fields, FieldsError, Positive, Quantity, checked
from simulations.policy_files.measures import Measure, mistakes, shape
from simulations.policy_files.metric_names import Definitions, MetricError, of_metric
from simulations.policy_files.promql import PromQLError
from simulations.policy_files.scrapes import Needs, Scrapes

TOLERANCE = 0.1
"""kube-controller-manager --horizontal-pod-autoscaler-tolerance."""
NO_CPU = (
    "the simulated fleet knows neither CPU nor memory of a pod, and neither says how busy a GPU is, so it cannot be "
    "replayed: scale on vllm:num_requests_waiting or vllm:num_requests_running"
)


class _Policy(Fields):
    type: Literal["Pods", "Percent"]
    value: Positive
    period_seconds: Annotated[int, Field(gt=0, le=1800)]


class _Rules(Fields):
    stabilization_window_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    policies: Annotated[list[_Policy], Field(min_length=1)] | None = None
    tolerance: Quantity | None = None


class BehaviorFields(Fields):
    scale_up: _Rules = _Rules()
    scale_down: _Rules = _Rules()


class _Target(Fields):
    type: Literal["Value", "AverageValue", "Utilization"]
    value: Quantity | None = None
    average_value: Quantity | None = None
    average_utilization: int | None = None


class _Name(Fields):
    name: str
    selector: dict[str, Any] | None = None


class _Source(Fields):
    metric: _Name
    target: _Target
    described_object: dict[str, Any] | None = None


class _Metric(Fields):
    type: Literal["Pods", "External", "Object", "Resource", "ContainerResource"]
    pods: _Source | None = None
    external: _Source | None = None
    object: _Source | None = None
    resource: Any = None
    container_resource: Any = None


class _Spec(Fields):
    scale_target_ref: dict[str, Any]
    min_replicas: Count = 1
    max_replicas: Positive
    metrics: tuple[_Metric, ...] = ()
    behavior: BehaviorFields | None = None


@dataclass(frozen=True, slots=True)
class WrittenHpaState:
    hpa: HpaState
    scrapes: Scrapes


@dataclass(frozen=True, slots=True)
class WrittenHpa:
    """The controller over the metrics of a file."""

    hpa: Hpa
    measures: tuple[Measure, ...]
    needs: Needs

    @property
    def reads_histograms(self) -> View:
        return "whole" if self.needs.histograms else False

    def begin(self) -> WrittenHpaState:
        return WrittenHpaState(self.hpa.begin(), Scrapes())

    def decide(self, observation: Observation, state: WrittenHpaState) -> tuple[Decision, WrittenHpaState]:
        scrapes = self.needs.scraped(state.scrapes, observation)

        def propose(seen: Observation) -> Proposal:
            return self.hpa.greatest(seen, [self._of(measure, seen, scrapes) for measure in self.measures])

        decision, hpa = self.hpa.follow(observation, state.hpa, propose)
        return decision, WrittenHpaState(hpa, scrapes)

    def _of(self, measure: Measure, seen: Observation, scrapes: Scrapes) -> Proposal:
        try:
            answer = evaluate(measure.tree, scrapes)
        except QueryFailedError:
            return None
        vector: Vector = answer if isinstance(answer, dict) else {(): answer}
        if measure.kind == "pods":
            return self.hpa.for_pods(seen, _by_pod(vector), measure.target, measure.name)
        if not vector:
            return None
        return propose_total(self.hpa, measure, seen, sum(map(_milli, vector.values())))


def propose_total(hpa: Hpa, measure: Measure, seen: Observation, total_milli: int) -> Proposal:
    """What an External metric wants, by its kind of target."""
    law = hpa.for_total if measure.kind == "average" else hpa.for_value
    proposal = law(seen, total_milli, measure.target)
    return None if proposal is None else (proposal[0], f"{measure.name} {proposal[1]}")


def _by_pod(vector: Vector) -> dict[str, int]:
    values: dict[str, int] = {}
    for labels, value in vector.items():
        found = dict(labels)
        pod = found.get("pod", found.get("instance"))
        if pod is not None:
            values[pod] = values.get(pod, 0) + _milli(value)
    return values


def _milli(value: float) -> int:
    return 0 if not math.isfinite(value) else int(round(value * 1000, 6))


@dataclass(frozen=True, slots=True)
class ReadHpa:
    """One document, in the ways that it can be replayed."""

    written: WrittenHpa
    meant: WrittenHpa | None
    """None where nothing is wrong with it."""
    notes: tuple[str, ...]
    mistakes: tuple[str, ...]


def read_hpa(document: Mapping[str, Any], definitions: Definitions) -> ReadHpa:
    """The policy of a document; a FieldsError says all that is wrong with it."""
    spec = checked(_Spec, document.get("spec", {}), "spec")
    problems: list[str] = []
    if spec.max_replicas < spec.min_replicas:
        problems.append(
            f"spec.maxReplicas ({spec.max_replicas}) is less than spec.minReplicas ({spec.min_replicas}): "
            "raise the first or lower the second"
        )
    if spec.min_replicas == 0:
        problems.append(
            "spec.minReplicas is 0: that needs Kubernetes' HPAScaleToZero gate, which is off by default "
            "and is not replayed: write 1"
        )
    if not spec.metrics:
        problems.append(f"spec.metrics is missing, which means CPU at 80 %: {NO_CPU}")
    measures: list[Measure] = []
    notes: list[str] = []
    for number, metric in enumerate(spec.metrics):
        try:
            measure, said = _measure(metric, definitions)
        except (MetricError, PromQLError, FieldsError) as error:
            problems.append(f"spec.metrics[{number}]: {error}")
        else:
            measures.append(measure)
            notes += said
    if problems:
        raise FieldsError(problems)
    behavior = spec.behavior or BehaviorFields()
    up, down = behavior.scale_up.tolerance, behavior.scale_down.tolerance
    hpa = Hpa(
        (),
        spec.min_replicas,
        spec.max_replicas,
        behavior_of(spec.behavior),
        TOLERANCE if up is None else up,
        TOLERANCE if down is None else down,
    )
    written = WrittenHpa(hpa, tuple(measures), Needs.of(measure.tree for measure in measures))
    found = [list(mistakes(measure)) for measure in measures]
    mended = tuple(each[-1].meant if each else measure for each, measure in zip(found, measures, strict=True))
    wrong = tuple(mistake.sentence for each in found for mistake in each)
    meant = replace(written, measures=mended) if wrong else None
    return ReadHpa(written, meant, tuple(dict.fromkeys(notes)), wrong)


def _measure(metric: _Metric, definitions: Definitions) -> tuple[Measure, tuple[str, ...]]:
    if metric.type in ("Resource", "ContainerResource"):
        raise FieldsError([f"{metric.type} {_resource(metric)}: {NO_CPU}"])
    source = {"Pods": metric.pods, "External": metric.external, "Object": metric.object}[metric.type]
    key = metric.type.lower()
    if source is None:
        raise FieldsError([f"type is {metric.type} and {key} is missing: write the metric and its target under {key}"])
    target, name = source.target, source.metric.name
    average = target.average_value
    if target.type == "Utilization" or (metric.type == "Pods" and target.type != "AverageValue"):
        allowed = "AverageValue" if metric.type == "Pods" else "Value or AverageValue"
        raise FieldsError([f"{key}.target.type is {target.type}: of {metric.type} metrics it must be {allowed}"])
    wanted = average if target.type == "AverageValue" else target.value
    if wanted is None or wanted <= 0:
        field = "averageValue" if target.type == "AverageValue" else "value"
        shown = "missing" if wanted is None else f"{wanted:g}"
        raise FieldsError([f"{key}.target.{field} is {shown}: give a quantity of more than 0"])
    meaning = of_metric(name, "pods" if metric.type == "Pods" else "external", definitions)
    if metric.type == "Pods" and not shape(meaning.tree).by_pod:
        raise FieldsError(
            [f"metric {name} has no value a pod, which type Pods needs: keep the label, as in sum by (pod) (…)"]
        )
    if metric.type == "Pods":
        return Measure(name, meaning.tree, "pods", wanted), meaning.notes
    kind: Literal["average", "value"] = "average" if target.type == "AverageValue" else "value"
    return Measure(name, meaning.tree, kind, wanted), meaning.notes


def _resource(metric: _Metric) -> str:
    fields = metric.resource if metric.type == "Resource" else metric.container_resource
    return str(fields.get("name", "")) if isinstance(fields, Mapping) else ""


def behavior_of(fields: BehaviorFields | None) -> Behavior | None:
    """With the defaults of what it leaves out; None where there is none, for then the older rules hold."""
    if fields is None:
        return None
    default = Behavior()
    return Behavior(_rules(fields.scale_up, default.up), _rules(fields.scale_down, default.down))


def _rules(fields: _Rules, default: Rules) -> Rules:
    window = fields.stabilization_window_seconds
    return Rules(
        default.policies if fields.policies is None else tuple(_policies(fields.policies)),
        default.window_seconds if window is None else float(window),
        Select(fields.select_policy),
    )


def _policies(policies: list[_Policy]) -> Iterator[RatePolicy]:
    for policy in policies:
        yield RatePolicy(policy.value, float(policy.period_seconds), policy.type == "Percent")
