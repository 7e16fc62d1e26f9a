"""Label selectors, in both of the forms that Kubernetes writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.selectors import Operator, Requirement, Selector

KEY = st.sampled_from(["a", "in", "notin", "app", "example.dev/app", "a-b.c_d", "A1"])
VALUE = st.sampled_from(["", "x", "in", "6b7c8d9f4", "a.b-c_d"])
VALUES = st.lists(VALUE, min_size=1, max_size=3, unique=True).map(lambda values: tuple(sorted(values)))
REQUIREMENT = st.one_of(
    st.builds(Requirement, KEY, st.sampled_from([Operator.IN, Operator.NOT_IN]), VALUES),
    st.builds(Requirement, KEY, st.sampled_from([Operator.EXISTS, Operator.ABSENT])),
)
SELECTOR = st.lists(REQUIREMENT, max_size=4).map(lambda requirements: Selector(tuple(requirements)))


@given(SELECTOR)
def test_what_is_written_is_read_again(selector: Selector) -> None:
    assert Selector.of_string(str(selector)) == selector


@given(SELECTOR, st.dictionaries(KEY, VALUE, max_size=4))
def test_both_forms_select_the_same(selector: Selector, labels: dict[str, str]) -> None:
    workload = {
        "matchExpressions": [
            {"key": r.key, "operator": r.operator.value, "values": list(r.values)} for r in selector.requirements
        ]
    }
    assert Selector.of_workload(workload).selects(labels) == selector.selects(labels)


@pytest.mark.parametrize(
    ("text", "labels", "selects"),
    [
        ("app=a", {"app": "a"}, True),
        ("app == a", {"app": "a"}, True),
        ("app=a", {"app": "b"}, False),
        ("app=a", {}, False),
        ("app=a,tier in (gpu, cpu)", {"app": "a", "tier": "cpu"}, True),
        ("app=a, tier in (gpu)", {"app": "a", "tier": "cpu"}, False),
        ("tier notin (gpu)", {"tier": "cpu"}, True),
        ("tier notin (gpu)", {}, True),
        ("tier!=gpu", {"tier": "gpu"}, False),
        ("app", {"app": ""}, True),
        ("app", {}, False),
        ("!app", {}, True),
        ("! app", {"app": "a"}, False),
        ("app=", {"app": ""}, True),
        ("example.dev/app=a", {"example.dev/app": "a"}, True),
        ("", {"anything": "goes"}, True),
    ],
)
def test_strings_select_as_kubernetes_does(text: str, labels: dict[str, str], selects: bool) -> None:
    assert Selector.of_string(text).selects(labels) is selects


@pytest.mark.parametrize("text", ["a=b=c", "a in b", "=a", "a,,b", "a=b,", "!a=b", "a>1", "(a)", "a b"])
def test_what_is_no_selector_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not a label selector"):
        Selector.of_string(text)


def test_a_workloads_selector_is_written_as_its_scale_writes_it() -> None:
    # As kube-apiserver 1.36 wrote it in the scale of a Deployment with this selector.
    selector = Selector.of_workload(
        {
            "matchLabels": {"app": "vllm-a"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["gpu", "cpu"]}],
        }
    )
    assert str(selector) == "app=vllm-a,tier in (cpu,gpu)"
