"""What is looked at of a KubeSchedulerConfiguration, and in which kind of value kube-scheduler reads each field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from cluster.files import ConfigError, unreadable


class _Part(BaseModel):
    """As strict as Go about kinds. Fields that nobody here asks for are kube-scheduler's own affair."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_stated(cls, value: Any) -> Any:
        return {key: part for key, part in value.items() if part is not None} if isinstance(value, dict) else value


class ManagedResource(_Part):
    """A resource whose pods are shown to an extender."""

    ignored_by_scheduler: bool = False


class TlsConfig(_Part):
    """How an extender's certificate is looked at."""

    insecure: bool = False
    ca_file: str = ""
    ca_data: str = ""


class ExtenderEntry(_Part):
    """One of `extenders`."""

    url_prefix: str = ""
    filter_verb: str = ""
    prioritize_verb: str = ""
    preempt_verb: str = ""
    weight: int = 0
    enable_https: bool = Field(default=False, alias="enableHTTPS")
    tls_config: TlsConfig = TlsConfig()
    node_cache_capable: bool = False
    managed_resources: list[ManagedResource] = []
    ignorable: bool = False


class Profile(_Part):
    """One scheduler of the process."""

    scheduler_name: str = "default-scheduler"
    percentage_of_nodes_to_score: int | None = None
    """None: as for all profiles."""


class SchedulerConfiguration(_Part):
    """The file."""

    percentage_of_nodes_to_score: int | None = None
    profiles: list[Profile] = []
    extenders: list[ExtenderEntry] = []

    @property
    def schedulers(self) -> list[Profile]:
        """Its profiles; without any it is one scheduler by the defaults."""
        return self.profiles or [Profile()]


def read(path: Path) -> dict[str, Any]:
    """A KubeSchedulerConfiguration, or the one that a ConfigMap holds, as it is written."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        for document in documents:
            if isinstance(document, dict) and document.get("kind") == "ConfigMap":
                data = document.get("data")
                texts = data.values() if isinstance(data, dict) else ()
                documents += [yaml.safe_load(text) for text in texts if isinstance(text, str)]
    except OSError as error:
        raise ConfigError((f"--scheduler-config {unreadable(path, error)}",)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError((f"--scheduler-config {path}: is not YAML: {' '.join(str(error).split())}",)) from error
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "KubeSchedulerConfiguration":
            return document
    raise ConfigError((f"--scheduler-config {path}: holds no KubeSchedulerConfiguration: name the scheduler's file",))


def shaped(document: Mapping[str, Any]) -> SchedulerConfiguration:
    """The same as kube-scheduler would read it; a ConfigError has a sentence for each field of a wrong kind."""
    try:
        return SchedulerConfiguration.model_validate(document)
    except ValidationError as error:
        raise ConfigError(tuple(map(_sentence, error.errors()))) from error


_READS: Final = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "an object",
    "string_type": "a text",
}


def _sentence(detail: ErrorDetails) -> str:
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in detail["loc"]).removeprefix(".")
    value, wanted = detail["input"], _READS.get(detail["type"], "something else")
    match value:
        case list():
            shown = "a list"
        case dict():
            shown = "an object"
        case _:
            shown = json.dumps(value, ensure_ascii=False, default=str)[:60]
    return f"{where} is {shown}, where kube-scheduler reads {wanted}: write one"
