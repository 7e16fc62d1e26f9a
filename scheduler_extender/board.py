"""Every node's verdict on the pods that are asked about, kept ready: a question is then a look-up a name.

Nodes fall into classes, as nodes alike have equal facts, and a class is judged once for each demand. Five thousand
nodes of some dozens of classes are so answered in the time that parsing their names takes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from policies.placement.demand import PodDemand
from policies.placement.policy import judge
from policies.placement.settings import PlacementSettings
from policies.placement.supply import NodeFacts
from policies.placement.verdict import Reason, Verdict

TABLES: Final = 32
"""Demands whose verdicts are kept by the names of the nodes; 5,000 nodes are 0.3 MB each."""
CLASSES_PER_NODE: Final = 4
"""Beyond so many classes for each node most are of the past, and all are counted anew."""

REASONS: Final = tuple(Reason)
"""A node that is refused has the number of its reason for a code."""
PASSES: Final = len(REASONS)
"""The first code of those that pass; each preference has one."""
CODES: Final = 256
"""So that what thousands of nodes are told is as many bytes."""


class Classes:
    """Nodes alike, numbered."""

    def __init__(self) -> None:
        self.of_node: dict[str, int] = {}
        self.facts: list[NodeFacts] = []
        self._numbers: dict[NodeFacts, int] = {}

    def number(self, facts: NodeFacts) -> int:
        number = self._numbers.get(facts)
        if number is None:
            number = self._numbers[facts] = len(self.facts)
            self.facts.append(facts)
        return number

    def __len__(self) -> int:
        return len(self.facts)


class Opinion:
    """What one demand makes of each class."""

    __slots__ = ("_classes", "_settings", "_verdicts", "demand")

    def __init__(self, demand: PodDemand, classes: Classes, settings: PlacementSettings) -> None:
        self.demand = demand
        self._classes = classes
        self._settings = settings
        self._verdicts: dict[int, Verdict] = {}

    def of(self, number: int) -> Verdict:
        verdict = self._verdicts.get(number)
        if verdict is None:
            verdict = self._verdicts[number] = judge(self.demand, self._classes.facts[number], self._settings)
        return verdict


class Table:
    """What each node is told about one demand: one look-up a name, of a byte.

    Thousands of look-ups take as long as the memory that they touch is far away, so there is one, and what it finds
    is small and shared.
    """

    __slots__ = ("_opinion", "codes", "passing", "preferences")

    def __init__(self, opinion: Opinion, classes: Classes) -> None:
        self._opinion = opinion
        self.preferences: list[float] = []
        """Of the nodes that pass, by their codes less `PASSES`."""
        codes = {number: self._code(number) for number in set(classes.of_node.values())}
        self.codes: dict[str, int] = {name: codes[number] for name, number in classes.of_node.items()}
        """Below `PASSES`: the number of the reason why not."""
        self.passing: set[str] = {name for name, code in self.codes.items() if code >= PASSES}

    def place(self, name: str, number: int) -> None:
        code = self.codes[name] = self._code(number)
        (self.passing.add if code >= PASSES else self.passing.discard)(name)

    def drop(self, name: str) -> None:
        self.codes.pop(name, None)
        self.passing.discard(name)

    def _code(self, number: int) -> int:
        verdict = self._opinion.of(number)
        if verdict.reason is not None:
            return REASONS.index(verdict.reason)
        if verdict.preference not in self.preferences:
            if PASSES + len(self.preferences) == CODES:  # hundreds of preferences: the nearest will do
                nearest = min(self.preferences, key=lambda other: abs(other - verdict.preference))
                return PASSES + self.preferences.index(nearest)
            self.preferences.append(verdict.preference)
        return PASSES + self.preferences.index(verdict.preference)


class Board:
    """The tables of all demands, in step with the nodes."""

    def __init__(
        self, settings: PlacementSettings, *, admitted: Callable[[PodDemand], None] = lambda demand: None
    ) -> None:
        """`admitted` hears of each watched demand that some node has come to pass for."""
        self._settings = settings
        self._admitted = admitted
        self._classes = Classes()
        self._watched: dict[PodDemand, Opinion] = {}
        self._tables: OrderedDict[int, Table] = OrderedDict()
        """By the demand's `id`, which is no other's while its table holds it: its hash takes as long as 100 names."""

    @property
    def settings(self) -> PlacementSettings:
        return self._settings

    @settings.setter
    def settings(self, settings: PlacementSettings) -> None:
        if settings == self._settings:
            return
        self._settings = settings
        self._tables.clear()
        inhabited = set(self._classes.of_node.values())
        for demand, before in tuple(self._watched.items()):
            now = self._watched[demand] = Opinion(demand, self._classes, settings)
            if any(now.of(number).fits and not before.of(number).fits for number in inhabited):
                self._admitted(demand)

    @property
    def nodes(self) -> Mapping[str, int]:
        """By name, with the number of its class."""
        return self._classes.of_node

    def put(self, name: str, facts: NodeFacts) -> None:
        number, before = self._classes.number(facts), self._classes.of_node.get(name)
        if number == before:
            return
        self._classes.of_node[name] = number
        for table in self._tables.values():
            table.place(name, number)
        for demand, opinion in self._watched.items():
            if opinion.of(number).fits and (before is None or not opinion.of(before).fits):
                self._admitted(demand)
        if len(self._classes) > 64 + CLASSES_PER_NODE * len(self.nodes):
            self._number_anew()

    def drop(self, name: str) -> None:
        if self._classes.of_node.pop(name, None) is not None:
            for table in self._tables.values():
                table.drop(name)

    def table(self, demand: PodDemand) -> Table:
        """Its verdict on every node."""
        table = self._tables.get(id(demand))
        if table is not None:
            self._tables.move_to_end(id(demand))
            return table
        opinion = self._watched.get(demand) or Opinion(demand, self._classes, self._settings)
        if opinion.demand is not demand:  # an equal one was read elsewhere
            opinion = Opinion(demand, self._classes, self._settings)
        table = self._tables[id(demand)] = Table(opinion, self._classes)
        if len(self._tables) > TABLES:
            self._tables.popitem(last=False)
        return table

    def watch(self, demands: Iterable[PodDemand]) -> None:
        """Tell of these, and of no others, when a node comes to pass for them."""
        self._watched = {
            demand: self._watched.get(demand) or Opinion(demand, self._classes, self._settings) for demand in demands
        }

    def admits_more(self, demand: PodDemand, than: PodDemand) -> bool:
        """Whether some node passes for one demand and not for the other."""
        one, other = (Opinion(each, self._classes, self._settings) for each in (demand, than))
        return any(one.of(n).fits and not other.of(n).fits for n in set(self.nodes.values()))

    def fits_any(self, demand: PodDemand, names: Iterable[str]) -> bool:
        """Whether one of these nodes passes for it."""
        opinion = self._watched.get(demand) or Opinion(demand, self._classes, self._settings)
        return any(opinion.of(self.nodes[name]).fits for name in names if name in self.nodes)

    def _number_anew(self) -> None:
        """Forget the classes that no node is of any more."""
        old, self._classes = self._classes, Classes()
        self._classes.of_node = {name: self._classes.number(old.facts[n]) for name, n in old.of_node.items()}
        self._tables.clear()
        self._watched = {demand: Opinion(demand, self._classes, self._settings) for demand in self._watched}
