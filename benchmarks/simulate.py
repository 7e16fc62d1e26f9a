"""How fast the simulated fleet is: requests a second of one core, and memory.

The peers are the plain implementation that judges it in the tests, and Vidur (7d47513) by what its own runs recorded.
The trace is the shipped hour, stretched to 4 requests a second and repeated for 15 hours.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.parts.measuring import Row, resident_bytes, show, show_machine, size, timed, times, within
from policies.scaling.resource import Objectives, Prometheus, ScaleTargetRef, Spec
from simulations.model import kernel
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions
from simulations.model.engine import shipped_engine
from simulations.model.servers import Servers, picoseconds
from simulations.peers import peer
from simulations.replay import Policy, Preheat, Replay, S, Schedule, replay
from simulations.traces import shipped_trace
from simulations.traces.trace import Trace
from tests.simulations.reference import ReferenceFleet

ENGINE = shipped_engine("llama3-8b_a100_tp1")
OBJECTIVES = Objectives(ttft_seconds=3, tpot_seconds=0.1)
REPLICAS = 4
REPEATS = 11
MANY = 2_000_000
PLAIN_REQUESTS = 400
VIDUR_REQUESTS_PER_SECOND = (229.0, 1119.0)
"""The slowest and the fastest of seven runs on one core, its caches filled."""


def main() -> None:
    """Print one table; with an argument, what so many requests take in memory."""
    if len(sys.argv) > 1:
        remember(int(sys.argv[1]))
        return
    show_machine()
    trace = repeated(REPEATS)
    warm_up(trace)
    bare = per_second(trace, lambda: serve(trace))
    plain = plain_per_second(trace)
    rows = [
        Row("bare fleet", rate(bare), f"plain one {rate(plain)}", times(bare, plain)),
        *(
            Row("", "", f"Vidur, {which}, {rate(vidur)}", times(bare, vidur))
            for which, vidur in zip(("at its slowest", "at its fastest"), VIDUR_REQUESTS_PER_SECOND, strict=True)
        ),
        ruled(trace, "static:4, every 15 s", Schedule.static(REPLICAS), 300e3, bare),
        ruled(trace, "hpa, every 15 s", named("hpa"), 150e3, bare),
        ruled(trace, "preheat, every 15 s", Preheat.of(spec()), 40e3, bare),
        memory(),
    ]
    show(f"simulate: {trace.requests:,} requests, {REPLICAS} replicas of {ENGINE.name}; processor time", rows)


def repeated(repeats: int) -> Trace:
    hour = shipped_trace()
    stretched = hour.arrived_at_seconds * (hour.requests / 4 / hour.end_seconds)
    arrived = np.concatenate([stretched + n * stretched[-1] for n in range(repeats)])
    prompts, outputs = (np.tile(tokens, repeats) for tokens in (hour.prompt_tokens, hour.output_tokens))
    return Trace.of("repeated", arrived, prompts, outputs)


def serve(trace: Trace) -> Servers:
    servers = Servers(trace, ENGINE)
    for _ in range(REPLICAS):
        servers.start(0)
    servers.advance(picoseconds(trace.end_seconds + 3600))
    assert servers.is_idle()
    return servers


def per_second(trace: Trace, call: Callable[[], object]) -> float:
    return max(trace.requests / timed(call)[1].cpu_seconds for _ in range(3))


def plain_per_second(trace: Trace) -> float:
    few = trace.until(float(trace.arrived_at_seconds[PLAIN_REQUESTS]))
    arrived = (few.arrived_at_seconds * 1e6).round().astype(int) * 10**6
    told = list(zip(arrived.tolist(), few.prompt_tokens.tolist(), few.output_tokens.tolist(), strict=True))
    fleet = ReferenceFleet(ENGINE, told)
    for _ in range(REPLICAS):
        fleet.start(0)
    _, took = timed(lambda: fleet.advance(10**6 * kernel.SECOND))
    return few.requests / took.cpu_seconds


def ruled(trace: Trace, label: str, policy: Policy[S], least: float, bare: float) -> Row:
    speed = trace.requests / timed(lambda: rule(trace, policy))[1].cpu_seconds
    kept = within(f">= {rate(least)}", speed >= least)
    return Row(label, rate(speed), f"bare fleet {rate(bare)}", times(speed, bare), kept)


def rule(trace: Trace, policy: Policy[S]) -> Replay:
    return replay(
        trace,
        ENGINE,
        policy,
        objectives=OBJECTIVES,
        conditions=Conditions(Constant(120)),
        max_replicas=12,
        start_replicas=REPLICAS,
    )


def named(name: str) -> Policy[object]:
    return peer(name, objectives=OBJECTIVES, min_replicas=1, max_replicas=12, tick_seconds=15.0, engine=ENGINE)


def spec() -> Spec:
    return Spec(
        scale_target_ref=ScaleTargetRef(name="vllm"),
        max_replicas=12,
        objectives=OBJECTIVES,
        cold_start_seconds=120,
        prometheus=Prometheus(url="http://prometheus:9090"),
    )


def warm_up(trace: Trace) -> None:
    """Compiles, or reads what was compiled before."""
    short = trace.until(60)
    serve(short)
    ruled(short, "", Preheat.of(spec()), 1, 1)


def memory() -> Row:
    """Of a process of its own, which holds nothing else."""
    asked = [sys.executable, __file__, str(MANY)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    said = subprocess.run(asked, check=True, capture_output=True, text=True, env=environment, timeout=120).stdout
    highest, arrays = (int(number) for number in said.split())
    kept = within("<= 1 GB", highest <= 10**9)
    label = f"memory of a replay at its highest, {MANY:,} requests"
    return Row(label, size(highest), f"arrays of requests {size(arrays)}", times(highest, arrays), kept)


def remember(requests: int) -> None:
    trace = repeated(-(-requests // shipped_trace().requests))
    rule(trace, Schedule.static(REPLICAS))
    print(resident_bytes()[1], trace.requests * kernel.REQUEST * 8)


def rate(per_second: float) -> str:
    return f"{per_second:,.0f}/s"


if __name__ == "__main__":
    main()
