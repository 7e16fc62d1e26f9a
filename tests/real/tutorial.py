"""Runs docs/tutorial.md: every command of the page, in its order, in one shell."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.checkout import ROOT
from tests.parts.kubernetes_api import Json
from tests.test_docs import blocks

INSTALLATION = "make install\n"
LONGEST_SECONDS = 1000


@dataclass(frozen=True)
class Played:
    """What came of it."""

    status: int
    said: str
    log: str
    """The autoscaler's."""
    turns: list[Json]


def played(folder: Path) -> Played:
    """In a folder that looks like the checkout as far as the page needs it."""
    for name in ("manifests", "tests"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    script = [body for body in blocks(ROOT / "docs" / "tutorial.md", "sh") if body != INSTALLATION]
    # Whatever fails, the page's last block ends what runs in the background; and no pipe waits for that.
    text = "\n".join(["set -e", "end() {", script[-1], "}", "trap end EXIT", *script[:-1]])
    printed, play = folder / "printed", folder / "play"
    with printed.open("wb") as out:
        status = subprocess.run(
            ["timeout", "--kill-after=60", str(LONGEST_SECONDS), "bash", "-c", text],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            check=False,
        ).returncode
    log = play / "autoscaler.log"
    lines = [line for path in sorted(play.glob("journal/*.jsonl")) for line in path.read_text().splitlines()]
    return Played(status, printed.read_text(), log.read_text() if log.exists() else "", [*map(json.loads, lines)])
