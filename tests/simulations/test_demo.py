"""The demo as a user runs it: one command, a table, and a page that opens offline."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from preheat import main


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, str]:
    out = tmp_path_factory.mktemp("demo") / "deep" / "er"
    result = CliRunner().invoke(main, ["demo", "--out", str(out)])
    return result, (out / "report.html").read_text("utf-8")


def test_the_demo_ends_well_and_shows_three_policies_side_by_side(shown: tuple[Result, str]) -> None:
    result, _ = shown
    assert result.exit_code == 0, result.output
    rows = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in result.output.splitlines() if "│" in line}
    assert list(rows) == ["Preheat", "KEDA rule", "HPA rule"]
    attained = {name: float(cells[0].strip().rstrip("%")) for name, cells in rows.items()}
    assert attained["Preheat"] >= 99 > max(attained["KEDA rule"], attained["HPA rule"])
    hours = {name: float(cells[4]) for name, cells in rows.items()}
    assert hours["Preheat"] < min(hours["KEDA rule"], hours["HPA rule"])
    assert "The hour was bent" in " ".join(result.output.split())


def test_the_report_fetches_nothing(shown: tuple[Result, str]) -> None:
    _, page = shown
    assert not re.search(r"https?:|//\w+\.\w+/|@import|url\((?!#)", page)
    assert set(re.findall(r'(?:src|href)="([^"]*)"', page)) == {"data:,"}


def test_the_report_holds_every_tick_and_the_sentence_of_each_decision(shown: tuple[Result, str]) -> None:
    _, page = shown
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    charts = {chart["at"]: chart for chart in orjson.loads(found[1])}
    labels = ["Preheat", "KEDA rule", "HPA rule"]
    for number, label in enumerate(labels):
        chart = charts[f"replicas-{number}"]
        assert chart["title"] == label
        sentences = chart["said"]["sentences"]
        assert all(sentences)
        for series in chart["series"]:
            assert series["x"] == [15.0 * tick for tick in range(len(sentences))]
            assert len(series["y"]) == len(sentences)
        assert page.count(f"{label}: ") >= 1
    foreseen, arriving, load = charts["load-chart"]["series"]
    assert len(foreseen["y"]) > 100
    # Each tick but the first six tells of a minute and a half before it.
    assert len(load["y"]) == len(charts["replicas-0"]["said"]["sentences"]) - 6
    assert "in requests of the mix of lengths then present" in page
    assert round(sum(arriving["y"]) * 30) == pytest.approx(19_366, abs=2)
    assert [series["name"] for series in charts["ttft-chart"]["series"]] == labels
    assert "prefers-color-scheme: dark" in page


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "cannot be written: File exists" in result.output
    assert "Traceback" not in result.output


def test_a_missing_extra_is_told_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    result = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "demo")])
    assert result.exit_code == 2
    assert result.output == "the demo needs 'rich', which is not installed: pip install 'preheat[sim]'\n"
