"""What resources that share GPUs may ask for, whoever looks first, and whatever is not known of the others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.ailments import of_budgets
from autoscaler.gpu_budgets import GpuBudgets
from cluster.findings import Level
from policies.scaling.decision import Binding, Decision
from policies.scaling.observation import Limit, Room
from policies.scaling.resource import VLLMAutoscaler
from tests.autoscaler.worlds import START, resource

GPUS = 2


def sharing(name: str, gpus: int = 8, **spec: Any) -> VLLMAutoscaler:
    return resource(name, **{"budget": {"name": "team", "maxGpus": gpus}, **spec})


def wishing(wanted: int, load: float = 0.0, capacity: float | None = 1.0) -> Decision:
    return Decision(START, wanted, wanted, 1, Binding.FORECAST, "", demand=load, capacity=capacity)


def budgets_of(*resources: VLLMAutoscaler) -> GpuBudgets:
    made = GpuBudgets(clock=lambda: START)
    for each in resources:
        made.join(each)
    return made


def room(budgets: GpuBudgets, name: str) -> Room:
    found = budgets.room(f"inference/{name}")
    assert found is not None
    assert found.limit is Limit.BUDGET
    assert not found.takes_back
    return found


def looked(budgets: GpuBudgets, name: str, desired: int, gpus: int | None = GPUS, pods: int = 0) -> None:
    budgets.saw(f"inference/{name}", desired, pods, gpus)


def test_what_nobody_else_has_or_wants_is_there_for_any_and_only_once() -> None:
    budgets = budgets_of(sharing("a"), sharing("b"))
    looked(budgets, "a", 1)
    looked(budgets, "b", 1)
    assert (room(budgets, "a").replicas, room(budgets, "b").replicas) == (3, 3)
    budgets.asks("inference/a", 3)
    assert (room(budgets, "a").replicas, room(budgets, "b").replicas) == (3, 1)
    assert room(budgets, "b").reason == (
        "budget 'team' has 8 GPUs, 2 a replica; taken are 6 by inference/a, 2 by inference/b"
    )


def test_what_another_wants_more_is_left_to_it() -> None:
    budgets = budgets_of(sharing("a"), sharing("b"))
    looked(budgets, "a", 1)
    looked(budgets, "b", 1)
    budgets.heard("inference/a", wishing(4, load=4.0, capacity=1.0))
    budgets.heard("inference/b", wishing(2, load=6.0, capacity=3.0))
    assert (room(budgets, "a").replicas, room(budgets, "b").replicas) == (2, 2)
    budgets.heard("inference/b", None)
    assert room(budgets, "a").replicas == 2, "a turn that saw nothing takes no wish back"
    budgets.leave("inference/b")
    assert room(budgets, "a").replicas == 4


def test_what_drains_still_takes_its_gpus() -> None:
    budgets = budgets_of(sharing("a"), sharing("b"))
    looked(budgets, "a", 1, pods=3)
    looked(budgets, "b", 1)
    assert room(budgets, "b").replicas == 1


def test_the_fewest_of_each_are_kept_for_it() -> None:
    budgets = budgets_of(sharing("a", minReplicas=3), sharing("b"))
    looked(budgets, "a", 1)
    looked(budgets, "b", 1)
    assert (room(budgets, "a").replicas, room(budgets, "b").replicas) == (3, 1)


def test_of_several_numbers_the_least_holds_and_it_is_said() -> None:
    budgets = budgets_of(sharing("a", 8), sharing("b", 4))
    looked(budgets, "a", 1)
    looked(budgets, "b", 1)
    assert room(budgets, "a").replicas == 1
    assert "maxGpus is said to be 4 and 8, of which the least holds" in room(budgets, "a").reason


def test_before_each_was_looked_at_nobody_grows() -> None:
    budgets = budgets_of(sharing("a"), sharing("b"))
    looked(budgets, "a", 2)
    assert room(budgets, "a") == Room(
        2, "budget 'team' is shared with inference/b, which was not looked at yet", Limit.BUDGET
    )
    budgets.heard("inference/b", None)  # its target is not there: the others need not wait for it
    assert room(budgets, "a").replicas == 4
    assert room(budgets, "a").reason.endswith("of inference/b it is not known what they take")


def test_a_target_of_which_nobody_knows_what_it_takes_does_not_grow() -> None:
    budgets = budgets_of(sharing("a"))
    looked(budgets, "a", 0, gpus=None)
    assert room(budgets, "a").replicas == 0
    looked(budgets, "a", 1)
    looked(budgets, "a", 0, gpus=None)
    assert room(budgets, "a").replicas == 4, "what its last pod took is remembered"


@pytest.mark.parametrize("spec", [{"paused": True}, {"mode": "Shadow"}, {"mode": "Publish"}])
def test_what_is_not_scaled_by_us_takes_and_wishes_for_nothing(spec: dict[str, Any]) -> None:
    budgets = budgets_of(sharing("a"), sharing("b", minReplicas=3, **spec))
    looked(budgets, "a", 1)
    looked(budgets, "b", 2)
    budgets.heard("inference/b", wishing(9, load=9.0))
    assert budgets.room("inference/b") is None
    assert room(budgets, "a").replicas == 2


def test_others_budgets_and_none_are_no_matter() -> None:
    other = resource("b", budget={"name": "other", "maxGpus": 2})
    elsewhere = sharing("c")
    elsewhere = elsewhere.model_copy(
        update={"metadata": elsewhere.metadata.model_copy(update={"namespace": "elsewhere"})}
    )
    budgets = budgets_of(sharing("a"), other, elsewhere, resource("d"))
    for name in ("a", "b", "d"):
        looked(budgets, name, 1)
    assert room(budgets, "a").replicas == 4
    assert budgets.room("inference/d") is None
    looked(budgets, "a", 1, gpus=0)
    assert budgets.room("inference/a") is None, "of GPUs it takes none"


def test_a_floor_by_the_calendar_is_a_wish() -> None:
    by_day = [{"start": "0 8 * * *", "end": "0 18 * * *", "minReplicas": 3}]
    budgets = budgets_of(sharing("a", schedule=by_day), sharing("b"))
    looked(budgets, "a", 1)
    looked(budgets, "b", 1)
    budgets.heard("inference/a", wishing(1, capacity=2.0))
    budgets.heard("inference/b", wishing(3, load=2.5, capacity=1.0))
    assert room(budgets, "b").replicas == 1


def test_the_doctor_tells_of_members_that_do_not_agree() -> None:
    assert list(of_budgets([sharing("a"), sharing("b"), resource("c")])) == []
    (found,) = of_budgets([sharing("a"), sharing("b", 4)])
    assert (found.level, found.about) == (Level.WARN, "inference, budget 'team'")
    assert found.sentence == (
        "its members do not agree on maxGpus (inference/a says 8, inference/b says 4), and the least holds: write the "
        "same in all"
    )


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.floats(0, 9)), max_size=40),
    st.integers(0, 20),
)
def test_in_whatever_order_turns_fall_the_budget_is_not_overdrawn(
    turns: list[tuple[str, int, float]], gpus: int
) -> None:
    """Each turn is a look, a decision and a write, and nothing runs between."""
    each = {"a": 1, "b": 2, "c": 4}
    budgets = budgets_of(*(sharing(name, max(1, gpus)) for name in each))
    desired = dict.fromkeys(each, 1)
    for name in each:
        looked(budgets, name, 1, each[name])
    for name, wanted, load in turns:
        looked(budgets, name, desired[name], each[name])
        most = max(desired[name], room(budgets, name).replicas)
        if wanted > desired[name]:
            desired[name] = min(wanted, most)
            budgets.asks(f"inference/{name}", desired[name])
        elif wanted < desired[name]:
            desired[name] = wanted
        budgets.heard(f"inference/{name}", wishing(wanted, load))
        assert sum(each[key] * count for key, count in desired.items()) <= max(gpus, sum(each.values()))
