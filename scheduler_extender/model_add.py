"""`preheat model add`: a model's own `config.json` becomes a row of the table that `modelsFile` names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from cluster.files import ConfigError, unreadable
from policies.gpu_memory import GIB, ModelShape, kv_bytes_per_token, weight_bytes
from policies.placement.model_config import ModelConfigError
from policies.placement.models import ModelTable
from scheduler_extender.config import read_models

SUFFIX = ".json"


def add_model(file: Path, *, name: str | None, table: Path, weights_gib: float | None) -> str:
    """Lay the model of a Hugging Face `config.json` over the table, in place of a row of the same name.

    Returns what was read of it, in a sentence; a ConfigError says why the file, or the table, cannot be used.
    """
    config = _config(file)
    called = name or str(config.get("_name_or_path") or "")
    if not called:
        raise ConfigError((f"{file}: does not say the model's name: give the one that pods serve it by with --name",))
    if table.suffix != SUFFIX:
        raise ConfigError((f"--table {table}: it is written as JSON: name a file that ends in {SUFFIX}",))
    row: dict[str, Any] = {"name": called, "source": file.name, "config": config}
    if weights_gib is not None:
        row["weightsGib"] = weights_gib
    try:
        shape = ModelTable({}).with_models([row], source=file.name).find(called)
    except ModelConfigError as error:
        remedy = " with --weights-gib" if "state the size" in str(error) else ""
        raise ConfigError((f"{file}: {error}{remedy}",)) from error
    assert shape is not None
    rows = read_models(table) if table.exists() else []
    kept = [each for each in rows if each.get("name") != called]
    _write(table, [*kept, row])
    verb = "replaced" if len(kept) < len(rows) else "added"
    return f"{table}: {verb} {_said(shape)}"


def _config(file: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError((unreadable(file, error),)) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError((f"{file}: is not JSON: {error}: name the config.json of a checkpoint",)) from error
    if not isinstance(config, dict):
        raise ConfigError((f"{file}: is JSON, but not an object: name the config.json of a checkpoint",))
    return config


def _write(table: Path, rows: list[dict[str, Any]]) -> None:
    """A row a line, and all at once: an extender that reads the table meanwhile sees the old one or the new."""
    lines = b",\n".join(map(orjson.dumps, rows))
    beside = table.with_name(f"{table.name}.new")
    try:
        beside.write_bytes(b'{"models": [\n%b\n]}\n' % lines)
        beside.replace(table)
    except OSError as error:
        raise ConfigError((f"--table {table}: cannot be written: {error.strerror or error}",)) from error


def _said(shape: ModelShape) -> str:
    told = [f"{shape.parameters / 1e9:.2f} billion parameters", f"{weight_bytes(shape) / GIB:.1f} GiB of weights"]
    told.append(f"{kv_bytes_per_token(shape) / 1024:g} KiB of cache a token with TP 1")
    if shape.context_tokens:
        told.append(f"a context of {shape.context_tokens} tokens")
    return f"{shape.name}: {', '.join(told)}" + (f"; {shape.caveat}" if shape.caveat else "")
