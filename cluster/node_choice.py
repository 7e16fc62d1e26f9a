"""Which nodes a pod's own words leave it: taints and tolerations, `nodeSelector`, required node affinity. No I/O.

Whoever counts places by it must not count too few: a comparison that is not known here leaves the node to the pod.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cluster.selectors import Operator, Requirement

Json = Mapping[str, Any]

REFUSING_EFFECTS: Final = ("NoSchedule", "NoExecute")
_FOUR: Final = frozenset(Operator)


@dataclass(frozen=True, slots=True)
class Taint:
    """One that keeps pods away which do not tolerate it."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class NodeWords:
    """What a node says of itself, as far as a pod can choose by it."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True, slots=True)
class Toleration:
    """Empty fields match all."""

    key: str
    operator: str
    value: str
    effect: str

    def tolerates(self, taint: Taint) -> bool:
        if self.effect not in ("", taint.effect) or self.key not in ("", taint.key):
            return False
        return self.operator not in ("", "Equal") or self.value == taint.value


@dataclass(frozen=True, slots=True)
class Comparison:
    """A label with a number beside it: `Gt` or `Lt`; any other operator is met."""

    key: str
    operator: str
    bound: str

    def is_met_by(self, labels: Mapping[str, str]) -> bool:
        if self.operator not in ("Gt", "Lt"):
            return True
        try:
            has, bound = int(labels[self.key]), int(self.bound)
        except (KeyError, ValueError):
            return False
        return has > bound if self.operator == "Gt" else has < bound


@dataclass(frozen=True, slots=True)
class Term:
    """Labels and names that must all agree; an empty one admits no node."""

    labels: tuple[Requirement | Comparison, ...]
    names: tuple[Requirement | Comparison, ...]

    def admits(self, node: NodeWords) -> bool:
        if not self.labels and not self.names:
            return False
        named = {"metadata.name": node.name}
        return all(each.is_met_by(node.labels) for each in self.labels) and all(
            each.is_met_by(named) for each in self.names
        )


@dataclass(frozen=True, slots=True)
class NodeChoice:
    """A pod's words about nodes."""

    selector: tuple[tuple[str, str], ...] = ()
    terms: tuple[Term, ...] | None = None
    """Of required node affinity, of which one must agree; None: it asks for none."""
    tolerations: tuple[Toleration, ...] = ()

    def admits(self, node: NodeWords) -> bool:
        """Whether a scheduler would look at the node at all."""
        # A loop and no generator: thousands of nodes are asked for each of a thousand targets.
        for key, value in self.selector:
            if node.labels.get(key) != value:
                return False
        if self.terms is not None and not any(term.admits(node) for term in self.terms):
            return False
        return not node.taints or all(any(each.tolerates(taint) for each in self.tolerations) for taint in node.taints)


def node_words(node: Json) -> NodeWords:
    """Of a node as the API server shows it."""
    metadata, spec = node["metadata"], node.get("spec") or {}
    return NodeWords(
        name=metadata["name"],
        # Thousands of nodes say the same few words.
        labels={sys.intern(key): sys.intern(value) for key, value in (metadata.get("labels") or {}).items()},
        taints=tuple(
            Taint(each["key"], each.get("value") or "", each["effect"])
            for each in spec.get("taints") or ()
            if each["effect"] in REFUSING_EFFECTS
        ),
    )


def node_choice(pod_spec: Json) -> NodeChoice:
    """Of a pod's `spec`."""
    required = ((pod_spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return NodeChoice(
        selector=tuple(sorted((pod_spec.get("nodeSelector") or {}).items())),
        terms=None if required is None else tuple(map(_term, required.get("nodeSelectorTerms") or ())),
        tolerations=tuple(
            Toleration(*(each.get(name) or "" for name in ("key", "operator", "value", "effect")))
            for each in pod_spec.get("tolerations") or ()
        ),
    )


def _term(term: Json) -> Term:
    return Term(
        labels=tuple(map(_requirement, term.get("matchExpressions") or ())),
        names=tuple(map(_requirement, term.get("matchFields") or ())),
    )


def _requirement(stated: Json) -> Requirement | Comparison:
    operator, values = stated["operator"], tuple(stated.get("values") or ())
    if operator in _FOUR:
        return Requirement(stated["key"], Operator(operator), values)
    return Comparison(stated["key"], operator, values[0] if values else "")
