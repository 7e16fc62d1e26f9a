"""The tutorial is run as it stands on its page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.test_docs import blocks

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

INSTALLATION = "make install\n"


def test_the_tutorial_goes_from_one_replica_to_three_and_back_to_one(tmp_path: Path) -> None:
    """In a folder of its own, which looks like the checkout as far as the page needs it."""
    for name in ("manifests", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    script = [body for body in blocks(ROOT / "docs" / "tutorial.md", "sh") if body != INSTALLATION]
    assert len(script) == 6
    # Whatever fails, the page's last block ends what runs in the background; and no pipe waits for that.
    text = "\n".join(["set -e", "end() {", script[-1], "}", "trap end EXIT", *script[:-1]])
    printed, log = tmp_path / "printed", tmp_path / "play" / "autoscaler.log"
    with printed.open("wb") as out:
        status = subprocess.run(
            ["bash", "-c", text], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=800
        ).returncode
    said = printed.read_text()
    assert status == 0, said + (log.read_text()[-3000:] if log.exists() else "")

    told = [json.loads(line)["message"] for line in log.read_text().splitlines()]
    assert told[-1] == "stopped"
    (journal,) = (tmp_path / "play" / "journal").glob("*.jsonl")
    turns = [json.loads(line) for line in journal.read_text().splitlines()]
    written = [turn["decision"] for turn in turns if turn["outcome"] == "rescaled"]
    assert (written[0]["desired"], max(each["replicas"] for each in written), written[-1]["replicas"]) == (1, 3, 1)
    for each in (written[0], written[-1]):
        assert each["sentence"] in said, "among the events"
    assert "tiny     1     1/1/1      3     Active" in said
