"""Tables that a program writes into `docs/benchmarks.md`, between two lines of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

PAGE: Final = Path("docs/benchmarks.md")


def commit() -> str:
    """The one that is measured."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def written(begin: str, end: str, lines: Sequence[str], measured: str) -> str:
    """The text that now stands in the page between the two lines."""
    text = "\n".join([f"Measured on {datetime.now(UTC):%Y-%m-%d} at commit {measured}.", "", *lines, ""])
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(begin)
    if not rest:
        sys.exit(f"{PAGE} lacks the line {begin}: put it, and {end} after it, where the tables belong")
    PAGE.write_text(f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")
    return text
