"""The formula of `scalingModifiers`: the arithmetic of expr-lang that people write there, over triggers by name.

Numbers, names, `+ - * / % ** ^`, comparisons, `&& || !` and their words, `?:`, `??`, and min, max, abs, ceil,
floor, round, int, float and sum of numbers or of a list. Closures and strings are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

Values = Mapping[str, float | None]
"""By trigger; None where its failures have passed the threshold and the formula is to say what then."""
Value = float | bool | None
Compute = Callable[[Values], Value]

_TOKEN = re.compile(
    r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|([A-Za-z_]\w*)|(\?\?|\*\*|&&|\|\||[<>=!]=|[-+*/%^<>!?:(),\[\]]))"
)
_WORDS = {"and": "&&", "or": "||", "not": "!"}
_PRECEDENCE = {
    "??": 2,
    "||": 3,
    "&&": 4,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 5),
    **dict.fromkeys(("+", "-"), 6),
    **dict.fromkeys(("*", "/", "%"), 7),
    **dict.fromkeys(("**", "^"), 8),
}
_FUNCTIONS: Mapping[str, Callable[[list[float]], float]] = {
    "min": min,
    "max": max,
    "sum": math.fsum,
    "abs": lambda of: abs(of[0]),
    "ceil": lambda of: float(math.ceil(of[0])),
    "floor": lambda of: float(math.floor(of[0])),
    "round": lambda of: math.copysign(math.floor(abs(of[0]) + 0.5), of[0]),
    "int": lambda of: float(math.trunc(of[0])),
    "float": lambda of: of[0],
}


class FormulaError(ValueError):
    """A formula that cannot be replayed, or computed; the message names the part and the remedy."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula that was read."""

    text: str
    names: tuple[str, ...]
    """Of the triggers in it."""
    compute: Compute = field(repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process reads the text anew: functions do not travel."""
        return read_formula, (self.text,)

    def value(self, triggers: Values) -> float | None:
        """None where it answers nil; a FormulaError where it cannot be computed."""
        try:
            found = self.compute(triggers)
        except (ZeroDivisionError, OverflowError, ValueError) as error:
            raise FormulaError(f"formula '{self.text}' cannot be computed: {error}") from None
        if isinstance(found, bool):
            raise FormulaError(f"formula '{self.text}' answers true or false: write a number, as in … ? 1 : 0")
        if found is not None and not math.isfinite(found):
            raise FormulaError(f"formula '{self.text}' answers no finite number")
        return found


def read_formula(text: str) -> Formula:
    """The formula, all of it read, or a FormulaError."""
    reader = _Reader(text)
    try:
        compute = reader.ternary()
    except RecursionError:
        raise FormulaError(f"formula '{text}' is nested too deeply: write it in fewer parentheses") from None
    if reader.now:
        reader.refuse(f"'{reader.now}' follows a whole expression", "remove it or join it")
    return Formula(text, tuple(dict.fromkeys(reader.names)), compute)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, int]] = []
        self.names: list[str] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                place = len(text) - len(text[at:].lstrip())
                part = text[place:].split()[0]
                raise FormulaError(self._said(place + 1, f"'{part}' is outside the arithmetic that is replayed", ""))
            token = found[found.lastindex or 0]
            self._tokens.append((_WORDS.get(token, token), found.start(found.lastindex or 0) + 1))
            at = found.end()
        self._tokens.append(("", len(text) + 1))
        self._at = 0

    def _said(self, place: int, what: str, remedy: str) -> str:
        remedy = remedy or "write it with + - * /, comparisons, ?: and min, max, abs, ceil, floor, round"
        return f"formula '{self._text}', character {place}: {what}: {remedy}"

    def refuse(self, what: str, remedy: str = "") -> NoReturn:
        raise FormulaError(self._said(self._tokens[self._at][1], what, remedy))

    @property
    def now(self) -> str:
        return self._tokens[self._at][0]

    def _take(self) -> str:
        token = self.now
        self._at += 1
        return token

    def _expect(self, text: str) -> None:
        if self.now != text:
            self.refuse(f"'{self.now or 'the end'}' stands where '{text}' belongs", "mend the formula")
        self._at += 1

    def ternary(self) -> Compute:
        condition = self._joined(2)
        if self.now != "?":
            return condition
        self._take()
        then = self.ternary()
        self._expect(":")
        otherwise = self.ternary()
        return lambda values: then(values) if _truth(condition(values)) else otherwise(values)

    def _joined(self, least: int) -> Compute:
        left = self._unary()
        while _PRECEDENCE.get(self.now, 0) >= least:
            operator = self._take()
            # Powers bind to the right, all others to the left.
            right = self._joined(_PRECEDENCE[operator] + (operator not in ("**", "^")))
            left = _operation(operator, left, right)
        return left

    def _unary(self) -> Compute:
        if self.now in ("-", "+", "!"):
            sign = self._take()
            inner = self._joined(8) if sign != "!" else self._unary()
            if sign == "!":
                return lambda values: not _truth(inner(values))
            return (lambda values: -_float(inner(values))) if sign == "-" else inner
        return self._primary()

    def _primary(self) -> Compute:
        token = self.now
        if re.fullmatch(r"[\d.]+(?:[eE][+-]?\d+)?", token):
            number = float(self._take())
            return lambda values: number
        if token == "(":
            self._take()
            inner = self.ternary()
            self._expect(")")
            return inner
        if not re.fullmatch(r"[A-Za-z_]\w*", token):
            self.refuse(f"'{token}' begins no expression" if token else "it ends too early", "complete it")
        if self._tokens[self._at + 1][0] == "(":
            return self._call()
        self._take()
        if token in ("true", "false", "nil"):
            constant: Value = {"true": True, "false": False}.get(token)
            return lambda values: constant
        self.names.append(token)
        return lambda values: values[token]

    def _call(self) -> Compute:
        if self.now not in _FUNCTIONS:
            self.refuse(f"{self.now}() is outside the arithmetic that is replayed", f"it knows {', '.join(_FUNCTIONS)}")
        function = _FUNCTIONS[self._take()]
        self._expect("(")
        closing = ")"
        if self.now == "[":
            self._take()
            closing = "]"
        arguments = [self.ternary()]
        while self.now == ",":
            self._take()
            arguments.append(self.ternary())
        self._expect(closing)
        if closing == "]":
            self._expect(")")
        return lambda values: function([_float(argument(values)) for argument in arguments])


def _truth(value: Value) -> bool:
    if not isinstance(value, bool):
        raise ValueError("a number stands where a condition belongs")
    return value


def _float(value: Value) -> float:
    if value is None:
        raise ValueError("a trigger that failed has no value")
    if isinstance(value, bool):
        raise ValueError("a condition stands where a number belongs")
    return value


def _operation(operator: str, left: Compute, right: Compute) -> Compute:
    match operator:
        case "&&":
            return lambda values: _truth(left(values)) and _truth(right(values))
        case "||":
            return lambda values: _truth(left(values)) or _truth(right(values))
        case "??":
            return lambda values: right(values) if (found := left(values)) is None else found
        case "==":
            return lambda values: left(values) == right(values)
        case "!=":
            return lambda values: left(values) != right(values)
        case _:
            compute = _ARITHMETIC[operator]
            return lambda values: compute(_float(left(values)), _float(right(values)))


_ARITHMETIC: Mapping[str, Callable[[float, float], float | bool]] = {
    "+": lambda one, other: one + other,
    "-": lambda one, other: one - other,
    "*": lambda one, other: one * other,
    "/": lambda one, other: one / other,
    "%": math.fmod,
    "**": math.pow,
    "^": math.pow,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}
