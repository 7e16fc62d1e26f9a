"""What a pod's annotations state; it wins over all that is read of its containers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from policies.gpu_memory import GIB, ModelShape, weight_bytes
from policies.placement.demand import NvLink, PodDemand
from policies.placement.model_config import ModelConfigError, shape_of_config
from policies.placement.models import ModelTable
from policies.placement.numbers import DIGITS, whole

PREFIX: Final = "preheat.dev/"
MODEL_SHAPE: Final = "model-shape"


def annotated(
    demand: PodDemand,
    annotations: Mapping[str, str],
    models: ModelTable,
    *,
    sources: dict[str, str],
    remarks: list[str],
) -> PodDemand:
    """The demand with what is stated in it; where each was read is noted, and what cannot be read is remarked."""

    def take(name: str, field: str, value: object, wanted: str) -> bool:
        if value is None:
            remarks.append(f"annotation {PREFIX}{name} is {annotations[PREFIX + name]!r}: it must be {wanted}")
            return False
        sources[field] = f"annotation {PREFIX}{name}"
        return True

    if text := annotations.get(PREFIX + MODEL_SHAPE, "").strip():
        shape = _shape(text, models)
        wanted = "a model of the table, or the JSON of a config.json"
        if take(MODEL_SHAPE, "shape", shape, wanted) and shape is not None:
            # What was written and could not be read stays unknown.
            known = demand.max_model_len is not None or "max_model_len" in sources
            element_bytes = None if "kv_cache_dtype" in sources else 2.0
            demand = replace(
                demand,
                shape=shape,
                model=demand.model or shape.name,
                weights_bytes=weight_bytes(shape),
                max_model_len=demand.max_model_len if known else shape.context_tokens,
                kv_element_bytes=demand.kv_element_bytes or element_bytes,
            )
    stated: dict[str, Any] = {}
    for name, field, read, wanted in _STATED:
        if text := annotations.get(PREFIX + name, "").strip():
            value = read(text)
            if take(name, field, value, wanted):
                stated[field] = value
    return replace(demand, **stated) if stated else demand


def _gib(text: str) -> int | None:
    """In bytes."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number * GIB) if 0 < number < 1e6 else None


def _size(text: str) -> int | None:
    return whole(text) or None


def _flag(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text)


def _required(text: str) -> NvLink | None:
    return {"true": NvLink.REQUIRE, "false": NvLink.IGNORE}.get(text)


def _nvlink(text: str) -> NvLink | None:
    return NvLink(text) if text in set(NvLink) else None


_STATED: Final[tuple[tuple[str, str, Callable[[str], object], str], ...]] = (
    ("weights-gib", "weights_bytes", _gib, "a number of GiB above 0"),
    ("memory-per-gpu-gib", "memory_bytes_per_gpu", _gib, "a number of GiB above 0"),
    ("tensor-parallel-size", "tensor_parallel", _size, f"a whole number above 0 of at most {DIGITS} digits"),
    ("require-nvlink", "nvlink", _required, "true or false"),
    ("nvlink", "nvlink", _nvlink, "prefer, require or ignore"),
    ("allow-unknown", "allow_unknown", _flag, "true or false"),
)
"""Name, field of the demand, how it is read (None: it cannot be), and what it must be."""


def _shape(text: str, models: ModelTable) -> ModelShape | None:
    if not text.startswith("{"):
        return models.find(text)
    try:
        return shape_of_config("as annotated", json.loads(text), source=f"annotation {PREFIX}{MODEL_SHAPE}")
    except (ValueError, ModelConfigError, RecursionError):
        return None
