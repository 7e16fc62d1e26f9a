"""Policies compared on scenarios: each replayed once, and how a cell of a table tells what came of it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from simulations.laboratory.candidates import candidates
from simulations.laboratory.scenario import Scenario
from simulations.laboratory.sweep import grid, sweep

Record = dict[str, Any]
"""Of `simulations.laboratory.sweep`."""


def digest(folders: Sequence[Path]) -> str:
    """Of what the files there are named and hold."""
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    known = hashlib.sha256()
    for path in files:
        if "__pycache__" not in path.parts:
            known.update(f"{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return known.hexdigest()[:16]


CODE: Final = digest([Path("policies"), Path("simulations")])
"""What the figures depend on beside a scenario: points of other code are not what the page's commit measures.

Taken as the program starts, as the code is that runs."""


def compared(scenarios: Sequence[Scenario], policies: Sequence[str], kept: Path, jobs: int) -> list[Record]:
    """Every scenario under every policy; what is done stays in the folder, so a run that was cut off goes on.

    It stays there by the code that did it: what other code found is replayed anew.
    """
    points = grid(scenarios, [candidates(policies, each) for each in scenarios], (0,))
    return sweep(
        scenarios,
        points,
        kept / CODE,
        jobs=jobs,
        progress=lambda name, share: print(f"{kept.name}: {share:.0%} ({name})", file=sys.stderr),
    )


def cheapest(records: Sequence[Record], attainment: float) -> Record | None:
    """Of those that attain it; None where none does."""
    kept = [each for each in records if each["slo_attainment"] >= attainment]
    return min(kept, key=lambda each: float(each["gpu_hours"]), default=None)


def as_cell(gpu_hours: float, attainment: float) -> str:
    """A fleet's cost and what it kept."""
    return f"{gpu_hours:.1f} @ {attainment:.2%}"
