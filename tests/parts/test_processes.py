"""Programs of the tests end with the tests, whatever those come to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.processes import Process, free_ports, wait_until

# Two programs of one group: the second is what a killed parent would leave behind.
PARENT_AND_CHILD = ["sh", "-c", "sleep 300 & echo $!; wait"]


def is_alive(pid: int) -> bool:
    """Neither gone nor, where that can be told, waiting to be collected."""
    state = Path(f"/proc/{pid}/stat")
    try:
        os.kill(pid, 0)
        return state.read_text().rpartition(")")[2].split()[0] != "Z" if state.exists() else True
    except (ProcessLookupError, FileNotFoundError):
        return False


def started(tmp_path: Path) -> tuple[Process, int]:
    process = Process("sleeper", PARENT_AND_CHILD, tmp_path / "log")
    child = wait_until(lambda: process.said().strip(), within=10, what="the child's number")
    return process, int(child)


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    process, child = started(tmp_path)
    assert is_alive(child)
    process.stop()
    wait_until(lambda: not is_alive(child), within=10, what="the child's end")


def test_a_program_that_dies_early_is_told_with_its_last_words(tmp_path: Path) -> None:
    process = Process("failing", ["sh", "-c", "echo no such flag; exit 3"], tmp_path / "log")
    with pytest.raises(RuntimeError, match=r"failing ended with status 3:\nno such flag"):
        process.wait_ready(lambda: False, within=10)
    process.stop()


def test_a_killed_test_run_leaves_no_program_behind(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from tests.parts.processes import Process
Process("sleeper", {PARENT_AND_CHILD!r}, Path({str(tmp_path / "log")!r}))
print("started", flush=True)
input()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"started\n"  # and told to whoever ends it
        log = tmp_path / "log"
        wait_until(lambda: log.exists() and log.read_text().strip(), within=20, what="the child's number")
        child = int(log.read_text())
        assert is_alive(child)
        os.kill(run.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(child), within=20, what="the child's end")


def test_waiting_tells_what_for_and_what_came_last() -> None:
    with pytest.raises(AssertionError, match=r"not within 0 s: the moon \(last: cheese\)"):
        wait_until(lambda: _raise("cheese"), within=0, what="the moon")


def _raise(text: str) -> bool:
    raise AssertionError(text)


def test_ports_are_free_and_differ() -> None:
    assert len(set(free_ports(5))) == 5
