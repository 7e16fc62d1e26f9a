"""How near our policy comes to what can be foreseen, and to everybody's best setting in hindsight, on every trace.

The *foreseeable* knows the ten-minute mean load to come and no single arrival; its one number is found by search for
each trace and cold start, as is the target of the HPA, KEDA and KPA, which nobody knows beforehand. `make bench-policy
TRACES=DIR` writes the table into `docs/benchmarks.md`; what is done is kept in `.bench/`, so a run that was cut off
goes on with the same code.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Final

from benchmarks.parts.compared import Record, as_cell, cheapest, compared
from benchmarks.parts.days import HOURS, REASONING, RECORDED, Days
from benchmarks.parts.page import commit, written
from simulations.traces import TraceError

BEGIN: Final = "<!-- policy: written by make bench-policy -->"
END: Final = "<!-- end of policy -->"
KEPT: Final = Path(".bench/policy")

COLD_STARTS_SECONDS: Final = (60.0, 180.0, 420.0)
TARGETS: Final = (5, 6, 7, 8, 12, 16, 18, 22, 24, 28)
"""Requests in flight a replica, of which the best is chosen afterwards."""
IN_HINDSIGHT: Final = (
    *(f"hpa:target={target}" for target in TARGETS),
    *(f"keda:metric=in-flight,threshold={target}" for target in TARGETS[3:]),
    *(f"kpa:utilization=1,scale_down_delay=300,target={target}" for target in TARGETS[3:]),
)
"""KEDA's sum over the pods is shared out by another rule than the HPA's mean, and KPA's is that of a minute; with its
default of shrinking at once no target of KPA keeps the objective."""
ATTAINMENT: Final = 0.99
MOST_OF_FORESEEABLE: Final = {60.0: 1.25, 180.0: 1.15, 420.0: 1.25}
"""Asked for, in the geometric mean over the traces."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of one trace at one cold start, in GPU-hours; None where the attainment is not reached by any."""

    days: Days
    cold_start_seconds: float
    hours: float
    attainment: float
    foreseeable: float | None
    hindsight: float | None
    by: str
    """Whose setting that is."""
    slo_aware: float

    @property
    def ours(self) -> str:
        return as_cell(self.hours, self.attainment)

    @property
    def ratio(self) -> float | None:
        return self.hours / self.foreseeable if self.foreseeable else None


def main() -> None:
    """Replay all, and write the table into the page."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("traces", type=Path, help="folder of the recorded traces")
    arguments.add_argument("--jobs", type=int, default=1)
    arguments.add_argument("--cold-starts", type=float, nargs="*", default=COLD_STARTS_SECONDS)
    asked = arguments.parse_args()
    known = commit()
    cells = []
    for days in (*RECORDED, REASONING, *HOURS):
        try:
            cells += _cells(days, asked.traces, asked.cold_starts, asked.jobs)
        except TraceError as error:
            sys.exit(str(error))
    print(written(BEGIN, END, [*_table(cells), "", *_verdicts(cells, asked.cold_starts)], known))


def _cells(days: Days, folder: Path, cold_starts: Sequence[float], jobs: int) -> list[Cell]:
    trace = days.trace(folder)
    scenarios = [days.scenario(trace, seconds) for seconds in cold_starts]
    records = compared(scenarios, ("foreseeable", "preheat", "slo-keda", *IN_HINDSIGHT), KEPT / days.name, jobs)
    return [
        _cell(days, seconds, [each for each in records if each["cold_start_s"] == seconds]) for seconds in cold_starts
    ]


def _cell(days: Days, seconds: float, records: Sequence[Record]) -> Cell:
    by_policy = {record["policy"]: record for record in records}
    best = cheapest([by_policy[name] for name in IN_HINDSIGHT], ATTAINMENT)
    mark, ours = by_policy["foreseeable"], by_policy["preheat"]
    return Cell(
        days,
        seconds,
        ours["gpu_hours"],
        ours["slo_attainment"],
        mark["gpu_hours"] if mark["slo_attainment"] >= ATTAINMENT else None,
        best["gpu_hours"] if best else None,
        f"{best['policy'].partition(':')[0]} {best['policy'].rpartition('=')[2]}" if best else "",
        by_policy["slo-keda"]["gpu_hours"],
    )


def _table(cells: Sequence[Cell]) -> list[str]:
    lines = [
        "| trace | cold start | foreseeable | Preheat @ attainment | ÷ it | best in hindsight (target) | ours ÷ it |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        mark = "none reaches it" if cell.foreseeable is None else f"{cell.foreseeable:.1f}"
        best = "none reaches it" if cell.hindsight is None else f"{cell.hindsight:.1f} ({cell.by})"
        against = "" if cell.hindsight is None else f"{cell.hours / cell.hindsight:.2f}"
        ratio = "" if cell.ratio is None else f"{cell.ratio:.2f}"
        where = f"{cell.days.what} | {cell.cold_start_seconds:.0f} s"
        lines.append(f"| {where} | {mark} | {cell.ours} | {ratio} | {best} | {against} |")
    return lines


def _verdicts(cells: Sequence[Cell], cold_starts: Sequence[float]) -> list[str]:
    """What was asked for, and whether it is so; ratios over those traces where ours keeps the attainment."""
    reached = [cell for cell in cells if cell.foreseeable is not None]
    # Who keeps too little is no cheaper for it.
    paid = [cell for cell in reached if cell.attainment >= ATTAINMENT]
    lines = []
    for seconds in cold_starts:
        there = [cell for cell in paid if cell.cold_start_seconds == seconds]
        most = MOST_OF_FORESEEABLE[seconds]
        found = _geometric(there, lambda cell: cell.ratio)
        lines.append(
            f"- {seconds:.0f} s: {found:.2f} × the foreseeable in the geometric mean (≤ {most}: {_kept(found <= most)})"
        )
    worst = max(paid, key=lambda cell: cell.ratio or 0.0)
    least = min(reached, key=lambda cell: cell.attainment)
    hindsight = _geometric(paid, lambda cell: cell.hours / cell.hindsight if cell.hindsight else None)
    slo_aware = _geometric(paid, lambda cell: cell.hours / cell.slo_aware)
    return [
        *lines,
        f"- dearest: {worst.ratio:.2f} × on {worst.days.name} at {worst.cold_start_seconds:.0f} s (≤ 1.25 at 180 s)",
        f"- least attainment: {least.attainment:.2%} on {least.days.name} at {least.cold_start_seconds:.0f} s "
        f"(≥ 99 %: {_kept(least.attainment >= ATTAINMENT)})",
        f"- against the best HPA, KEDA or KPA in hindsight: {hindsight:.2f} × (≤ 0.95: {_kept(hindsight <= 0.95)})",
        f"- against the SLO-aware KEDA law: {slo_aware:.2f} × (≤ 0.65: {_kept(slo_aware <= 0.65)})",
    ]


def _geometric(cells: Sequence[Cell], of: Callable[[Cell], float | None]) -> float:
    return geometric_mean([value for cell in cells if (value := of(cell)) is not None])


def _kept(is_so: bool) -> str:
    return "kept" if is_so else "MISSED"


if __name__ == "__main__":
    main()
