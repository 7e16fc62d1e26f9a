"""A long step that somebody waits for: what it is, how long it has run, and how it ended if it failed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

SECONDS_AT_MOST = 40 * 60
"""Kubernetes from empty caches took 465 s on two quiet cores and 1,340 s on two busy ones."""


class ProgressError(Exception):
    """A step failed; the message is for the person who waits for it."""


def run_with_progress(what: str, command: Sequence[str], *, where: Path, env: Mapping[str, str] | None = None) -> None:
    """Run it; say every so often how long it has run and what it does; on failure show how it ended."""
    last: deque[str] = deque(maxlen=25)

    def read(pipe: Iterable[str]) -> None:
        last.extend(line.rstrip() for line in pipe)

    with subprocess.Popen(
        command,
        cwd=where,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=read, args=(process.stdout,), daemon=True)
        reader.start()
        started = time.monotonic()
        try:
            with Progress(what) as progress:
                while process.poll() is None:
                    if time.monotonic() - started > SECONDS_AT_MOST:
                        raise ProgressError(f"{what} did not end within {SECONDS_AT_MOST / 60:.0f} minutes")
                    progress.show(last[-1] if last else "starting")
                    reader.join(0.5)
        finally:
            process.kill()
        reader.join()
    if process.returncode:
        raise ProgressError(f"{what} failed with status {process.returncode}:\n  " + "\n  ".join(last))


class Progress:
    """One line that moves on a terminal; elsewhere a new line every quarter of a minute."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.started = time.monotonic()
        self.moving = sys.stderr.isatty()
        self.shown_at = self.started

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.moving:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def show(self, detail: str) -> None:
        now = time.monotonic()
        line = f"{self.what}: {now - self.started:.0f} s, {detail}"
        if self.moving:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\033[K{line[:width]}")
            sys.stderr.flush()
        elif now - self.shown_at >= 15:
            self.shown_at = now
            say(line)


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
