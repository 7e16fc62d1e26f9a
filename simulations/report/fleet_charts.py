"""The charts over time of what policies did: each one's replicas, and what its users got of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.scaling.resource import Objectives
from simulations.replay import Replay
from simulations.report.budget import Budget
from simulations.report.charts import COLORS, Band, Even, Mark, Series, TimeChart, color, dash
from simulations.report.series import Ticks, columns, latencies, ticks

SHOWN_AT_FIRST = 4
"""More lines than these in one chart are turned on by their reader."""
DENSE = 400
"""Points from which on lines are thin and whole, and only two of them shown at first."""
STRETCHES = {60.0: "minute", 3600.0: "hour", 86400.0: "day"}
LEAST_LATENCY_SECONDS = 0.05
"""Where the logarithmic axis begins."""
LEAST_BUDGETS, MOST_BUDGETS = 1.1, 2.0
"""Where the axis of the error budget ends, where it lasts and where it does not: beyond twice it is past helping."""


@dataclass(frozen=True, slots=True)
class Told:
    """A replay under the name that the report gives its policy."""

    label: str
    replay: Replay
    note: str = ""
    """What has to be said of it, for the foot of the page."""


@dataclass(frozen=True, slots=True)
class Busy:
    """How many replicas the arriving work keeps busy, in columns."""

    x: NDArray[np.float64]
    replicas: NDArray[np.float64]


def replica_charts(told: Sequence[Told], end: float, busy: Busy | None = None) -> list[TimeChart]:
    """One a policy, all to the same scale."""
    drawn = [ticks(one.replay, columns(len(told))) for one in told]
    most = max(float((one.replay.timeline.created + one.replay.timeline.draining).max(initial=1)) for one in told)
    return [
        replica_chart(
            at=f"replicas-{number}",
            title=one.label,
            drawn=each,
            begin=0.0,
            end=end,
            most=most,
            number=number,
            busy=busy,
        )
        for number, (one, each) in enumerate(zip(told, drawn, strict=True))
    ]


def replica_chart(
    *,
    at: str,
    title: str,
    drawn: Ticks,
    begin: float,
    end: float,
    most: float,
    number: int,
    busy: Busy | None = None,
    bands: tuple[Band, ...] = (),
    height: int = 200,
    label: str = "",
) -> TimeChart:
    """Wanted, created and ready, with the sentence of each decision."""
    wish = round(float(drawn.wanted.max(initial=0)))
    ours = color(number)
    series = [
        Series.rounded(
            name="holding GPUs, draining ones included",
            x=drawn.x,
            y=drawn.holding,
            kind="area",
            color=ours,
            opacity=0.13,
            steps=True,
            told=False,
        ),
        Series.rounded(
            name=f"wanted, up to {wish}" if wish > most else "wanted",
            short="wanted",
            x=drawn.x,
            y=drawn.wanted,
            color="var(--soft)",
            dash="2 3",
            width=1.3,
            steps=True,
        ),
        Series.rounded(name="created", x=drawn.x, y=drawn.created, color=ours, dash="6 3", width=1.6, steps=True),
        Series.rounded(name="ready", x=drawn.x, y=drawn.ready, color=ours, width=2.6, steps=True),
    ]
    if drawn.per > 1:
        series.insert(
            1,
            Series(
                name="ready, fewest to most",
                kind="area",
                x=drawn.x,
                low=drawn.fewest_ready,
                y=drawn.most_ready,
                color=ours,
                opacity=0.3,
                steps=False,
            ),
        )
    if busy is not None:
        series.insert(
            0,
            Series.rounded(
                name="busy with the load alone",
                short="load, in replicas",
                kind="area",
                x=busy.x,
                y=busy.replicas,
                color="var(--demand)",
                opacity=0.16,
            ),
        )
    return TimeChart(
        at=at,
        title=title,
        label=label or f"Replicas over time under {title}",
        unit="replicas",
        height=height,
        begin=begin,
        end=end,
        top=most,
        series=tuple(series),
        bands=bands,
        said=drawn.said,
    )


def waiting_chart(told: Sequence[Told], end: float) -> TimeChart:
    """Requests waiting, at the gateway and in replicas."""
    drawn = [ticks(one.replay, columns(len(told))) for one in told]
    lines = [(each.x, each.waiting) for each in drawn]
    return TimeChart(
        at="queue-chart",
        label="Requests waiting over time",
        unit="requests waiting",
        height=210,
        begin=0.0,
        end=end,
        series=_lines(told, lines),
        choosable=len(told) > 1,
    )


def latency_charts(
    told: Sequence[Told], end: float, objectives: Objectives, *, percentile: float, misses: bool
) -> list[TimeChart]:
    """Time to first token, time per output token, and, where asked, the share of misses."""
    found = [latencies(one.replay, percentile) for one in told]
    step = stretch_name(found[0].x.step)
    tpot = 1000 * objectives.tpot_seconds
    common: dict[str, Any] = {"begin": 0.0, "end": end, "choosable": len(told) > 1}
    charts = [
        TimeChart(
            at="ttft-chart",
            title=f"Time to first token, {percentile:g}th percentile by {step} of arrival",
            label="Time to first token over time",
            unit="seconds (log)",
            height=230,
            log_from=min(LEAST_LATENCY_SECONDS, objectives.ttft_seconds / 2),
            marks=(Mark(objectives.ttft_seconds, f"objective {objectives.ttft_seconds:g} s"),),
            series=_lines(told, [(each.x, each.ttft_seconds) for each in found]),
            **common,
        ),
        TimeChart(
            at="tpot-chart",
            title=f"Time per output token, {percentile:g}th percentile by {step} of arrival",
            label="Time per output token over time",
            unit="milliseconds",
            height=200,
            marks=(Mark(tpot, f"objective {tpot:g} ms"),),
            series=_lines(told, [(each.x, 1000 * each.tpot_seconds) for each in found]),
            **common,
        ),
    ]
    if misses:
        may_miss = 1 - objectives.attainment
        charts.append(
            TimeChart(
                at="missed-chart",
                title=f"Requests that missed an objective, by {step} of arrival",
                label="Share of requests that missed over time",
                unit="share missed",
                height=200,
                percent=True,
                marks=(Mark(may_miss, f"promised, over all: at most {100 * may_miss:.3g} %"),),
                series=_lines(told, [(each.x, each.missed) for each in found]),
                **common,
            )
        )
    return charts


def budget_chart(told: Sequence[Told], found: Sequence[Budget], end: float) -> TimeChart:
    """What each policy spent of the misses that are allowed; who spends far more than all leaves the frame."""
    top = MOST_BUDGETS if any(each.total > 1 for each in found) else LEAST_BUDGETS
    lines = _lines(told, [(each.time, each.spent) for each in found], shown=COLORS)
    return TimeChart(
        at="budget-chart",
        title="Share of the error budget spent",
        label="Share of the error budget spent over time",
        unit="share spent",
        height=240,
        begin=0.0,
        end=end,
        top=top,
        percent=True,
        # Every curve begins at the bottom on the left, so the words have that corner to themselves.
        marks=(Mark(1.0, "all that may be missed", left=True),),
        series=tuple(
            replace(line, name=f"{line.name}, up to {each.total:,.0%}", short=line.name) if each.total > top else line
            for line, each in zip(lines, found, strict=True)
        ),
        choosable=len(told) > 1,
    )


def stretch_name(seconds: float) -> str:
    """As in: by minute, by 10 minutes."""
    return STRETCHES.get(seconds) or f"{seconds / 60:g} minutes"


def _lines(
    told: Sequence[Told],
    lines: Sequence[tuple[Even | NDArray[np.float64], NDArray[np.generic]]],
    *,
    shown: int = SHOWN_AT_FIRST,
) -> tuple[Series, ...]:
    dense = max(len(y) for _, y in lines) > DENSE
    return tuple(
        Series.rounded(
            name=one.label,
            x=x,
            y=y,
            color=color(number),
            dash="" if dense else dash(number),
            opacity=0.7 if dense and number else 1.0,
            width=1.2 if dense else 1.8 if number else 2.4,
            shown=number < (2 if dense else shown),
        )
        for number, (one, (x, y)) in enumerate(zip(told, lines, strict=True))
    )
