"""What a PodDisruptionBudget keeps of a target, others' pods that count towards it taken off."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import ownership
from cluster.budgets import Budget, budget_of, kept
from cluster.objects import WatchedPod, watched_pod
from cluster.selectors import Selector
from cluster.store import Store
from policies.scaling.observation import Kept
from tests.stand_ins.kubernetes_objects import deployment, pod, ready_pod, replica_set

ALL = Selector(())


def pdb(**spec: Any) -> Budget | None:
    return budget_of({"metadata": {"name": "keep"}, "spec": {"selector": {"matchLabels": {"app": "vllm-a"}}, **spec}})


def pods(*names: str, app: str = "vllm-a", store: Store[WatchedPod] | None = None) -> Store[WatchedPod]:
    found = Store(ownership.index_keys) if store is None else store
    for name in names:
        read = watched_pod(ready_pod(replica_set(deployment(app)), name), None)
        assert read is not None
        found.put(name, read)
    return found


def test_a_number_is_kept_and_a_share_of_all_rounded_up() -> None:
    own = [f"a{number}" for number in range(5)]
    number, share = pdb(minAvailable=3), pdb(minAvailable="50%")
    assert number is not None
    assert share is not None
    assert kept([number], pods(*own), own, 5) == Kept(3, "PodDisruptionBudget 'keep' keeps 3 available")
    assert kept([share], pods(*own), own, 5) == Kept(3, "PodDisruptionBudget 'keep' keeps 3 available")
    assert kept([share], pods(*own), own, 4) == Kept(2, "PodDisruptionBudget 'keep' keeps 2 available")


def test_the_strictest_of_several_counts() -> None:
    one, two = Budget("one", ALL, number=1), Budget("two", ALL, number=4)
    found = kept([one, two], pods("a"), ["a"], 6)
    assert found is not None
    assert found.replicas == 4


def test_pods_of_others_that_serve_count_towards_it() -> None:
    store = pods("a", "b")
    pods("x", "y", app="vllm-x", store=store)
    booting = watched_pod(pod(replica_set(deployment("vllm-x")), "z"), None)
    assert booting is not None
    store.put("z", booting)
    found = kept([Budget("both", ALL, number=3)], store, ["a", "b"], 2)
    assert found is not None
    assert found.replicas == 1


def test_a_budget_of_others_alone_keeps_nothing_of_ours() -> None:
    budget = pdb(minAvailable=3)
    assert budget is not None
    assert kept([budget], pods("x", app="vllm-x"), ["x"], 2) is None
    assert kept([], pods("a"), ["a"], 2) is None


@pytest.mark.parametrize("spec", [{"maxUnavailable": 1}, {}, {"minAvailable": 2, "selector": None}])
def test_one_that_says_what_may_be_missing_or_selects_nothing_is_none(spec: dict[str, Any]) -> None:
    assert pdb(**spec) is None


def test_an_empty_selector_selects_all() -> None:
    budget = pdb(minAvailable=2, selector={})
    assert budget is not None
    assert budget.selector.selects({"app": "whatever"})
