"""Which models are known by name: a shipped table, each row saying where it was read, and what users lay over it.

A name is matched without its owner and without the endings that leave the shape as it is (`-Instruct`, `-AWQ`, …).
What is not matched stays unknown; nothing is guessed from a size in a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Final

from policies.gpu_memory import GIB, ModelShape
from policies.placement import quantization
from policies.placement.model_config import ModelConfigError, shape_of_config

# Words of a name that tell how a checkpoint is stored, and those that tell how it was tuned; neither changes a shape.
_STORED_WORDS: Final = (
    "bf16 fp16 bnb 4bit 8bit 4bits 8bits awq gptq marlin int4 int8 fp8 dynamic block static kv nvfp4 mxfp4 w4a16 w8a8 "
    "w8a16 w4a4 fp4a16 g128 128g quantized autoround unsloth tensor"
)
_TUNED_WORDS: Final = "instruct chat it base hf"
_STORED: Final = frozenset(_STORED_WORDS.split())
_TUNED: Final = frozenset(_TUNED_WORDS.split())


@dataclass(frozen=True, slots=True)
class ModelTable:
    """Shapes by name."""

    shapes: Mapping[str, ModelShape]
    """By name, in lower case and with dashes between its words, full and shortened."""

    def find(self, name: str) -> ModelShape | None:
        """The shape of what `name` calls: a Hugging Face name, or a path that ends in one; None: unknown.

        A checkpoint that its own name calls quantised, and that the table knows only in 16 bits, is given the bits
        that the name tells.
        """
        words = _words(name)
        shape = None
        for known in _candidates(words):
            shape = self.shapes.get(known)
            if shape is not None:
                break
        how = quantization.in_name("-".join(words))
        if shape is not None and how and shape.weight_bits == quantization.PLAIN_BITS:
            return replace(shape, weight_bits=quantization.BITS[how], quantization=how)
        return shape

    def with_models(self, rows: Iterable[Mapping[str, Any]], *, source: str) -> ModelTable:
        """The same with rows over it: `name`, `config` (a `config.json`), and `weightsGib` where that is known.

        Raises `ModelConfigError` where a row cannot be used.
        """
        return ModelTable({**self.shapes, **_shapes(rows, source)})


@cache
def shipped_models() -> ModelTable:
    """The table that comes with us."""
    text = resources.files("policies.placement").joinpath("tables/models.json").read_text(encoding="utf-8")
    return ModelTable(_shapes(json.loads(text)["models"], ""))


def _words(name: str) -> list[str]:
    """Of the last part of a path or a Hugging Face name, in lower case."""
    # A cache of the Hub keeps a model under `models--owner--name/snapshots/…`.
    cached = re.search(r"models--[^/]+?--([^/]+)", name)
    last = cached[1] if cached else name.rstrip("/").rpartition("/")[2]
    return re.split(r"[-_.]+", last.lower().removeprefix("meta-"))


def _candidates(words: list[str]) -> Iterable[str]:
    """Names to look for, the fullest first: without how it is stored, then how it was tuned, then its date."""
    yield "-".join(words)
    plain = [word for word in words if word not in _STORED]
    yield "-".join(plain)
    plain = [word for word in plain if word not in _TUNED]
    yield "-".join(plain)
    yield "-".join(word for word in plain if not re.fullmatch(r"[0-3]\d[0-3]\d", word))


def _shapes(rows: Iterable[Mapping[str, Any]], source: str) -> dict[str, ModelShape]:
    exact: dict[str, ModelShape] = {}
    plain: dict[str, ModelShape] = {}
    for row in rows:
        name, config = row.get("name"), row.get("config")
        if not isinstance(name, str) or not name or not isinstance(config, Mapping):
            raise ModelConfigError(f"model table: {row!r} needs `name`, a text, and `config`, an object")
        stated = row.get("weightsGib")
        if stated is not None and (not isinstance(stated, int | float) or not 0 < stated < 1e6):
            raise ModelConfigError(
                f"model {name}: weightsGib is {stated!r}: it must be a number above 0 and below a million"
            )
        weights = None if stated is None else int(stated * GIB)
        shape = shape_of_config(name, config, source=str(row.get("source", source)), weights_bytes=weights)
        full, stored, tuned, _ = _candidates(_words(name))
        exact[full] = shape
        # A shape that is stored in fewer bits must not answer for the plain name where that is known too.
        if shape.weight_bits == quantization.PLAIN_BITS:
            plain.setdefault(stored, shape)
            plain.setdefault(tuned, shape)
    return {**plain, **exact}
