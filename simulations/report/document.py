"""One HTML page out of chapters: styles, scripts and data inside it, nothing fetched, nothing run that is not ours."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Literal

import orjson

from simulations.report.charts import Chart

SCRIPTS = ("charts.js", "time_chart.js", "dots_chart.js", "draw.js")
"""In the order in which they build on each other."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """A heading with what stands under it."""

    anchor: str
    title: str
    body: str
    """HTML, in which everything given by a user is escaped already."""


def document(
    title: str,
    lead: str,
    chapters: Sequence[Chapter],
    charts: Sequence[Chart],
    notes: Sequence[str],
    *,
    contents: bool = False,
) -> str:
    """The page; each chart is drawn into the figure that `figure` made for it. With `contents`, links to all chapters.

    The title and the notes are plain text, the lead and the chapters HTML.
    """
    files = resources.files("simulations.report")
    links = "".join(f'<a href="#{each.anchor}">{html.escape(each.title)}</a>' for each in chapters)
    data = orjson.dumps([*charts], option=orjson.OPT_SERIALIZE_NUMPY).decode().replace("<", "\\u003c")
    return Template(files.joinpath("page.html").read_text("utf-8")).substitute(
        title=html.escape(title),
        style=files.joinpath("style.css").read_text("utf-8"),
        lead=lead,
        contents=f'<nav aria-label="Chapters">{links}</nav>' if contents else "",
        chapters="\n".join(_section(each) for each in chapters),
        footer=paragraphs(notes),
        data=data,
        script="\n".join(files.joinpath(name).read_text("utf-8") for name in SCRIPTS),
    )


def _section(chapter: Chapter) -> str:
    return (
        f'<section aria-labelledby="{chapter.anchor}">\n'
        f'<h2 id="{chapter.anchor}">{html.escape(chapter.title)}</h2>\n{chapter.body}\n</section>'
    )


def paragraphs(lines: Sequence[str]) -> str:
    """Plain sentences, each a paragraph."""
    return "\n".join(f"<p>{html.escape(line)}</p>" for line in lines)


def figure(chart: Chart) -> str:
    """Where a chart is drawn."""
    return f'<figure class="chart" id="{chart.at}"></figure>'


def key(color: str) -> str:
    """A patch of a policy's colour, before its name."""
    return f'<span class="key" style="background:{color}"></span>'


@dataclass(frozen=True, slots=True)
class Cell:
    """Plain text, and how it is set."""

    text: str
    kind: Literal["", "miss", "hash", "prose"] = ""
    interval: str = ""
    """Between what it lies, in smaller letters below it."""

    @property
    def html(self) -> str:
        below = f'<span class="interval">{html.escape(self.interval)}</span>' if self.interval else ""
        return f"<span>{html.escape(self.text)}{below}</span>" if below else html.escape(self.text)

    @property
    def css(self) -> str:
        return f' class="{self.kind}"' if self.kind else ""


@dataclass(frozen=True, slots=True)
class Row:
    """What a table says of one policy."""

    name: str
    color: str
    cells: tuple[Cell, ...]
    remark: str = ""
    """Beside the name, as `best` is."""


def table(heads: Sequence[str], rows: Sequence[Row], *, caption: str = "", wide: bool = False) -> str:
    """A table that scrolls inside itself; on a narrow screen a card a policy, each cell beside its column's name.

    `wide`: where names or values are long, a card has one cell a line.
    """
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    body = []
    for row in rows:
        remark = f' <span class="remark">{html.escape(row.remark)}</span>' if row.remark else ""
        cells = "".join(
            f'<td data-name="{html.escape(name)}"{cell.css}>{cell.html}</td>'
            for name, cell in zip(heads[1:], row.cells, strict=True)
        )
        name = f'<span class="named">{key(row.color)}{html.escape(row.name)}</span>{remark}'
        body.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    said = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    label = html.escape(caption or "Figures of each policy")
    return (
        f'<div class="table{" wide" if wide else ""}" tabindex="0" role="group" aria-label="{label}">'
        f"<table>{said}<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def changes(summary: str, items: Sequence[tuple[str, str, str]], *, open_: bool = False) -> str:
    """A list of when, what and why, folded under its summary."""
    lines = "".join(
        f'<li><span class="at">{html.escape(at)}</span><span class="to">{html.escape(to)}</span>'
        f'<span class="why">{html.escape(why)}</span></li>'
        for at, to, why in items
    )
    return (
        f"<details{' open' if open_ else ''}><summary>{html.escape(summary)}</summary>"
        f'<ol class="changes">{lines}</ol></details>'
    )


def counted(number: int, what: str) -> str:
    """1 change, 2 changes."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """Time of the trace, as people write it: 07:15, 2:07:15, or 1d 02:07:15."""
    whole = round(seconds)
    days, hours, minutes, rest = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    if days:
        return f"{days}d {hours:02d}:{minutes:02d}:{rest:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
