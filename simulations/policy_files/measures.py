"""One metric of an autoscaler with its target, and the mistakes that such a pair often holds.

What can be seen from the query alone: whether its answer grows with the number of pods, how many elements it has,
and beyond which number it can never go. An answer that is a mean already, divided by the replicas once more, asks
for one or two of them whatever the load; a share from 0 to 1 never reaches a target of 80.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from cluster.vllm_metrics import DISTRIBUTIONS, KV_CACHE_USAGE
from simulations.policy_files.promql import (
    COMPARISONS,
    OVER_TIME,
    SET_OPERATORS,
    Aggregate,
    Binary,
    Call,
    Expression,
    Number,
    Selector,
    selectors,
)
from simulations.policy_files.scrapes import REPLICAS

Target = Literal["pods", "average", "value"]
"""A mean over the pods; a total of which each replica takes a share; a number to be kept at the target."""
POD_LABELS = ("pod", "instance")
LONGEST_TOKEN_SECONDS = 5.0
"""A time per token beyond this is no objective: the number was meant in milliseconds."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What is read, and what it is held against."""

    name: str
    """As its owner calls it."""
    tree: Expression
    kind: Target
    target: float


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a measure, and the measure as it must have been meant."""

    sentence: str
    meant: Measure


@dataclass(frozen=True, slots=True)
class _Shape:
    degree: int
    """How each element grows with the number of pods: 0 not at all, 1 as they do."""
    by_pod: bool
    """Whether there is an element a pod."""


def shape(tree: Expression) -> _Shape:
    match tree:
        case Number():
            return _Shape(0, False)
        case Selector():
            counts = tree.series in REPLICAS
            return _Shape(1 if counts else 0, not counts)
        case Call():
            shapes = [shape(argument) for argument in tree.arguments]
            by_pod = any(each.by_pod for each in shapes) and tree.function != "scalar"
            return _Shape(0 if tree.function == "histogram_quantile" else max(s.degree for s in shapes), by_pod)
        case Aggregate():
            inner = shape(tree.inner)
            kept = inner.by_pod and any(label in tree.labels for label in POD_LABELS) != tree.without
            joined = inner.by_pod and not kept
            if tree.operator == "count":
                return _Shape(1 if joined else 0, kept)
            return _Shape(inner.degree + (1 if joined and tree.operator == "sum" else 0), kept)
        case Binary():
            left, right = shape(tree.left), shape(tree.right)
            by_pod = left.by_pod or right.by_pod
            match tree.operator:
                case "*":
                    return _Shape(left.degree + right.degree, by_pod)
                case "/":
                    return _Shape(left.degree - right.degree, by_pod)
                case operator if operator in COMPARISONS and not isinstance(tree.left, Number):
                    return _Shape(left.degree, by_pod)
                case _:
                    return _Shape(max(left.degree, right.degree), by_pod)


def most(tree: Expression) -> float:
    """What an element never goes beyond; of a sum over the pods, what each contributes. Infinity where unknown."""
    match tree:
        case Number():
            return tree.value
        case Selector():
            return 1.0 if tree.series in KV_CACHE_USAGE else math.inf
        case Aggregate() if tree.operator != "count":
            return most(tree.inner)
        case Call() if tree.function in OVER_TIME and tree.function not in ("sum_over_time", "count_over_time"):
            return most(tree.arguments[0])
        case Call() if tree.function in ("vector", "scalar", "ceil", "round"):
            return math.ceil(most(tree.arguments[0])) if math.isfinite(most(tree.arguments[0])) else math.inf
        case Binary() if tree.operator == "*":
            return most(tree.left) * most(tree.right) if most(tree.left) > 0 < most(tree.right) else math.inf
        case Binary() if tree.operator == "/" and _is_total(tree.left) and shape(tree.right).degree == 1:
            return most(tree.left)
        case Binary() if tree.operator == "or":
            return max(most(tree.left), most(tree.right))
        case Binary() if tree.operator in (*COMPARISONS, "and", "unless") and not tree.as_bool:
            return most(tree.left)
        case _:
            return math.inf


def _is_total(tree: Expression) -> bool:
    return isinstance(tree, Aggregate) and tree.operator == "sum"


def _is_token_time(tree: Expression) -> bool:
    """A quantile of the seconds between tokens, as they are."""
    if isinstance(tree, Aggregate):
        return tree.operator != "count" and _is_token_time(tree.inner)
    if isinstance(tree, Binary) and tree.operator in SET_OPERATORS:
        return _is_token_time(tree.left)
    if not isinstance(tree, Call) or tree.function != "histogram_quantile":
        return False
    names = {f"{name}_bucket" for field in ("tpot", "inter_token") for name in DISTRIBUTIONS[field]}
    return all(selector.series in names for selector in selectors(tree))


def mistakes(measure: Measure) -> Iterator[Mistake]:
    """Each with the measure as it is after those before it."""
    now = measure
    if most(now.tree) <= 1 and 1 < now.target <= 100:
        now = replace(now, target=now.target / 100)
        yield Mistake(
            f"{now.name} is a share from 0 to 1 and is compared with {measure.target:g}, which it never reaches: "
            f"{now.target:g} was meant",
            now,
        )
    if _is_token_time(now.tree) and now.target >= LONGEST_TOKEN_SECONDS:
        now = replace(now, target=now.target / 1000)
        yield Mistake(
            f"{now.name} is seconds a token and is compared with {measure.target:g}: "
            f"milliseconds were meant, {now.target:g} s",
            now,
        )
    found = shape(now.tree)
    if now.kind == "average" and found.degree <= 0 and not found.by_pod and any(True for _ in selectors(now.tree)):
        now = replace(now, kind="value")
        yield Mistake(
            f"{now.name} does not grow with the pods, and AverageValue divides it by their number once more: "
            f"4 pods with 10 waiting each, a mean of 10, and a target of 5 become 2; Value was meant",
            now,
        )


def is_gone_at_zero(tree: Expression) -> bool:
    """Whether nothing is left to read once no pod is there."""
    match tree:
        case Binary() if tree.operator == "or":
            return is_gone_at_zero(tree.left) and is_gone_at_zero(tree.right)
        case Call() if tree.function == "vector":
            return False
        case _:
            read = list(selectors(tree))
            return bool(read) and all(selector.series not in REPLICAS for selector in read)
