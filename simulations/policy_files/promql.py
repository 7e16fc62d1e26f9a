"""The part of PromQL that can be replayed, read into a tree; anything else is refused by its name and place.

What is here is what autoscaling queries are made of: instant and range selectors, rates and averages over time,
aggregations, arithmetic, comparisons, set operators, `histogram_quantile` and a few functions of one number. No
subqueries, no `offset`, no `@`, no `group_left`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

Matcher = tuple[str, str, str]
"""Label, one of `=`, `!=`, `=~`, `!~`, and what it is compared with."""
Kind = Literal["scalar", "vector", "range"]


class PromQLError(ValueError):
    """A query that cannot be replayed; the message names the part, where it is, and what could be written instead."""


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True)
class Selector:
    series: str
    matchers: tuple[Matcher, ...]
    window_seconds: float | None
    """Of a range selector; None of an instant one."""
    place: int
    """Where in the query it begins, from 1."""


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Aggregate:
    operator: str
    inner: Expression
    labels: tuple[str, ...] = ()
    without: bool = False


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: Expression
    right: Expression
    as_bool: bool = False
    matching: tuple[str, ...] | None = None
    """Labels of `on` or `ignoring`; None where neither is written."""
    ignoring: bool = False


Expression = Number | Selector | Call | Aggregate | Binary

AGGREGATIONS = ("sum", "avg", "max", "min", "count")
COUNTER_RATES = ("rate", "irate", "increase")
OVER_TIME = ("avg_over_time", "max_over_time", "min_over_time", "sum_over_time", "count_over_time", "last_over_time")
_SIGNATURES: dict[str, tuple[Kind, ...]] = {
    **dict.fromkeys(("rate", "irate", "increase", "delta", *OVER_TIME), ("range",)),
    **dict.fromkeys(("abs", "ceil", "floor", "sqrt", "exp", "ln", "scalar"), ("vector",)),
    **dict.fromkeys(("clamp_min", "clamp_max"), ("vector", "scalar")),
    "round": ("vector",),
    "clamp": ("vector", "scalar", "scalar"),
    "vector": ("scalar",),
    "histogram_quantile": ("scalar", "vector"),
}
FUNCTIONS = tuple(_SIGNATURES)
COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")
SET_OPERATORS = ("and", "or", "unless")
_PRECEDENCE = {
    "or": 1,
    **dict.fromkeys(("and", "unless"), 2),
    **dict.fromkeys(COMPARISONS, 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/", "%"), 5),
    "^": 6,
}
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_DURATION = re.compile(r"(?:\d+(?:ms|[smhdwy]))+")
_TOKEN = re.compile(
    r"""
    (?P<space>\s+|\#[^\n]*)
    | (?P<number>(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.:]))
    | (?P<duration>\d+(?:ms|[smhdwy])(?:\d+(?:ms|[smhdwy]))*(?!\w))
    | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)
    | (?P<sign>=~|!~|==|!=|<=|>=|[-+*/%^<>=(){}\[\],@])
    """,
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: int


def parse(query: str) -> Expression:
    """The tree of a query that answers a scalar or an instant vector."""
    reader = _Reader(query)
    try:
        tree = reader.expression(0)
    except RecursionError:
        reader.refuse(1, "it is nested too deeply", "write it in fewer parentheses")
    reader.end()
    if kind_of(tree) == "range":
        reader.refuse(1, "a range selector alone answers no number", "take rate(…) or avg_over_time(…) of it")
    return tree


def kind_of(tree: Expression) -> Kind:
    match tree:
        case Number():
            return "scalar"
        case Selector():
            return "vector" if tree.window_seconds is None else "range"
        case Call():
            return "scalar" if tree.function == "scalar" else "vector"
        case Aggregate():
            return "vector"
        case Binary():
            return "scalar" if kind_of(tree.left) == kind_of(tree.right) == "scalar" else "vector"


def selectors(tree: Expression) -> Iterator[Selector]:
    """Every selector of the tree, from left to right."""
    match tree:
        case Selector():
            yield tree
        case Call():
            for argument in tree.arguments:
                yield from selectors(argument)
        case Aggregate():
            yield from selectors(tree.inner)
        case Binary():
            yield from selectors(tree.left)
            yield from selectors(tree.right)
        case Number():
            return


def rewritten(tree: Expression, change: Callable[[Selector], Expression]) -> Expression:
    """The tree with every selector replaced by what `change` makes of it."""
    match tree:
        case Selector():
            return change(tree)
        case Call():
            return Call(tree.function, tuple(rewritten(each, change) for each in tree.arguments))
        case Aggregate():
            return Aggregate(tree.operator, rewritten(tree.inner, change), tree.labels, tree.without)
        case Binary():
            left, right = rewritten(tree.left, change), rewritten(tree.right, change)
            return Binary(tree.operator, left, right, tree.as_bool, tree.matching, tree.ignoring)
        case Number():
            return tree


class _Reader:
    """Goes over the tokens of one query, once, from left to right."""

    def __init__(self, query: str) -> None:
        self._query = query
        self._tokens = list(self._cut(query))
        self._at = 0

    def _cut(self, query: str) -> Iterator[_Token]:
        at = 0
        while at < len(query):
            found = _TOKEN.match(query, at)
            if found is None:
                rest = re.findall(r"[\w$.:]+|\S", query[at:])[0]
                remedy = "write a duration such as 5m in its place" if rest.startswith("$") else "remove or mend it"
                self.refuse(at + 1, f"'{rest}' is not part of PromQL", remedy)
            kind = found.lastgroup or ""
            if kind != "space":
                yield _Token(kind, found.group(), at + 1)
            at = found.end()
        yield _Token("end", "", len(query) + 1)

    def refuse(self, place: int, what: str, remedy: str) -> NoReturn:
        said = f"query '{self._query.strip()}', character {place}: {what}: {remedy}"
        raise PromQLError(" ".join(said.split()))

    @property
    def _now(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._now
        self._at += 1
        return token

    def _is(self, *texts: str) -> bool:
        return self._now.kind in ("sign", "name") and self._now.text.lower() in texts

    def _expect(self, text: str) -> _Token:
        if not self._is(text):
            found = f"'{self._now.text}'" if self._now.text else "the end"
            self.refuse(self._now.place, f"{found} stands where '{text}' belongs", "mend the query")
        return self._take()

    def end(self) -> None:
        if self._now.kind == "end":
            return
        self._refuse_modifier()
        self.refuse(self._now.place, f"'{self._now.text}' follows a whole expression", "remove it or join it")

    def expression(self, least: int) -> Expression:
        """What binds at least as tightly as that, by climbing precedences."""
        left = self._unary()
        while True:
            self._refuse_modifier()
            operator = self._now
            name = operator.text.lower()
            if operator.kind not in ("sign", "name") or _PRECEDENCE.get(name, 0) < max(least, 1):
                return left
            self._take()
            as_bool = self._is("bool")
            if as_bool:
                self._take()
            matching, ignoring = self._matching()
            # `^` binds to the right, all others to the left.
            right = self.expression(_PRECEDENCE[name] + (name != "^"))
            left = self._binary(operator, Binary(name, left, right, as_bool, matching, ignoring))

    def _binary(self, operator: _Token, tree: Binary) -> Binary:
        kinds = (kind_of(tree.left), kind_of(tree.right))
        if "range" in kinds:
            self.refuse(operator.place, f"'{operator.text}' is given a range selector", "take rate(…) of it first")
        if tree.operator in SET_OPERATORS and "scalar" in kinds:
            self.refuse(operator.place, f"'{operator.text}' joins vectors, not numbers", "write vector(…) around it")
        if tree.as_bool and tree.operator not in COMPARISONS:
            self.refuse(operator.place, "bool belongs to comparisons only", "remove it")
        if tree.operator in COMPARISONS and kinds == ("scalar", "scalar") and not tree.as_bool:
            self.refuse(operator.place, "two numbers are compared without bool", f"write {operator.text} bool")
        return tree

    def _matching(self) -> tuple[tuple[str, ...] | None, bool]:
        if not self._is("on", "ignoring"):
            return None, False
        ignoring = self._take().text.lower() == "ignoring"
        labels = self._labels()
        if self._is("group_left", "group_right"):
            self._beyond(self._now, "aggregate both sides to the same labels instead")
        return labels, ignoring

    def _unary(self) -> Expression:
        if not self._is("-", "+"):
            return self._primary()
        sign = self._take()
        inner = self.expression(_PRECEDENCE["^"])
        if kind_of(inner) == "range":
            self.refuse(sign.place, f"'{sign.text}' is given a range selector", "take rate(…) of it first")
        if sign.text == "+":
            return inner
        return Number(-inner.value) if isinstance(inner, Number) else Binary("*", Number(-1.0), inner)

    def _primary(self) -> Expression:
        token = self._take()
        if token.kind == "number":
            return Number(float(int(token.text, 16)) if token.text[:2] in ("0x", "0X") else float(token.text))
        if token.kind == "sign" and token.text == "(":
            inner = self.expression(0)
            self._expect(")")
            return inner
        if token.kind == "sign" and token.text == "{":
            return self._selector("", token)
        if token.kind != "name":
            self.refuse(token.place, f"'{token.text}' begins no expression" if token.text else "it ends", "complete it")
        lower = token.text.lower()
        if lower in ("inf", "nan"):
            return Number(float(lower))
        if lower in AGGREGATIONS and self._is("(", "by", "without"):
            return self._aggregate(lower)
        if self._is("("):
            return self._call(token)
        if self._is("by", "without"):
            self._beyond(token, f"it knows the aggregations {', '.join(AGGREGATIONS)}")
        return self._selector(token.text, token)

    def _aggregate(self, operator: str) -> Expression:
        labels, without = self._grouping()
        place = self._expect("(").place
        inner = self.expression(0)
        self._expect(")")
        if labels is None:
            labels, without = self._grouping()
        if kind_of(inner) != "vector":
            self.refuse(place, f"{operator} is not given an instant vector", "give it one, such as rate(…[5m])")
        return Aggregate(operator, inner, labels or (), without)

    def _grouping(self) -> tuple[tuple[str, ...] | None, bool]:
        if not self._is("by", "without"):
            return None, False
        without = self._take().text.lower() == "without"
        return self._labels(), without

    def _labels(self) -> tuple[str, ...]:
        self._expect("(")
        labels = []
        while not self._is(")"):
            if self._now.kind != "name":
                self.refuse(self._now.place, f"'{self._now.text}' is no label", "list labels between commas")
            labels.append(self._take().text)
            if not self._is(")"):
                self._expect(",")
        self._expect(")")
        return tuple(labels)

    def _call(self, name: _Token) -> Expression:
        signature = _SIGNATURES.get(name.text)
        if signature is None:
            self._beyond(name, f"it knows {', '.join((*AGGREGATIONS, *FUNCTIONS))}", f"{name.text}()")
        self._expect("(")
        arguments: list[Expression] = []
        while not self._is(")"):
            arguments.append(self.expression(0))
            if not self._is(")"):
                self._expect(",")
        self._expect(")")
        if name.text == "round" and len(arguments) == 2:
            self._beyond(name, "round to whole numbers, or multiply before and divide after", "round() to a step")
        kinds = tuple(kind_of(argument) for argument in arguments)
        if kinds != signature:
            wanted = " and ".join(
                {"range": "a range selector", "vector": "an instant vector"}.get(k, k) for k in signature
            )
            self.refuse(name.place, f"{name.text} is given {', '.join(kinds) or 'nothing'}", f"it takes {wanted}")
        return Call(name.text, tuple(arguments))

    def _selector(self, series: str, token: _Token) -> Selector:
        matchers: list[Matcher] = []
        if token.text == "{" or self._is("{"):
            if token.text != "{":
                self._take()
            matchers = list(self._matchers())
        named = [m for m in matchers if m[0] == "__name__"]
        if named:
            if series or len(named) > 1 or named[0][1] != "=":
                self._beyond(token, "write the one name before the braces", "a name by a pattern")
            series = named[0][2]
            matchers.remove(named[0])
        if not series:
            self.refuse(token.place, "a selector names no series", "write the name before the braces")
        window = None
        if self._is("["):
            self._take()
            window = self._duration()
            if self._now.text.startswith(":"):
                self._beyond(self._now, "ask for the value now, or keep it by a recording rule", "a subquery")
            self._expect("]")
        return Selector(series, tuple(matchers), window, token.place)

    def _matchers(self) -> Iterator[Matcher]:
        while not self._is("}"):
            label = self._take()
            if label.kind == "string" and self._is(",", "}"):
                yield "__name__", "=", self._unquoted(label)
            elif label.kind != "name":
                self.refuse(label.place, f"'{label.text}' is no label", 'write label="value"')
            else:
                operator = self._take()
                if operator.text not in ("=", "!=", "=~", "!~"):
                    self.refuse(operator.place, f"'{operator.text}' compares no label", "write =, !=, =~ or !~")
                value = self._take()
                if value.kind != "string":
                    self.refuse(value.place, f"'{value.text}' is not in quotes", f'write {label.text}="…"')
                text = self._unquoted(value)
                if operator.text.endswith("~"):
                    try:
                        re.compile(text)
                    except re.error as error:
                        self.refuse(value.place, f"'{text}' is no regular expression ({error})", "mend it")
                yield label.text, operator.text, text
            if not self._is("}"):
                self._expect(",")
        self._expect("}")

    def _unquoted(self, token: _Token) -> str:
        inner = token.text[1:-1]
        if token.text[0] == "`":
            return inner
        return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), inner)

    def _duration(self) -> float:
        token = self._take()
        if token.kind == "number":
            seconds = float(token.text)
        elif _DURATION.fullmatch(token.text):
            parts = re.findall(r"(\d+)(ms|[smhdwy])", token.text)
            seconds = sum(int(count) * _UNIT_SECONDS[unit] for count, unit in parts)
        else:
            self.refuse(token.place, f"'{token.text}' is no duration", "write one such as 5m")
        if seconds <= 0:
            self.refuse(token.place, "a window is empty", "write one such as 5m")
        return seconds

    def _refuse_modifier(self) -> None:
        if self._is("offset", "@"):
            self._beyond(self._now, "ask for the value now")
        if self._is("["):
            self._beyond(self._now, "ask for the value now, or keep it by a recording rule", "a subquery")

    def _beyond(self, token: _Token, remedy: str, what: str = "") -> NoReturn:
        self.refuse(token.place, f"{what or token.text} is outside the part of PromQL that is replayed", remedy)
