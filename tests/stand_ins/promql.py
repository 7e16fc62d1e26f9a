"""As much PromQL as Preheat sends, evaluated over samples held in memory: the judge of what a query asks.

Written from Prometheus' documentation; Prometheus 3.15 and 2.42 gave the same samples and bins when they were asked
beside it. What is not here is refused, as the real server refuses what it does not know.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

LOOKBACK_SECONDS = 300.0

Labels = dict[str, str]
Vector = list[tuple[Labels, float]]
Matrix = list[tuple[Labels, list[tuple[float, float]]]]


class BadQueryError(Exception):
    """What the real server would answer with 400."""


@dataclass
class Series:
    """Samples in order of time; None marks that the series ended there."""

    labels: Labels
    times: list[float] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)

    def latest(self, at: float) -> tuple[float, float] | None:
        place = bisect_right(self.times, at) - 1
        if place < 0 or self.times[place] <= at - LOOKBACK_SECONDS:
            return None
        value = self.values[place]
        return None if value is None else (self.times[place], value)

    def between(self, after: float, until: float) -> list[tuple[float, float]]:
        span = range(bisect_right(self.times, after), bisect_right(self.times, until))
        found = ((self.times[place], self.values[place]) for place in span)
        return [(time, value) for time, value in found if value is not None]


@dataclass(frozen=True)
class Matcher:
    label: str
    accepts: Callable[[str], bool]


class Store:
    """All series, by their names and labels."""

    def __init__(self) -> None:
        self._series: dict[str, dict[frozenset[tuple[str, str]], Series]] = {}

    def add(self, labels: Mapping[str, str], value: float | None, time: float) -> None:
        family = self._series.setdefault(labels["__name__"], {})
        series = family.setdefault(frozenset(labels.items()), Series(dict(labels)))
        series.times.append(time)
        series.values.append(value)

    def matching(self, matchers: Iterable[Matcher]) -> Iterator[Series]:
        wanted = tuple(matchers)
        names = [matcher for matcher in wanted if matcher.label == "__name__"]
        others = [matcher for matcher in wanted if matcher.label != "__name__"]
        for name, family in tuple(self._series.items()):
            if all(matcher.accepts(name) for matcher in names):
                for series in tuple(family.values()):
                    if all(matcher.accepts(series.labels.get(matcher.label, "")) for matcher in others):
                        yield series

    def names(self) -> list[str]:
        return sorted(self._series)

    def clear(self) -> None:
        self._series.clear()


@dataclass(frozen=True)
class Node:
    """A parsed expression: a vector at an instant, or (`matrix`) the samples of a stretch that ends there."""

    vector: Callable[[Store, float], Vector] | None = None
    matrix: Callable[[Store, float], Matrix] | None = None
    selector: tuple[Matcher, ...] | None = None
    window: float = 0.0

    def at(self, store: Store, time: float) -> Vector:
        if self.vector is None:
            raise BadQueryError("expected type instant vector, got range vector")
        return self.vector(store, time)

    def over(self, store: Store, time: float) -> Matrix:
        if self.matrix is None:
            raise BadQueryError("expected type range vector, got instant vector")
        return self.matrix(store, time)


def parse(promql: str) -> Node:
    """The expression, or BadQueryError."""
    parser = _Parser(promql)
    node = parser.expression()
    if parser.look() is not None:
        raise BadQueryError(f"unexpected {parser.look()}")
    return node


_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<string>"(?:[^"\\]|\\.)*")|(?P<duration>\d+(?:\.\d+)?(?:ms|s|m|h|d)\b)|(?P<number>\d+(?:\.\d+)?)"""
    r"""|(?P<word>[A-Za-z_][\w:]*)|(?P<sign>=~|!=|!~|[-+*=(){}\[\],:])""",
    re.VERBOSE,
)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise BadQueryError(f"parse error: unexpected character: {text[position]!r}")
            position = match.end()
            if match.lastgroup is not None:
                self._tokens.append((match.lastgroup, match.group()))
        self._next = 0

    def look(self) -> str | None:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else None

    def take(self, wanted: str = "", kind: str = "") -> str:
        if self._next >= len(self._tokens):
            raise BadQueryError("parse error: unexpected end of input")
        found_kind, text = self._tokens[self._next]
        if (wanted and text != wanted) or (kind and found_kind != kind):
            raise BadQueryError(f"parse error: unexpected {text!r}, wanted {wanted or kind}")
        self._next += 1
        return text

    def expression(self) -> Node:
        left = self.addition()
        while self.look() == "or":
            self.take()
            left = _either(left, self.addition())
        return left

    def addition(self) -> Node:
        left = self.product()
        while self.look() == "+":
            self.take()
            left = _added(left, self.product())
        return left

    def product(self) -> Node:
        left = self.ranged()
        while self.look() == "*":
            self.take()
            left = _times(left, float(self.take(kind="number")))
        return left

    def ranged(self) -> Node:
        node = self.primary()
        while self.look() == "[":
            self.take()
            window = self.duration()
            if self.look() == ":":
                self.take()
                node = _subquery(node, window, self.duration())
            else:
                node = _range_of(node, window)
            self.take("]")
        return node

    def duration(self) -> float:
        text = self.take(kind="duration")
        number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()  # type: ignore[union-attr]
        return float(number) * _UNITS[unit]

    def primary(self) -> Node:
        token = self.look()
        if token == "(":
            self.take()
            node = self.expression()
            self.take(")")
            return node
        if token in _AGGREGATIONS:
            return self.aggregation()
        if token in _FUNCTIONS and self._tokens[self._next + 1][1] == "(":
            return self.call()
        return self.selector()

    def aggregation(self) -> Node:
        operation = self.take()
        by = self.labels() if self.look() == "by" else ()
        self.take("(")
        inner = self.expression()
        self.take(")")
        return _aggregated(operation, by, inner)

    def labels(self) -> tuple[str, ...]:
        self.take("by")
        self.take("(")
        found = []
        while self.look() != ")":
            found.append(self.take(kind="word"))
            if self.look() == ",":
                self.take()
        self.take(")")
        return tuple(found)

    def call(self) -> Node:
        name = self.take()
        self.take("(")
        inner = self.expression()
        texts = []
        while self.look() == ",":
            self.take()
            texts.append(_unquoted(self.take(kind="string")))
        self.take(")")
        return _FUNCTIONS[name](inner, *texts)

    def selector(self) -> Node:
        matchers: list[Matcher] = []
        if self.look() != "{":
            matchers.append(_matcher("__name__", "=", self.take(kind="word")))
        if self.look() == "{":
            self.take()
            while self.look() != "}":
                label, operator = self.take(kind="word"), self.take(kind="sign")
                matchers.append(_matcher(label, operator, _unquoted(self.take(kind="string"))))
                if self.look() == ",":
                    self.take()
            self.take("}")
        wanted = tuple(matchers)

        def vector(store: Store, time: float) -> Vector:
            found = ((series.labels, series.latest(time)) for series in store.matching(wanted))
            return [(labels, sample[1]) for labels, sample in found if sample is not None]

        return Node(vector=vector, selector=wanted)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), text[1:-1])


def _matcher(label: str, operator: str, text: str) -> Matcher:
    if operator in ("=~", "!~"):
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise BadQueryError(f"error parsing regexp: {error}") from error
        return Matcher(label, lambda value: (pattern.fullmatch(value) is not None) == (operator == "=~"))
    return Matcher(label, lambda value: (value == text) == (operator == "="))


def _unnamed(labels: Labels) -> Labels:
    return {label: value for label, value in labels.items() if label != "__name__"}


def _distinct(vector: Vector) -> Vector:
    if len({frozenset(labels.items()) for labels, _ in vector}) < len(vector):
        raise BadQueryError("vector cannot contain metrics with the same labelset")
    return vector


def _range_of(node: Node, window: float) -> Node:
    wanted = node.selector
    if wanted is None:
        raise BadQueryError("ranges only allowed for vector selectors")

    def matrix(store: Store, time: float) -> Matrix:
        found = ((series.labels, series.between(time - window, time)) for series in store.matching(wanted))
        return [(labels, samples) for labels, samples in found if samples]

    return Node(matrix=matrix, window=window)


def _subquery(node: Node, window: float, step: float) -> Node:
    def matrix(store: Store, time: float) -> Matrix:
        found: dict[frozenset[tuple[str, str]], tuple[Labels, list[tuple[float, float]]]] = {}
        look = (math.floor((time - window) / step) + 1) * step
        while look <= time:
            for labels, value in node.at(store, look):
                found.setdefault(frozenset(labels.items()), (labels, []))[1].append((look, value))
            look += step
        return list(found.values())

    return Node(matrix=matrix, window=window)


def _either(left: Node, right: Node) -> Node:
    def vector(store: Store, time: float) -> Vector:
        first = left.at(store, time)
        known = {frozenset(_unnamed(labels).items()) for labels, _ in first}
        more = right.at(store, time)
        return first + [entry for entry in more if frozenset(_unnamed(entry[0]).items()) not in known]

    return Node(vector=vector)


def _added(left: Node, right: Node) -> Node:
    def vector(store: Store, time: float) -> Vector:
        others = {frozenset(_unnamed(labels).items()): value for labels, value in right.at(store, time)}
        pairs = ((_unnamed(labels), value) for labels, value in left.at(store, time))
        keyed = ((labels, value, frozenset(labels.items())) for labels, value in pairs)
        return [(labels, value + others[key]) for labels, value, key in keyed if key in others]

    return Node(vector=vector)


def _times(left: Node, factor: float) -> Node:
    def vector(store: Store, time: float) -> Vector:
        return [(_unnamed(labels), value * factor) for labels, value in left.at(store, time)]

    return Node(vector=vector)


_AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {
    "sum": math.fsum,
    "max": lambda values: max((value for value in values if not math.isnan(value)), default=math.nan),
    "group": lambda _: 1.0,
}


def _aggregated(operation: str, by: tuple[str, ...], inner: Node) -> Node:
    def vector(store: Store, time: float) -> Vector:
        groups: dict[tuple[str, ...], list[float]] = {}
        for labels, value in inner.at(store, time):
            groups.setdefault(tuple(labels.get(label, "") for label in by), []).append(value)
        return [
            ({label: text for label, text in zip(by, key, strict=True) if text}, _AGGREGATIONS[operation](values))
            for key, values in groups.items()
        ]

    return Node(vector=vector)


def _timestamp(inner: Node) -> Node:
    wanted = inner.selector
    if wanted is None:
        raise BadQueryError("this stand-in knows timestamp() of a selector only")

    def vector(store: Store, time: float) -> Vector:
        found = ((series.labels, series.latest(time)) for series in store.matching(wanted))
        return _distinct([(_unnamed(labels), sample[0]) for labels, sample in found if sample is not None])

    return Node(vector=vector)


def _over_time(fold: Callable[[list[tuple[float, float]]], float]) -> Callable[[Node], Node]:
    def function(inner: Node) -> Node:
        def vector(store: Store, time: float) -> Vector:
            return _distinct([(_unnamed(labels), fold(samples)) for labels, samples in inner.over(store, time)])

        return Node(vector=vector)

    return function


def _increase(inner: Node) -> Node:
    """Last less first, resets mended, extrapolated towards the ends of the window as Prometheus does."""
    window = inner.window

    def vector(store: Store, time: float) -> Vector:
        return _distinct(
            [
                (_unnamed(labels), _increased(samples, time - window, time))
                for labels, samples in inner.over(store, time)
                if len(samples) > 1
            ]
        )

    return Node(vector=vector)


def _increased(samples: list[tuple[float, float]], start: float, end: float) -> float:
    pairs = list(pairwise(samples))
    risen = math.fsum(after if after < before else after - before for (_, before), (_, after) in pairs)
    (first_time, first), (last_time, _) = samples[0], samples[-1]
    span = last_time - first_time
    gap = span / len(pairs)

    def beyond(distance: float) -> float:
        return distance if distance < 1.1 * gap else gap / 2

    before = beyond(first_time - start)
    if risen > 0:
        before = min(before, span * first / risen)  # a counter was never below zero
    return risen * (span + before + beyond(end - last_time)) / span


def _label_replace(inner: Node, target: str, text: str, source: str, pattern: str) -> Node:
    whole = re.compile(pattern)

    def vector(store: Store, time: float) -> Vector:
        found: Vector = []
        for labels, value in inner.at(store, time):
            match = whole.fullmatch(labels.get(source, ""))
            new = labels if match is None else {**labels, target: re.sub(r"\$(\d)", r"\\\1", text)}
            if match is not None:
                new[target] = match.expand(new[target])
            found.append((new, value))
        return _distinct(found)

    return Node(vector=vector)


_FUNCTIONS: dict[str, Callable[..., Node]] = {
    "timestamp": _timestamp,
    "increase": _increase,
    "count_over_time": _over_time(lambda samples: float(len(samples))),
    "label_replace": _label_replace,
}
