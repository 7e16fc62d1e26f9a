"""How long the command line takes to say what it can do: a user asks it often, and every start begins with it.

The bound is Python alone, which imports nothing but itself.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

from benchmarks.parts.measuring import Row, seconds, show, show_machine, times, within

RUNS: Final = 15
PREHEAT: Final = str(Path(sys.executable).with_name("preheat"))


def main() -> None:
    """Print one table; the runs of the commands alternate, so that what disturbs one disturbs all."""
    show_machine()
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "preheat --help": [PREHEAT, "--help"],
        "preheat autoscaler --help": [PREHEAT, "autoscaler", "--help"],
    }
    runs: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            runs[name].append(took(command))
    bare, *ours = ((name, median(each)) for name, each in runs.items())
    show(
        f"the command line: median wall time of {RUNS} runs",
        [
            Row(
                name,
                seconds(wall),
                f"{bare[0]} {seconds(bare[1])}",
                times(wall, bare[1]),
                within("<= 0.3 s", wall <= 0.3),
            )
            for name, wall in ours
        ],
    )


def took(command: Sequence[str]) -> float:
    begun = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - begun


if __name__ == "__main__":
    main()
