"""Programs that tests start: each in a process group of its own, its words in a file, none left behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

MINDER = Path(__file__).with_name("minder.py")


def wait_until(
    condition: Callable[[], T | None], *, within: float, what: str | Callable[[], str], every: float = 0.05
) -> T:
    """Ask until the answer is true and return it; a bound in seconds, and what was waited for if it passes.

    An AssertionError of the condition counts as "not yet", and its text is told at the end.
    """
    ends = time.monotonic() + within
    while True:
        try:
            answer = condition()
            if answer:
                return answer
            last = repr(answer)
        except AssertionError as error:
            last = str(error)
        if time.monotonic() > ends:
            missed = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {within:g} s: {missed} (last: {last})")
        time.sleep(every)


_given: set[int] = set()
_giving = threading.Lock()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nobody listens, below those that the system gives to outgoing connections.

    None is given twice: whoever asked first may not listen yet.
    """
    chance = random.Random()
    found: list[int] = []
    with _giving:
        while len(found) < count:
            port = chance.randrange(20_000, 32_000)
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                if port not in _given:
                    _given.add(port)
                    found.append(port)
    return found


class _Minder:
    """The pipe to the program that ends what we leave behind."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self._one_at_a_time = threading.Lock()

    def tell(self, word: str) -> None:
        with self._one_at_a_time:
            if self.process is None:
                self.process = subprocess.Popen(
                    [sys.executable, str(MINDER)], stdin=subprocess.PIPE, text=True, start_new_session=True
                )
                atexit.register(self.close)
            assert self.process.stdin is not None
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate(timeout=30)


_minder = _Minder()


class Process:
    """A running program."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,  # a group of its own: what it starts ends with it
            )
        _minder.tell(f"+{self.pid}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def end_of_log(self, lines: int = 20) -> str:
        return "\n".join(self.said().splitlines()[-lines:])

    def wait_ready(self, is_ready: Callable[[], bool], *, within: float) -> None:
        """Until it is; a program that died meanwhile is told at once, with its last words."""

        def ready_or_dead() -> bool:
            return self.status is not None or is_ready()

        wait_until(ready_or_dead, within=within, what=lambda: f"{self.name} ready; it said:\n{self.end_of_log()}")
        if self.status is not None:
            raise RuntimeError(f"{self.name} ended with status {self.status}:\n{self.end_of_log()}")

    def signal(self, number: signal.Signals) -> None:
        """To the whole group; one that is gone already is fine."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, *, within: float) -> int:
        """Its exit status."""
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {within:g} s:\n{self.end_of_log()}") from None

    def stop(self, *, within: float = 10) -> int:
        """Ask it to end, then make it end."""
        if self.status is None:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(within)
        self.signal(signal.SIGKILL)
        status = self._process.wait()
        _minder.tell(f"-{self.pid}")
        return status

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.stop()
