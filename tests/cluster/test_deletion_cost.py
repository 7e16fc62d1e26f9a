"""Few writes, ours known again, and somebody else's costs left alone."""

from __future__ import annotations

import pytest

from cluster.deletion_cost import OURS, changes
from cluster.objects import DELETION_COST, WatchedPod, watched_pod
from tests.stand_ins.kubernetes_objects import deployment, ready_pod, replica_set


def watched(name: str, cost: str | None = None) -> WatchedPod:
    shown = ready_pod(replica_set(deployment()), name)
    if cost is not None:
        shown["metadata"]["annotations"] = {DELETION_COST: cost}
    read = watched_pod(shown, None)
    assert read is not None
    return read


def test_only_those_who_go_are_written_the_first_of_them_lowest() -> None:
    pods = [watched("a"), watched("b"), watched("c")]
    assert changes(pods, ("c", "a")) == {"c": OURS - 2, "a": OURS - 1}


def test_what_is_written_already_is_not_written_again() -> None:
    pods = [watched("a", str(OURS - 1)), watched("b")]
    assert changes(pods, ("a",)) == {}


def test_the_mark_of_a_shrink_that_never_came_is_taken_off_again() -> None:
    pods = [watched("a", str(OURS - 1)), watched("b")]
    assert changes(pods, ("b",)) == {"a": None, "b": OURS - 1}
    assert changes(pods, ()) == {"a": None}


@pytest.mark.parametrize("cost", ["5", "0", "-10", "nonsense"])
def test_where_somebody_else_writes_costs_his_stand(cost: str) -> None:
    assert changes([watched("a", cost), watched("b")], ("b",)) == {}
