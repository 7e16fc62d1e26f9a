"""The resource a user writes, `VLLMAutoscaler`, for the autoscaler, the replay and the CRD generator alike.

This module alone knows the field names. What the user must say is the target, the ceiling, the objectives and
where Prometheus is; everything else has a default that needs no thought.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticKnownError

from policies.scaling.cron import CronError, read_schedule, zone

API_VERSION: Literal["autoscaling.preheat.dev/v1alpha1"] = "autoscaling.preheat.dev/v1alpha1"
KIND: Literal["VLLMAutoscaler"] = "VLLMAutoscaler"

MOST_REPLICAS = 2**31 - 1
"""What a `scale` can hold."""

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
Name = Annotated[str, Field(pattern=rf"^{_LABEL}(\.{_LABEL})*$", max_length=253)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _rules(*rules: tuple[str, str]) -> dict[str, JsonValue]:
    """What a validator judges, said to the API server too: CEL that must hold, and the sentence where it does not."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


def _whole(value: object) -> object:
    """JSON's 8.0 is no whole number here, as it is none to the rules that the API server checks."""
    if isinstance(value, float):
        raise PydanticKnownError("int_type")
    return value


Replicas = Annotated[
    int,
    Field(ge=1, le=MOST_REPLICAS, json_schema_extra=_rules(("self >= 1", "must be a whole number, 1 or more"))),
    BeforeValidator(_whole),  # last: whatever comes after it takes its bounds out of the schema
]
Text = Annotated[str, Field(min_length=1)]


CLOSED = ConfigDict(
    frozen=True,
    extra="forbid",
    alias_generator=to_camel,
    validate_by_alias=True,
    validate_by_name=True,
    use_attribute_docstrings=True,
)


class Settings(BaseModel):
    """Frozen, camelCase outside, and closed: an unknown field is a mistake, not an extension."""

    model_config = CLOSED


class ScaleTargetRef(Settings):
    """What is scaled: anything with a `scale` subresource."""

    api_version: Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?v[0-9][a-z0-9]*$")] = "apps/v1"
    """Its group and version."""
    kind: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$")] = "Deployment"
    """Its kind, such as Deployment, StatefulSet or LeaderWorkerSet."""
    name: Name
    """Its name, in the namespace of this resource."""


class Objectives(Settings):
    """The latency that is promised, and to which share of the requests."""

    ttft_seconds: Seconds
    """Time to first token."""
    tpot_seconds: Seconds
    """A request's mean time per output token."""
    attainment: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Share of requests that keep both."""


class BasicAuth(Settings):
    """A name and the file of its password."""

    username: str
    """Who asks."""
    password_file: Text
    """Where the autoscaler finds the password; it is read again when it changes."""


class PrometheusLabels(Settings):
    """How a series names its pod, where it is not by `namespace` + `pod` or the other known ways."""

    namespace: Text | None = None
    """The label that holds the pod's namespace."""
    pod: Text | None = None
    """The label that holds the pod's name."""


_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]+)"
_PORT = r"(:(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}))?"
URL = rf"^https?://([^ /?#@]*@)?{_HOST}{_PORT}(/[!-\"$->@-~]*)?$"
"""Of a server, perhaps below a path; Python and RE2 read it alike."""
CREDENTIALS = "^https?://[^/?#]*@"
LONGEST_URL = 2048
"""Bounded, so that the API server can tell beforehand what its rules cost."""


_NO_URL = "not a URL of a server: write http://HOST:PORT or https://HOST:PORT"
_NO_CREDENTIALS = "credentials do not belong into a URL: use basicAuth or bearerTokenFile"
_ONE_IDENTITY = "bearerTokenFile and basicAuth exclude each other: keep one"
_CERTIFICATE_AND_KEY = "certFile and keyFile belong together: give both or neither"
_BOUNDS_IN_ORDER = "must not exceed maxReplicas{}: lower minReplicas or raise maxReplicas"


class Prometheus(Settings):
    """Where vLLM's metrics are read, and as whom; TLS is verified unless expressly told not to."""

    model_config = ConfigDict(
        json_schema_extra=_rules(
            ("!(has(self.bearerTokenFile) && has(self.basicAuth))", _ONE_IDENTITY),
            ("has(self.certFile) == has(self.keyFile)", _CERTIFICATE_AND_KEY),
        )
    )

    url: Annotated[
        str,
        Field(
            max_length=LONGEST_URL,
            json_schema_extra=_rules(
                (f"self.matches(r'{URL}')", f"is {_NO_URL}"),
                (f"!self.matches(r'{CREDENTIALS}')", _NO_CREDENTIALS),
            ),
        ),
    ]
    """The server, as in http://HOST:PORT or https://HOST:PORT/PREFIX."""
    arrivals: Text | None = None
    """PromQL of a router's cumulative request counter; better than vLLM's own count when clients hang up."""
    labels: PrometheusLabels = PrometheusLabels()
    """How a series names its pod, where that is not known."""
    bearer_token_file: Text | None = None
    """A file whose token is sent with each question; it is read again when it changes."""
    basic_auth: BasicAuth | None = None
    """A name and a password that are sent with each question."""
    ca_file: Text | None = None
    """The authority of the server's certificate, where the system does not know it."""
    cert_file: Text | None = None
    """Our own certificate, for a server that asks for one."""
    key_file: Text | None = None
    """The key of our own certificate."""
    insecure_skip_verify: bool = False
    """Believe any certificate."""
    timeout_seconds: Seconds = 5.0
    """How long an answer may take."""

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        if not re.fullmatch(URL, url):
            raise ValueError(f"'{url}' is {_NO_URL}")
        if re.match(CREDENTIALS, url):
            raise ValueError(_NO_CREDENTIALS)
        return url.rstrip("/")

    @model_validator(mode="after")
    def _one_identity(self) -> Self:
        _refuse(_identity_problems(self.bearer_token_file, self.basic_auth, self.cert_file, self.key_file))
        return self


def _identity_problems(bearer: object, basic: object, cert: object, key: object) -> Iterator[str]:
    if bearer and basic:
        yield _ONE_IDENTITY
    if bool(cert) != bool(key):
        yield _CERTIFICATE_AND_KEY


def _refuse(problems: Iterator[str]) -> None:
    if found := "; ".join(problems):
        raise ValueError(found)


class Direction(Settings):
    """A limit to one step in one direction."""

    max_step: Replicas | None = None
    """Most replicas that one decision may add or remove; unset: no limit."""


class ScaleDown(Direction):
    """When and how far a fleet may shrink."""

    window_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 900.0
    """A shrink waits until every wish in the window was as small."""


class Behavior(Settings):
    """How fast the number may change."""

    scale_up: Direction = Direction()
    """Upwards."""
    scale_down: ScaleDown = ScaleDown()
    """Downwards."""


class ScheduledFloor(Settings):
    """The fewest replicas for a stretch of time that comes again and again."""

    start: Annotated[str, Field(min_length=1, max_length=100)]
    """When it begins, as cron writes it: minute hour day-of-month month day-of-week."""
    end: Annotated[str, Field(min_length=1, max_length=100)]
    """When it ends, likewise."""
    time_zone: Annotated[str, Field(min_length=1, max_length=100)] = "UTC"
    """Whose clock is meant, such as Europe/Berlin."""
    min_replicas: Replicas
    """The fewest replicas that are to be ready from start to end."""


class Mode(StrEnum):
    """What becomes of a decision."""

    ACTIVE = "Active"
    SHADOW = "Shadow"
    """Decides, writes nothing."""
    PUBLISH = "Publish"
    """Publishes the number, for an HPA or KEDA to follow."""
    FLOOR = "Floor"
    """Raises the fewest replicas of somebody's HPA or ScaledObject ahead of need, and gives them back after."""


class OnConflict(StrEnum):
    """What is done where somebody else scales the target too."""

    YIELD = "Yield"
    OVERRIDE = "Override"


class Spec(Settings):
    """What the user states: the target, its ceiling, the objectives and where Prometheus is; the rest has defaults."""

    model_config = ConfigDict(
        json_schema_extra=_rules(
            ("self.minReplicas <= self.maxReplicas", f"minReplicas {_BOUNDS_IN_ORDER.format('')}"),
            (
                "!has(self.schedule) || self.schedule.all(each, each.minReplicas <= self.maxReplicas)",
                f"minReplicas of schedule {_BOUNDS_IN_ORDER.format('')}",
            ),
        )
    )

    scale_target_ref: ScaleTargetRef
    """What is scaled."""
    min_replicas: Replicas = 1
    """The fewest replicas that may run."""
    max_replicas: Replicas
    """The most replicas that may run."""
    objectives: Objectives
    """The latency that is promised."""
    cold_start_seconds: Seconds | None = None
    """Created to ready, used until three starts were measured."""
    prometheus: Prometheus
    """Where vLLM's metrics are read."""
    behavior: Behavior = Behavior()
    """How fast the number may change."""
    mode: Mode = Mode.ACTIVE
    """Active writes what was decided; Shadow only tells it; Publish and Floor leave the scaling to others."""
    schedule: Annotated[tuple[ScheduledFloor, ...], Field(max_length=50)] = ()
    """Higher floors by the calendar; new replicas are ordered so that they are ready when one begins."""
    max_unschedulable: Replicas | None = None
    """Most pods that may wait for a node, for a node autoscaler to add one; unset: as many as are wanted."""
    on_conflict: OnConflict = OnConflict.YIELD
    """Where an HPA or a ScaledObject scales the target too, or a tool puts `replicas` back: Yield writes nothing while
    that lasts, Override writes all the same."""
    paused: bool = False
    """Decide and tell, write nothing, for as long as this is true."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        _refuse(_bounds_problems(self.min_replicas, self.max_replicas, [each.min_replicas for each in self.schedule]))
        return self


def _bounds_problems(min_replicas: int, max_replicas: int, scheduled: Iterable[int] = ()) -> Iterator[str]:
    if min_replicas > max_replicas:
        yield f"minReplicas ({min_replicas}) {_BOUNDS_IN_ORDER.format(f' ({max_replicas})')}"
    for fewest in scheduled:
        if fewest > max_replicas:
            yield f"minReplicas of schedule ({fewest}) {_BOUNDS_IN_ORDER.format(f' ({max_replicas})')}"


class Metadata(BaseModel):
    """Of the API server's metadata only what names the resource; the rest is its business."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Name
    namespace: Name = "default"
    generation: int | None = None


class VLLMAutoscaler(BaseModel):
    """Keeps the replicas of one vLLM deployment at what its load will need when a new replica is ready."""

    model_config = CLOSED

    api_version: Literal["autoscaling.preheat.dev/v1alpha1"]
    kind: Literal["VLLMAutoscaler"]
    metadata: Metadata
    spec: Spec
    status: dict[str, Any] | None = None
    """The API server's copy carries one; a file needs none."""

    @property
    def key(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}"


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
            ("start", read_schedule, each.start),
            ("end", read_schedule, each.end),
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
    "spec.minReplicas": "write the fewest replicas that may run, 1 or more",
    "spec.maxReplicas": "write the most replicas that may run, 1 or more",
    "spec.objectives": "write objectives: {ttftSeconds: 2, tpotSeconds: 0.06, attainment: 0.99}",
    "spec.objectives.ttftSeconds": "write the time to first token that is promised, such as 2",
    "spec.objectives.tpotSeconds": "write the time per output token that is promised, such as 0.06",
    "spec.objectives.attainment": "write the share of requests that keep both objectives, such as 0.99",
    "spec.coldStartSeconds": "write how long a pod takes from created to ready, such as 120, or leave it out",
    "spec.prometheus": 'write prometheus: {url: "http://HOST:PORT"}',
    "spec.prometheus.url": "write http://HOST:PORT or https://HOST:PORT",
    "spec.schedule": "write a list of {start, end, timeZone, minReplicas}",
    "spec.maxUnschedulable": "write the most pods that may wait for a node, 1 or more, or leave it out",
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
        reason = "it is not written as Kubernetes writes it"
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
    if type(fewest) is int and type(most) is int and fewest >= 1 and most >= 1:
        yield from (f"spec: {problem}" for problem in _bounds_problems(fewest, most))
    prometheus = spec.get("prometheus")
    if isinstance(prometheus, Mapping):
        named = (prometheus.get(key) for key in ("bearerTokenFile", "basicAuth", "certFile", "keyFile"))
        found = "; ".join(_identity_problems(*named))
        if found:
            yield f"spec.prometheus: {found}"
