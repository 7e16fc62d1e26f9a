"""The charts of the load: what came, what had been foreseen of it, and how often that was enough."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulations.replay import Replay
from simulations.report.charts import Said, Series, TimeChart, color, dash
from simulations.report.coverage import Covered, Forecasts, shares, step_of
from simulations.report.fleet_charts import SHOWN_AT_FIRST, Told, stretch_name
from simulations.report.series import MOST_COLUMNS, Foreseen, Load, arrivals, columns, foreseen, load_seen

FORESEEN = (
    "The load is the work that came, in requests of the mix of lengths then present: a long answer counts for as long "
    "as it is worked on, so the load follows the requests that arrive, later and smoother; it is a mean over the three "
    "minutes around each moment, which is what is foreseen. The band is what had been foreseen of it a lead time "
    "before, drawn at the moment it speaks of: from the load that was expected to the one that was planned for."
)
"""Of a chart that has load and band."""


def load_charts(told: Sequence[Told], end: float) -> list[TimeChart]:
    """One for each policy that foresees; where none does, the requests that arrived, which are the same for all."""
    seers = [number for number, one in enumerate(told) if foreseen(one.replay, 1) is not None]
    several = len(seers) > 1
    return [
        load_chart(
            told[number].replay,
            end,
            number=number,
            at=f"load-chart-{number}" if several else "load-chart",
            title=told[number].label,
            most=columns(len(seers)),
        )
        for number in seers
    ] or [load_chart(told[0].replay, end)]


def load_chart(
    replay: Replay, end: float, *, number: int = 0, at: str = "load-chart", title: str = "", most: int = MOST_COLUMNS
) -> TimeChart:
    """What came, and behind it, in the policy's colour, what it had foreseen of that.

    A forecast is of the load that its policy tells, so the requests that arrived step back where that is told.
    """
    band = foreseen(replay, most)
    # Without a forecast nobody asks in which unit the policy counts.
    load = load_seen(replay, most) if band is not None else None
    said = f"{'Requests' if load is None else 'Load and requests'} arriving a second over time"
    if band is not None:
        said += f", with the band that was foreseen{f' by {title}' if title else ''}"
    return TimeChart(
        at=at,
        title=title,
        label=said,
        unit="requests/s",
        height=240,
        begin=0.0,
        end=end,
        series=(
            *([] if band is None else [_band(replay, band, color(number))]),
            _arriving(replay, quiet=load is not None),
            *([] if load is None else [_came(load)]),
        ),
    )


def _band(replay: Replay, band: Foreseen, ours: str) -> Series:
    quantiles = {each.forecast.quantile for each in replay.decisions if each.forecast is not None}
    upper = f"{100 * quantiles.pop():g}\u00a0% quantile" if len(quantiles) == 1 else "upper quantile"
    return Series.rounded(
        name=f"foreseen a lead time before: expected to {upper}",
        short="foreseen",
        kind="area",
        x=band.x,
        low=band.expected,
        y=band.upper,
        color=ours,
        opacity=0.25,
    )


def _arriving(replay: Replay, *, quiet: bool) -> Series:
    rate = arrivals(replay.arrived_at_seconds)
    return Series.rounded(
        name="requests arriving",
        short="arriving",
        x=rate.x,
        y=rate.y,
        color="var(--soft)" if quiet else "var(--demand)",
        width=1.0 if quiet else 1.8,
        opacity=0.7 if quiet else 1.0,
        steps=True,
    )


def _came(load: Load) -> Series:
    return Series.rounded(
        name="load that came, in requests of the mix then present",
        short="load that came",
        x=load.x,
        y=load.y,
        color="var(--demand)",
        width=2.2,
    )


def coverage_chart(told: Sequence[Told], found: Sequence[Forecasts | None], end: float) -> TimeChart:
    """The share of each stretch's forecasts that were not exceeded, a gap where none can be told; of one at least."""
    step = step_of(end)
    seers = [
        (number, one.label, each.by_step(step))
        for number, (one, each) in enumerate(zip(told, found, strict=True))
        if each is not None
    ]
    lines = [
        Series.rounded(
            name=label,
            # Level over each stretch, so that one beside a gap can be seen, too.
            x=np.array([[each.begin, min(each.end, end)] for each in stretches]).ravel(),
            y=np.repeat(shares(stretches), 2),
            color=color(number),
            dash=dash(place),
            width=1.8 if place else 2.4,
            shown=place < SHOWN_AT_FIRST,
        )
        for place, (number, label, stretches) in enumerate(seers)
    ]
    longest = max((stretches for _, _, stretches in seers), key=len)
    return TimeChart(
        at="coverage-chart",
        title=f"Instants at which what came was covered, by {stretch_name(step)}",
        label="Share of instants at which the load stayed within what was planned for, over time",
        unit="share covered",
        height=200,
        begin=0.0,
        end=end,
        top=1.0,
        percent=True,
        series=(
            *lines,
            *(_meant(each, end) for each in sorted({each.quantile for each in found if each is not None})),
        ),
        said=Said(
            np.array([each.begin for each in longest]),
            tuple(
                " ".join(_counts(label, stretches[at]) for _, label, stretches in seers if at < len(stretches))
                for at in range(len(longest))
            ),
        ),
        choosable=len(seers) > 1,
    )


def _meant(quantile: float, end: float) -> Series:
    """A line in the legend and not a mark, whose words would lie on the lines that should lie near it."""
    return Series.rounded(
        name=f"planned for: {100 * quantile:.3g}\u00a0%",
        short="planned for",
        x=np.array([0.0, end]),
        y=np.full(2, quantile),
        color="var(--objective)",
        dash="1 4",
    )


def _counts(label: str, each: Covered) -> str:
    return f"{label}: {each.covered:,} of {each.known:,}." if each.known else f"{label}: not known."
