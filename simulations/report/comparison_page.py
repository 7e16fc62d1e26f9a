"""The report of `preheat replay`: what an engineer puts before whoever decides, chapter by chapter."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from simulations.laboratory.comparison import MINUTE_SECONDS
from simulations.laboratory.foreseeable import mean_work
from simulations.laboratory.outcome import Comparison, Outcome
from simulations.laboratory.result_table import remarks
from simulations.laboratory.static_line import StaticFleet
from simulations.report.budget import budget
from simulations.report.charts import Band, Chart, color
from simulations.report.coverage import Forecasts, what_was_covered
from simulations.report.document import (
    Cell,
    Chapter,
    Row,
    changes,
    clock,
    counted,
    document,
    figure,
    key,
    paragraphs,
    table,
)
from simulations.report.figures import (
    cold_start_chart,
    cold_start_table,
    cold_start_verdict,
    frontier,
    number_of,
    outcome_table,
    span,
    verdict,
)
from simulations.report.fleet_charts import (
    Busy,
    Told,
    budget_chart,
    latency_charts,
    replica_chart,
    replica_charts,
)
from simulations.report.load_charts import FORESEEN, coverage_chart, load_charts
from simulations.report.series import columns, means, ticks
from simulations.report.worst import (
    AFTER_SECONDS,
    Worst,
    events,
    shown_from,
    what_booted,
    what_came,
    what_was_decided,
    what_was_known,
    worst,
)

MOST_CHANGES = 300
ALL_CHANGES = 2000
"""Of all policies together: the rest is left to the CSV files."""
MOST_EVENTS = 40
HASH_DIGITS = 16


def comparison_page(found: Comparison, statics: Sequence[StaticFleet] = (), other: Comparison | None = None) -> str:
    """The whole page; `other` is the same comparison at another cold start, for the chapter that sets them apart."""
    told = [Told(each.name, each.replay) for each in found.outcomes]
    made = [
        _frontier(found, statics),
        *([_cold_starts(found, other)] if other is not None else []),
        (Chapter("outcome", "What each policy reached, and what it cost", _outcome(found)), []),
        _load(told),
        _replicas(found, told),
        _latency(found, told),
        *_budget(found, told),
        _worst(found),
        (Chapter("decisions", "Every change, and why", _changes(found)), []),
        (Chapter("again", "To get these figures again", _again(found)), []),
    ]
    return document(
        f"{found.scenario.trace.name} replayed",
        f'<p class="verdict">{html.escape(verdict(found))}</p>{_facts(found)}',
        [chapter for chapter, _ in made],
        [chart for _, charts in made for chart in charts],
        remarks(found),
        contents=True,
    )


def _facts(found: Comparison) -> str:
    scenario = found.scenario
    trace, engine, goal = scenario.trace, scenario.engine, scenario.objectives
    by_minute = np.bincount((trace.arrived_at_seconds // MINUTE_SECONDS).astype(np.int64)) / MINUTE_SECONDS
    mean = trace.requests / max(trace.end_seconds, 1.0)
    facts = {
        "Traffic": f"{trace.requests:,} requests in {span(trace.end_seconds)}, {mean:.3g} a second, "
        f"{by_minute.max():.3g} in the busiest minute",
        "A replica": f"{engine.model} on {engine.gpus} GPU{'s' if engine.gpus > 1 else ''} ({engine.name})",
        "Promised": f"to {100 * goal.attainment:g} % of the requests: first token within {goal.ttft_seconds:g} s, "
        f"then {1000 * goal.tpot_seconds:g} ms a token",
        "Cold start": f"{scenario.cold_start_seconds:g} s from created to ready",
        "Bounds": f"{scenario.min_replicas} to {scenario.max_replicas} replicas, a decision every "
        f"{scenario.tick_seconds:g} s",
    }
    if found.gpu_hour_price is not None:
        facts["Price"] = f"${found.gpu_hour_price:.2f} a GPU-hour"
    if len(found.seeds) > 1:
        facts["Seeds"] = f"{len(found.seeds)}; charts show seed {found.seeds[0]}"
    rows = "".join(f"<div><dt>{name}</dt><dd>{html.escape(said)}</dd></div>" for name, said in facts.items())
    return f'<dl class="facts">{rows}</dl>'


def _frontier(found: Comparison, statics: Sequence[StaticFleet]) -> tuple[Chapter, list[Chart]]:
    chart = frontier(found, statics)
    said = (
        "Down is cheaper, right is better. Whoever lies right of the objective keeps the promise; whoever lies above "
        "the line of fixed fleets costs more than not scaling at all. Diamonds know the future: they show what is "
        "left to gain, and nobody can be them. From 90\u00a0% to 99\u00a0% is as far as on to 99.9\u00a0%."
    )
    return Chapter("frontier", "Cost over promise kept", f"<p>{said}</p>{figure(chart)}"), [chart]


def _cold_starts(found: Comparison, other: Comparison) -> tuple[Chapter, list[Chart]]:
    chart = cold_start_chart(found, other)
    before, after = found.scenario.cold_start_seconds, other.scenario.cold_start_seconds
    body = f"{paragraphs(cold_start_verdict(found, other))}{cold_start_table(found, other)}{figure(chart)}"
    title = f"A cold start of {before:g} s, {'cut' if after < before else 'grown'} to {after:g} s"
    return Chapter("cold-start", title, body), [chart]


def _outcome(found: Comparison) -> str:
    said = (
        "Attained is the share of all scored requests, unanswered ones included, that kept both objectives. GPU-hours "
        "count each replica from its creation until it is gone. Too few ready: for so long fewer replicas were ready "
        "than the minute's requests keep busy."
    )
    return f"{outcome_table(found)}<p>{said}</p>"


def _load(told: Sequence[Told]) -> tuple[Chapter, list[Chart]]:
    end = max(one.replay.end_seconds for one in told)
    charts = load_charts(told, end)
    forecasts = [Forecasts.of(one.replay) for one in told]
    compared = [(one, each) for one, each in zip(told, forecasts, strict=True) if each is not None]
    if not compared:
        return Chapter("load", "The load", "".join(figure(each) for each in charts)), [*charts]
    coverage = coverage_chart(told, forecasts, end)
    lines = [what_was_covered(one.label, each, since=one.replay.score_from_seconds, end=end) for one, each in compared]
    body = f"{paragraphs([FORESEEN])}{''.join(figure(each) for each in charts)}{paragraphs(lines)}{figure(coverage)}"
    return Chapter("load", "The load, and what was foreseen of it", body), [*charts, coverage]


def _replicas(found: Comparison, told: Sequence[Told]) -> tuple[Chapter, list[Chart]]:
    end = max(one.replay.end_seconds for one in told)
    replicas = replica_charts(told, end, _busy(found, columns(len(told))))
    per = max(1, -(-len(told[0].replay.decisions) // columns(len(told))))
    coarse = (
        f" A point stands for {span(per * found.scenario.tick_seconds)}: its means, the range of what was ready, and "
        "the decision that changed most."
    )
    said = (
        "The grey area is the load alone, as the replicas that it keeps busy: where the thick line falls below it, "
        "requests queue. Between created and ready lies the cold start. Point at a moment, or use the arrow keys, to "
        "read what was decided and why."
    )
    body = f"<p>{said}{coarse if per > 1 else ''}</p>{''.join(figure(each) for each in replicas)}"
    return Chapter("replicas", "Replicas", body), [*replicas]


def _busy(found: Comparison, most: int | None = None) -> Busy:
    """By tick, or in no more than so many columns."""
    scenario = found.scenario
    work = mean_work(
        scenario.trace,
        scenario.engine,
        step_seconds=scenario.tick_seconds,
        end_seconds=scenario.trace.end_seconds,
        window_seconds=MINUTE_SECONDS,
    )
    per = 1 if most is None else max(1, -(-len(work) // most))
    times = np.arange(0, len(work), per, dtype=np.float64) * scenario.tick_seconds
    return Busy(times, means(work, per))


def _latency(found: Comparison, told: Sequence[Told]) -> tuple[Chapter, list[Chart]]:
    end = max(one.replay.end_seconds for one in told)
    charts = latency_charts(told, end, found.scenario.objectives, percentile=99, misses=True)
    said = "By when requests arrived; one that was never answered has no latency, but is among those that missed."
    if len(told) > 1:
        said += " A policy is shown or hidden by its name above each chart."
    return Chapter(
        "latency", "Latency against the objective", f"<p>{said}</p>{''.join(figure(each) for each in charts)}"
    ), [*charts]


def _budget(found: Comparison, told: Sequence[Told]) -> list[tuple[Chapter, list[Chart]]]:
    """No chapter where nothing is scored."""
    promised = found.scenario.objectives.attainment
    budgets = [each for one in told if (each := budget(one.replay, promised)) is not None]
    if len(budgets) < len(told):
        return []
    chart = budget_chart(told, budgets, max(one.replay.end_seconds for one in told))
    first, since = budgets[0], found.scenario.score_from_seconds
    rows = [
        Row(
            one.label,
            color(number),
            (
                Cell(f"{each.missed:,}"),
                Cell(
                    f"{each.total:,.1%}" if each.total < 10 else f"{each.total:,.0%}",
                    kind="" if each.gone_at is None else "miss",
                ),
                Cell("–" if each.gone_at is None else clock(each.gone_at)),
            ),
        )
        for number, (one, each) in enumerate(zip(told, budgets, strict=True))
    ]
    scored = f"{counted(first.requests, 'request')}{f' from {clock(since)} on' if since > 0 else ''}"
    said = (
        f"Promised to {100 * promised:g} % of {scored}: {first.may_miss:,} may miss an objective. That is the "
        "budget; a miss is spent when its request arrives. A steep line is an outage; a slope that never ends, a fleet "
        "that is always too small."
    )
    heads = ("policy", "missed", "spent", "gone at")
    seed = f" Of seed {found.seeds[0]} alone, as all charts." if len(found.seeds) > 1 else ""
    body = f"{paragraphs([said + seed])}{figure(chart)}{table(heads, rows)}"
    return [(Chapter("budget", "The error budget, and when it was spent", body), [chart])]


def _worst(found: Comparison) -> tuple[Chapter, list[Chart]]:
    bodies, charts = [], []
    busy = _busy(found)
    # Of one who knew all that was to come there is nothing to explain.
    for outcome in found.rivals or found.outcomes:
        number = number_of(found, outcome)
        ten = worst(outcome.replay, found.scenario.objectives)
        name = f"<h3>{key(color(number))}{html.escape(outcome.name)}"
        if ten is None:
            bodies.append(
                f'<div class="worst chart">{name}</h3><p>No request missed: none of its minutes is bad.</p></div>'
            )
            continue
        chart = _worst_chart(found, outcome, ten, number, busy)
        charts.append(chart)
        body = f"{_story(found, outcome, ten)}{figure(chart)}{_events(found, outcome, ten)}"
        if ten.missed <= (1 - found.scenario.objectives.attainment) * ten.requests:
            kept = f"Even these keep the promise: {ten.missed:,} of {ten.requests:,} requests missed."
            body = f"<details><summary>{kept}</summary>{body}</details>"
        bodies.append(f'<div class="worst chart">{name}: {clock(ten.begin)} to {clock(ten.end)}</h3>{body}</div>')
    said = "Of each policy, the ten minutes whose arrivals missed most often: what it knew, what it decided, what came."
    return Chapter("worst", "The worst ten minutes", f"<p>{said}</p>{''.join(bodies)}"), charts


def _story(found: Comparison, outcome: Outcome, ten: Worst) -> str:
    cold, replay = found.scenario.cold_start_seconds, outcome.replay
    parts = {
        "What came": [what_came(ten, found.scenario.objectives)],
        "What was known": list(what_was_known(replay, ten)),
        "What was decided": list(what_was_decided(replay, ten, cold_start=cold, bound=outcome.max_replicas)),
        "What booted": [what_booted(replay, ten)],
    }
    told = "".join(f"<div><h4>{name}</h4>{paragraphs(lines)}</div>" for name, lines in parts.items())
    return f'<div class="story">{told}</div>'


def _worst_chart(found: Comparison, outcome: Outcome, ten: Worst, number: int, busy: Busy) -> Chart:
    scenario, replay = found.scenario, outcome.replay
    begin = shown_from(ten, scenario.cold_start_seconds)
    end = min(replay.end_seconds, ten.end + AFTER_SECONDS)
    drawn = ticks(replay, len(replay.decisions)).between(begin, end)
    inside = (busy.x >= begin) & (busy.x <= end)
    load = busy.replicas[inside]
    return replica_chart(
        at=f"worst-{number}",
        title="",
        label=f"Replicas in the worst ten minutes of {outcome.name}",
        drawn=drawn,
        begin=begin,
        end=end,
        # Above the highest line there must be room for the band's words.
        most=1.2 * max(float(drawn.holding.max(initial=1)), float(load.max(initial=0))),
        number=number,
        busy=Busy(busy.x[inside], load),
        bands=(Band(ten.begin, ten.end, f"{ten.missed:,} missed"),),
        height=190,
    )


def _events(found: Comparison, outcome: Outcome, ten: Worst) -> str:
    all_ = events(outcome.replay, shown_from(ten, found.scenario.cold_start_seconds), ten.end)
    items = [(clock(each.time), each.what, each.why) for each in all_[:MOST_EVENTS]]
    if not items:
        return ""
    rest = f", the first {MOST_EVENTS} of {len(all_)}" if len(all_) > MOST_EVENTS else ""
    return changes(f"Step by step{rest}", items)


def _changes(found: Comparison) -> str:
    most = min(MOST_CHANGES, ALL_CHANGES // max(1, len(found.outcomes)))
    lists = []
    for outcome in found.outcomes:
        made = [each for each in outcome.replay.decisions if each.changes]
        kept = sorted(sorted(made, key=lambda each: -abs(each.replicas - each.desired))[:most], key=lambda d: d.time)
        items = [(clock(each.time), f"{each.desired} → {each.replicas}", each.sentence) for each in kept]
        rest = f": the {most} greatest of them; --decisions writes all" if len(made) > most else ""
        lists.append(changes(f"{outcome.name}, {counted(len(made), 'change')}{rest}", items))
    return "\n".join(lists)


def _again(found: Comparison) -> str:
    seeds = ", ".join(str(seed) for seed in found.seeds)
    command = f"<pre><code>{html.escape(found.command)}</code></pre>" if found.command else ""
    rows = [
        Row(
            each.name,
            color(number),
            (
                Cell(each.inputs_hash[:HASH_DIGITS], kind="hash"),
                Cell(each.figures[0].decision_hash[:HASH_DIGITS], kind="hash"),
                Cell(each.label, kind="prose"),
            ),
        )
        for number, each in enumerate(found.outcomes)
    ]
    said = (
        f"Preheat {found.version}, seed {seeds}. Where the inputs' hash is the same, of trace, engine, settings, "
        "policy, seed and version, so are the decisions, on any machine; the JSON has both hashes in full."
    )
    return f"{command}{paragraphs([said])}{table(('policy', 'inputs', 'decisions', 'whose law'), rows, wide=True)}"
