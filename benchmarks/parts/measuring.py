"""How the benchmarks measure and how they print: processor time beside wall time, and a table with the peer.

Processor time is what the process itself used, all threads together; on a machine that others use too it is the
steadier of the two. Times are printed to be compared with the bound or the peer of the same run, never with
another machine's.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from statistics import median
from time import perf_counter_ns, process_time_ns
from typing import Any, Final, TypeVar

import numpy as np

T = TypeVar("T")

HEADINGS: Final = ("what", "measured", "bound or peer", "ratio", "target")


@dataclass(frozen=True, slots=True)
class Took:
    """One run of something."""

    cpu_seconds: float
    wall_seconds: float


def timed(call: Callable[[], T]) -> tuple[T, Took]:
    """What the call answers, and what it took."""
    cpu, wall = process_time_ns(), perf_counter_ns()
    value = call()
    return value, Took((process_time_ns() - cpu) / 1e9, (perf_counter_ns() - wall) / 1e9)


async def timed_async(awaitable: Awaitable[T]) -> tuple[T, Took]:
    """The same of something that is awaited; whatever else the loop does meanwhile counts too."""
    cpu, wall = process_time_ns(), perf_counter_ns()
    value = await awaitable
    return value, Took((process_time_ns() - cpu) / 1e9, (perf_counter_ns() - wall) / 1e9)


def median_cpu(runs: Sequence[Took]) -> float:
    return median(run.cpu_seconds for run in runs)


def median_wall(runs: Sequence[Took]) -> float:
    return median(run.wall_seconds for run in runs)


def high(values: Sequence[float], share: float = 0.99) -> float:
    """The value that `share` of them do not exceed."""
    return float(np.quantile(values, share, method="higher"))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; what is "" was not asked for."""

    what: str
    measured: str
    peer: str = ""
    ratio: str = ""
    target: str = ""


def within(target: str, kept: bool) -> str:
    """The stated target, and whether this run kept it."""
    return f"{target}: {'kept' if kept else 'MISSED'}"


def show(title: str, rows: Sequence[Row]) -> None:
    """Print the table."""
    lines = [HEADINGS, *((row.what, row.measured, row.peer, row.ratio, row.target) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    print(title)
    for line in lines:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    print()


def show_machine() -> None:
    """What the figures below were measured on, and how busy it was."""
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, {sys.platform} {platform.machine()}, "
        f"{os.cpu_count()} processors, load average {load}"
    )


def seconds(value: float) -> str:
    """In the unit that reads best."""
    if value >= 1.0:
        return f"{value:.2f} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def times(value: float, against: float) -> str:
    ratio = value / against
    return f"{ratio:.0f} ×" if ratio >= 10 else f"{ratio:.2g} ×"


def size(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"


def resident_bytes() -> tuple[int, int]:
    """Memory of this process: now, and at its highest."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, peak = (int(status[field].split()[0]) * 1024 for field in ("VmRSS", "VmHWM"))
    return now, peak


def held_bytes(thing: object) -> int:
    """What a value holds in memory with all that it refers to, each part once; enums and classes are nobody's."""
    seen: set[int] = set()

    def of(part: Any) -> int:
        if part is None or isinstance(part, (bool, Enum, type)) or id(part) in seen:
            return 0
        seen.add(id(part))
        if isinstance(part, np.ndarray):
            return sys.getsizeof(part) + (part.nbytes if part.base is not None else 0)
        return sys.getsizeof(part) + sum(of(inner) for inner in _inside(part))

    return of(thing)


def _inside(part: Any) -> Iterator[Any]:
    if is_dataclass(part):
        yield from (getattr(part, field.name) for field in fields(part))
    elif isinstance(part, Mapping):
        yield from part.keys()
        yield from part.values()
    elif isinstance(part, (list, tuple, Set)):
        yield from part
