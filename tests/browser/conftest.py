"""A browser for the tests of this folder, where the machine has one; else they take their other branch, and say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from preheat import main
from simulations.report.comparison_page import comparison_page
from tests.browser.chromium import Browser, find
from tests.simulations.report.compared import compared, page, statics


def pytest_report_header() -> str:
    found = find()
    return f"browser: {found or 'none on this machine; pages are taken apart by an HTML parser instead'}"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser | None]:
    """None where there is none."""
    program = find()
    if program is None:
        yield None
        return
    running = Browser(program, tmp_path_factory.mktemp("browser"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every chapter, and names that an enemy would give."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def small_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a second cold start."""
    path = tmp_path_factory.mktemp("report") / "small.html"
    path.write_text(comparison_page(compared(), statics()), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def demo_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    result = CliRunner().invoke(main, ["demo", "--out", str(folder)])
    assert result.exit_code == 0, result.output
    return folder / "report.html"
