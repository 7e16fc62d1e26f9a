"""The examples as tests walk through them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.checkout import ROOT

FOLDER = ROOT / "manifests" / "examples"
KUBELETS = FOLDER / "kubelet.yaml"
"""A file of the node's: no API server takes it."""
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path != KUBELETS)


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def engines() -> Iterator[tuple[Path, str, Any]]:
    """Every pod template that serves with vLLM: its file, its workload's name and it; of a group the leader's."""
    for path in FILES:
        for document in documents(path):
            spec = document.get("spec", {})
            template = spec.get("leaderWorkerTemplate", {}).get("leaderTemplate") or spec.get("template")
            if template and template.get("metadata", {}).get("labels", {}).get("app.kubernetes.io/component") == "vllm":
                yield path, document["metadata"]["name"], template
