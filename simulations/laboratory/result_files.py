"""A comparison on disk: one JSON of all figures, and one CSV of decisions a policy."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from pathlib import Path
from typing import Any

import orjson

from simulations.laboratory.outcome import Comparison, Figures, Outcome, Spread

DECISION_COLUMNS = (
    "time_s",
    "replicas_wanted",
    "replicas_unbounded",
    "replicas_created",
    "replicas_ready",
    "reason",
)


def json_of(comparison: Comparison) -> bytes:
    """All figures; unknown ones are null. `docs/replay.md` defines each."""
    scenario = comparison.scenario
    trace, engine = scenario.trace, scenario.engine
    document = {
        "version": comparison.version,
        "command": comparison.command,
        "trace": {
            "name": trace.name,
            "requests": trace.requests,
            "end_s": trace.end_seconds,
            "source": trace.source,
            "notes": list(comparison.notes),
        },
        "engine": {
            "name": engine.name,
            "model": engine.model,
            "gpus": engine.gpus,
            "step_ms": dataclasses.asdict(engine.step_ms),
            "kv_tokens": engine.kv_tokens,
            "max_num_seqs": engine.max_num_seqs,
            "max_num_batched_tokens": engine.max_num_batched_tokens,
            "source": engine.source,
        },
        "settings": {
            "slo_ttft_s": scenario.objectives.ttft_seconds,
            "slo_tpot_s": scenario.objectives.tpot_seconds,
            "attainment": scenario.objectives.attainment,
            "cold_start_s": scenario.cold_start_seconds,
            "min": scenario.min_replicas,
            "max": scenario.max_replicas,
            "start": scenario.start_replicas,
            "tick_s": scenario.tick_seconds,
            "scrape_interval_s": scenario.conditions.scraping.interval_seconds,
            "score_from_s": scenario.score_from_seconds,
            "gpu_hour_price": comparison.gpu_hour_price,
            "seeds": list(comparison.seeds),
        },
        "lower_bound": {"gpu_hours": comparison.lower_bound.gpu_hours, "what": comparison.lower_bound.sentence},
        "best": None if comparison.best is None else comparison.best.name,
        "policies": [_policy(comparison, outcome) for outcome in comparison.outcomes],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def _policy(comparison: Comparison, outcome: Outcome) -> dict[str, Any]:
    first, several = outcome.figures[0], outcome.figures
    return {
        "name": outcome.name,
        **figures_json(several),
        "regret_vs_oracle": comparison.regret(outcome),
        "dollars": comparison.dollars(outcome),
        "decision_hash": first.decision_hash,
        "label": outcome.label,
        "notes": list(outcome.notes),
        "min": outcome.min_replicas,
        "max": outcome.max_replicas,
        "inputs_hash": outcome.inputs_hash,
        "slo_attainment_interval": _interval(outcome.slo_attainment),
        "gpu_hours_interval": _interval(outcome.gpu_hours),
        "seeds": [
            {"seed": each.seed, **figures_json((each,)), "decision_hash": each.decision_hash}
            for each in several
            if len(several) > 1
        ],
    }


def figures_json(several: tuple[Figures, ...]) -> dict[str, Any]:
    """Means over the seeds; of one seed its own numbers, counts whole."""
    return {
        "slo_attainment": _mean([each.slo_attainment for each in several]),
        "gpu_hours": _mean([each.gpu_hours for each in several]),
        "requests": several[0].requests,
        "finished": _mean([each.finished for each in several]),
        "refused": several[0].refused,
        "ttft_s": _percentiles([each.ttft_seconds for each in several]),
        "tpot_s": _percentiles([each.tpot_seconds for each in several]),
        "replica_changes": _mean([each.replica_changes for each in several]),
        "max_replicas": max(each.max_replicas for each in several),
        "under_provisioned_s": _mean([each.under_provisioned_seconds for each in several]),
        "wall_s": _mean([each.wall_seconds for each in several]),
        "requests_per_s": _mean([each.requests_per_second for each in several]),
    }


def _mean(values: list[int] | list[float]) -> float | int | None:
    if len(set(values)) == 1:
        return values[0] if math.isfinite(values[0]) else None
    known = [value for value in values if math.isfinite(value)]
    return math.fsum(known) / len(known) if known else None


def _percentiles(several: list[dict[str, float]]) -> dict[str, float | None]:
    return {key: _mean([each[key] for each in several]) for key in several[0]}


def _interval(spread: Spread) -> list[float] | None:
    return None if spread.low is None or spread.high is None else [spread.low, spread.high]


def write_decisions(comparison: Comparison, folder: Path) -> list[Path]:
    """One CSV a policy, under the first seed; an OSError where the folder takes none."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for outcome in comparison.outcomes:
        path = _free(folder, outcome.name, written)
        path.write_text(decisions_csv(outcome), encoding="utf-8")
        written.append(path)
    return written


def decisions_csv(outcome: Outcome) -> str:
    """A row at each tick."""
    timeline = outcome.replay.timeline
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(DECISION_COLUMNS)
    for decision, time, created, ready in zip(
        outcome.replay.decisions,
        timeline.time.tolist(),
        timeline.created.tolist(),
        timeline.ready.tolist(),
        strict=True,
    ):
        at = int(time) if time == int(time) else round(time, 6)
        writer.writerow((at, decision.replicas, decision.wanted, created, ready, decision.sentence))
    return out.getvalue()


def _free(folder: Path, name: str, taken: list[Path]) -> Path:
    """A file name out of a policy's: letters, digits and dashes, and a number where two become one."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "policy"
    path, number = folder / f"{plain}.csv", 2
    while path in taken:
        path, number = folder / f"{plain}-{number}.csv", number + 1
    return path
