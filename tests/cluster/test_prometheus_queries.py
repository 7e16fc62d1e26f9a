"""How values get into a query, and a series to its pod."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.prometheus_queries import PodAddress, PodIndex, TargetPods, host, matching, one_of, quoted
from policies.scaling.resource import Objectives
from tests.stand_ins.promql import Store, parse

OBJECTIVES = Objectives(ttft_seconds=2.0, tpot_seconds=0.06, attainment=0.99)


@pytest.mark.parametrize(
    ("instance", "address"),
    [
        ("10.0.0.7:8000", "10.0.0.7"),
        ("10.0.0.7", "10.0.0.7"),
        ("[fd00::7]:8000", "fd00::7"),
        ("fd00::7", "fd00::7"),
        ("", ""),
    ],
)
def test_the_host_of_an_instance_is_found_with_and_without_port(instance: str, address: str) -> None:
    assert host(instance) == address


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_value_can_be_asked_for_and_no_other_is_found(wanted: str, other: str) -> None:
    store = Store()
    for value in {wanted, other}:
        store.add({"__name__": "x", "value": value}, 1.0, 5.0)
    for matcher in (f"value={quoted(wanted)}", f"value=~{one_of([wanted])}"):
        found = parse(matching(("x",), (matcher,))).at(store, 5.0)
        assert [labels["value"] for labels, _ in found] == [wanted]


def test_an_expression_for_many_names_matches_each_and_no_more() -> None:
    pattern = re.compile(one_of(["vllm:a_total", "1.0", "x+y"])[1:-1].replace("\\\\", "\\"))
    assert [bool(pattern.fullmatch(text)) for text in ("vllm:a_total", "1.0", "x+y", "1x0", "xxy", "a")] == (
        [True] * 3 + [False] * 3
    )


def test_an_empty_ip_joins_nothing() -> None:
    index = PodIndex([TargetPods([PodAddress("n", "a")], OBJECTIVES)])
    assert index.place({}) is None
    assert index.place({"instance": ""}) is None


def test_a_pod_of_two_targets_has_one_place() -> None:
    pod = PodAddress("n", "a", "10.0.0.1")
    index = PodIndex([TargetPods([pod], OBJECTIVES), TargetPods([pod], OBJECTIVES)])
    assert index.place({"namespace": "n", "pod": "a"}) == index.place({"instance": "10.0.0.1:80"}) == 0
    assert len(index.pods) == 1
