"""What `preheat replay`, `size` and `sweep` do once their trace is at hand: progress, tables and files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from cluster.files import ConfigError
from simulations.laboratory.candidates import NAMES, candidates
from simulations.laboratory.comparison import Progress as Report
from simulations.laboratory.comparison import compare
from simulations.laboratory.jobs import jobs
from simulations.laboratory.outcome import Comparison
from simulations.laboratory.result_files import json_of, write_decisions
from simulations.laboratory.result_table import remarks, size_lines, size_table, sweep_table, table
from simulations.laboratory.scenario import Scenario
from simulations.laboratory.settings import Settings
from simulations.laboratory.size import Sizing, size
from simulations.laboratory.static_line import static_line
from simulations.laboratory.sweep import grid, sweep
from simulations.policy_files.adapter import read_metrics
from simulations.progress_bar import progress_bar
from simulations.report.comparison_page import comparison_page
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
    compare_cold_start: float | None = None
    """Another one, for the report's chapter that sets the two side by side."""
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
    _some(asked.policies)
    scenario = asked.settings.scenario(trace)
    seeds = asked.settings.seeds
    metrics = None if asked.metrics is None else read_metrics(asked.metrics)
    compared = [scenario, *_other_cold_start(asked, scenario, trace)]
    starts_at = asked.settings.wall_start
    rivals = [candidates(asked.policies, each, metrics=metrics, starts_at=starts_at) for each in compared]
    _writable(asked.json, asked.html)
    with under_way() as report:
        found, *others = (
            compare(
                each,
                policies,
                seeds=seeds,
                jobs=at,
                gpu_hour_price=price,
                command=asked.command,
                progress=report,
            )
            for each, policies in zip(compared, rivals, strict=True)
        )
        statics = () if asked.html is None else static_line(scenario, progress=report)
    console = console_out()
    console.print(table(found))
    for line in remarks(found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if asked.html is not None:
        with _written(asked.html):
            asked.html.write_text(comparison_page(found, statics, *others), encoding="utf-8")
    _write(asked, found)
    return found


def _other_cold_start(asked: ReplayRequest, scenario: Scenario, trace: Trace) -> list[Scenario]:
    """The same with the cold start of `--compare-cold-start`, where there is one."""
    seconds = asked.compare_cold_start
    if seconds is None:
        return []
    if asked.html is None:
        raise ConfigError((f"--compare-cold-start {seconds:g} is for a chapter of the report: give --html OUT, too",))
    other = replace(asked.settings, cold_start=seconds).scenario(trace)
    if other.conditions == scenario.conditions:
        why = "that of --cold-start" if seconds == asked.settings.cold_start else "not read beside measured cold starts"
        raise ConfigError((f"--compare-cold-start {seconds:g} is {why}: give another one, or leave it out",))
    return [other]


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeRequest:
    """What `preheat size` was asked, but for the trace."""

    settings: Settings
    json: Path | None = None


def size_command(asked: SizeRequest, trace: Trace) -> Sizing:
    """Searches, prints both answers, writes the file."""
    scenario = asked.settings.scenario(trace)
    _writable(asked.json)
    with under_way() as report:
        found = size(scenario, progress=report)
    console = console_out()
    for line in size_lines(scenario, found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(size_table(found))
    if asked.json is not None:
        with _written(asked.json):
            asked.json.write_bytes(orjson.dumps(asdict(found), option=orjson.OPT_INDENT_2))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """What `preheat sweep` was asked, but for the trace; the settings' cold start is not read."""

    settings: Settings
    cold_starts: str
    policies: tuple[str, ...]
    out: Path
    metrics: Path | None = None
    jobs: str = "1"


def sweep_command(asked: SweepRequest, trace: Trace) -> list[dict[str, Any]]:
    """Replays what the folder lacks, and prints a table of the whole grid."""
    at = jobs(asked.jobs)
    _some(asked.policies)
    metrics = None if asked.metrics is None else read_metrics(asked.metrics)
    seconds = _cold_starts(asked.cold_starts)
    scenarios = [replace(asked.settings, cold_start=each).scenario(trace) for each in seconds]
    starts_at = asked.settings.wall_start
    rivals = [candidates(asked.policies, each, metrics=metrics, starts_at=starts_at) for each in scenarios]
    points = grid(scenarios, rivals, asked.settings.seeds)
    with under_way() as report:
        records = sweep(scenarios, points, asked.out, jobs=at, progress=report)
    console_out().print(sweep_table(records, scenarios[0].objectives.attainment))
    return records


def _cold_starts(text: str) -> tuple[float, ...]:
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise ConfigError((f"--cold-starts is '{text}': give seconds, as in 60,180,420",)) from None


def _some(policies: tuple[str, ...]) -> None:
    if not policies:
        raise ConfigError((f"there is no policy to replay: give --policy NAME or FILE, of {', '.join(NAMES)}",))


def _writable(*paths: Path | None) -> None:
    """Said before the simulation, not after it."""
    for path in paths:
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError((f"{path} cannot be written: there is no folder {path.absolute().parent}",))


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError((f"{path} cannot be written: {error.strerror or error}",)) from error


def _write(asked: ReplayRequest, found: Comparison) -> None:
    if asked.json is not None:
        with _written(asked.json):
            asked.json.write_bytes(json_of(found))
    if asked.decisions is not None:
        with _written(asked.decisions):
            write_decisions(found, asked.decisions)


def console_out() -> Console:
    """Where tables go; wide where nobody's window bounds them."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


@contextmanager
def under_way() -> Iterator[Report]:
    """A progress bar on the terminal's other stream, gone when all is done."""
    with progress_bar(Console(stderr=True)) as bar:
        task = bar.add_task("compiling (first run only)", total=1.0)
        yield lambda name, share: bar.update(task, description=name, completed=share)
