"""The judgement on a question of kube-scheduler.

Nothing here changes what is known: the scheduler asks about placements that it only considers, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from cluster.gpu_objects import UnreadableObjectError
from policies.placement.demand import PodDemand
from policies.placement.policy import judge
from policies.placement.scoring import ranked_scores
from policies.placement.supply import NodeFacts
from policies.placement.verdict import Reason, Verdict
from scheduler_extender import wire
from scheduler_extender.facts import Facts
from scheduler_extender.spans import Text
from scheduler_extender.telemetry import Telemetry
from scheduler_extender.wire import AskedNode, NoAnswerError, PreemptQuestion, Question, Reply

UNKNOWN_NODE: Final = Verdict(reason=Reason.NODE_UNKNOWN)
_UNKNOWN: Final = Reason.NODE_UNKNOWN.value


class Answers:
    """What is said of nodes, from the facts of one source or from the question itself."""

    def __init__(self, facts: Facts, telemetry: Telemetry) -> None:
        self._facts = facts
        self._telemetry = telemetry
        self.whole = False
        """Whether the source has shown all nodes and pods; before that no node is judged by its name."""

    def filter(self, question: Question) -> Reply:
        """By name."""
        names = question.names
        demand = self._demand(question)
        if demand.gpus == 0:
            wire.expect_texts(names)
            return wire.filtered_names(names, {}, {})
        self._expect_whole(names)
        table = self._facts.board.table(demand)
        try:
            if table.passing.issuperset(names):
                return wire.filtered_names(names, {}, {})
        except TypeError:  # a list or an object, which is nobody's name
            pass
        wire.expect_texts(names)
        passing, unresolvable = table.passing, table.unresolvable
        passed = [name for name in names if name in passing]
        refused = {name: unresolvable[name] for name in names if name in unresolvable}
        failed: dict[str, str] = {}
        if len(passed) + len(refused) < len(names):
            words = table.failed.get
            failed = {n: words(n, _UNKNOWN) for n in names if n not in passing and n not in unresolvable}
        self._telemetry.count_refused(failed.values(), refused.values())
        return wire.filtered_names(passed, failed, refused)

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
            return wire.prioritized((name, 0) for name in names)
        self._expect_whole(names)
        told = self._facts.board.table(demand).told
        try:
            known = [told[name] for name in names]
        except (KeyError, TypeError):  # a node that does not pass, or no text
            wire.expect_texts(names)
            preferences = [told[name][1] if name in told else 0.0 for name in names]
            ranks = _ranks(preferences)
            return wire.prioritized((name, ranks[value]) for name, value in zip(names, preferences, strict=True))
        return wire.prioritized_by(known, _ranks(preference for _, preference in known))

    def prioritize_nodes(self, question: Question, give_way: Callable[[], None] = lambda: None) -> Reply:
        """Whole nodes, judged as the question shows them. May be called from any thread."""
        _, verdicts = self._judged(question, give_way)
        names = [node.name for node in question.nodes or ()]
        ranks = _ranks(verdict.preference for verdict in verdicts.values())
        return wire.prioritized((name, ranks[verdicts[name].preference]) for name in names)

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
        self._telemetry.count_refused(failed.values(), unresolvable.values())
        return failed, unresolvable


def _ranks(preferences: Iterable[float]) -> dict[float, int]:
    """As `policies.placement.scoring` ranks them; of thousands of nodes there are few different ones."""
    different = list(set(preferences))
    return dict(zip(different, ranked_scores(different), strict=True))
