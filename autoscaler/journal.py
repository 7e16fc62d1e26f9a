"""The journal: a JSON line a turn with everything that the decision was made from, in files of bounded size.

A thread of its own writes, so a slow disk never delays a decision; when it cannot keep up, lines are dropped
and counted. Only finite numbers are observed but for a bucket's upper edge, which may be infinite: it is
written as null, and read back.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson
from pydantic import TypeAdapter

from autoscaler.loop import Outcome, Turn
from policies.scaling.decision import Decision
from policies.scaling.observation import Observation

log = logging.getLogger(__name__)

FILE_BYTES: Final = 64 * 2**20
FILES: Final = 16
"""1 GiB in all: at 4 kB a turn, about two days of ten targets."""
LINES_IN_FLIGHT: Final = 10_000

_PATTERN: Final = "decisions-*.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """One turn of one target as it is written."""

    target: str
    """`namespace/name` of its VLLMAutoscaler."""
    time: float
    outcome: Outcome
    problem: str = ""
    observation: Observation | None = None
    decision: Decision | None = None

    @classmethod
    def of(cls, target: str, time: float, turn: Turn) -> Entry:
        return cls(target, time, turn.outcome, turn.problem, turn.observation, turn.decision)


def encoded(entry: Entry) -> bytes:
    """The entry as one line."""
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)


def decoded(line: bytes) -> Entry:
    """The entry that a line holds; ValueError if it holds none."""
    stated = orjson.loads(line)
    for edge_holder in _distributions(stated):
        if edge_holder.get("upper_edge_seconds", 0) is None:
            edge_holder["upper_edge_seconds"] = inf
    return _ENTRY.validate_python(stated)


_ENTRY: Final = TypeAdapter(Entry)


def _distributions(stated: Any) -> Iterator[dict[str, Any]]:
    observation = stated.get("observation") if isinstance(stated, dict) else None
    for pod in (observation or {}).get("pods", ()):
        for value in (pod.get("sample") or {}).values():
            if isinstance(value, dict):
                yield value


def newest_entry(folder: Path, target: str, at: float = inf) -> Entry | None:
    """The target's last entry at or before the time; a line torn by a crash is passed over."""
    for path in reversed(_files(folder)):
        # Turns end in no strict order, and clocks are set: the latest time counts, not the last line.
        newest: tuple[float, bytes] | None = None
        for line, stated in _lines(path, target):
            time = stated.get("time", inf)
            if time <= at and (newest is None or time >= newest[0]):
                newest = (time, line)
        if newest:
            return decoded(newest[1])
    return None


def targets(folder: Path) -> tuple[str, ...]:
    """Whose entries the folder holds."""
    return tuple(sorted({stated["target"] for path in _files(folder) for _, stated in _lines(path)}))


def _lines(path: Path, target: str | None = None) -> Iterator[tuple[bytes, dict[str, Any]]]:
    mark = b'{"target":' + (orjson.dumps(target) + b"," if target else b'"')
    with path.open("rb") as file:
        for line in file:
            if line.startswith(mark):  # it is the first field: most lines need no parsing
                try:
                    yield line, orjson.loads(line)
                except ValueError:
                    continue


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(_PATTERN))


class Journal:
    """Appends entries to the newest file of a folder until it is full, then begins the next."""

    def __init__(self, folder: Path, *, file_bytes: int = FILE_BYTES, files: int = FILES) -> None:
        """Open the folder, or raise OSError: a journal that cannot be written is told at start."""
        self.dropped = 0
        """Lines that were not written: the disk was full, gone, or too slow."""
        self._folder = folder
        self._file_bytes = file_bytes
        self._files = files
        folder.mkdir(parents=True, exist_ok=True)
        self._file = self._open_newest()
        self._failing = False
        self._lines: queue.Queue[Entry | None] = queue.Queue(LINES_IN_FLIGHT)
        self._writer = threading.Thread(target=self._write_all, name="journal", daemon=True)
        self._writer.start()

    def record(self, entry: Entry) -> None:
        """Have the entry written soon; never waits."""
        try:
            self._lines.put_nowait(entry)
        except queue.Full:
            self.dropped += 1

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Write what is on its way and let go of the file."""
        try:
            self._lines.put(None, timeout=timeout_seconds)
        except queue.Full:
            return
        self._writer.join(timeout_seconds)

    def _write_all(self) -> None:
        while (entry := self._lines.get()) is not None:
            try:
                self._write(encoded(entry))
                if self._lines.empty():
                    self._file.flush()
                self._failing = False
            except (OSError, TypeError) as error:
                self.dropped += 1
                if not self._failing:
                    log.error("the journal in %s cannot be written: %s", self._folder, error)
                self._failing = True
        self._file.close()

    def _write(self, line: bytes) -> None:
        if self._file.tell() > 0 and self._file.tell() + len(line) > self._file_bytes:
            following = self._following()
            self._file.close()
            self._file = following.open("ab")
            for path in _files(self._folder)[: -self._files]:
                path.unlink(missing_ok=True)
        self._file.write(line)

    def _open_newest(self) -> BinaryIO:
        existing = _files(self._folder)
        file = (existing[-1] if existing else self._following()).open("a+b")
        if file.tell() > 0:
            file.seek(-1, 2)
            if file.read(1) != b"\n":  # the last line was torn by a crash
                file.write(b"\n")
        return file

    def _following(self) -> Path:
        existing = _files(self._folder)
        newest = existing[-1].stem.rpartition("-")[2] if existing else "0"
        number = int(newest) + 1 if newest.isdecimal() else len(existing) + 1
        return self._folder / f"decisions-{number:08}.jsonl"
