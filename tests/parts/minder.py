"""Outlives the tests by a moment: ends the programs they started, however they themselves ended.

A test run that is killed cannot tidy up, and an orphaned API server would keep its port and memory for ever.
This program holds the reading end of a pipe; process groups are named to it as they start ("+123") and as they
end ("-123"); when the writing end closes, whatever is left is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable


def mind(lines: Iterable[str]) -> None:
    groups: set[int] = set()
    for line in lines:
        group = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    mind(sys.stdin)
