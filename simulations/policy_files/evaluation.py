"""What a query answers at an instant, from what was scraped: Prometheus 3's arithmetic, as far as `promql` reads it.

A vector is a number by the labels that tell its elements apart, the name of the series not among them. Range
selectors are open to the left and closed to the right; rates are extrapolated to the window as Prometheus does it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Protocol

from simulations.policy_files.promql import (
    COMPARISONS,
    SET_OPERATORS,
    Aggregate,
    Binary,
    Call,
    Expression,
    Number,
    Selector,
)

Labels = tuple[tuple[str, str], ...]
"""Sorted by label."""
Vector = dict[Labels, float]
Points = Sequence[tuple[float, float]]
"""Scrape times and values, oldest first."""


class QueryFailedError(Exception):
    """Prometheus would answer the query with an error now; the message is its reason."""


class Shown(Protocol):
    """What has been scraped up to an instant."""

    @property
    def time(self) -> float: ...

    def instant(self, selector: Selector) -> Vector: ...

    def window(self, selector: Selector) -> Mapping[Labels, Points]: ...


def evaluate(tree: Expression, shown: Shown) -> float | Vector:
    """A number, or a vector, which may be empty; a QueryFailedError where its parts do not fit together."""
    match tree:
        case Number():
            return tree.value
        case Selector():
            return shown.instant(tree)
        case Call():
            return _call(tree, shown)
        case Aggregate():
            return _aggregate(tree, _vector(tree.inner, shown))
        case Binary():
            return _binary(tree, evaluate(tree.left, shown), evaluate(tree.right, shown))


def _vector(tree: Expression, shown: Shown) -> Vector:
    answer = evaluate(tree, shown)
    return answer if isinstance(answer, dict) else {(): answer}


def _scalar(tree: Expression, shown: Shown) -> float:
    answer = evaluate(tree, shown)
    return math.nan if isinstance(answer, dict) else answer


def _call(tree: Call, shown: Shown) -> float | Vector:
    name, arguments = tree.function, tree.arguments
    if isinstance(arguments[0], Selector) and arguments[0].window_seconds is not None:
        return _over(name, arguments[0], shown)
    if name == "vector":
        return {(): _scalar(arguments[0], shown)}
    if name == "histogram_quantile":
        return _histogram_quantile(_scalar(arguments[0], shown), _vector(arguments[1], shown))
    vector = _vector(arguments[0], shown)
    if name == "scalar":
        return next(iter(vector.values())) if len(vector) == 1 else math.nan
    limits = [_scalar(argument, shown) for argument in arguments[1:]]
    if name == "clamp" and limits[0] > limits[1]:
        return {}
    return {labels: _of_one(name, value, limits) for labels, value in vector.items()}


def _of_one(name: str, value: float, limits: Sequence[float]) -> float:
    if name.startswith("clamp"):
        low = limits[0] if name != "clamp_max" else -math.inf
        high = limits[-1] if name != "clamp_min" else math.inf
        return math.nan if any(map(math.isnan, (value, *limits))) else max(low, min(high, value))
    if name == "abs":
        return abs(value)
    if not math.isfinite(value):
        return _of_infinity(name, value)
    match name:
        case "ceil":
            return float(math.ceil(value))
        case "floor":
            return float(math.floor(value))
        case "round":
            return math.floor(value + 0.5)
        case "sqrt":
            return math.sqrt(value) if value >= 0 else math.nan
        case "ln":
            return math.log(value) if value > 0 else -math.inf if value == 0 else math.nan
        case _:
            return _power(math.e, value)


def _of_infinity(name: str, value: float) -> float:
    if math.isnan(value) or (value < 0 and name in ("sqrt", "ln")):
        return math.nan
    return 0.0 if name == "exp" and value < 0 else value


# ---- over a window


def _over(name: str, selector: Selector, shown: Shown) -> Vector:
    seconds = selector.window_seconds or 0.0
    start = shown.time - seconds
    answer: Vector = {}
    for labels, points in shown.window(selector).items():
        value = _of_points(name, points, start, shown.time)
        if value is not None:
            answer[labels] = value
    return answer


def _of_points(name: str, points: Points, start: float, end: float) -> float | None:
    if name in ("rate", "increase", "delta"):
        return _extrapolated(name, points, start, end)
    if name == "irate":
        return _last_rate(points)
    values = [value for _, value in points]
    match name:
        case "avg_over_time":
            return added(values) / len(values)
        case "sum_over_time":
            return added(values)
        case "count_over_time":
            return float(len(values))
        case "last_over_time":
            return values[-1]
        case _:
            return _extreme(values, max if name == "max_over_time" else min)


def _extrapolated(name: str, points: Points, start: float, end: float) -> float | None:
    """Between the first and the last point, carried on to the edges of the window where these are near."""
    if len(points) < 2:
        return None
    (first_at, first), (last_at, last) = points[0], points[-1]
    growth = last - first
    values = [value for _, value in points]
    if name != "delta" and values != sorted(values):
        # A counter that fell began anew from zero.
        growth += sum(before for before, after in itertools.pairwise(values) if after < before)
    sampled = last_at - first_at
    between = sampled / (len(points) - 1)
    to_start, to_end = first_at - start, end - last_at
    near = between * 1.1
    to_start = between / 2 if to_start >= near else to_start
    if name != "delta" and growth > 0 and first >= 0:
        # It was zero once: not further back than that.
        to_start = min(to_start, sampled * (first / growth))
    to_end = between / 2 if to_end >= near else to_end
    factor = (sampled + to_start + to_end) / sampled
    return growth * (factor / (end - start) if name == "rate" else factor)


def _last_rate(points: Points) -> float | None:
    if len(points) < 2:
        return None
    (before_at, before), (last_at, last) = points[-2], points[-1]
    return (last if last < before else last - before) / (last_at - before_at)


# ---- aggregations


def added(values: Iterable[float]) -> float:
    """Their sum, to the last bit whatever their order; infinities and NaN as IEEE has them."""
    listed = list(values)
    return math.fsum(listed) if all(map(math.isfinite, listed)) else sum(listed)


def _extreme(values: Iterable[float], choose: Callable[[Iterable[float]], float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return choose(numbers) if numbers else math.nan


def _aggregate(tree: Aggregate, vector: Vector) -> Vector:
    groups: dict[Labels, list[float]] = {}
    for labels, value in vector.items():
        groups.setdefault(_kept(labels, tree.labels, tree.without), []).append(value)
    return {labels: _of_group(tree.operator, values) for labels, values in groups.items()}


def _of_group(operator: str, values: list[float]) -> float:
    match operator:
        case "sum":
            return added(values)
        case "avg":
            return added(values) / len(values)
        case "count":
            return float(len(values))
        case _:
            return _extreme(values, max if operator == "max" else min)


def _kept(labels: Labels, names: Sequence[str], without: bool) -> Labels:
    return tuple(pair for pair in labels if (pair[0] in names) != without)


# ---- histograms


def _histogram_quantile(share: float, vector: Vector) -> Vector:
    histograms: dict[Labels, dict[float, float]] = {}
    for labels, count in vector.items():
        edge = next((_edge(value) for name, value in labels if name == "le"), None)
        if edge is not None:
            buckets = histograms.setdefault(_kept(labels, ("le",), True), {})
            buckets[edge] = buckets.get(edge, 0.0) + count
    return {labels: _quantile(share, sorted(buckets.items())) for labels, buckets in histograms.items()}


def _edge(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _quantile(share: float, buckets: list[tuple[float, float]]) -> float:
    if math.isnan(share):
        return math.nan
    if not 0 <= share <= 1:
        return math.copysign(math.inf, share)
    if len(buckets) < 2 or buckets[-1][0] != math.inf:
        return math.nan
    counts: list[float] = []
    for _, count in buckets:
        # Counts of one histogram read at several moments may fall by a little: they are held up.
        counts.append(max(count, counts[-1]) if counts else count)
    total = counts[-1]
    if not total > 0:
        return math.nan
    rank = share * total
    place = next((i for i, count in enumerate(counts[:-1]) if count >= rank), len(counts) - 1)
    if place == len(counts) - 1:
        return buckets[-2][0]
    upper, count, lower = buckets[place][0], counts[place], 0.0
    if place == 0:
        if upper <= 0:
            return upper
    else:
        lower = buckets[place - 1][0]
        count -= counts[place - 1]
        rank -= counts[place - 1]
    return lower + (upper - lower) * (rank / count) if count else math.nan


# ---- operators


def _binary(tree: Binary, left: float | Vector, right: float | Vector) -> float | Vector:
    if tree.operator in SET_OPERATORS:
        assert isinstance(left, dict)
        assert isinstance(right, dict)
        return _set_operation(tree, left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return _matched(tree, left, right)
    if isinstance(left, dict):
        assert not isinstance(right, dict)
        return _filtered(tree, ((labels, value, right, value) for labels, value in left.items()))
    if isinstance(right, dict):
        number = left
        return _filtered(tree, ((labels, number, value, value) for labels, value in right.items()))
    return _number(tree.operator, left, right)


def _filtered(tree: Binary, pairs: Iterable[tuple[Labels, float, float, float]]) -> Vector:
    """Labels, left, right, and the value that passes a comparison."""
    answer: Vector = {}
    for labels, left, right, passing in pairs:
        value = _number(tree.operator, left, right)
        if tree.operator not in COMPARISONS or tree.as_bool:
            answer[labels] = value
        elif value:
            answer[labels] = passing
    return answer


def _signature(tree: Binary, labels: Labels) -> Labels:
    return labels if tree.matching is None else _kept(labels, tree.matching, tree.ignoring)


def _matched(tree: Binary, left: Vector, right: Vector) -> Vector:
    partners: dict[Labels, float] = {}
    for labels, value in right.items():
        signature = _signature(tree, labels)
        if signature in partners:
            raise QueryFailedError("many elements on the right of an operator match one group")
        partners[signature] = value
    pairs: dict[Labels, tuple[float, float]] = {}
    for labels, value in left.items():
        signature = _signature(tree, labels)
        if signature not in partners:
            continue
        if signature in pairs:
            raise QueryFailedError("many elements on the left of an operator match one on its right")
        pairs[signature] = (value, partners[signature])
    return _filtered(tree, ((labels, one, other, one) for labels, (one, other) in pairs.items()))


def _set_operation(tree: Binary, left: Vector, right: Vector) -> Vector:
    if tree.operator == "or":
        there = {_signature(tree, labels) for labels in left}
        return {**left, **{labels: v for labels, v in right.items() if _signature(tree, labels) not in there}}
    others = {_signature(tree, labels) for labels in right}
    return {labels: v for labels, v in left.items() if (_signature(tree, labels) in others) == (tree.operator == "and")}


def _number(operator: str, left: float, right: float) -> float:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return _quotient(left, right)
        case "%":
            if right == 0 or math.isinf(left) or math.isnan(right):
                return math.nan
            return math.fmod(left, right)
        case "^":
            return _power(left, right)
        case "==":
            return float(left == right)
        case "!=":
            return float(left != right)
        case "<":
            return float(left < right)
        case "<=":
            return float(left <= right)
        case ">":
            return float(left > right)
        case _:
            return float(left >= right)


def _quotient(left: float, right: float) -> float:
    if right != 0:
        return left / right
    return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1.0, right)


def _power(left: float, right: float) -> float:
    try:
        return math.pow(left, right)
    except OverflowError:
        return -math.inf if left < 0 and right % 2 == 1 else math.inf
    except ValueError:
        return math.inf if left == 0 else math.nan


# ---- matchers


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.DOTALL)


def matches(operator: str, wanted: str, value: str) -> bool:
    """Whether a label's value is as a matcher has it; patterns are anchored at both ends."""
    met = _pattern(wanted).fullmatch(value) is not None if operator.endswith("~") else value == wanted
    return met != operator.startswith("!")
