"""How near our policy comes to what can be foreseen on kinds of traffic for which it was not designed.

`make bench-kinds` writes the table into `docs/benchmarks.md`: beside the foreseeable and the best HPA target of each,
both found by search, and the SLO-aware KEDA law. What is done is kept in `.bench/`, so a run that was cut off goes on
with the same code.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import geometric_mean
from typing import Final

from benchmarks.parts.compared import Record, as_cell, cheapest, compared
from benchmarks.parts.kinds import ATTAINMENT, KINDS
from benchmarks.parts.page import commit, written

BEGIN: Final = "<!-- kinds: written by make bench-kinds -->"
END: Final = "<!-- end of kinds -->"
KEPT: Final = Path(".bench/kinds")

DRAW: Final = 1
TARGETS: Final = (4, 6, 8, 12, 16, 18, 22, 26)
"""Requests in flight a replica, of which the best is chosen afterwards."""
POLICIES: Final = ("foreseeable", "preheat", "slo-keda", *(f"hpa:target={target}" for target in TARGETS))


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
        kept = KEPT / kind.what.replace(" ", "-").replace("/", "-")
        mark, ours, law, *hpas = compared([kind.scenario(DRAW)], POLICIES, kept, asked.jobs)
        best = cheapest(hpas, ATTAINMENT)
        ratio = ours["gpu_hours"] / mark["gpu_hours"]
        ratios.append(ratio)
        if best is not None:
            cheaper.append(ours["gpu_hours"] / best["gpu_hours"])
        by = f"{best['gpu_hours']:.1f} ({best['policy'].rpartition('=')[2]})" if best else "none keeps 99 %"
        lines.append(f"| {kind.what} | {mark['gpu_hours']:.1f} | {_cell(ours)} | {ratio:.2f} | {by} | {_cell(law)} |")
        print(lines[-1], file=sys.stderr)
    said = (
        f"{geometric_mean(ratios):.2f} times the foreseeable and {geometric_mean(cheaper):.2f} times the best HPA, "
        "in the geometric mean."
    )
    print(written(BEGIN, END, [*lines, "", said], known))


def _cell(record: Record) -> str:
    return as_cell(record["gpu_hours"], record["slo_attainment"])


if __name__ == "__main__":
    main()
