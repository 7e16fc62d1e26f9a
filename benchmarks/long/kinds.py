"""How near our policy comes to what can be foreseen on kinds of traffic for which it was not designed.

`make bench-kinds` writes the table into `docs/benchmarks.md`: beside the foreseeable and the best HPA target of each,
both found by search, and the SLO-aware KEDA law. What is done is kept in `.bench/`, so a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from typing import Any, Final

from benchmarks.parts.kinds import KINDS, Kind
from benchmarks.parts.page import commit, written
from simulations.laboratory.candidates import candidates
from simulations.laboratory.sweep import grid, sweep

BEGIN: Final = "<!-- kinds: written by make bench-kinds -->"
END: Final = "<!-- end of kinds -->"
KEPT: Final = Path(".bench/kinds")

DRAW: Final = 1
TARGETS: Final = (4, 6, 8, 12, 16, 18, 22, 26)
"""Requests in flight a replica, of which the best is chosen afterwards."""
ATTAINMENT: Final = 0.99

Record = dict[str, Any]


def main() -> None:
    """Replay all, and write the table into the page."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--jobs", type=int, default=1)
    asked = arguments.parse_args()
    known = commit()
    lines = [
        "| traffic | foreseeable | Preheat | ÷ it | best HPA (target) | SLO-aware KEDA |",
        "|---|---|---|---|---|---|",
    ]
    ratios: list[float] = []
    cheaper: list[float] = []
    for kind in KINDS:
        mark, ours, law, *hpas = _replayed(kind, asked.jobs)
        best = min((each for each in hpas if _keeps(each)), key=lambda each: float(each["gpu_hours"]), default=None)
        ratio = ours["gpu_hours"] / mark["gpu_hours"]
        ratios.append(ratio)
        if best is not None:
            cheaper.append(ours["gpu_hours"] / best["gpu_hours"])
        by = f"{best['gpu_hours']:.1f} ({best['policy'].rpartition('=')[2]})" if best else "none keeps 99 %"
        lines.append(f"| {kind.what} | {mark['gpu_hours']:.1f} | {_cell(ours)} | {ratio:.2f} | {by} | {_cell(law)} |")
        print(lines[-1], file=sys.stderr)
    said = (
        f"{_mean(ratios):.2f} times the foreseeable and {_mean(cheaper):.2f} times the best HPA, in the geometric mean."
    )
    print(written(BEGIN, END, [*lines, "", said], known))


def _replayed(kind: Kind, jobs: int) -> list[Record]:
    scenario = kind.scenario(DRAW)
    policies = ("foreseeable", "preheat", "slo-keda", *(f"hpa:target={target}" for target in TARGETS))
    points = grid([scenario], [candidates(policies, scenario)], (0,))
    return sweep([scenario], points, KEPT / "-".join(kind.what.split()), jobs=jobs)


def _keeps(record: Record) -> bool:
    return bool(record["slo_attainment"] >= ATTAINMENT)


def _cell(record: Record) -> str:
    return f"{record['gpu_hours']:.1f} @ {record['slo_attainment']:.2%}"


def _mean(ratios: Sequence[float]) -> float:
    return exp(sum(map(log, ratios)) / len(ratios))


if __name__ == "__main__":
    main()
