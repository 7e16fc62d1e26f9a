"""Engines by name or by file: `{name, step_ms: {a, b, c, d, e}, kv_tokens, max_num_seqs, …}` in JSON or YAML."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cluster.files import ConfigError, documents
from simulations.model.engine import Engine, EngineError, StepTime, shipped_engine, shipped_engines

Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _StepMs(_Closed):
    """The linear form by a to e; the roofline form has w, k and q for the dense layers, and may do without a and d."""

    a: Milliseconds = 0.0
    b: Milliseconds
    c: Milliseconds
    d: Milliseconds | None = None
    e: Milliseconds
    w: Milliseconds = 0.0
    k: Milliseconds = 0.0
    q: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _is_of_one_form(self) -> Self:
        if self.w == 0 and self.k == 0:
            if self.a == 0:
                raise ValueError("step_ms.a is 0 or not given: a step takes time, give a number > 0")
            if self.d is None:
                raise ValueError("step_ms.d is not given: give it, or w, k and q of the roofline form")
        return self

    def step_time(self) -> StepTime:
        return StepTime(**{**dict(self), "d": self.d or 0.0})


class _EngineFile(_Closed):
    name: Annotated[str, Field(min_length=1)]
    step_ms: _StepMs
    kv_tokens: Count
    block_size: Count = 16
    max_num_seqs: Count = 256
    max_num_batched_tokens: Count = 2048
    gpus: Count = 1
    model: str = ""
    source: str = ""
    vllm: str = ""
    error: str = ""


def engine_of(asked: str) -> Engine:
    """A shipped engine, `name:roofline` for its other form, or that of a file; an EngineError says what is wrong."""
    name, _, form = asked.partition(":")
    if name in shipped_engines() and form in ("", "linear", "roofline"):
        return shipped_engine(name, form="roofline" if form == "roofline" else "linear")
    path = Path(asked)
    if path.is_file():
        return read_engine(path)
    if "/" in asked or path.suffix in (".json", ".yaml", ".yml"):
        raise EngineError(f"engine file {asked} cannot be read: there is no such file")
    near = difflib.get_close_matches(asked.lower(), shipped_engines(), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"give a file, or one of {', '.join(shipped_engines())}"
    raise EngineError(f"engine '{asked}' is not known: {hint}")


def read_engine(path: Path) -> Engine:
    """The engine that a file tells."""
    try:
        _, document = documents(path, "docs/replay.md shows an engine")[0]
    except ConfigError as error:
        raise EngineError(f"engine file {error}") from error
    try:
        told = _EngineFile.model_validate(document)
    except ValidationError as error:
        wrong = [_sentence(each["loc"], each["msg"]) for each in error.errors()]
        raise EngineError(f"engine file {path}: {'; '.join(wrong)}: docs/replay.md shows one") from error
    return Engine(**{**dict(told), "step_ms": told.step_ms.step_time()})


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    own = message.removeprefix("Value error, ")
    if own != message:
        return own
    return f"{'.'.join(map(str, place)) or 'it'}: {message.lower()}"
