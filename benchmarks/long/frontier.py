"""Every policy on days of traffic at three cold starts: GPU-hours against attainment, into `docs/benchmarks.md`.

Half an hour of replays, so `make bench` leaves it out: `make bench-replay TRACES=DIR` runs it. The traces are the
recorded ones of `benchmarks/parts/days.py`. What is done is kept in `.bench/`, so a run that was cut off goes on
with the same code.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.parts.compared import Record, compared
from benchmarks.parts.days import RECORDED, Days
from benchmarks.parts.page import commit, written
from simulations import peers
from simulations.traces import TraceError

BEGIN: Final = "<!-- frontier: written by make bench-replay -->"
END: Final = "<!-- end of frontier -->"
KEPT: Final = Path(".bench/frontier")

COLD_STARTS_SECONDS: Final = (60.0, 180.0, 420.0)
POLICIES: Final = ("foreseeable", "preheat", *(name for name in peers.NAMES if name != "aibrix"))  # = aibrix-coded
IN_HINDSIGHT: Final = tuple(f"hpa:target={target}" for target in (12, 16, 18, 22, 24, 28))
"""The HPA on requests in flight, at targets of which the best is only known afterwards."""


def main() -> None:
    """Replay all, and write the tables into the page."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("traces", type=Path, help="folder that holds " + ", ".join(days.file for days in RECORDED))
    arguments.add_argument("--jobs", type=int, default=1)
    arguments.add_argument("--days", nargs="*", default=[days.name for days in RECORDED], help="only these")
    asked = arguments.parse_args()
    known = commit()
    tables = [line for days in RECORDED if days.name in asked.days for line in _tables(days, asked.traces, asked.jobs)]
    print(written(BEGIN, END, tables, known))


def _tables(days: Days, folder: Path, jobs: int) -> list[str]:
    try:
        trace = days.trace(folder)
    except TraceError as error:
        sys.exit(str(error))
    scenarios = [days.scenario(trace, seconds) for seconds in COLD_STARTS_SECONDS]
    records = compared(scenarios, (*POLICIES, *IN_HINDSIGHT), KEPT / days.name, jobs)
    return [f"**{days.what}**", "", *_rows(records), ""]


def _rows(records: Sequence[Record]) -> list[str]:
    """One line a policy: GPU-hours, in multiples of the foreseeable, @ attainment, at each cold start."""
    by_policy: dict[str, dict[float, Record]] = {}
    for record in records:
        by_policy.setdefault(record["policy"], {})[record["cold_start_s"]] = record
    seconds = COLD_STARTS_SECONDS
    lines = [
        "| policy | " + " | ".join(f"cold start {each:.0f} s" for each in seconds) + " |",
        "|---" * (len(seconds) + 1) + "|",
    ]
    marks = by_policy["foreseeable"]
    for name, found in by_policy.items():
        cells = []
        for each in seconds:
            share, hours = found[each]["slo_attainment"], found[each]["gpu_hours"]
            cell = f"{hours:.1f} ({hours / marks[each]['gpu_hours']:.2f} ×) @ {share:.2%}"
            cells.append(f"**{cell}**" if share >= 0.99 else cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
