"""What can be seen from a query: whether it grows with the pods, how high it can go, and what was meant."""

from __future__ import annotations

import math
from typing import Any

import pytest

from simulations.policy_files.measures import Measure, is_gone_at_zero, mistakes, most, shape
from simulations.policy_files.promql import parse

W, R, K = "vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"
TPOT = "histogram_quantile(0.95, sum by (le) (rate(vllm:request_time_per_output_token_seconds_bucket[2m])))"


@pytest.mark.parametrize(
    ("query", "degree", "by_pod"),
    [
        (W, 0, True),
        (f"sum({W})", 1, False),
        (f"sum by (model_name) ({W})", 1, False),
        (f"sum by (pod) ({W})", 0, True),
        (f"sum without (pod) ({W})", 1, False),
        (f"sum without (engine) ({W})", 0, True),
        (f"avg({W})", 0, False),
        (f"count({W})", 1, False),
        (f"sum({W}) / count({W})", 0, False),
        (f"sum({W}) / sum(kube_deployment_spec_replicas)", 0, False),
        (f"sum({W}) + sum({R})", 1, False),
        (f"sum({W}) > 5", 1, False),
        (f"sum({W}) > bool 0", 1, False),
        (f"sum({W}) or vector(0)", 1, False),
        (f"{W} / {R}", 0, True),
        (f"sum({W}) * sum({R})", 2, False),
        (TPOT, 0, False),
        ("sum(rate(vllm:request_success_total[2m]))", 1, False),
        ("vector(3)", 0, False),
    ],
)
def test_how_a_query_grows_with_the_pods(query: str, degree: int, by_pod: bool) -> None:
    found = shape(parse(query))
    assert (found.degree, found.by_pod) == (degree, by_pod)


@pytest.mark.parametrize(
    ("query", "bound"),
    [
        (K, 1.0),
        (f"avg({K}) or vector(0)", 1.0),
        (f"max(max_over_time({K}[5m]))", 1.0),
        (f"sum({K}) / count({K})", 1.0),
        (f"100 * avg({K})", 100.0),
        (f"avg({K}) > 0.5", 1.0),
        (f"avg({K}) + 1", math.inf),
        (W, math.inf),
        (f"count({K})", math.inf),
        (f"sum_over_time({K}[5m])", math.inf),
    ],
)
def test_how_high_a_query_can_go(query: str, bound: float) -> None:
    assert most(parse(query)) == bound


@pytest.mark.parametrize(
    ("query", "kind", "target", "meant"),
    [
        (K, "pods", 80.0, ("pods", 0.8)),
        (K, "pods", 0.8, None),
        (f"100 * {K}", "pods", 80.0, None),
        (f"avg({K})", "average", 80.0, ("value", 0.8)),
        (f"avg({K})", "value", 0.7, None),
        (f"avg({W})", "average", 5.0, ("value", 5.0)),
        (f"max({W})", "average", 5.0, ("value", 5.0)),
        (f"sum({W})", "average", 5.0, None),
        (W, "average", 5.0, None),
        (TPOT, "average", 60.0, ("value", 0.06)),
        (TPOT, "value", 0.06, None),
        (f"1000 * {TPOT}", "value", 60.0, None),
        ("vector(3)", "average", 1.0, None),
    ],
)
def test_what_was_meant(query: str, kind: Any, target: float, meant: tuple[str, float] | None) -> None:
    found = list(mistakes(Measure("it", parse(query), kind, target)))
    if meant is None:
        assert found == []
    else:
        assert (found[-1].meant.kind, found[-1].meant.target) == meant
        assert all(mistake.sentence.startswith("it ") for mistake in found)


def test_what_is_left_to_read_at_zero_replicas() -> None:
    assert is_gone_at_zero(parse(f"sum({W})"))
    assert is_gone_at_zero(parse(f"sum({W}) or sum({R})"))
    assert not is_gone_at_zero(parse(f"sum({W}) or vector(1)"))
    assert not is_gone_at_zero(parse("sum(kube_deployment_spec_replicas)"))
    assert not is_gone_at_zero(parse("vector(1)"))
