"""Several policies over the same traffic, each under every seed, side by side."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from cluster.files import ConfigError
from simulations.laboratory.candidates import Candidate
from simulations.laboratory.foreseeable import foreseeable, mean_work
from simulations.laboratory.jobs import Jobs, done
from simulations.laboratory.lower_bound import lower_bound
from simulations.laboratory.oracle import oracle
from simulations.laboratory.outcome import Comparison, Figures, Outcome
from simulations.laboratory.scenario import Scenario
from simulations.model.conditions import ConditionsError
from simulations.model.fleet import FleetError, SimulatedFleet
from simulations.replay import Replay, Schedule

Progress = Callable[[str, float], None]
"""Is told what is under way and the share of all that is done."""

MINUTE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Judged:
    """One policy under one seed."""

    figures: Figures
    replay: Replay
    notes: tuple[str, ...] = ()


def compare(
    scenario: Scenario,
    candidates: Sequence[Candidate],
    *,
    seeds: Sequence[int] = (0,),
    jobs: Jobs = 1,
    gpu_hour_price: float | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Comparison:
    """Replays every candidate under every seed."""
    tasks = [(candidate, seed) for candidate in candidates for seed in seeds]
    judged: dict[int, Judged] = {}
    if jobs == 1:
        for number, (candidate, seed) in enumerate(tasks):
            judged[number] = judge(scenario, (candidate, seed), _part(progress, candidate.name, number, len(tasks)))
    else:
        for number, result in done(judge, scenario, tasks, jobs):
            judged[number] = result
            if progress is not None:
                progress(tasks[number][0].name, len(judged) / len(tasks))
    outcomes = []
    for place, candidate in enumerate(candidates):
        runs = [judged[place * len(seeds) + number] for number in range(len(seeds))]
        outcomes.append(
            Outcome(
                name=candidate.name,
                label=candidate.label,
                notes=(*candidate.notes, *runs[0].notes),
                min_replicas=candidate.min_replicas,
                max_replicas=candidate.max_replicas,
                figures=tuple(run.figures for run in runs),
                replay=runs[0].replay,
                inputs_hash=inputs_hash(scenario.seeded(seeds[0]), candidate),
            )
        )
    # Files and static:N have bounds of their own, which may lie below --min.
    fewest = min([scenario.min_replicas, *(each.min_replicas for each in candidates)])
    return Comparison(
        scenario,
        tuple(seeds),
        tuple(outcomes),
        lower_bound(replace(scenario, min_replicas=fewest)),
        gpu_hour_price,
        version("preheat"),
        command,
        scenario.trace.notes,
    )


def _part(progress: Progress | None, name: str, number: int, of: int) -> Callable[[float], None] | None:
    if progress is None:
        return None
    progress(name, number / of)
    return lambda share: progress(name, (number + share) / of)


def inputs_hash(scenario: Scenario, candidate: Candidate) -> str:
    """Of all that decides what the policy decides."""
    said = (scenario.hash(), candidate.policy, candidate.min_replicas, candidate.max_replicas, version("preheat"))
    return hashlib.sha256(repr(said).encode()).hexdigest()


def judge(scenario: Scenario, task: tuple[Candidate, int], progress: Callable[[float], None] | None = None) -> Judged:
    """One candidate under one seed; a search is judged by the schedule that it found."""
    candidate, seed = task
    scenario = scenario.seeded(seed)
    warm_up(scenario)
    match candidate.policy:
        case "oracle":
            return _searched_oracle(scenario, candidate, progress)
        case "foreseeable":
            return _searched_foreseeable(scenario, candidate)
        case policy:
            start = scenario.start_replicas
            if start is None:
                start = policy.replicas[0] if isinstance(policy, Schedule) else candidate.min_replicas
            result = scenario.replayed(
                policy,
                min_replicas=candidate.min_replicas,
                max_replicas=candidate.max_replicas,
                start_replicas=start,
                progress=progress,
            )
            return Judged(figures(scenario, result), result, _never_began(result))


def _never_began(result: Replay) -> tuple[str, ...]:
    if result.max_replicas > 0:
        return ()
    return ("it began without a replica and never created one: --start gives it some, --min keeps them.",)


def _searched_oracle(scenario: Scenario, candidate: Candidate, progress: Callable[[float], None] | None) -> Judged:
    found = oracle(scenario, progress=progress)
    settled = Candidate(candidate.name, "", found.schedule, candidate.min_replicas, candidate.max_replicas)
    final = judge(scenario, (settled, scenario.conditions.seed))
    note = f"oracle: found by {found.simulations} simulations; a bound found by search, not a proof."
    if not found.attains:
        note = (
            f"oracle: {scenario.max_replicas} replicas at all times do not reach {scenario.objectives.attainment:.4g} "
            "either: raise --max, or lower the attainment."
        )
    took = final.replay.loop_seconds + found.seconds
    return Judged(
        figures(scenario, final.replay, simulations=found.simulations + 1, seconds=took), final.replay, (note,)
    )


def _searched_foreseeable(scenario: Scenario, candidate: Candidate) -> Judged:
    seconds = 0.0

    def tried(_: float, result: Replay) -> None:
        nonlocal seconds
        seconds += result.loop_seconds

    found = foreseeable(scenario, tried=tried)
    if found is None:
        most = Schedule.static(scenario.max_replicas)
        settled = Candidate(candidate.name, "", most, candidate.min_replicas, candidate.max_replicas)
        final = judge(scenario, (settled, scenario.conditions.seed))
        note = "foreseeable: no use of the replicas reaches the attainment; it keeps the most at all times."
        return Judged(final.figures, final.replay, (note,))
    note = (
        f"foreseeable: at a use of {found.use:.3f} of each replica, found by {found.replays} replays; "
        f"{found.gpu_hours:.2f} GPU-hours if interpolated to the very attainment."
    )
    result = figures(scenario, found.reached, simulations=found.replays, seconds=seconds)
    return Judged(result, found.reached, (note,))


def figures(scenario: Scenario, result: Replay, *, simulations: int = 1, seconds: float | None = None) -> Figures:
    """What is told of a replay; `seconds` of so many simulations where it took a search to find it."""
    wall = result.loop_seconds if seconds is None else seconds
    return Figures(
        seed=scenario.conditions.seed,
        slo_attainment=result.attainment,
        gpu_hours=result.gpu_hours,
        requests=result.requests,
        finished=result.finished,
        refused=result.refused,
        ttft_seconds=result.ttft_seconds,
        tpot_seconds=result.tpot_seconds,
        replica_changes=result.replica_changes,
        max_replicas=result.max_replicas,
        under_provisioned_seconds=under_provisioned_seconds(scenario, result),
        wall_seconds=wall,
        requests_per_second=scenario.trace.requests * simulations / wall if wall > 0 else math.nan,
        decision_hash=result.decision_hash,
    )


def under_provisioned_seconds(scenario: Scenario, result: Replay) -> float:
    """Ticks, from `score_from_seconds` on, at which fewer replicas were ready than the minute around keeps busy."""
    end = scenario.trace.end_seconds
    step = scenario.tick_seconds
    busy = mean_work(scenario.trace, scenario.engine, step_seconds=step, end_seconds=end, window_seconds=MINUTE_SECONDS)
    count = min(len(busy), len(result.timeline.ready))
    counted = result.timeline.time[:count] >= scenario.score_from_seconds
    return float((counted & (result.timeline.ready[:count] < busy[:count])).sum() * step)


def warm_up(scenario: Scenario) -> None:
    """A few requests, so that compiling, or reading what was compiled, is counted to no policy.

    A ConfigError says why no fleet can serve under the scenario's conditions.
    """
    trace = scenario.trace
    few = trace.until(float(trace.arrived_at_seconds[min(20, trace.requests - 1)]) + 1e-3)
    try:
        fleet = SimulatedFleet(few, scenario.engine, objectives=scenario.objectives, conditions=scenario.conditions)
    except (ConditionsError, FleetError) as error:
        raise ConfigError((str(error),)) from error
    fleet.advance(few.end_seconds + 1)
    fleet.observe()
