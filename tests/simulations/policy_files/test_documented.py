"""docs/policy_files.md says what is read: every function, label and name that the code knows stands in it."""

from __future__ import annotations

import re

from cluster.vllm_metrics import MISTAKEN
from simulations.policy_files.promql import AGGREGATIONS, FUNCTIONS
from simulations.policy_files.scrapes import GAUGES, HISTOGRAMS, SOURCES, VLLM_LABELS
from tests.checkout import ROOT

PAGE = (ROOT / "docs" / "policy_files.md").read_text()
WORDS = set(re.findall(r"[\w:]+", PAGE))


def test_every_function_label_and_name_is_documented() -> None:
    counters = {name for name, source in SOURCES.items() if not source.part}
    spelt = {name for name in (*counters, *GAUGES, *HISTOGRAMS) if not name.startswith("vllm_")}
    for known in (AGGREGATIONS, FUNCTIONS, VLLM_LABELS, MISTAKEN, spelt):
        assert set(known) - WORDS == set()


def test_no_series_is_documented_that_is_not_shown() -> None:
    for name in sorted(word for word in WORDS if word.startswith("vllm:") and len(word) > 5):
        stem = re.sub(r"_(bucket|sum|count)$", "", name)
        assert name in SOURCES or stem in HISTOGRAMS, name
