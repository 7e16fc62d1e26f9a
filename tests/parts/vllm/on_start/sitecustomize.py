"""What each process of the tests' vLLM does first: to wait a moment where it would offer its processor to others.

While requests run, vLLM's engine and its worker wait for each other by calling `sched_yield` again and again. Linux
6.18 loses count of whose turn it is where two do that side by side (mended by commit 1319ea57529e, "sched/fair: Fix
zero_vruntime tracking"): on two processors clients, and the server's own HTTP process, then stood still for up to
65 seconds, most minutes of a run. The wait is a hundredth of what a step of the tiny model takes.

Python imports this by its name, from the folder that `tests.parts.vllm.server` puts on its path.
"""

from __future__ import annotations

import os
import time

WAIT_SECONDS = 30e-6


def sched_yield() -> None:
    time.sleep(WAIT_SECONDS)


os.sched_yield = sched_yield
