"""How the fields of a Kubernetes object are read here: closed models, quantities, and one sentence a mistake."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from cluster.quantities import FACTORS

M = TypeVar("M", bound=BaseModel)


class Fields(BaseModel):
    """Camel case outside, and closed."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


_SUFFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, **FACTORS}


def _quantity(value: Any) -> float:
    """Of a Kubernetes quantity such as 60, "0.8", 500m or 2k."""
    found = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(Ki|Mi|Gi|Ti|[numkMGT]?)", str(value).strip())
    if found is None or isinstance(value, bool):
        raise ValueError('it must be a quantity such as 60, "0.8" or 500m')
    quantity = float(found[1]) * _SUFFIXES[found[2]]
    if math.isinf(quantity):
        raise ValueError("it must be a quantity that 64 bits hold")
    return quantity


Quantity = Annotated[float, BeforeValidator(_quantity)]

INT32_MAX: Final = 2**31 - 1
Count = Annotated[int, Field(ge=0, le=INT32_MAX)]
Positive = Annotated[int, Field(ge=1, le=INT32_MAX)]
"""As the API server takes them."""


class FieldsError(ValueError):
    """An object cannot be read; `problems` says all that is wrong, one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def checked(model: type[M], document: Any, prefix: str) -> M:
    """The object's part as the model has it; fields left empty count as left out."""
    try:
        return model.model_validate(without_empty(document))
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise FieldsError([_sentence(model, prefix, dict(detail)) for detail in details]) from None


def without_empty(value: Any) -> Any:
    """Without the fields that are left empty."""
    if isinstance(value, Mapping):
        return {str(key): without_empty(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return value


def _known(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The fields of the part that a path leads to."""
    for step in path:
        if isinstance(step, str):
            fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
            model = next(_models(fields.get(step)), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _sentence(model: type[BaseModel], prefix: str, detail: dict[str, Any]) -> str:
    path = prefix
    for step in detail["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    shown = json.dumps(detail["input"], ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}…"
    match detail["type"]:
        case "missing":
            return f"{path} is missing: it must be given"
        case "extra_forbidden":
            *parents, name = detail["loc"]
            return f"{path} is not a field that is known here: {hint(str(name), _known(model, tuple(parents)))}"
        case "value_error":
            return f"{path} is {shown}: {detail['ctx']['error']}"
        case _:
            reason = str(detail["msg"]).replace("Input should be", "it must be").partition(", unable")[0]
            return f"{path} is {shown}: {reason}"


def hint(name: str, known: list[str]) -> str:
    """A name that was perhaps meant."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"
