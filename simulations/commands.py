"""What `preheat replay` does once its trace is at hand: progress, table and files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cluster.files import ConfigError
from simulations.candidates import NAMES, candidates
from simulations.comparison import Progress as Report
from simulations.comparison import compare
from simulations.jobs import jobs
from simulations.outcome import Comparison
from simulations.policy_files.adapter import read_metrics
from simulations.report.page import Told, page
from simulations.result_files import json_of, write_decisions
from simulations.result_table import remarks, table
from simulations.settings import Settings
from simulations.traces.trace import Trace

PLAIN_WIDTH = 160
"""Of a table that goes to a file or a pipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """What `preheat replay` was asked, but for the trace."""

    settings: Settings
    policies: tuple[str, ...]
    metrics: Path | None = None
    gpu_hour_price: float | None = None
    json: Path | None = None
    html: Path | None = None
    decisions: Path | None = None
    jobs: str = "1"
    command: str = ""


def replay_command(asked: ReplayRequest, trace: Trace) -> Comparison:
    """Replays, prints the table, writes the files; a ConfigError says what the user must mend."""
    at = jobs(asked.jobs)
    price = asked.gpu_hour_price
    if price is not None and not 0 <= price < float("inf"):
        raise ConfigError((f"--gpu-hour-price is {price:g}: give a price of at least 0",))
    if not asked.policies:
        raise ConfigError((f"there is no policy to replay: give --policy NAME or FILE, of {', '.join(NAMES)}",))
    scenario = asked.settings.scenario(trace)
    seeds = asked.settings.seeds
    metrics = None if asked.metrics is None else read_metrics(asked.metrics)
    rivals = candidates(asked.policies, scenario, metrics=metrics)
    for path in (asked.json, asked.html):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError((f"{path} cannot be written: there is no folder {path.absolute().parent}",))
    with under_way() as report:
        found = compare(
            scenario,
            rivals,
            seeds=seeds,
            jobs=at,
            gpu_hour_price=price,
            command=asked.command,
            progress=report,
        )
    console = console_out()
    console.print(table(found))
    for line in remarks(found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    _write(asked, found)
    return found


def _write(asked: ReplayRequest, found: Comparison) -> None:
    path: Path | None = None
    try:
        if path := asked.json:
            path.write_bytes(json_of(found))
        if path := asked.decisions:
            write_decisions(found, path)
        if path := asked.html:
            path.write_text(_page(found), encoding="utf-8")
    except OSError as error:
        raise ConfigError((f"{path} cannot be written: {error.strerror or error}",)) from error


def _page(found: Comparison) -> str:
    """The report; Preheat's own forecasts are drawn where it is among the policies."""
    ours_first = sorted(found.outcomes, key=lambda each: each.name != "preheat")
    told = [Told(each.name, each.replay, " ".join(each.notes)) for each in ours_first]
    lead = [f"{found.scenario.trace.requests:,} requests of {found.scenario.trace.name}.", *remarks(found)]
    notes = [f"Preheat {found.version}", *([found.command] if found.command else [])]
    return page(f"{found.scenario.trace.name} replayed", lead, told, found.scenario.objectives, notes)


def console_out() -> Console:
    """Where tables go; wide where nobody's window bounds them."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


@contextmanager
def under_way() -> Iterator[Report]:
    """A progress bar on the terminal's other stream, gone when all is done."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("compiling (first run only)", total=1.0)
        yield lambda name, share: bar.update(task, description=name, completed=share)
