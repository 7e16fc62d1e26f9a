"""A pod's words about nodes are read as kube-scheduler reads them, and what is not known keeps no node away."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.node_choice import node_choice, node_words

GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def admits(pod: dict[str, Any], labels: dict[str, str] | None = None, *taints: dict[str, str]) -> bool:
    node = {"metadata": {"name": "a", "labels": labels or {}}, "spec": {"taints": list(taints)}}
    return node_choice(pod).admits(node_words(node))


def affinity(*terms: dict[str, Any]) -> dict[str, Any]:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return {"affinity": {"nodeAffinity": required}}


def label(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def test_a_pod_that_says_nothing_goes_anywhere_but_where_a_taint_stands() -> None:
    assert admits({})
    assert admits({}, {"pool": "a"}, {"key": "x", "effect": "PreferNoSchedule"})
    assert not admits({}, None, GPU_TAINT)
    assert not admits({}, None, {"key": "x", "effect": "NoExecute"})


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Exists"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "nvidia.com/gpu", "value": "present"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Equal", "value": "absent"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "nvidia.com/gpu", "operator": "OfALaterKubernetes", "value": "5"}, True),
    ],
)
def test_a_taint_is_tolerated_by_key_value_and_effect(toleration: dict[str, str], tolerated: bool) -> None:
    assert admits({"tolerations": [{"key": "another", "value": "x"}, toleration]}, None, GPU_TAINT) is tolerated


def test_every_taint_must_be_tolerated() -> None:
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert not admits({"tolerations": tolerations}, None, GPU_TAINT, {"key": "x", "effect": "NoSchedule"})


def test_all_of_a_selector_must_agree() -> None:
    pod = {"nodeSelector": {"pool": "a", "zone": "1"}}
    assert admits(pod, {"pool": "a", "zone": "1", "more": ""})
    assert not admits(pod, {"pool": "a", "zone": "2"})
    assert not admits(pod, {"pool": "a"})


@pytest.mark.parametrize(
    ("term", "admitted"),
    [
        (label("pool", "In", "a", "b"), True),
        (label("pool", "NotIn", "a"), False),
        (label("none", "NotIn", "a"), True),
        (label("pool", "Exists"), True),
        (label("pool", "DoesNotExist"), False),
        (label("gpus", "Gt", "7"), True),
        (label("gpus", "Lt", "8"), False),
        (label("none", "Gt", "7"), False),
        (label("pool", "OfALaterKubernetes", "7"), True),
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}, True),
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}, False),
        ({}, False),
    ],
)
def test_required_affinity_is_compared_as_the_scheduler_does(term: dict[str, Any], admitted: bool) -> None:
    assert admits(affinity(term), {"pool": "a", "gpus": "8"}) is admitted


def test_one_term_of_several_suffices_and_none_of_none() -> None:
    assert admits(affinity(label("pool", "In", "b"), label("pool", "In", "a")), {"pool": "a"})
    assert not admits(affinity(), {"pool": "a"})
    both = {
        "matchExpressions": [*label("pool", "In", "a")["matchExpressions"], *label("x", "Exists")["matchExpressions"]]
    }
    assert not admits(affinity(both), {"pool": "a"})


def test_a_preference_keeps_no_node_away() -> None:
    preferred = [{"weight": 1, "preference": label("pool", "In", "b")}]
    node_affinity = {"preferredDuringSchedulingIgnoredDuringExecution": preferred}
    assert admits({"affinity": {"nodeAffinity": node_affinity}}, {"pool": "a"})
