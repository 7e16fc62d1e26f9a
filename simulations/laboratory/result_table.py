"""Comparisons, sizings and sweeps on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from simulations.laboratory.outcome import Comparison, Outcome, Spread
from simulations.laboratory.scenario import Scenario
from simulations.laboratory.size import Fewest, Sizing


def table(comparison: Comparison) -> Table:
    """One row a policy; intervals where there are several seeds."""
    objectives = comparison.scenario.objectives
    title = (
        f"Promised to {objectives.attainment * 100:g} % of the requests: the first token within "
        f"{seconds(objectives.ttft_seconds)}, then {seconds(objectives.tpot_seconds)} a token"
    )
    made = Table(title=title, title_justify="left")
    made.add_column("policy", overflow="fold")
    priced, judged = comparison.gpu_hour_price is not None, comparison.oracle is not None
    heads = ("attained", "TTFT p50", "TTFT p99", "TPOT p99", "GPU-hours")
    for head in (*heads, *(["over oracle"] if judged else []), *(["dollars"] if priced else []), "changes", "most"):
        made.add_column(head, justify="right", no_wrap=True)
    for outcome in comparison.outcomes:
        made.add_row(*_row(comparison, outcome, judged=judged, priced=priced))
    return made


def _row(comparison: Comparison, outcome: Outcome, *, judged: bool, priced: bool) -> list[Text]:
    name = Text(outcome.name)
    if outcome is comparison.best:
        name.append("  best", style="bold green")
    keeps = outcome.reaches(comparison.scenario.objectives.attainment)
    cells = [
        name,
        Text(share(outcome.slo_attainment), style="green" if keeps else "red"),
        Text(seconds(outcome.spread(lambda each: each.ttft_seconds["p50"]).mean)),
        Text(seconds(outcome.spread(lambda each: each.ttft_seconds["p99"]).mean)),
        Text(seconds(outcome.spread(lambda each: each.tpot_seconds["p99"]).mean)),
        Text(hours(outcome.gpu_hours)),
    ]
    if judged:
        regret = comparison.regret(outcome)
        cells.append(Text("–" if regret is None else f"{regret:+.1%}"))
    if priced:
        dollars = comparison.dollars(outcome)
        cells.append(Text("–" if dollars is None else f"{dollars:,.2f}"))
    changes = outcome.spread(lambda each: each.replica_changes).mean
    return [*cells, Text(f"{changes:.0f}"), Text(str(max(each.max_replicas for each in outcome.figures)))]


def remarks(comparison: Comparison) -> list[str]:
    """What the table cannot hold, one sentence a line."""
    scenario = comparison.scenario
    lines = [*comparison.notes]
    bound = comparison.lower_bound
    lines.append(f"No policy can go below {bound.gpu_hours:.2f} GPU-hours: {bound.sentence}.")
    refused = comparison.outcomes[0].figures[0].refused if comparison.outcomes else 0
    if refused:
        lines.append(
            f"{refused:,} prompts are larger than the KV cache of {scenario.engine.kv_tokens:,} tokens: "
            "refused as vLLM would, and counted as misses."
        )
    if scenario.score_from_seconds > 0:
        lines.append(f"Scored from {scenario.score_from_seconds:g} s on; what came before only warms up.")
    for outcome in comparison.outcomes:
        lines += [note if note.startswith(outcome.name) else f"{outcome.name}: {note}" for note in outcome.notes]
    if len(comparison.seeds) > 1 and len(comparison.rivals) > 1 and comparison.best is None:
        lines.append(_no_best(comparison))
    return lines


def _no_best(comparison: Comparison) -> str:
    attainment = comparison.scenario.objectives.attainment
    if not comparison.seeds_differ:
        return "None is called the best: nothing was drawn, so all seeds are one; --cold-start-jitter draws."
    if not any(each.reaches(attainment) for each in comparison.rivals):
        return f"None is called the best: none keeps {attainment * 100:g} % with its whole interval."
    return "None is called the best: the intervals of the cheapest overlap, more seeds may part them."


def size_lines(scenario: Scenario, found: Sizing) -> list[str]:
    """The two answers in a sentence each."""
    target = f"{scenario.objectives.attainment * 100:g} %"
    fixed = found.fixed
    return [
        f"{_fewest(fixed)} replicas at all times are the fewest that keep {target}: "
        f"{found.fixed_attainment:.2%} attain, {found.fixed_gpu_hours:.2f} GPU-hours.",
        f"By hour of the day, each hour keeping {target} by itself: {found.hourly_attainment:.2%} attain, "
        f"{found.hourly_gpu_hours:.2f} GPU-hours. In brackets what the trace's stretches, drawn anew, leave at 95 %.",
    ]


def size_table(found: Sizing) -> Table:
    """One row an hour of the day."""
    made = Table()
    for head in ("hour", "requests/s", "replicas", "attained"):
        made.add_column(head, justify="right")
    for each in found.hours:
        rate = f"{each.requests_per_second:.2f}"
        made.add_row(f"{each.hour:02d}", rate, _fewest(each.fewest), f"{each.slo_attainment:.2%}")
    return made


def _fewest(fewest: Fewest) -> str:
    spread = "" if fewest.low == fewest.high else f" ({fewest.low}…{fewest.high})"
    return f"{fewest.replicas}{spread}"


def sweep_table(records: Sequence[Mapping[str, Any]], attainment: float) -> Table:
    """One row a policy and cold start, the seeds taken together."""
    made = Table()
    made.add_column("policy", overflow="fold")
    for head in ("cold start", "attained", "GPU-hours", "changes", "seeds"):
        made.add_column(head, justify="right", no_wrap=True)
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["policy"], record["cold_start_s"]), []).append(record)
    for (policy, cold_start), runs in groups.items():
        attained = Spread.of([run["slo_attainment"] for run in runs])
        keeps = (attained.mean if attained.low is None else attained.low) >= attainment
        made.add_row(
            Text(policy),
            f"{cold_start:g} s",
            Text(share(attained), style="green" if keeps else "red"),
            hours(Spread.of([run["gpu_hours"] for run in runs])),
            f"{Spread.of([run['replica_changes'] for run in runs]).mean:.0f}",
            str(len(runs)),
        )
    return made


def seconds(value: float) -> str:
    """A latency as people write it."""
    if not math.isfinite(value):
        return "–"
    return f"{value * 1000:.3g} ms" if value < 0.9995 else f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def share(spread: Spread) -> str:
    if spread.low is None or spread.high is None:
        return f"{spread.mean:.2%}"
    return f"{spread.mean:.2%} ({max(spread.low, 0):.2%}…{min(spread.high, 1):.2%})"


def hours(spread: Spread) -> str:
    if spread.low is None or spread.high is None:
        return f"{spread.mean:.2f}"
    return f"{spread.mean:.2f} ({spread.low:.2f}…{spread.high:.2f})"
