"""How many more pods a namespace's quotas leave, from what the API server counts."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.quotas import quota_of, room

GPU = "requests.nvidia.com/gpu"


def quota(hard: dict[str, str], used: dict[str, str], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": used}}


def most(thing: dict[str, Any], existing: int = 2, **requests: int) -> int | None:
    read = quota_of(thing)
    found = room([read] if read else [], existing, {name.replace("_", "/"): n for name, n in requests.items()})
    return found.replicas if found else None


def test_what_is_left_is_shared_among_pods_of_this_size() -> None:
    gpus = {"nvidia.com_gpu": 2}
    assert most(quota({GPU: "9"}, {GPU: "4"}), **gpus) == 4
    assert most(quota({GPU: "4"}, {GPU: "4"}), **gpus) == 2
    assert most(quota({GPU: "2"}, {GPU: "4"}), **gpus) == 2, "a quota that was lowered takes nobody's pods"
    assert most(quota({"pods": "10"}, {"pods": "9"}), **gpus) == 3


def test_the_narrowest_quota_counts_and_is_named() -> None:
    wide, narrow = quota_of(quota({GPU: "99"}, {GPU: "0"})), quota_of(quota({"count/pods": "5"}, {"count/pods": "4"}))
    assert wide is not None
    assert narrow is not None
    found = room([wide, narrow], 2, {"nvidia.com/gpu": 1})
    assert found is not None
    assert (found.replicas, found.reason) == (3, "quota 'q' has 1 of 5 count/pods left")


def test_thousands_are_read_as_the_api_server_writes_them() -> None:
    assert most(quota({"pods": "1500"}, {"pods": "1k"}), **{"nvidia.com_gpu": 1}) == 2 + 500
    assert most(quota({"pods": "2k"}, {"pods": "2k"}), **{"nvidia.com_gpu": 1}) == 2
    assert most(quota({GPU: "2k"}, {GPU: "1996"}), **{"nvidia.com_gpu": 2}) == 2 + 2


@pytest.mark.parametrize("used", [{}, {GPU: "1500m"}], ids=["missing", "unreadable"])
def test_what_is_used_and_not_known_leaves_no_room_beyond_what_is_there(used: dict[str, str]) -> None:
    read = quota_of(quota({GPU: "9"}, used))
    assert read is not None
    found = room([read], 2, {"nvidia.com/gpu": 1})
    assert found is not None
    assert (found.replicas, found.reason) == (
        2,
        "quota 'q' does not tell how many of 9 requests.nvidia.com/gpu are used",
    )


def test_what_does_not_concern_the_pods_says_nothing() -> None:
    assert most(quota({GPU: "4"}, {GPU: "4"})) is None, "they ask for no GPU, as far as is known"
    assert most(quota({"requests.cpu": "1", "limits.memory": "1Gi"}, {})) is None
    assert most(quota({"pods": "0"}, {}, scopes=["BestEffort"])) is None
    assert room([], 2, {"nvidia.com/gpu": 1}) is None
