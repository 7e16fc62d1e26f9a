"""How many bits a quantised parameter takes, scales and zero points included, and by which names it is known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

PLAIN_BITS: Final = 16.0
GROUP: Final = 128
"""Weights that share a scale, where nothing is said: what AWQ and GPTQ checkpoints use."""

BITS: Final[Mapping[str, float]] = {
    "fp8": 8.0,
    "int8": 8.0,
    # 4 bits, and a 16-bit scale and a 4-bit zero point for every 128.
    "awq": 4 + 20 / GROUP,
    "gptq": 4 + 20 / GROUP,
    "int4": 4 + 20 / GROUP,
    "mxfp4": 4 + 8 / 32,  # an 8-bit scale for every 32
    "nvfp4": 4 + 8 / 16,  # an 8-bit scale for every 16
    "bitsandbytes": 4 + 32 / 64,  # a 32-bit scale for every 64
    "mxfp8": 8 + 8 / 32,
}
METHODS: Final[Mapping[str, str]] = {
    # What `--quantization` may say, by what it does to a parameter. What is not here reads the checkpoint's own
    # configuration, and that says the bits.
    "fp8": "fp8",
    "fp8_per_tensor": "fp8",
    "fp8_per_block": "fp8",
    "ptpc_fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "modelopt": "fp8",
    "modelopt_fp4": "nvfp4",
    "modelopt_mxfp8": "mxfp8",
    "mxfp8": "mxfp8",
    "awq": "awq",
    "awq_marlin": "awq",
    "gptq": "gptq",
    "gptq_marlin": "gptq",
    "auto_awq": "awq",
    "auto_gptq": "gptq",
    "bitsandbytes": "bitsandbytes",
    "mxfp4": "mxfp4",
    "gpt_oss_mxfp4": "mxfp4",
    "experts_int8": "int8",
    "int8_per_channel_weight_only": "int8",
    "tpu_int8": "int8",
    "moe_wna16": "int4",
}

_IN_NAME: Final = (
    # Longest first: neither `GPTQ-Int8` nor `bnb-8bit` is a 4-bit checkpoint.
    (re.compile(r"(?i)(gptq|awq|bnb|bitsandbytes)[-_]?(int)?8|8bit[-_](bnb|bitsandbytes)"), "int8"),
    (re.compile(r"(?i)bnb|bitsandbytes"), "bitsandbytes"),
    (re.compile(r"(?i)w8a16|w8a8|int8"), "int8"),
    (re.compile(r"(?i)nvfp4|fp4a16|w4a4"), "nvfp4"),
    (re.compile(r"(?i)mxfp4"), "mxfp4"),
    (re.compile(r"(?i)awq"), "awq"),
    (re.compile(r"(?i)gptq"), "gptq"),
    (re.compile(r"(?i)w4a16|int4|[-_]4bit"), "int4"),
    (re.compile(r"(?i)fp8|w8a8-dynamic|fbgemm"), "fp8"),
)


def in_name(model: str) -> str:
    """The quantisation that a checkpoint's name tells, a key of `BITS`; "" where it tells none."""
    last = model.rstrip("/").rpartition("/")[2]
    return next((name for pattern, name in _IN_NAME if pattern.search(last)), "")


def bits_of_config(quantized: Mapping[str, Any]) -> tuple[float, tuple[str, ...]]:
    """Bits a weight by a checkpoint's `quantization_config`, and the modules that it leaves in 16 bits."""
    if not quantized:
        return PLAIN_BITS, ()
    left_alone = quantized.get("modules_to_not_convert") or quantized.get("ignore") or quantized.get("exclude_modules")
    names = tuple(str(name) for name in left_alone or ())
    method = str(quantized.get("quant_method", "")).lower()
    bits = quantized.get("bits", quantized.get("w_bit"))
    if isinstance(bits, int | float):
        group = float(quantized.get("group_size") or GROUP)
        # -1: one scale for a whole column, which is next to nothing.
        return bits + (20 / group if 0 < bits < 8 and group > 0 else 0.0), names
    for told in (quantized.get("config_groups") or {}).values():
        weights = told.get("weights") or {}
        if weights.get("num_bits"):
            size = weights.get("group_size")
            # Small floats carry an 8-bit scale a group, integers one of 16 bits.
            scale = 8 if weights.get("type") == "float" else 16
            return float(weights["num_bits"]) + (scale / size if size and size > 0 else 0.0), names
    if "NVFP4" in str(quantized.get("quant_algo", "")).upper():
        return BITS["nvfp4"], names
    if method == "bitsandbytes":
        return (8.0 if quantized.get("load_in_8bit") else BITS["bitsandbytes"]), names
    return BITS.get(METHODS.get(method, ""), PLAIN_BITS), names
