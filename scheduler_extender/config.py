"""The file of `--config`, and the tables that it names: read whole, or refused with all that is wrong."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from cluster.files import ConfigError, documents, unreadable
from policies.placement.model_config import ModelConfigError
from policies.placement.models import ModelTable, shipped_models
from policies.placement.products import ProductTable, ProductTableError, shipped_products
from policies.placement.settings import PlacementSettings


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class TouchSettings(_Strict):
    """Of pods that wait: a scheduler tries a rejected pod again only when something moves."""

    enabled: bool = True
    seconds: float = Field(default=10.0, ge=1.0)
    """A pod is touched at most once in so long."""
    schedulers: tuple[str, ...] = ()
    """Only pods with one of these `schedulerName`s; empty: all."""


class ExtenderSettings(_Strict):
    """All that the file may hold; every field has a default."""

    placement: PlacementSettings = PlacementSettings()
    products_file: Path | None = None
    """Rows laid over the shipped table of GPU products; relative to this file."""
    models_file: Path | None = None
    """Rows laid over the shipped table of models; relative to this file."""
    learn_mix: bool = True
    """Measure fragmentation for the mix of the cluster's own pods, unless `placement.mix` is given."""
    touch: TouchSettings = TouchSettings()
    largest_body_megabytes: float = Field(default=200.0, gt=0.0, le=2000.0)


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings with the tables that they name."""

    settings: ExtenderSettings
    products: ProductTable
    models: ModelTable
    files: tuple[Path, ...] = ()
    """All that was read for it."""


def load(path: Path | None) -> Configuration:
    """What the file says, or the defaults without one; a ConfigError has all that is wrong, a sentence each."""
    if path is None:
        return Configuration(ExtenderSettings(), shipped_products(), shipped_models())
    found = documents(path, "write at least `placement: {}`, or leave --config out")
    if len(found) > 1:
        raise ConfigError((f"{path}: holds {len(found)} documents: write everything into one",))
    try:
        settings = ExtenderSettings.model_validate(found[0][1])
    except ValidationError as error:
        raise ConfigError(tuple(f"{path}: {_sentence(detail)}" for detail in error.errors())) from error
    files = [path]
    problems: list[str] = []
    products, models = shipped_products(), shipped_models()
    if settings.products_file is not None:
        files.append(path.parent / settings.products_file)
        try:
            products = products.with_rows(_table(files[-1]), source=str(files[-1]))
        except (ProductTableError, ConfigError) as error:
            problems.append(str(error))
    if settings.models_file is not None:
        files.append(path.parent / settings.models_file)
        try:
            models = models.with_models(read_models(files[-1]), source=str(files[-1]))
        except (ModelConfigError, ConfigError) as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(tuple(problems))
    return Configuration(settings, products, models, tuple(files))


def read_models(path: Path) -> list[dict[str, Any]]:
    """The rows of a table of models; a ConfigError where it is none."""
    document = _table(path)
    rows = document.get("models") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError((f"{path}: a table of models is an object with a list `models` of objects",))
    return rows


def _table(path: Path) -> Any:
    """A table, written as YAML or JSON."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError((unreadable(path, error),)) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError((f"{path}: is not a table that can be read: {reason}",)) from error


def _sentence(detail: ErrorDetails) -> str:
    path = ".".join(str(step) for step in detail["loc"]) or "the document"
    if detail["type"] == "extra_forbidden":
        *parents, name = (str(step) for step in detail["loc"])
        known = _fields(parents)
        nearest = difflib.get_close_matches(to_camel(name), known, n=1, cutoff=0.6)
        hint = f"did you mean {nearest[0]}?" if nearest else f"choose of {', '.join(known)}"
        return f"{path} is not a field: {hint}"
    shown = json.dumps(detail["input"], ensure_ascii=False, default=str)[:60]
    asked = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{path} is {shown}: it must be {asked}"


def _fields(parents: list[str]) -> list[str]:
    models: dict[str, type[BaseModel]] = {"": ExtenderSettings, "placement": PlacementSettings, "touch": TouchSettings}
    return list(_names(models.get(".".join(parents), ExtenderSettings)))


def _names(model: type[BaseModel]) -> Iterator[str]:
    yield from (field.alias or name for name, field in model.model_fields.items())
