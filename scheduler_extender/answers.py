"""The judgement on a question of kube-scheduler.

Nothing here changes what is known: the scheduler asks about placements that it only considers, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import compress
from typing import Final

from cluster.gpu_objects import UnreadableObjectError
from policies.placement.demand import PodDemand
from policies.placement.policy import judge, scores
from policies.placement.scoring import HIGHEST, ranked_scores
from policies.placement.supply import NodeFacts
from policies.placement.verdict import Reason, Verdict
from scheduler_extender import wire
from scheduler_extender.board import CODES, PASSES, REASONS, Table
from scheduler_extender.facts import Facts
from scheduler_extender.spans import Text
from scheduler_extender.telemetry import Telemetry
from scheduler_extender.wire import AskedNode, NoAnswerError, PreemptQuestion, Question, Reply

UNKNOWN_NODE: Final = Verdict(reason=Reason.NODE_UNKNOWN)


class Answers:
    """What is said of nodes, from the facts of one source or from the question itself."""

    def __init__(self, facts: Facts, telemetry: Telemetry, *, has_source: bool = False) -> None:
        self._facts = facts
        self._telemetry = telemetry
        self.has_source = has_source
        """Whether anything shows nodes and pods; without it whole nodes are judged by the question alone."""
        self.whole = False
        """Whether the source has shown all nodes and pods; before that no node is judged."""

    def filter(self, question: Question) -> Reply:
        """By name."""
        names = question.names
        demand = self._demand(question)
        if demand.gpus == 0:
            wire.expect_texts(names)
            return wire.filtered_names(names, {}, {})
        self._expect_whole(names)
        table = self._facts.board.table(demand)
        with suppress(TypeError):  # a list or an object, which is nobody's name
            if table.passing.issuperset(names):
                return wire.filtered_names(names, {}, {})
        codes = _codes(table, names)
        failed: dict[str, list[str]] = {}
        unresolvable: dict[str, list[str]] = {}
        for code, reason in enumerate(REASONS):
            if code in codes:
                (failed if reason.resolvable else unresolvable)[reason.value] = _where(codes, _ONLY[code], names)
        self._telemetry.count_refused({words: len(those) for words, those in (failed | unresolvable).items()})
        return wire.filtered_names(_where(codes, _PASSING, names), failed, unresolvable)

    def settle(self) -> None:
        """Take in what has changed; to be called before whole nodes are judged beside the loop."""
        self._facts.settle()

    def filter_nodes(self, body: Text, question: Question, give_way: Callable[[], None] = lambda: None) -> Reply:
        """Whole nodes, judged as the question shows them. May be called from any thread."""
        passed, verdicts = self._judged(question, give_way)
        failed, unresolvable = self._sorted((node.name, verdicts[node.name]) for node in question.nodes or ())
        return wire.filtered_nodes(body, passed, failed, unresolvable)

    def prioritize(self, question: Question) -> Reply:
        """By name."""
        names = question.names
        demand = self._demand(question)
        if demand.gpus == 0:
            wire.expect_texts(names)
            return wire.prioritized({0: names})
        self._expect_whole(names)
        table = self._facts.board.table(demand)
        codes = _codes(table, names)
        preferences = {code: preference for code, preference in enumerate(table.preferences, PASSES) if code in codes}
        ranks = bytearray(CODES)
        for code, rank in zip(preferences, ranked_scores(list(preferences.values())), strict=True):
            ranks[code] = rank
        scored = codes.translate(ranks)
        return wire.prioritized({s: _where(scored, _ONLY[s], names) for s in range(HIGHEST + 1) if s in scored})

    def prioritize_nodes(self, question: Question, give_way: Callable[[], None] = lambda: None) -> Reply:
        """Whole nodes, judged as the question shows them. May be called from any thread."""
        _, verdicts = self._judged(question, give_way)
        names = [node.name for node in question.nodes or ()]
        names_by_score: dict[int, list[str]] = {}
        for name, score in zip(names, scores([verdicts[name] for name in names]), strict=True):
            names_by_score.setdefault(score, []).append(name)
        return wire.prioritized(names_by_score)

    def preempt(self, question: PreemptQuestion) -> Reply:
        """Those nodes that we would not refuse once the victims are gone."""
        demand = self._demand(question)
        kept = {}
        for name, victims in question.victims.items():
            if not victims.uids:
                continue  # nothing to evict is no preemption; kube-scheduler takes it for a mistake
            if demand.gpus:
                self._expect_whole()
                facts = self._facts.without(name, victims.uids)
                if facts is None or not judge(demand, facts, self._facts.board.settings).fits:
                    continue
            kept[name] = victims
        return wire.preempted(kept)

    # -- how ------------------------------------------------------------------------------------------------

    def _demand(self, question: Question | PreemptQuestion) -> PodDemand:
        self._facts.settle()
        try:
            return self._facts.demands.of(question.pod)
        except UnreadableObjectError as error:
            names = question.names if isinstance(question, Question) else ()
            wire.expect_texts(names)
            raise NoAnswerError("pod", f"the Pod cannot be read: {error}", names) from error

    def _expect_whole(self, names: Sequence[str] = ()) -> None:
        if not self.whole:
            wire.expect_texts(names)
            raise NoAnswerError("not-ready", "the extender does not know all nodes and pods yet: ask again", names)

    def _judged(self, question: Question, give_way: Callable[[], None]) -> tuple[list[AskedNode], dict[str, Verdict]]:
        nodes = question.nodes or ()
        try:
            demand = self._facts.demands.read(question.pod)
        except UnreadableObjectError as error:
            named = [node.name for node in nodes]
            raise NoAnswerError("pod", f"the Pod cannot be read: {error}", named) from error
        if demand.gpus and self.has_source:
            self._expect_whole([node.name for node in nodes])  # else pods not seen yet would leave every GPU free
        settings, of_class = self._facts.board.settings, dict[NodeFacts, Verdict]()
        verdicts: dict[str, Verdict] = {}
        for node in nodes:
            give_way()
            if demand.gpus == 0:
                verdicts[node.name] = Verdict()
            elif node.seen is None:
                verdicts[node.name] = UNKNOWN_NODE
            else:
                facts = self._facts.asked(node.name, node.uid, node.seen)
                if facts not in of_class:
                    of_class[facts] = judge(demand, facts, settings)
                verdicts[node.name] = of_class[facts]
        return [node for node in nodes if verdicts[node.name].fits], verdicts

    def _sorted(self, refused: Iterable[tuple[str, Verdict]]) -> tuple[dict[str, str], dict[str, str]]:
        """Refused nodes with the reasons: those that preemption may help, and the others."""
        failed: dict[str, str] = {}
        unresolvable: dict[str, str] = {}
        for name, verdict in refused:
            if verdict.reason is not None:
                (failed if verdict.reason.resolvable else unresolvable)[name] = verdict.reason.value
        self._telemetry.count_refused(Counter((*failed.values(), *unresolvable.values())))
        return failed, unresolvable


def _codes(table: Table, names: Sequence[str]) -> bytes:
    """What the table says of each name; names that are no texts raise `NoAnswerError`."""
    try:
        return bytes(map(table.codes.__getitem__, names))
    except (KeyError, TypeError):  # a node that is not known, or no text
        wire.expect_texts(names)
        unknown = REASONS.index(Reason.NODE_UNKNOWN)
        return bytes([table.codes.get(name, unknown) for name in names])


def _where(values: bytes, chosen: bytes, names: Sequence[str]) -> list[str]:
    """The names with a value that is chosen; as fast as they can be counted."""
    return list(compress(names, values.translate(chosen)))


# For `_where`: 1 for each value that is chosen.
_ONLY: Final = tuple(bytes(value == only for value in range(CODES)) for only in range(max(PASSES, HIGHEST + 1)))
_PASSING: Final = bytes(value >= PASSES for value in range(CODES))
