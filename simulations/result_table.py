"""A comparison on the terminal."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from simulations.outcome import Comparison, Outcome, Spread


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
        Text(_share(outcome.slo_attainment), style="green" if keeps else "red"),
        Text(seconds(outcome.spread(lambda each: each.ttft_seconds["p50"]).mean)),
        Text(seconds(outcome.spread(lambda each: each.ttft_seconds["p99"]).mean)),
        Text(seconds(outcome.spread(lambda each: each.tpot_seconds["p99"]).mean)),
        Text(_hours(outcome.gpu_hours)),
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


def seconds(value: float) -> str:
    """A latency as people write it."""
    if not math.isfinite(value):
        return "–"
    return f"{value * 1000:.3g} ms" if value < 0.9995 else f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def _share(spread: Spread) -> str:
    if spread.low is None or spread.high is None:
        return f"{spread.mean:.2%}"
    return f"{spread.mean:.2%} ({max(spread.low, 0):.2%}…{min(spread.high, 1):.2%})"


def _hours(spread: Spread) -> str:
    if spread.low is None or spread.high is None:
        return f"{spread.mean:.2f}"
    return f"{spread.mean:.2f} ({spread.low:.2f}…{spread.high:.2f})"
