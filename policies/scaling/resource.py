"""The resource a user writes, `VLLMAutoscaler`, for the autoscaler, the replay and the CRD generator alike.

This module alone knows the field names. What the user must say is the target, the ceiling, the objectives and
where Prometheus is; everything else has a default that needs no thought.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticKnownError

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
FewestReplicas = Annotated[
    int,
    Field(ge=0, le=MOST_REPLICAS, json_schema_extra=_rules(("self >= 0", "must be a whole number, 0 or more"))),
    BeforeValidator(_whole),
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


PrometheusLabel = Annotated[str, Field(pattern="^[a-zA-Z_][a-zA-Z0-9_]*$", max_length=128)]
"""As Prometheus takes them unquoted: it stands in queries that are asked for others, too."""


class PrometheusLabels(Settings):
    """How a series names its pod, where it is not by `namespace` + `pod` or the other known ways."""

    namespace: PrometheusLabel | None = None
    """The label that holds the pod's namespace."""
    pod: PrometheusLabel | None = None
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
        _refuse(identity_problems(self.bearer_token_file, self.basic_auth, self.cert_file, self.key_file))
        return self


def identity_problems(bearer: object, basic: object, cert: object, key: object) -> Iterator[str]:
    """What cannot be said together of who asks Prometheus, a sentence each."""
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


class Wake(Settings):
    """What wakes a target that rests at zero, where no pod tells that somebody asks."""

    query: Text | None = None
    """PromQL of what shows that somebody asks, such as the requests at a gateway; a sum above 0 wakes it, and keeps it
    awake. No answer is no zero: where no series means no request, end it with `or vector(0)`."""


class Budget(Settings):
    """GPUs that several of the namespace share."""

    name: Name
    """Those that name the same one share it."""
    max_gpus: Replicas
    """GPUs that the replicas of all of them may take; where they say different numbers, the least holds."""


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
    min_replicas: FewestReplicas = 1
    """The fewest replicas that may run; at 0 it rests while nothing is asked of it."""
    max_replicas: Replicas
    """The most replicas that may run."""
    objectives: Objectives
    """The latency that is promised."""
    idle_seconds: Seconds = 900.0
    """With minReplicas 0: it rests once nothing was asked of it for so long, and a wake lasts at least as long."""
    wake: Wake = Wake()
    """With minReplicas 0: what wakes it, beside the counter in prometheus.arrivals and POST /wake."""
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
    budget: Budget | None = None
    """A number of GPUs shared with others: each keeps what it has, and what is left goes where a replica saves most
    late requests for each GPU that it takes."""
    on_conflict: OnConflict = OnConflict.YIELD
    """Where an HPA or a ScaledObject scales the target too, or a tool puts `replicas` back: Yield writes nothing while
    that lasts, Override writes all the same."""
    paused: bool = False
    """Decide and tell, write nothing, for as long as this is true."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        _refuse(bounds_problems(self.min_replicas, self.max_replicas, [each.min_replicas for each in self.schedule]))
        return self


def bounds_problems(min_replicas: int, max_replicas: int, scheduled: Iterable[int] = ()) -> Iterator[str]:
    """Which floors lie above the ceiling, a sentence each."""
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
