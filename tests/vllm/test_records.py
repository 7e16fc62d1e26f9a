"""The records in tests/data say what the real vLLM says."""

from __future__ import annotations

import asyncio
import difflib
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.parts.vllm.client import Ledger, run
from tests.parts.vllm.install import Installation
from tests.parts.vllm.record import LOAD, METRIC_NAMES, OPTIONS, metric_names, options, written
from tests.parts.vllm.server import metrics_page
from tests.vllm.conftest import Pair

pytestmark = pytest.mark.vllm

REMEDY = "to record it anew: .venv/bin/python -m tests.parts.vllm.record"


def difference(record: Path, real: str) -> str:
    """The lines that differ; empty if none does."""
    name = str(record.relative_to(ROOT))
    lines = difflib.unified_diff(record.read_text().splitlines(), real.splitlines(), name, "the real vLLM", "", "", 0)
    return "\n".join(lines)


def test_the_recorded_options_are_those_of_the_real_argument_parser(installation: Installation) -> None:
    found = difference(OPTIONS, written(options(installation)))
    assert not found, f"{REMEDY}\n{found}"


def test_the_recorded_metric_names_are_those_of_the_real_server(pair: Pair) -> None:
    asyncio.run(run(LOAD, [pair.first.url], Ledger()))
    found = difference(METRIC_NAMES, written(metric_names(pair.first, pair.idle_page, metrics_page(pair.first))))
    assert not found, f"{REMEDY}\n{found}"
