"""The checkout as the tests of its own shape read it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("autoscaler", "scheduler_extender", "cluster", "policies", "simulations")

_NOT_OURS = {"__pycache__", "demo", "dist", "journal", "build", "node_modules"}
_HIDDEN_BUT_OURS = {".ci", ".editorconfig", ".gitignore", ".pre-commit-config.yaml", ".github"}


def files(*suffixes: str) -> Iterator[Path]:
    """Every file of the project, found by walking: an unpacked archive is judged as a clone is."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if _is_ours(name)]
        for name in names:
            path = Path(folder, name)
            if _is_ours(name) and (not suffixes or path.suffix in suffixes):
                yield path


def _is_ours(name: str) -> bool:
    return name in _HIDDEN_BUT_OURS or not (name.startswith(".") or name in _NOT_OURS or name.endswith(".pyc"))


def make_targets() -> dict[str, str]:
    """The Makefile's public targets with their line of help."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    helped = (line.partition("##") for line in lines if "##" in line and not line.startswith(("\t", "#")))
    return {rule.partition(":")[0]: sentence.strip() for rule, _, sentence in helped}
