"""How a policy is named on a command line: `kpa`, or `kpa:target=40,stable_window=30`.

What a peer can be told is the signature of the function that builds it, with types that pydantic checks.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

if TYPE_CHECKING:
    from policies.scaling.resource import Objectives
    from simulations.model.engine import Engine

Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class PeerError(ValueError):
    """A policy cannot be had by that name or with those parameters; the message names them and the remedy."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What every policy is told of the replay that it will rule."""

    objectives: Objectives
    min_replicas: int
    max_replicas: int
    tick_seconds: float
    engine: Engine


Builder = Callable[..., Any]
"""From a `Setting` and keyword parameters, all with defaults, to a policy."""


def named(spec: str, builders: Mapping[str, tuple[Builder, Mapping[str, Any]]]) -> tuple[str, dict[str, Any]]:
    """The name and the checked parameters of `name` or `name:key=value,key=value`, those settled by it included."""
    name, colon, rest = (part.strip() for part in spec.partition(":"))
    try:
        builder, settled = builders[name]
    except KeyError:
        near = difflib.get_close_matches(name.lower(), builders, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(builders)}"
        raise PeerError(f"policy '{name}' is not known: {hint}") from None
    if colon and not rest:
        raise PeerError(f"policy '{spec}' ends in a colon: write {name}, or {name}:PARAMETER=VALUE")
    known = {key: kind for key, kind in _parameters(builder).items() if key not in settled}
    given: dict[str, Any] = {}
    for part in rest.split(",") if rest else ():
        key, equals, text = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not text:
            raise PeerError(f"policy '{spec}': '{part.strip()}' is no parameter: write {name}:PARAMETER=VALUE")
        if key not in known:
            near = difflib.get_close_matches(key.replace("-", "_"), known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}? " if near else ""
            raise PeerError(f"policy {name} has no parameter '{key}': {hint}it takes {', '.join(known)}")
        if key in given:
            raise PeerError(f"policy '{spec}' gives {key} twice: keep one")
        given[key] = _checked(name, key, text, known[key])
    return name, {**settled, **given}


def _parameters(builder: Builder) -> dict[str, Any]:
    hints = get_type_hints(builder, include_extras=True)
    return {key: hints[key] for key in list(inspect.signature(builder).parameters)[1:]}


def _checked(name: str, key: str, text: str, kind: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(text)
    except ValidationError as error:
        # "…a valid number, unable to parse string as a number": what comes after the comma says it again.
        reason = error.errors()[0]["msg"].removeprefix("Input should be ").partition(", unable")[0]
        raise PeerError(f"policy {name}: {key} is '{text}': it must be {reason}") from None
