"""How a migrated object is written: YAML with the reason beside each line, and above it what to know and to try."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policies.scaling.resource import API_VERSION, KIND

WIDTH = 116


@dataclass(frozen=True, slots=True)
class Said:
    """A value, and why it is that."""

    value: float | int | str
    why: str


@dataclass(frozen=True, slots=True)
class Fate:
    """A line of the object, and what became of it."""

    line: str
    became: str


@dataclass(frozen=True, slots=True)
class Floor:
    """The fewest replicas between two times of cron."""

    start: str
    end: str
    zone: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Migrated:
    """One object in our terms."""

    kind: str
    name: str
    namespace: str | None
    target: Mapping[str, Any]
    fewest: Said
    most: Said
    ttft: Said
    tpot: Said
    attainment: Said
    server: Said
    window: Said | None
    idle: Said | None
    wake: Said | None
    floors: tuple[Floor, ...]
    wrong: tuple[str, ...]
    fates: tuple[Fate, ...]
    replayable: bool
    """Whether every metric of it can be replayed."""


def written(one: Migrated, source: str) -> str:
    """The document, opening with its story."""
    return "\n".join((*_story(one, source), *_document(one))) + "\n"


def _story(one: Migrated, source: str) -> Iterator[str]:
    file = "theirs.yaml" if source == "-" else source
    yield from _wrapped(f"What `preheat migrate` made of the {one.kind} {one.name}.")
    if one.wrong:
        yield "#"
        yield "# What was wrong in it, or had to be guessed:"
        for sentence in one.wrong:
            yield from _wrapped(sentence, bullet="- ")
    yield "#"
    yield "# What its other lines became:" if one.fates else "# It had nothing but a target and bounds."
    for fate in one.fates:
        yield from _wrapped(f"{fate.line}: {fate.became}", bullet="- ")
    yield "#"
    both = "both" if one.replayable else "this (the other cannot be replayed, for what is left out above)"
    yield from _wrapped(
        f"Write this into {_file(one)}, and before you change anything replay a day of traffic under {both}:"
    )
    yield f"#   {_replay(one, file)}"
    yield from _wrapped(
        "ENGINE is one that `preheat replay` lists, or a file of your own; --cold-start is created to ready. Then "
        "apply this beside what you have: in mode Shadow it decides, tells, and writes nothing. When you believe it, "
        f"delete the {one.kind} and write mode: Active."
    )


def _replay(one: Migrated, file: str) -> str:
    target = f"{one.namespace or 'default'}/{one.target.get('name', '')}"
    words = [
        *("preheat", "replay", f"prometheus:{one.server.value}?target={target}&from=-1d"),
        *([file] if one.replayable else []),
        *(_file(one), "--engine", "ENGINE", "--cold-start", "180", "--max", str(one.most.value)),
        *("--slo-ttft", f"{one.ttft.value:g}", "--slo-tpot", f"{one.tpot.value:g}"),
        *("--attainment", f"{one.attainment.value:g}"),
    ]
    return shlex.join(words)


def _file(one: Migrated) -> str:
    return f"preheat-{one.name}.yaml"


def _wrapped(text: str, bullet: str = "") -> Iterator[str]:
    first = f"#   {bullet}" if bullet else "# "
    rest = "#" + " " * (len(first) - 1)
    yield from textwrap.wrap(
        " ".join(text.split()), WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )


def _document(one: Migrated) -> Iterator[str]:
    yield f"apiVersion: {API_VERSION}"
    yield f"kind: {KIND}"
    yield "metadata:"
    yield f"  name: {_scalar(one.name)}"
    if one.namespace:
        yield f"  namespace: {_scalar(one.namespace)}"
    yield "spec:"
    yield "  scaleTargetRef:"
    for key, default in (("apiVersion", "apps/v1"), ("kind", "Deployment"), ("name", "")):
        yield f"    {key}: {_scalar(one.target.get(key) or default)}"
    yield _line("  minReplicas", one.fewest)
    yield _line("  maxReplicas", one.most)
    yield "  objectives:"
    yield _line("    ttftSeconds", one.ttft)
    yield _line("    tpotSeconds", one.tpot)
    yield _line("    attainment", one.attainment)
    yield "  prometheus:"
    yield _line("    url", one.server)
    if one.idle:
        yield _line("  idleSeconds", one.idle)
    if one.wake:
        yield "  wake:"
        yield _line("    query", one.wake)
    if one.window:
        yield "  behavior:"
        yield "    scaleDown:"
        yield _line("      windowSeconds", one.window)
    if one.floors:
        yield "  schedule:"
    for floor in one.floors:
        times = f"start: {json.dumps(floor.start)}, end: {json.dumps(floor.end)}, timeZone: {json.dumps(floor.zone)}"
        yield f"    - {{{times}, minReplicas: {floor.replicas}}}"
    yield "  mode: Shadow  # decides and tells, writes nothing"


def _line(key: str, said: Said) -> str:
    return f"{key}: {_scalar(said.value)}  # {said.why}"


def _scalar(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str) and value.replace("-", "").replace("/", "").replace(".", "").isalnum():
        return value if value[0].isalpha() else json.dumps(value)
    return json.dumps(value, default=str)
