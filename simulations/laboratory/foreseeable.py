"""What could be foreseen of a trace: the replicas of one who knows the mean load to come, but no single arrival.

Arriving work in replica-seconds a second, averaged over a centred window; as many replicas as the highest mean
of the coming cold start asks for at one constant use ρ of each. The ρ at which the attainment is just reached
is found by search, GPU-hours interpolated between the last two tried: a mark to compare with, not a proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.laboratory.scenario import Scenario
from simulations.model.engine import Engine
from simulations.replay import Replay, Schedule
from simulations.traces.trace import Trace

WINDOW_SECONDS = 600.0
BATCH = 48
"""Sequences among which the fixed cost of a step is shared, in the work of a request."""
AHEAD_SECONDS = 30.0
"""Beyond the cold start: a replica is there when the load it is for begins."""


def request_work_seconds(trace: Trace, engine: Engine) -> NDArray[np.float64]:
    """Replica-seconds that each request costs: d·prompt + b·out + c·out·(prompt + out/2) + a·out/48."""
    s = engine.step_ms
    prompt = trace.prompt_tokens.astype(np.float64)
    out = trace.output_tokens.astype(np.float64)
    # The roofline's share of a token, at the budget where it is compute that binds.
    d, a = s.d + s.k, s.a + s.w
    return np.asarray((d * prompt + s.b * out + s.c * out * (prompt + out / 2) + a * out / BATCH) / 1000)


def mean_work(
    trace: Trace, engine: Engine, *, step_seconds: float, end_seconds: float, window_seconds: float = WINDOW_SECONDS
) -> NDArray[np.float64]:
    """At each step, the mean arriving work over the window around it, the trace's ends cutting the window."""
    arrived = np.concatenate(([0.0], np.cumsum(request_work_seconds(trace, engine))))
    times = np.arange(0.0, end_seconds + step_seconds, step_seconds)
    start = np.maximum(times - window_seconds / 2, 0.0)
    end = np.minimum(times + window_seconds / 2, end_seconds)
    before = np.searchsorted(trace.arrived_at_seconds, start, side="left")
    until = np.searchsorted(trace.arrived_at_seconds, end, side="left")
    # A window holds its start and not its end, but for the last: a trace ends at the very instant of a request.
    until[end == end_seconds] = np.searchsorted(trace.arrived_at_seconds, end_seconds, side="right")
    return np.asarray((arrived[until] - arrived[before]) / np.maximum(end - start, step_seconds))


def ordered_ahead(serving: NDArray[np.int64], steps: int, least: int) -> NDArray[np.int64]:
    """Replicas to have created, so that at each step so many serve: the most needed within the coming steps."""
    padded = np.concatenate((serving, np.full(steps, least)))
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, steps + 1).max(axis=1))


def schedule(scenario: Scenario, use: float) -> Schedule:
    """Replicas a tick: the most that the mean work asks for from now until a cold start and a little later."""
    step = scenario.tick_seconds
    mean = mean_work(scenario.trace, scenario.engine, step_seconds=step, end_seconds=scenario.trace.end_seconds)
    least = scenario.min_replicas
    serving = np.clip(np.ceil(np.round(mean / use, 9)), least, scenario.max_replicas).astype(np.int64)
    ahead = math.ceil((scenario.cold_start_seconds + AHEAD_SECONDS) / step)
    return Schedule(f"foreseeable:{use:g}", step, tuple(ordered_ahead(serving, ahead, least).tolist()))


@dataclass(frozen=True, slots=True)
class Foreseeable:
    """GPU-hours at the attainment, interpolated, and the two replays between which it lies."""

    gpu_hours: float
    use: float
    """ρ of the leaner replay that still reached it."""
    reached: Replay
    missed: Replay | None
    """None where even the leanest tried reached it."""
    replays: int
    """How many it took to find it."""


def foreseeable(
    scenario: Scenario,
    *,
    tolerance: float = 0.005,
    tried: Callable[[float, Replay], None] | None = None,
) -> Foreseeable | None:
    """Searches the highest ρ that reaches the attainment; None where none does."""
    attainment = scenario.objectives.attainment
    replays = 0

    def at(use: float) -> Replay:
        nonlocal replays
        replays += 1
        plan = schedule(scenario, use)
        start = scenario.start_replicas
        result = scenario.replayed(
            plan,
            min_replicas=scenario.min_replicas,
            max_replicas=scenario.max_replicas,
            start_replicas=plan.replicas[0] if start is None else start,
        )
        if tried is not None:
            tried(use, result)
        return result

    low, high = 0.05, 1.5
    best, worst = at(low), at(high)
    if best.attainment < attainment:
        return None
    if worst.attainment >= attainment:
        return Foreseeable(worst.gpu_hours, high, worst, None, replays)
    while high - low > tolerance:
        middle = (low + high) / 2
        result = at(middle)
        if result.attainment >= attainment:
            low, best = middle, result
        else:
            high, worst = middle, result
    share = (best.attainment - attainment) / (best.attainment - worst.attainment)
    hours = best.gpu_hours + share * (worst.gpu_hours - best.gpu_hours)
    return Foreseeable(hours, low, best, worst, replays)
