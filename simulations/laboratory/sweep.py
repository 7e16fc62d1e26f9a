"""A grid of cold starts × policies × seeds, each point kept on disk as soon as it is known.

The folder holds one file, `points.jsonl`: a line a point, found again by the hash of all that decides it. So a sweep
that was cut off goes on where it was, a longer grid adds to a shorter one, and nothing is simulated twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cluster.files import ConfigError
from simulations.laboratory.candidates import Candidate
from simulations.laboratory.comparison import inputs_hash, judge
from simulations.laboratory.jobs import Jobs, done
from simulations.laboratory.result_files import figures_json
from simulations.laboratory.scenario import Scenario

FILE = "points.jsonl"


@dataclass(frozen=True, slots=True)
class Point:
    """One replay of the grid."""

    scenario: int
    """Its place among the scenarios, one a cold start."""
    candidate: Candidate
    seed: int
    key: str
    """The hash of all that decides it."""


def grid(
    scenarios: Sequence[Scenario], candidates: Sequence[Sequence[Candidate]], seeds: Sequence[int]
) -> tuple[Point, ...]:
    """Every candidate of every scenario under every seed."""
    return tuple(
        Point(place, candidate, seed, inputs_hash(scenario.seeded(seed), candidate))
        for place, (scenario, rivals) in enumerate(zip(scenarios, candidates, strict=True))
        for candidate in rivals
        for seed in seeds
    )


def sweep(
    scenarios: Sequence[Scenario],
    points: Sequence[Point],
    folder: Path,
    *,
    jobs: Jobs = 1,
    progress: Callable[[str, float], None] | None = None,
) -> list[dict[str, Any]]:
    """The record of each point, in the order of the points; a ConfigError where the folder takes no more."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = kept(folder)
    except OSError as error:
        raise ConfigError((f"--out {folder} cannot be used: {error.strerror or error}",)) from error
    missing = [point for point in points if point.key not in known]
    for number, record in done(_record, tuple(scenarios), missing, jobs):
        point = missing[number]
        known[point.key] = record
        try:
            _append(folder, record)
        except OSError as error:
            there = sum(each.key in known for each in points) - 1
            raise ConfigError(
                (
                    f"{folder / FILE} cannot be written ({error.strerror or error}): {there} of {len(points)} points "
                    "are kept there; make room, and the same command goes on from them",
                )
            ) from error
        if progress is not None:
            progress(point.candidate.name, sum(each.key in known for each in points) / len(points))
    return [known[point.key] for point in points]


def _record(scenarios: tuple[Scenario, ...], point: Point) -> dict[str, Any]:
    scenario = scenarios[point.scenario]
    figures = judge(scenario, (point.candidate, point.seed)).figures
    return {
        "key": point.key,
        "cold_start_s": scenario.cold_start_seconds,
        "policy": point.candidate.name,
        "seed": point.seed,
        **figures_json((figures,)),
        "decision_hash": figures.decision_hash,
    }


def kept(folder: Path) -> dict[str, dict[str, Any]]:
    """Records by key; a line that was cut off, at the end of a run that died, is taken out of the file."""
    path = folder / FILE
    if not path.exists():
        return {}
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        os.truncate(path, len(whole))
    try:
        records = [orjson.loads(line) for line in whole.splitlines() if line]
        return {record["key"]: record for record in records}
    except (KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise ConfigError((f"{path} is not what a sweep wrote ({error}): name another folder by --out",)) from error


def _append(folder: Path, record: dict[str, Any]) -> None:
    """All of the line or nothing of it."""
    line = orjson.dumps(record) + b"\n"
    file = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        before = os.fstat(file).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(file, line[written:])
            os.fsync(file)
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)
