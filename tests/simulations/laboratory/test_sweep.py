"""A sweep keeps what is done: through a cut, a full disk, a longer grid."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from cluster.files import ConfigError
from simulations.laboratory.candidates import candidates
from simulations.laboratory.sweep import FILE, Point, grid, kept, sweep
from simulations.model.cold_start import Jittered
from tests.simulations.scenes import TRACE, scenario

SCENES = [scenario(TRACE.until(120), cold_start=Jittered(seconds, 5)) for seconds in (20.0, 40.0)]


def points(*policies: str, seeds: tuple[int, ...] = (1, 2)) -> tuple[Point, ...]:
    return grid(SCENES, [candidates(policies, scene) for scene in SCENES], seeds)


def test_every_point_of_the_grid_is_one_line_in_its_order(tmp_path: Path) -> None:
    records = sweep(SCENES, points("hpa", "static:2"), tmp_path)
    assert [(each["cold_start_s"], each["policy"], each["seed"]) for each in records] == [
        (seconds, policy, seed) for seconds in (20.0, 40.0) for policy in ("hpa", "static:2") for seed in (1, 2)
    ]
    assert len((tmp_path / FILE).read_text().splitlines()) == 8
    assert {"slo_attainment", "gpu_hours", "ttft_s", "decision_hash"} <= set(records[0])


def test_what_is_there_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sweep(SCENES, points("static:2"), tmp_path)
    seen: list[str] = []
    longer = sweep(SCENES, points("static:2", "static:3"), tmp_path, progress=lambda name, share: seen.append(name))
    assert seen == ["static:3"] * 4
    assert [each for each in longer if each["policy"] == "static:2"] == first
    monkeypatch.setattr("simulations.laboratory.sweep.judge", None)
    assert sweep(SCENES, points("static:2", "static:3"), tmp_path) == longer


def test_a_line_that_was_cut_off_is_taken_out_and_done_again(tmp_path: Path) -> None:
    first = sweep(SCENES, points("static:2"), tmp_path)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-20])
    assert len(kept(tmp_path)) == 3
    again = sweep(SCENES, points("static:2"), tmp_path)
    untimed = [{key: value for key, value in each.items() if key not in ("wall_s", "requests_per_s")} for each in first]
    assert [{key: each[key] for key in untimed[0]} for each in again] == untimed
    assert len(path.read_text().splitlines()) == 4


def test_a_full_disk_keeps_what_is_done_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes two lines and a half."""
    write = os.write
    lines = 0

    def nearly_full(file: int, data: Any) -> int:
        nonlocal lines
        lines += 1
        if lines == 3:
            return write(file, data[: len(data) // 2])
        if lines > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    monkeypatch.setattr("simulations.laboratory.sweep.os.write", nearly_full)
    with pytest.raises(ConfigError) as told:
        sweep(SCENES, points("static:2"), tmp_path)
    assert told.value.problems == (
        f"{tmp_path / FILE} cannot be written (No space left on device): 2 of 4 points are kept there; "
        "make room, and the same command goes on from them",
    )
    monkeypatch.undo()
    assert len((tmp_path / FILE).read_text().splitlines()) == 2
    assert len(sweep(SCENES, points("static:2"), tmp_path)) == 4


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"what": "else"}\n')
    with pytest.raises(ConfigError, match="is not what a sweep wrote"):
        sweep(SCENES, points("static:2"), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out .*file cannot be used"):
        sweep(SCENES, points("static:2"), tmp_path / "file")


def test_processes_find_the_same(tmp_path: Path) -> None:
    here = sweep(SCENES, points("static:2", "hpa", seeds=(1,)), tmp_path / "here")
    there = sweep(SCENES, points("static:2", "hpa", seeds=(1,)), tmp_path / "there", jobs=2)
    assert [each["decision_hash"] for each in here] == [each["decision_hash"] for each in there]
    assert [each["slo_attainment"] for each in here] == [each["slo_attainment"] for each in there]
