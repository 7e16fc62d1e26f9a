"""The resource a user writes: `VLLMAutoscaler`, read by the autoscaler, the replay and the CRD generator alike.

This module alone knows the field names. What the user must say is the target, the ceiling, the objectives and
where Prometheus is; everything else has a default that needs no thought.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

API_VERSION: Literal["autoscaling.preheat.dev/v1alpha1"] = "autoscaling.preheat.dev/v1alpha1"
KIND: Literal["VLLMAutoscaler"] = "VLLMAutoscaler"

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


CLOSED = ConfigDict(
    frozen=True, extra="forbid", alias_generator=to_camel, validate_by_alias=True, validate_by_name=True
)


class Settings(BaseModel):
    """Frozen, camelCase outside, and closed: an unknown field is a mistake, not an extension."""

    model_config = CLOSED


class ScaleTargetRef(Settings):
    """Anything with a `scale` subresource."""

    api_version: Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?v[0-9][a-z0-9]*$")] = "apps/v1"
    kind: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$")] = "Deployment"
    name: Name


class Objectives(Settings):
    """The latency that is promised, and to which share of the requests."""

    ttft_seconds: Seconds
    """Time to first token."""
    tpot_seconds: Seconds
    """A request's mean time per output token."""
    attainment: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Share of requests that keep both."""


class BasicAuth(Settings):
    username: str
    password_file: str


class PrometheusLabels(Settings):
    """How a series names its pod, where it is not by `namespace` + `pod` or the other known ways."""

    namespace: str | None = None
    pod: str | None = None


class Prometheus(Settings):
    """Where vLLM's metrics are read, and as whom. TLS is verified unless the user says otherwise in so many words."""

    url: str
    arrivals: str | None = None
    """PromQL of a router's cumulative request counter; better than vLLM's own count when clients hang up."""
    labels: PrometheusLabels = PrometheusLabels()
    bearer_token_file: str | None = None
    basic_auth: BasicAuth | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure_skip_verify: bool = False
    timeout_seconds: Seconds = 5.0

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        scheme, separator, rest = url.partition("://")
        if (
            scheme not in ("http", "https")
            or not separator
            or not rest.split("/")[0].split("@")[-1].strip(":")
        ):
            raise ValueError(f"'{url}' is not a URL: write http://HOST:PORT or https://HOST:PORT")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _one_identity(self) -> Self:
        if self.bearer_token_file and self.basic_auth:
            raise ValueError("bearerTokenFile and basicAuth exclude each other: keep one")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("certFile and keyFile belong together: give both or neither")
        return self


class Direction(Settings):
    """A limit to one step in one direction."""

    max_step: Annotated[int, Field(ge=1)] | None = None
    """Most replicas that one decision may add or remove; unset: no limit."""


class ScaleDown(Direction):
    window_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 300.0
    """A shrink waits until every wish in the window was as small."""


class Behavior(Settings):
    scale_up: Direction = Direction()
    scale_down: ScaleDown = ScaleDown()


class Mode(StrEnum):
    ACTIVE = "Active"
    SHADOW = "Shadow"
    """Decides, writes nothing."""


class Spec(Settings):
    scale_target_ref: ScaleTargetRef
    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)]
    objectives: Objectives
    cold_start_seconds: Seconds | None = None
    """Created to ready, used until three starts were measured."""
    prometheus: Prometheus
    behavior: Behavior = Behavior()
    mode: Mode = Mode.ACTIVE

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"minReplicas ({self.min_replicas}) must not exceed maxReplicas ({self.max_replicas})"
            )
        return self


class Metadata(BaseModel):
    """Of the API server's metadata only what names the resource; the rest is its business."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Name
    namespace: Name = "default"
    generation: int | None = None


class VLLMAutoscaler(BaseModel):
    """One target with its bounds and objectives."""

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
