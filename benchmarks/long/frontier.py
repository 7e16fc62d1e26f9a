"""Every policy on days of traffic at three cold starts: GPU-hours against attainment, into `docs/benchmarks.md`.

Half an hour of replays, so `make bench` leaves it out: `make bench-replay TRACES=DIR` runs it. The traces are those of
`DAYS`, in the format that the replay reads. What is done is kept in `.bench/`, so a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from policies.scaling.resource import Objectives
from simulations import peers
from simulations.laboratory.candidates import candidates
from simulations.laboratory.scenario import Scenario
from simulations.laboratory.sweep import grid, sweep
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions
from simulations.model.engine import shipped_engine
from simulations.traces import TraceError, read

PAGE: Final = Path("docs/benchmarks.md")
BEGIN: Final = "<!-- frontier: written by make bench-replay -->"
END: Final = "<!-- end of frontier -->"
KEPT: Final = Path(".bench/frontier")

COLD_STARTS_SECONDS: Final = (60.0, 180.0, 420.0)
CLIP_PROMPT_TOKENS: Final = 12_000
POLICIES: Final = ("foreseeable", "preheat", *(name for name in peers.NAMES if name != "aibrix"))  # = aibrix-coded
IN_HINDSIGHT: Final = tuple(f"hpa:target={target}" for target in (12, 16, 18, 22, 24, 28))
"""The HPA on requests in flight, at targets of which the best is only known afterwards."""


@dataclass(frozen=True, slots=True)
class Days:
    """A trace by its file's name, and from when on it is scored: before that, policies learn."""

    file: str
    what: str
    score_from_seconds: float


DAYS: Final = (
    Days("servegen_m-mid_1d.csv.gz", "m-mid, 1 day: one client is half of the load", 21_600.0),
    Days("servegen_m-large_3d.csv.gz", "m-large, 3 days: level shifts", 86_400.0),
    Days("servegen_m-small_7d.csv.gz", "m-small, 7 days: a daily cycle", 86_400.0),
)


def main() -> None:
    """Replay all, and write the tables into the page."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("traces", type=Path, help="folder that holds " + ", ".join(day.file for day in DAYS))
    arguments.add_argument("--jobs", type=int, default=1)
    arguments.add_argument("--days", nargs="*", default=[day.file for day in DAYS], help="only these files")
    asked = arguments.parse_args()
    began = datetime.now(UTC)
    commit = _commit()
    tables = [_tables(day, asked.traces, asked.jobs) for day in DAYS if day.file in asked.days]
    text = "\n".join([f"Measured on {began:%Y-%m-%d} at commit {commit}.", "", *tables])
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    if not rest:
        sys.exit(f"{PAGE} lacks the line {BEGIN}: put it, and {END} after it, where the tables belong")
    PAGE.write_text(f"{head}{BEGIN}\n{text}{END}{rest.partition(END)[2]}", encoding="utf-8")
    print(text)


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


def _tables(day: Days, folder: Path, jobs: int) -> str:
    try:
        trace = read(folder / day.file).clipped(CLIP_PROMPT_TOKENS)
    except TraceError as error:
        sys.exit(str(error))
    scenarios = [
        Scenario(
            trace,
            shipped_engine("llama2-7b_a40_tp1"),
            Objectives(ttft_seconds=3, tpot_seconds=0.1, attainment=0.99),
            Conditions(cold_start=Constant(seconds)),
            max_replicas=24,
            start_replicas=3,
            score_from_seconds=day.score_from_seconds,
        )
        for seconds in COLD_STARTS_SECONDS
    ]
    points = grid(scenarios, [candidates((*POLICIES, *IN_HINDSIGHT), each) for each in scenarios], (0,))
    records = sweep(
        scenarios,
        points,
        KEPT / day.file.partition(".")[0],
        jobs=jobs,
        progress=lambda name, share: print(f"{day.file}: {share:.0%} ({name})", file=sys.stderr),
    )
    return "\n".join([f"**{day.what}**", "", *_rows(records), "", ""])


def _rows(records: Sequence[dict[str, Any]]) -> list[str]:
    """One line a policy: GPU-hours, in multiples of the foreseeable, @ attainment, at each cold start."""
    by_policy: dict[str, dict[float, dict[str, Any]]] = {}
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
