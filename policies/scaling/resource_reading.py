"""A document becomes a `VLLMAutoscaler`, or every mistake in it a sentence that says how to mend it.

This module alone knows how pydantic's errors are told to a user.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from policies.scaling.cron import CronError, coming, zone
from policies.scaling.resource import API_VERSION, KIND, Spec, VLLMAutoscaler, bounds_problems, identity_problems


class InvalidResourceError(ValueError):
    """The document is no VLLMAutoscaler; `problems` says everything that is wrong, one sentence each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read(document: Mapping[str, Any]) -> VLLMAutoscaler:
    """The resource that the document states; an empty field counts as left out, as in Kubernetes."""
    problems = [*_wrong_metadata(document)]
    try:
        # Through JSON, where strictness means what a user means by it: "8" is not a number and 1 is not true.
        text = json.dumps(_without_empty(document, VLLMAutoscaler), default=str)
        resource = VLLMAutoscaler.model_validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        problems += [_sentence(detail) for detail in error.errors(include_url=False)]
        problems += _hidden_conflicts(document)
    except (RecursionError, ValueError):  # of a mapping, of a list
        problems.append("the document contains itself through a YAML anchor: write it out without")
    else:
        problems += _unreadable_schedules(resource.spec)
        if not problems:
            return resource
    raise InvalidResourceError(tuple(dict.fromkeys(" ".join(problem.split()) for problem in problems)))


def _unreadable_schedules(spec: Spec) -> Iterator[str]:
    """What no schema can tell: schedules that never come, zones that nobody knows."""
    for number, each in enumerate(spec.schedule):
        for field, read_field, text in (
            ("start", coming, each.start),
            ("end", coming, each.end),
            ("timeZone", zone, each.time_zone),
        ):
            try:
                read_field(text)
            except CronError as error:
                yield f"spec.schedule.{number}.{field}: {error}"


def _without_empty(value: Any, model: type[BaseModel] | None) -> Any:
    """A field that is known and empty is left out; one that is not known stays, and is refused for it."""
    if isinstance(value, list):
        return [_without_empty(item, model) for item in value]
    if not isinstance(value, Mapping):
        return value
    inner = dict(_inner_models(model)) if model else {}
    known = {field.alias or key for key, field in model.model_fields.items()} if model else set(value)
    return {
        str(key): _without_empty(item, inner.get(str(key)))
        for key, item in value.items()
        if item is not None or str(key) not in known
    }


# What the API server keeps in metadata beside the fields that are read here.
_OBJECT_METADATA = (
    *("name", "namespace", "generation", "annotations", "creationTimestamp", "deletionTimestamp"),
    *("deletionGracePeriodSeconds", "finalizers", "generateName", "labels", "managedFields"),
    *("ownerReferences", "resourceVersion", "selfLink", "uid"),
)

_REMEDIES = {
    "apiVersion": f"write apiVersion: {API_VERSION}",
    "kind": f"write kind: {KIND}",
    "metadata": "write metadata: {name: …, namespace: …}",
    "metadata.name": "give the autoscaler a name, in lower-case letters, digits and '-'",
    "metadata.namespace": "name the namespace of the target",
    "spec": "write the target, maxReplicas, the objectives and prometheus.url under it",
    "spec.scaleTargetRef": "write scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: …}",
    "spec.scaleTargetRef.apiVersion": "write a group and version such as apps/v1",
    "spec.scaleTargetRef.kind": "write a kind as Kubernetes spells it, such as Deployment",
    "spec.scaleTargetRef.name": "name the Deployment, StatefulSet or other object to scale",
    "spec.minReplicas": "write the fewest replicas that may run, 0 or more",
    "spec.idleSeconds": "write how long nothing must be asked of it before it rests at zero, such as 900",
    "spec.wake": 'write wake: {query: "PromQL"}',
    "spec.wake.query": "write PromQL whose sum is above 0 while somebody asks, such as requests at a gateway",
    "spec.maxReplicas": "write the most replicas that may run, 1 or more",
    "spec.objectives": "write objectives: {ttftSeconds: 2, tpotSeconds: 0.06, attainment: 0.99}",
    "spec.objectives.ttftSeconds": "write the time to first token that is promised, such as 2",
    "spec.objectives.tpotSeconds": "write the time per output token that is promised, such as 0.06",
    "spec.objectives.attainment": "write the share of requests that keep both objectives, such as 0.99",
    "spec.coldStartSeconds": "write how long a pod takes from created to ready, such as 120, or leave it out",
    "spec.prometheus": 'write prometheus: {url: "http://HOST:PORT"}',
    "spec.prometheus.url": "write http://HOST:PORT or https://HOST:PORT",
    "spec.prometheus.labels.namespace": "write a label's name: letters, digits and '_'",
    "spec.prometheus.labels.pod": "write a label's name: letters, digits and '_'",
    "spec.schedule": "write a list of {start, end, timeZone, minReplicas}",
    "spec.maxUnschedulable": "write the most pods that may wait for a node, 1 or more, or leave it out",
    "spec.budget": "write budget: {name: …, maxGpus: 16}, or leave it out",
    "spec.budget.name": "name the budget, in lower-case letters, digits and '-'",
    "spec.budget.maxGpus": "write the most GPUs that all who name the budget may take, 1 or more",
    "spec.onConflict": "write Yield or Override",
    "spec.mode": "write Active, Shadow, Publish or Floor",
}
_PLACEHOLDERS = {
    "string": "text in quotes",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
}
_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _sentence(detail: ErrorDetails) -> str:
    path = ".".join(str(step) for step in detail["loc"])
    remedy = _REMEDIES.get(path, "")
    shown = json.dumps(detail["input"], ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "…"
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind == "extra_forbidden":
        return _unknown_field(path, detail)
    if kind == "missing":
        return f"{path} is missing: {remedy or 'it must be given'}"
    if kind == "value_error":
        return f"{path}: {context['error']}"
    if kind == "model_type":
        reason = "it must hold fields, one a line"
    elif kind in ("enum", "literal_error"):
        reason = f"it must be {context['expected'].replace(chr(39), '')}"
    elif kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        reason = f"it must be {words} {context[bound]:.10g}"
        if path.endswith(".attainment") and kind == "less_than":
            share = detail["input"] / 100 if 1 < detail["input"] < 100 else 0.99
            remedy = f"it is a share, so write {share:g} for {share * 100:g} %"
    elif kind == "finite_number":
        reason = "it must be a finite number"
    elif kind == "string_pattern_mismatch":
        whose = "Prometheus" if path.startswith("spec.prometheus.labels.") else "Kubernetes"
        reason = f"it is not written as {whose} writes it"
    elif kind == "string_too_short":
        reason = "it must not be empty: write it, or leave it out"
    elif kind == "string_too_long":
        reason = f"it must not be longer than {context['max_length']} characters"
    else:
        reason = f"it must be {_PLACEHOLDERS.get(kind.partition('_')[0], 'a value of another kind')}"
    return f"{path} is {shown}: {reason}" + (f"; {remedy}" if remedy and remedy not in reason else "")


def _unknown_field(path: str, detail: ErrorDetails) -> str:
    *parents, name = (str(step) for step in detail["loc"])
    model = _model_at(parents)
    known = [field.alias or key for key, field in model.model_fields.items()]
    homes = [home for home in _paths(VLLMAutoscaler) if home.rpartition(".")[2] in (name, to_camel(name))]
    nearest = difflib.get_close_matches(to_camel(name), known, n=1, cutoff=0.6)
    where = f"{'.'.join(parents) or 'the document'} knows {', '.join(known)}"
    if len(homes) == 1 and to_camel(name) not in known:
        where = f"it belongs to {homes[0].rpartition('.')[0] or 'the document itself'}"
    elif nearest:
        where = f"did you mean {nearest[0]}?"
    return f"{path} is not a field of {KIND}: {where}"


def _model_at(parents: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = VLLMAutoscaler
    for step in (step for step in parents if not step.isdecimal()):  # of a list each item is alike
        model = next(inner for name, inner in _inner_models(model) if name == step)
    return model


def _inner_models(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for key, field in model.model_fields.items():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield field.alias or key, kind


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    yield from (prefix + (field.alias or key) for key, field in model.model_fields.items())
    for name, inner in _inner_models(model):
        yield from _paths(inner, f"{prefix}{name}.")


def _wrong_metadata(document: Mapping[str, Any]) -> Iterator[str]:
    """Metadata takes what the API server keeps there, but a misspelt namespace must not become "default"."""
    metadata = document.get("metadata")
    for name in map(str, metadata if isinstance(metadata, Mapping) else ()):
        if name not in _OBJECT_METADATA:
            nearest = difflib.get_close_matches(name, _OBJECT_METADATA, n=1, cutoff=0.6)
            hint = f"did you mean {nearest[0]}?" if nearest else "it takes name, namespace, labels, annotations"
            yield f"metadata.{name} is not a field of Kubernetes metadata: {hint}"


def _hidden_conflicts(document: Mapping[str, Any]) -> Iterator[str]:
    """Conflicts between fields that pydantic does not look for once a field of the same block is wrong."""
    spec = document.get("spec")
    if not isinstance(spec, Mapping):
        return
    fewest, most = spec.get("minReplicas", 1), spec.get("maxReplicas")
    if type(fewest) is int and type(most) is int and fewest >= 0 and most >= 1:
        yield from (f"spec: {problem}" for problem in bounds_problems(fewest, most))
    prometheus = spec.get("prometheus")
    if isinstance(prometheus, Mapping):
        named = (prometheus.get(key) for key in ("bearerTokenFile", "basicAuth", "certFile", "keyFile"))
        found = "; ".join(identity_problems(*named))
        if found:
            yield f"spec.prometheus: {found}"
