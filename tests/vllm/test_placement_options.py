"""Placement reads a command line as the real vLLM's own parser does."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from policies.placement.vllm_options import SWITCHES, Options, human_int, parse
from tests.checkout import ROOT
from tests.parts.vllm.install import Installation

pytestmark = pytest.mark.vllm

PROGRAM = ROOT / "tests" / "parts" / "vllm" / "parse_words.py"

LINES = """
M -tp 4
--model M --tensor_parallel_size=4
M --tensor-par 4 --pipeline-parallel-size=2
--port 8000 M --max-model-len 32k
M --max-model-len=32K
M --max-model-len=25.6k --enforce-eager
M --max-model-len 1.5K
M --max-model-len auto
M -O3 -tp=2
M -O 2 -n 2 --no-enforce-eager
M -q fp8 --enforce-eager --no-enforce-eager
M --kv-cache-memory-bytes 2G --kv-cache-dtype fp8_e4m3
M --served-model-name a b -pp 2
M -dp 8 -dpl 4 -ep
M --gpu-memory-util 0.5
M --device-memory-utilization 0.7 --cpu-offload-gb 4
M --enable-lora --max-loras 4 --max_lora_rank 64
--disable-log-stats M --dtype float16
M -dcp 2 -pcp 2 --decode-context-parallel-size 4
M --trust-remote-code --tensor-parallel-size 2 -tp 8
""".strip().splitlines()


def as_vllm_would(field: str, text: str) -> object:
    if f"--{field.replace('_', '-')}" in SWITCHES:
        return text == "true"
    if field == "max_model_len" and text == "auto":
        return -1
    number = human_int(text)
    if number is not None:
        return number
    try:
        return float(text)
    except ValueError:
        return text


def model_of(options: Options) -> str:
    return options.values.get("model") or options.positional


def test_every_line_says_to_us_what_it_says_to_vllm(installation: Installation) -> None:
    lines = [line.split() for line in LINES]
    ran = subprocess.run(
        [installation.python, "-I", PROGRAM],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"},
    )
    answers: list[dict[str, Any] | None] = json.loads(ran.stdout)
    for words, answer in zip(lines, answers, strict=True):
        options = parse(words)
        if answer is None:
            assert any(as_vllm_would(field, text) == text for field, text in options.values.items()), words
            continue
        assert options.unknown == [], words
        assert model_of(options) == (answer["model_tag"] or answer["model"]), words
        told = {field: as_vllm_would(field, text) for field, text in options.values.items() if field != "model"}
        assert told == {field: answer[field] for field in told}, words
