"""What is said back on a resource: times that mean something, and a memory that a successor can use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.capacity import StepTime
from policies.scaling.history import History
from policies.scaling.lead_time import LeadTime, Start
from policies.scaling.status import (
    Condition,
    ConditionType,
    Judgement,
    Status,
    Truth,
    conditions_after,
    history_of,
    learnt_of,
    moment,
    status_of,
    written,
)


def judged(type_: ConditionType, status: Truth, reason: str = "Because") -> Judgement:
    return Judgement(type=type_, status=status, reason=reason, message="a sentence")


def test_the_time_of_a_condition_is_that_of_its_last_change_of_status() -> None:
    told: tuple[Condition, ...] = ()
    story: list[tuple[int, Truth, str]] = [(0, "True", "A"), (1, "True", "B"), (2, "False", "C"), (3, "False", "C")]
    for minute, status, reason in story:
        told = conditions_after(told, [judged(ConditionType.READY, status, reason)], moment(60.0 * minute), 7)
    (ready,) = told
    assert (ready.reason, ready.last_transition_time, ready.observed_generation) == ("C", moment(120.0), 7)


def test_what_was_not_judged_this_time_stays_and_the_order_is_always_the_same() -> None:
    first = conditions_after((), [judged(ConditionType.CONFLICTED, "False")], moment(0), 1)
    both = conditions_after(first, [judged(ConditionType.READY, "True")], moment(9), 2)
    assert [(each.type, each.observed_generation) for each in both] == [("Ready", 2), ("Conflicted", 1)]


def test_times_are_written_as_kubernetes_writes_them() -> None:
    assert moment(1_795_262_400.9) == "2026-11-21T12:00:00Z"


finite = st.floats(0, 1e9)
starts = st.builds(Start, st.text(max_size=8), finite, finite, st.none() | finite, st.none() | finite)


@given(st.lists(starts, max_size=24))
def test_measured_starts_survive_the_way_through_a_status(measured: list[Start]) -> None:
    history = History(lead_time=LeadTime(tuple(measured)))
    status = Status(learnt=learnt_of(history, None, None))
    back = history_of(status_of(written(status)).learnt)
    assert back.lead_time.starts == tuple(measured)
    assert back.lead_time.seen == {start.uid for start in measured}, "or its successor counts each a second time"


def test_a_learnt_step_time_is_where_a_successor_begins() -> None:
    time = StepTime(0.02, 0.0001, 1e-7, 1e-4)
    learnt = {"stepTime": {"fixed": 0.02, "decode": 0.0001, "context": 1e-7, "prefill": 1e-4}}
    back = history_of(status_of({"learnt": learnt}).learnt)
    assert back.steps is not None
    assert back.steps.step_time == time
    assert back.fitted_at is None, "it has measured nothing itself"


def test_a_status_of_somebody_else_says_nothing() -> None:
    assert status_of({"conditions": "x"}) == Status()
    assert status_of({"somethingNew": 1, "reason": "tpot"}) == Status(reason="tpot")
    assert status_of(None) == Status()
