"""Label selectors: read from a scale's string or a workload's `spec.selector`, and matched against labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_TERM = re.compile(
    r"""
    (?P<absent>!)?\s*
    (?P<key>[A-Za-z0-9][A-Za-z0-9_./-]*)\s*
    (?:(?P<set>in|notin)\s*\((?P<values>[^)]*)\)
      |(?P<sign>==|=|!=)\s*(?P<value>[A-Za-z0-9_.-]*)
    )?""",
    re.VERBOSE,
)


class Operator(StrEnum):
    """The four comparisons, spelled as `matchExpressions` spells them."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    ABSENT = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def is_met_by(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.ABSENT:
                return self.key not in labels

    def __str__(self) -> str:
        match self.operator:
            case Operator.IN if len(self.values) == 1:
                return f"{self.key}={self.values[0]}"
            case Operator.IN:
                return f"{self.key} in ({','.join(self.values)})"
            case Operator.NOT_IN:
                return f"{self.key} notin ({','.join(self.values)})"
            case Operator.EXISTS:
                return self.key
            case Operator.ABSENT:
                return f"!{self.key}"


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements hold, or it does not select."""

    requirements: tuple[Requirement, ...]

    @classmethod
    def of_string(cls, text: str) -> Selector:
        """Read the form that a scale's `status.selector` has; ValueError if it is not one."""
        requirements: list[Requirement] = []
        position = 0
        while position < len(text):
            term = _TERM.match(text, position)
            end = term.end() if term else position
            rest = text[end:].lstrip()
            if term is None or (rest and not rest.startswith(",")) or rest == ",":
                raise ValueError(f"'{text}' is not a label selector: it cannot be read from '{text[position:]}' on")
            requirements.append(_requirement_of(term, text))
            position = len(text) - len(rest[1:].lstrip()) if rest else len(text)
        return cls(tuple(requirements))

    @classmethod
    def of_workload(cls, selector: Mapping[str, Any]) -> Selector:
        """Read the form that a Deployment's `spec.selector` has."""
        equal = [
            Requirement(key, Operator.IN, (value,))
            for key, value in sorted((selector.get("matchLabels") or {}).items())
        ]
        expressions = [
            Requirement(term["key"], Operator(term["operator"]), tuple(sorted(term.get("values") or ())))
            for term in selector.get("matchExpressions") or ()
        ]
        return cls((*equal, *expressions))

    def selects(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.is_met_by(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


def _requirement_of(term: re.Match[str], text: str) -> Requirement:
    key = term["key"]
    if term["absent"]:
        if term["set"] or term["sign"]:
            raise ValueError(f"'{text}' is not a label selector: '!{key}' takes no value")
        return Requirement(key, Operator.ABSENT)
    if term["set"]:
        operator = Operator.IN if term["set"] == "in" else Operator.NOT_IN
        return Requirement(key, operator, tuple(sorted(value.strip() for value in term["values"].split(","))))
    if term["sign"]:
        operator = Operator.NOT_IN if term["sign"] == "!=" else Operator.IN
        return Requirement(key, operator, (term["value"],))
    return Requirement(key, Operator.EXISTS)
