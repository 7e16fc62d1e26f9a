"""Engines by name or by file: `{name, step_ms: {a, b, c, d, e}, kv_tokens, max_num_seqs, …}` in JSON or YAML."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.files import ConfigError, documents
from simulations.engine import Engine, EngineError, StepTime, shipped_engine, shipped_engines

Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _StepMs(_Closed):
    a: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    b: Milliseconds
    c: Milliseconds
    d: Milliseconds
    e: Milliseconds
    w: Milliseconds = 0.0
    k: Milliseconds = 0.0
    q: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0


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


def engine_of(asked: str) -> Engine:
    """A shipped engine, or that of a file; an EngineError says what is wrong with either."""
    if asked in shipped_engines():
        return shipped_engine(asked)
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
        wrong = [f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg'].lower()}" for each in error.errors()]
        raise EngineError(f"engine file {path}: {'; '.join(wrong)}: docs/replay.md shows one") from error
    return Engine(**{**dict(told), "step_ms": StepTime(**dict(told.step_ms))})
