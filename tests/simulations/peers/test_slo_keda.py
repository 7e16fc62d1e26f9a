"""llm-d's latency law by its published formula, and how near its P90 is come without the histograms."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.observation import Distribution
from simulations.peers.slo_keda import TPOT_SPREAD, TTFT_SPREAD, Latencies, quantile_seconds, replicas_for
from tests.simulations.peers.seen import in_flight, named, replicas, seen, told


@pytest.mark.parametrize(
    ("saturation", "provisioned", "ready", "expected"),
    [
        (0.50, 4, 4, 4),  # The band.
        (0.40, 4, 4, 4),
        (0.55, 4, 4, 4),
        (0.60, 4, 4, 5),
        (1.10, 4, 4, 8),
        (2.00, 3, 3, 11),
        (1.10, 8, 4, 8),  # What boots is credited.
        (1.65, 8, 4, 12),
        (1.10, 4, 0, 8),  # None ready: no credit.
        (0.39, 4, 4, 4),  # Rounded down to nothing.
        (0.20, 4, 4, 2),
        (0.20, 4, 1, 2),  # A shrink is not credited.
        (0.00, 4, 4, 0),
    ],
)
def test_the_published_formula(saturation: float, provisioned: int, ready: int, expected: int) -> None:
    assert replicas_for(saturation, provisioned, ready) == expected


def of(values: list[float], lower: float, upper: float) -> Latencies:
    below, within = sum(v <= lower for v in values), sum(v <= upper for v in values)
    return Latencies(math.fsum(values), len(values), below, within)


def test_between_the_two_edges_it_is_what_histogram_quantile_says() -> None:
    values = [0.5] * 80 + [2.0] * 20
    assert quantile_seconds(of(values, 1.0, 2.5), 1.0, 2.5, 0.9, TTFT_SPREAD) == pytest.approx(1.0 + 1.5 * 10 / 20)


def test_beyond_the_edges_it_is_the_mean_at_least_the_upper_edge() -> None:
    assert quantile_seconds(of([9.0] * 10, 1.0, 2.5), 1.0, 2.5, 0.9, TTFT_SPREAD) == 9.0
    assert quantile_seconds(of([0.1] * 5 + [3.0] * 5, 1.0, 2.5), 1.0, 2.5, 0.9, TTFT_SPREAD) == 2.5
    assert quantile_seconds(of([90.0] * 10, 80.0, math.inf), 80.0, math.inf, 0.9, TTFT_SPREAD) == 90.0


def test_of_nothing_it_is_unknown() -> None:
    assert quantile_seconds(Latencies(), 1.0, 2.5, 0.9, TTFT_SPREAD) is None


@pytest.mark.parametrize(("spread", "mean", "off"), [(0.8, 0.4, 0.25), (0.3, 0.6, 0.25), (0.1, 0.85, 0.1)])
def test_a_log_normal_latency_is_told_from_its_mean_and_one_edge(spread: float, mean: float, off: float) -> None:
    shares = (np.arange(4000) + 0.5) / 4000
    values = [mean * math.exp(spread * NormalDist().inv_cdf(share) - spread * spread / 2) for share in shares]
    found = quantile_seconds(of(values, 1.0, 2.5), 1.0, 2.5, 0.9, TTFT_SPREAD)
    assert found is not None
    assert abs(math.log(found / float(np.quantile(values, 0.9)))) < off


latencies = st.lists(st.floats(0.001, 100.0), min_size=1, max_size=60)


@given(latencies, st.sampled_from([TTFT_SPREAD, TPOT_SPREAD]), st.sampled_from([(1.0, 2.5), (0.05, 0.075), (2.5, 2.5)]))
def test_it_lies_on_the_side_of_the_edges_where_the_true_one_is(
    values: list[float], spread: float, edges: tuple[float, float]
) -> None:
    lower, upper = edges
    found = quantile_seconds(of(values, lower, upper), lower, upper, 0.9, spread)
    assert found is not None
    assert found > 0
    below = sum(value <= lower for value in values) / len(values)
    within = sum(value <= upper for value in values) / len(values)
    if below >= 0.9:
        assert found <= lower
    elif within >= 0.9:
        assert lower <= found <= upper
    else:
        assert found >= upper


def serving(place: int, ttft: float, tpot: float) -> dict[str, object]:
    """Ten requests a look, all alike, below both edges."""
    count = 10.0 * place
    return {
        **in_flight(1),
        "ttft": Distribution(count * ttft, count, 2.5, count, 2.5, count),
        "tpot": Distribution(count * tpot, count, 0.1, count, 0.1, count),
    }


def test_a_latency_near_its_objective_grows_the_pool_after_half_a_minute() -> None:
    """P90 of 0.08 s of 0.1: saturation 0.9, of four pods seven; smoothing and the window of 30 s hold it back."""
    looks = [seen(15.0 * i, [serving(i, 0.2, 0.08)] * 4) for i in range(5)]
    assert replicas(named("slo-keda"), looks) == [4, 4, 4, 5, 7]


def test_a_quiet_pool_loses_one_in_two_minutes_after_three() -> None:
    state = (policy := named("slo-keda")).begin()
    desired, made = 6, []
    for place in range(33):
        decision, state = policy.decide(seen(15.0 * place, [serving(place, 0.1, 0.01)] * desired), state)
        desired = decision.replicas
        made.append(desired)
    assert made[:12] == [6] * 12
    assert (made[12], made[19], made[20], made[28]) == (5, 5, 4, 3)


def test_golden_decisions_of_a_ramp() -> None:
    assert told("slo-keda") == GOLDEN


GOLDEN = (
    "0:2 44:3 48:4 53:6 57:8 62:11 66:15 71:20 112:19 120:18 128:17 136:16 144:15 152:14 160:13 "
    "168:12 176:11 184:10 192:9"
)
