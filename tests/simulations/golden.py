"""What each policy decided on a short trace, recorded; `python -m tests.simulations.golden` records it anew.

A changed hash is a changed decision: record it only where the change is wanted, and say so in the commit.
"""

from __future__ import annotations

import json
import sys

from simulations.laboratory.candidates import candidates
from simulations.laboratory.comparison import compare
from simulations.laboratory.scenario import Scenario
from simulations.model.cold_start import Jittered
from simulations.peers import NAMES
from tests.checkout import ROOT
from tests.simulations.scenes import scenario

FILE = ROOT / "tests" / "data" / "golden" / "decisions.json"
POLICIES = ("preheat", "static:4", "oracle", "foreseeable", *NAMES)


def scene() -> Scenario:
    return scenario(cold_start=Jittered(60, 15))


def decided() -> dict[str, dict[str, object]]:
    """Of each policy: the hash of its decisions, and what came of them, to see at a glance what changed."""
    scene_ = scene()
    found = compare(scene_, candidates(POLICIES, scene_), seeds=(1,))
    return {
        each.name: {
            "decision_hash": each.figures[0].decision_hash,
            "slo_attainment": round(each.figures[0].slo_attainment, 6),
            "gpu_hours": round(each.figures[0].gpu_hours, 6),
        }
        for each in found.outcomes
    }


def recorded() -> dict[str, dict[str, object]]:
    kept: dict[str, dict[str, object]] = json.loads(FILE.read_text())
    return kept


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(decided(), indent=1) + "\n")
    sys.stdout.write(f"{FILE}\n")
