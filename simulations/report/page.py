"""The page of a few replays of one trace, as the demo shows it; the first of those told is ours."""

from __future__ import annotations

from collections.abc import Sequence

from policies.scaling.resource import Objectives
from simulations.laboratory.result_table import seconds
from simulations.report.charts import color
from simulations.report.document import Cell, Chapter, Row, changes, clock, counted, document, figure, paragraphs, table
from simulations.report.fleet_charts import Told, latency_charts, replica_charts, waiting_chart
from simulations.report.load_charts import FORESEEN, load_chart


def page(title: str, lead: Sequence[str], told: Sequence[Told], objectives: Objectives, notes: Sequence[str]) -> str:
    """The whole page; forecasts are drawn of the first of those told."""
    end = max(one.replay.end_seconds for one in told)
    load = load_chart(told[0].replay, end)
    replicas = replica_charts(told, end)
    waiting = waiting_chart(told, end)
    latency = latency_charts(told, end, objectives, percentile=95, misses=False)
    chapters = [
        Chapter("outcome", "What each policy reached, and what it cost", _table(told, objectives)),
        Chapter(
            "load",
            "The load, and what Preheat foresaw",
            f"{paragraphs([FORESEEN])}{figure(load)}",
        ),
        Chapter(
            "replicas",
            "Replicas",
            "<p>What each policy wanted before damping and bounds, what was created, and what was ready to serve: "
            "between the last two lies the cold start. Point at a moment to read the decision.</p>"
            + "".join(figure(chart) for chart in replicas),
        ),
        Chapter("queue", "Requests waiting", figure(waiting)),
        Chapter(
            "latency",
            "Latency against the objective",
            "<p>Of the requests that arrived in each minute; a request that was never answered is not in it, but "
            f"counts as a miss in the table.</p>{''.join(figure(chart) for chart in latency)}",
        ),
        Chapter("decisions", "Every change, and why", "\n".join(_changes(one) for one in told)),
    ]
    said = [*notes, *(one.note for one in told if one.note)]
    return document(title, paragraphs(lead), chapters, [load, *replicas, waiting, *latency], said)


def _table(told: Sequence[Told], objectives: Objectives) -> str:
    heads = ("policy", "attained", "TTFT p50", "TTFT p99", "TPOT p99", "GPU-hours", "changes", "most replicas")
    rows = []
    for number, one in enumerate(told):
        r = one.replay
        cells = (
            Cell(f"{r.attainment:.2%}", kind="miss" if r.attainment < objectives.attainment else ""),
            Cell(seconds(r.ttft_seconds["p50"])),
            Cell(seconds(r.ttft_seconds["p99"])),
            Cell(seconds(r.tpot_seconds["p99"])),
            Cell(f"{r.gpu_hours:.2f}"),
            Cell(str(r.replica_changes)),
            Cell(str(r.max_replicas)),
        )
        rows.append(Row(one.label, color(number), cells))
    return table(heads, rows)


def _changes(one: Told) -> str:
    made = [decision for decision in one.replay.decisions if decision.changes]
    items = [(clock(each.time), f"{each.desired} → {each.replicas}", each.sentence) for each in made]
    return changes(f"{one.label}: {counted(len(items), 'change')}", items)
