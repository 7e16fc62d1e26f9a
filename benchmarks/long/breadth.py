"""One configuration under other engines, objectives, ticks and sizes: ours beside the foreseeable of each.

Nothing is set but what the user states. `make bench-breadth TRACES=DIR` writes the table into `docs/benchmarks.md`;
what is done is kept in `.bench/`, so a run that was cut off goes on with the same code.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from benchmarks.parts.compared import Record, as_cell, compared
from benchmarks.parts.days import HOURS, OTHERWISE, REASONING, RECORDED, USUAL, Days, Served
from benchmarks.parts.page import commit, written
from simulations.model.cold_start import Constant, Sampled, WarmAndColdNodes
from simulations.traces import TraceError

BEGIN: Final = "<!-- breadth: written by make bench-breadth -->"
END: Final = "<!-- end of breadth -->"
KEPT: Final = Path(".bench/breadth")

COLD_START_SECONDS: Final = 180.0
MID, LARGE, _ = RECORDED
CONVERSATIONS, _ = HOURS
ALL: Final = (MID, LARGE, REASONING)
UNEVEN_STARTS: Final = Sampled((60, 90, 120, 150, 180, 180, 200, 240, 300, 600))
WARM_AND_COLD: Final = WarmAndColdNodes(Constant(60), Constant(300), warm_nodes=4, kept_seconds=900)
"""Four nodes have the weights from the first; each that a replica left is kept for a quarter of an hour."""

WAYS: Final[tuple[tuple[str, Served, tuple[Days, ...]], ...]] = (
    ("as everywhere: Llama-2-7B on an A40, 99 %, tick 15 s, at most 24", USUAL, (*ALL, CONVERSATIONS)),
    ("as everywhere, the days turned round or put together", USUAL, OTHERWISE),
    ("Llama-3-8B on an A100", Served(engine="llama3-8b_a100_tp1"), (*ALL, CONVERSATIONS)),
    ("Llama-2-70B on four H100", Served(engine="llama2-70b_h100_tp4"), (*ALL, CONVERSATIONS)),
    ("objective 99.9 %", Served(attainment=0.999), ALL),
    ("objective 95 %", Served(attainment=0.95), ALL),
    ("tick 5 s", Served(tick_seconds=5), ALL),
    ("tick 30 s", Served(tick_seconds=30), ALL),
    ("a third of the traffic, at most 8", Served(traffic=1 / 3), ALL),
    ("starts of 60 to 600 s, 212 in the mean", Served(cold_start=UNEVEN_STARTS), ALL),
    ("starts of 60 s on nodes that have the weights, of 300 s on new ones", Served(cold_start=WARM_AND_COLD), ALL),
    ("each replica lost once in five hours, without notice", Served(spot_losses_per_hour=0.2), ALL),
    ("21 times the traffic, at most 500", Served(traffic=500 / 24), (CONVERSATIONS,)),
)


def main() -> None:
    """Replay all, and write the table into the page."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("traces", type=Path, help="folder of the recorded traces")
    arguments.add_argument("--jobs", type=int, default=1)
    asked = arguments.parse_args()
    known = commit()
    lines = ["| served | trace | foreseeable | Preheat @ attainment | ÷ it |", "|---|---|---|---|---|"]
    for what, served, traces in WAYS:
        for days in traces:
            try:
                mark, ours = _replayed(days, served, asked.traces, asked.jobs)
            except TraceError as error:
                sys.exit(str(error))
            lines.append(f"| {what} | {days.name} | {_cells(mark, ours, served)} |")
            print(lines[-1], file=sys.stderr)
    print(written(BEGIN, END, lines, known))


def _replayed(days: Days, served: Served, folder: Path, jobs: int) -> list[Record]:
    scenario = days.scenario(days.trace(folder), COLD_START_SECONDS, served)
    return compared([scenario], ("foreseeable", "preheat"), KEPT / days.name, jobs)


def _cells(mark: Record, ours: Record, served: Served) -> str:
    kept = as_cell(ours["gpu_hours"], ours["slo_attainment"])
    if mark["slo_attainment"] < served.attainment:
        return f"none reaches it | {kept} | "
    return f"{mark['gpu_hours']:.1f} | {kept} | {ours['gpu_hours'] / mark['gpu_hours']:.2f}"


if __name__ == "__main__":
    main()
