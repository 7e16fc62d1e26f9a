"""A comparison's figures as people read them: the verdict, the table, the frontier and the cold starts side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from simulations.laboratory.outcome import Comparison, Outcome, Spread
from simulations.laboratory.result_table import hours, seconds, share
from simulations.laboratory.static_line import StaticFleet
from simulations.report.charts import Dot, DotsChart, Link, Mark, color
from simulations.report.document import Cell, Row, table

MINUTES = 60
NO_BREAK = "\u00a0"
LEAST_SHOWN = 0.5
"""Attainment from which on a fixed fleet is worth a point."""


def number_of(found: Comparison, outcome: Outcome) -> int:
    """Its place, which gives it its colour."""
    return found.outcomes.index(outcome)


def verdict(found: Comparison) -> str:
    """Who keeps the promise, at what price, in two or three sentences."""
    rivals, target = found.rivals, found.scenario.objectives.attainment
    keeping = sorted((each for each in rivals if each.reaches(target)), key=lambda each: each.gpu_hours.mean)
    promise = f"the promise to {100 * target:g} % of the requests"
    told = []
    if keeping:
        named = ", ".join(f"{each.name} with {each.gpu_hours.mean:.2f} GPU-hours" for each in keeping[:4])
        more = f" and {len(keeping) - 4} more" if len(keeping) > 4 else ""
        what = "policy keeps" if len(rivals) == 1 else "policies keeps" if len(keeping) == 1 else "policies keep"
        told.append(f"{len(keeping)} of {len(rivals)} {what} {promise}: {named}{more}.")
    elif rivals:
        nearest = max(rivals, key=lambda each: each.slo_attainment.mean)
        nobody = "The policy does not keep" if len(rivals) == 1 else f"None of the {len(rivals)} policies keeps"
        told.append(f"{nobody} {promise}; {nearest.name} comes closest, with {nearest.slo_attainment.mean:.2%}.")
    if found.best is not None:
        told.append(f"Over all seeds, {found.best.name} keeps it at the lowest cost.")
    oracle = found.oracle
    if oracle is not None and oracle.reaches(target):
        told.append(f"One who knows every request to come needs {oracle.gpu_hours.mean:.2f} GPU-hours.")
    return " ".join(told)


def outcome_table(found: Comparison) -> str:
    """A row a policy; intervals where there are several seeds."""
    priced, judged = found.gpu_hour_price is not None, found.oracle is not None
    heads = (
        "policy",
        "attained",
        "GPU-hours",
        *(["over oracle"] if judged else []),
        *(["dollars"] if priced else []),
        cost_name(found),
        "TTFT p50",
        "TTFT p99",
        "TPOT p99",
        "changes",
        "most replicas",
        "too few ready",
    )
    return table(heads, [_row(found, each, judged=judged, priced=priced) for each in found.outcomes])


def _row(found: Comparison, outcome: Outcome, *, judged: bool, priced: bool) -> Row:
    regret, dollars = found.regret(outcome), found.dollars(outcome)
    cells = [
        attained_cell(found, outcome),
        _cell(hours(outcome.gpu_hours)),
        *([Cell("–" if regret is None else f"{regret:+.1%}")] if judged else []),
        *([Cell("–" if dollars is None else f"${dollars:,.2f}")] if priced else []),
        Cell(cost(found, outcome)),
        Cell(seconds(outcome.spread(lambda each: each.ttft_seconds["p50"]).mean)),
        Cell(seconds(outcome.spread(lambda each: each.ttft_seconds["p99"]).mean)),
        Cell(seconds(outcome.spread(lambda each: each.tpot_seconds["p99"]).mean)),
        Cell(f"{outcome.spread(lambda each: each.replica_changes).mean:.0f}"),
        Cell(str(max(each.max_replicas for each in outcome.figures))),
        Cell(span(outcome.spread(lambda each: each.under_provisioned_seconds).mean)),
    ]
    remark = "best" if outcome is found.best else "knows the future" if outcome.is_clairvoyant else ""
    return Row(outcome.name, color(number_of(found, outcome)), tuple(cells), remark)


def attained_cell(found: Comparison, outcome: Outcome) -> Cell:
    kept = outcome.reaches(found.scenario.objectives.attainment)
    return _cell(share(outcome.slo_attainment), kind="" if kept else "miss")


def _cell(said: str, kind: Literal["", "miss"] = "") -> Cell:
    """Of a figure, and its interval where it has one."""
    mean, _, interval = said.partition(" (")
    return Cell(mean, kind, interval.rstrip(")"))


def cost_name(found: Comparison) -> str:
    """What `cost` is in: dollars where there is a price."""
    return "GPU-min per 1,000 requests" if found.gpu_hour_price is None else "$ per 1,000 requests"


def cost(found: Comparison, outcome: Outcome) -> str:
    """Of a thousand scored requests, answered or not."""
    value = cost_per_thousand(found, outcome)
    return "–" if value is None else f"{value:.1f}" if found.gpu_hour_price is None else f"${value:,.3f}"


def cost_per_thousand(found: Comparison, outcome: Outcome) -> float | None:
    """Dollars, or GPU-minutes without a price; None without a request."""
    requests = outcome.figures[0].requests
    if found.gpu_hour_price is None:
        return None if requests == 0 else 1000 * outcome.gpu_hours.mean * MINUTES / requests
    return found.dollars_per_thousand_requests(outcome)


def span(seconds_: float) -> str:
    """A stretch of time in the unit it is thought of in."""
    if seconds_ < 120:
        return f"{seconds_:.0f} s"
    if seconds_ < 7200:
        return f"{seconds_ / 60:.0f} min"
    return f"{seconds_ / 3600:.1f} h" if seconds_ < 172800 else f"{seconds_ / 86400:.1f} days"


def frontier(found: Comparison, statics: Sequence[StaticFleet]) -> DotsChart:
    """GPU-hours over attainment: a dot a policy, fixed fleets as a line."""
    asked = {each.name for each in found.outcomes}
    # Fleets that serve hardly anyone in time would push all others into a corner.
    statics = [each for each in statics if each.slo_attainment >= LEAST_SHOWN] or statics
    dots = [_dot(found, each) for each in found.outcomes]
    for each in statics:
        if f"static:{each.replicas}" not in asked:
            told = (("attained", f"{each.slo_attainment:.2%}"), ("GPU-hours", f"{each.gpu_hours:.2f}"))
            point = (each.slo_attainment, each.gpu_hours)
            dots.append(
                Dot(
                    name=f"{each.replicas} replicas at all times",
                    x=point[0],
                    y=point[1],
                    color="var(--soft)",
                    shape="small",
                    told=told,
                )
            )
    line = tuple((each.slo_attainment, each.gpu_hours) for each in statics)
    named = f"a fixed number of replicas, {statics[0].replicas} to {statics[-1].replicas}" if statics else ""
    return DotsChart(
        at="frontier-chart",
        label="GPU-hours over the share of requests that kept both objectives, a dot for each policy",
        objective=found.scenario.objectives.attainment,
        finest=_finest(found),
        dots=tuple(dots),
        links=(Link(name=named, points=line, dash="5 4"),) if len(line) > 1 else (),
        floor=Mark(found.lower_bound.gpu_hours, f"no policy can go below {found.lower_bound.gpu_hours:.2f}"),
    )


def _finest(*several: Comparison) -> float:
    requests = max((each.figures[0].requests for found in several for each in found.outcomes), default=1)
    return 0.5 / max(1, requests)


def _dot(found: Comparison, outcome: Outcome, *, when: str = "", ring: bool = False) -> Dot:
    """With its intervals, but for a dot that is one of two."""
    attained, held = outcome.slo_attainment, outcome.gpu_hours
    return Dot(
        name=f"{outcome.name}, {when}" if when else outcome.name,
        label="" if ring else outcome.name,
        x=attained.mean,
        y=held.mean,
        x_interval=None if when else _interval(attained, 1.0),
        y_interval=None if when else _interval(held, float("inf")),
        color=color(number_of(found, outcome)),
        shape="ring" if ring else "diamond" if outcome.is_clairvoyant else "circle",
        told=(
            ("attained", share(attained)),
            ("GPU-hours", hours(held)),
            (cost_name(found), cost(found, outcome)),
            ("TTFT p99", seconds(outcome.spread(lambda each: each.ttft_seconds["p99"]).mean)),
        ),
    )


def _interval(spread: Spread, most: float) -> tuple[float, float] | None:
    if spread.low is None or spread.high is None:
        return None
    return max(0.0, spread.low), min(most, spread.high)


def pairs(found: Comparison, other: Comparison) -> list[tuple[Outcome, Outcome]]:
    """The same policy at one cold start and at the other."""
    by_name = {each.name: each for each in other.outcomes}
    return [(each, by_name[each.name]) for each in found.outcomes if each.name in by_name]


def cold_start_verdict(found: Comparison, other: Comparison) -> list[str]:
    """Who keeps the promise at either cold start, and what the cheapest of them costs."""
    before, after = (_cold(each) for each in (found, other))
    target = found.scenario.objectives.attainment
    keeping = [[each for each in of.rivals if each.reaches(target)] for of in (found, other)]
    told = [
        f"With a cold start of {before} the promise is kept by {len(keeping[0])} of {len(found.rivals)} policies, "
        f"with {after} by {len(keeping[1])}."
    ]
    cheapest = [min(each, key=lambda one: one.gpu_hours.mean, default=None) for each in keeping]
    if cheapest[0] is not None and cheapest[1] is not None:
        held = [each.gpu_hours.mean for each in cheapest if each is not None]
        less = 1 - held[1] / held[0]
        apart = f"{abs(less):.0%} {'less' if less > 0 else 'more'}" if abs(less) >= 0.005 else "as much"
        told.append(
            f"The cheapest that keeps it is {cheapest[0].name} with {held[0]:.2f} GPU-hours at {before}, and "
            f"{cheapest[1].name} with {held[1]:.2f} at {after}: {apart}."
        )
    return told


def cold_start_table(found: Comparison, other: Comparison) -> str:
    """Attainment, GPU-hours and cost per 1,000 requests, at both cold starts side by side."""
    before, after = _cold(found), _cold(other)
    whens = [when.replace(" ", NO_BREAK) for when in (before, after)]
    heads = ("policy", *(f"{what}, {at}" for what in ("attained", "GPU-hours", cost_name(found)) for at in whens))
    rows = []
    for one, two in pairs(found, other):
        cells = (
            attained_cell(found, one),
            attained_cell(other, two),
            _cell(hours(one.gpu_hours)),
            _cell(hours(two.gpu_hours)),
            Cell(cost(found, one)),
            Cell(cost(other, two)),
        )
        rows.append(Row(one.name, color(number_of(found, one)), cells))
    return table(heads, rows, wide=True)


def cold_start_chart(found: Comparison, other: Comparison) -> DotsChart:
    """From a ring at one cold start to a dot at the other."""
    both = pairs(found, other)
    rings = [_dot(found, one, when=_cold(found), ring=True) for one, _ in both]
    dots = [_dot(other, two, when=_cold(other)) for _, two in both]
    links = tuple(
        Link(
            name="",
            points=((one.slo_attainment.mean, one.gpu_hours.mean), (two.slo_attainment.mean, two.gpu_hours.mean)),
            color=color(number_of(found, one)),
        )
        for one, two in both
    )
    return DotsChart(
        at="cold-start-chart",
        label=f"GPU-hours over attainment with a cold start of {_cold(found)} and of {_cold(other)}",
        objective=found.scenario.objectives.attainment,
        finest=_finest(found, other),
        dots=(*dots, *rings),
        links=links,
        title=f"Rings: {_cold(found)} from created to ready. Dots: {_cold(other)}.",
    )


def _cold(found: Comparison) -> str:
    return f"{found.scenario.cold_start_seconds:g} s"
