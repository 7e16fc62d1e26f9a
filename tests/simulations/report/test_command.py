"""`preheat replay --html` as a user runs it, and its other cold start."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from preheat import main
from tests.simulations.report.structure import Structure

ENGINE = ("--engine", "llama2-7b_a40_tp1", "--slo-ttft", "3", "--slo-tpot", "0.1")


def replay(trace: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["replay", str(trace), *ENGINE, "--max", "3", "--policy", "preheat", *more])


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    rows = [f"{second},900,120" for second in range(240)]
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(["arrived_at,num_prefill_tokens,num_decode_tokens", *rows]))
    return path


def test_the_report_sets_two_cold_starts_side_by_side(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    result = replay(trace, "--cold-start", "60", "--compare-cold-start", "20", "--html", str(out))
    assert result.exit_code == 0, result.output
    told = Structure(out.read_text("utf-8"))
    assert told.problems == []
    assert "A cold start of 60 s, cut to 20 s" in told.headings


def test_a_single_request_at_time_zero_makes_a_report(tmp_path: Path) -> None:
    path, out = tmp_path / "one.csv", tmp_path / "report.html"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0,100,1\n")
    result = replay(path, "--html", str(out))
    assert result.exit_code == 0, result.output
    assert Structure(out.read_text("utf-8")).problems == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--compare-cold-start", "20"),
            "--compare-cold-start 20 is for a chapter of the report: give --html OUT, too",
        ),
        (
            ("--compare-cold-start", "60", "--cold-start", "60", "--html", "{out}"),
            "--compare-cold-start 60 is that of --cold-start: give another one, or leave it out",
        ),
        (
            ("--compare-cold-start", "60", "--cold-start-jitter", "{measured}", "--html", "{out}"),
            "--compare-cold-start 60 is not read beside measured cold starts: give another one, or leave it out",
        ),
        (("--compare-cold-start", "-1", "--html", "{out}"), "the cold start is -1: give seconds, at least 0"),
    ],
)
def test_another_cold_start_that_cannot_be_is_refused_in_a_sentence(
    trace: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    measured = tmp_path / "measured.txt"
    measured.write_text("80\n95\n")
    paths = {"out": tmp_path / "report.html", "measured": measured}
    result = replay(trace, *(option.format(**paths) for option in options))
    assert result.exit_code == 2
    assert result.output == f"{said}\n"
    assert not paths["out"].exists()
