"""Writes replays as one HTML page: its styles, its script and its data inside it, nothing fetched."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from string import Template
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from policies.scaling.resource import Objectives
from simulations.replay import Replay

BIN_SECONDS = 60.0
LOAD_BIN_SECONDS = 30.0
MISSED = ' class="miss"'


@dataclass(frozen=True, slots=True)
class Told:
    """A replay under the name that the report gives its policy."""

    label: str
    replay: Replay
    note: str = ""
    """What has to be said of it, for the foot of the page."""


def page(title: str, lead: Sequence[str], told: Sequence[Told], objectives: Objectives, notes: Sequence[str]) -> str:
    """The whole report; the first of those told is ours, whose forecasts are drawn."""
    files = resources.files("simulations.report")
    read = {name: files.joinpath(name).read_text("utf-8") for name in ("page.html", "style.css", "charts.js")}
    data = orjson.dumps(_data(told, objectives)).decode().replace("<", "\\u003c")
    return Template(read["page.html"]).substitute(
        title=html.escape(title),
        style=read["style.css"],
        lead="\n".join(f"<p>{html.escape(line)}</p>" for line in lead),
        table=_table(told, objectives),
        load_note="Arrivals a second, and the band from the expected value to the quantile that Preheat planned for, "
        "drawn at the moment it speaks of.",
        replicas_note="What each policy wanted before damping and bounds, what was created, and what was ready to "
        "serve: between the last two lies the cold start. Point at a moment to read the decision.",
        latency_note="Of the requests that arrived in each minute; a request that was never answered is not in it, "
        "but counts as a miss in the table.",
        decisions="\n".join(_changes(one) for one in told),
        footer="\n".join(f"<p>{html.escape(note)}</p>" for note in [*notes, *(t.note for t in told if t.note)]),
        data=data,
        script=read["charts.js"],
    )


def _table(told: Sequence[Told], objectives: Objectives) -> str:
    heads = ("policy", "attained", "TTFT p50", "TTFT p99", "TPOT p99", "GPU-hours", "changes", "most replicas")
    rows = []
    for number, one in enumerate(told):
        r = one.replay
        reached = r.attainment >= objectives.attainment
        shown = (
            f"{r.attainment:.2%}",
            seconds(r.ttft_seconds["p50"]),
            seconds(r.ttft_seconds["p99"]),
            seconds(r.tpot_seconds["p99"]),
            f"{r.gpu_hours:.2f}",
            str(r.replica_changes),
            str(r.max_replicas),
        )
        # On a narrow screen each cell shows its column's name beside it.
        cells = tuple(
            f'<td data-name="{name}"{"" if reached or at else MISSED}>{cell}</td>'
            for at, (name, cell) in enumerate(zip(heads[1:], shown, strict=True))
        )
        key = f'<span class="key" style="background:var(--p{number % 4})"></span>'
        rows.append(f'<tr><th scope="row">{key}{html.escape(one.label)}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def seconds(value: float) -> str:
    """A latency as people write it."""
    if not math.isfinite(value):
        return "–"
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def _changes(one: Told) -> str:
    items = []
    for decision in one.replay.decisions:
        if decision.changes:
            minutes, rest = divmod(round(decision.time), 60)
            items.append(
                f'<li><span class="at">{minutes:02d}:{rest:02d}</span>'
                f'<span class="to">{decision.desired} → {decision.replicas}</span>'
                f'<span class="why">{html.escape(decision.sentence)}</span></li>'
            )
    return (
        f"<details><summary>{html.escape(one.label)}: {len(items)} changes</summary>"
        f'<ol class="changes">{"".join(items)}</ol></details>'
    )


def _data(told: Sequence[Told], objectives: Objectives) -> dict[str, Any]:
    end = max(one.replay.end_seconds for one in told)
    arrived = told[0].replay.arrived_at_seconds
    edges = np.arange(0.0, arrived[-1] + LOAD_BIN_SECONDS, LOAD_BIN_SECONDS)
    counts = np.histogram(arrived, edges)[0]
    foreseen = [d.forecast for d in told[0].replay.decisions if d.forecast is not None]
    foreseen = sorted((f for f in foreseen if f.time <= end), key=lambda f: f.time)
    return {
        "end": end,
        "objectives": {
            "ttft": objectives.ttft_seconds,
            "tpot": round(objectives.tpot_seconds * 1000, 6),
        },
        "load": {"x": edges[:-1].tolist(), "y": _rounded(counts / LOAD_BIN_SECONDS)},
        "forecast": {
            "x": [f.time for f in foreseen],
            "expected": _rounded(np.array([f.expected for f in foreseen])),
            "upper": _rounded(np.array([f.upper for f in foreseen])),
        },
        "policies": [_policy(one) for one in told],
    }


def _policy(one: Told) -> dict[str, Any]:
    timeline, decisions = one.replay.timeline, one.replay.decisions
    return {
        "label": one.label,
        "time": timeline.time.tolist(),
        "wanted": [d.wanted for d in decisions],
        "created": timeline.created.tolist(),
        "ready": timeline.ready.tolist(),
        "holding": (timeline.created + timeline.draining).tolist(),
        "waiting": timeline.waiting.tolist(),
        "sentences": [d.sentence for d in decisions],
        "ttft": _by_minute(one.replay.arrived_at_seconds, one.replay.ttft, 1.0),
        "tpot": _by_minute(one.replay.arrived_at_seconds, one.replay.tpot, 1000.0),
    }


def _by_minute(
    arrived: NDArray[np.float64], values: NDArray[np.float64], scale: float
) -> dict[str, list[float] | list[float | None]]:
    """95th percentile of the requests that arrived in each minute, drawn at its middle; None for no request."""
    edges = np.arange(0.0, arrived[-1] + BIN_SECONDS, BIN_SECONDS)
    bounds = np.searchsorted(arrived, edges)
    highs: list[float | None] = []
    for start, stop in pairwise(bounds.tolist()):
        known = values[start:stop]
        known = known[np.isfinite(known)]
        highs.append(float(round(float(np.percentile(known, 95)) * scale, 4)) if known.size else None)
    return {"x": (edges[:-1] + BIN_SECONDS / 2).tolist(), "y": highs}


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.round(values, 4)]
