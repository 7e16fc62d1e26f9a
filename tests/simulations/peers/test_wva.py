"""WVA's two saturation analyzers by the figures of its documentation."""

from __future__ import annotations

import pytest

from simulations.model.engine import Engine, StepTime
from simulations.peers.wva import (
    Capacity,
    Lengths,
    Peak,
    Thresholds,
    by_spare,
    by_tokens,
    derived_capacity,
    replicas_for,
)
from tests.simulations.peers.seen import ENGINE, held, named, replicas, seen, told

SHARED = Thresholds()


def test_growth_waits_until_the_mean_spare_falls_below_the_trigger() -> None:
    """saturation-scaling-config.md: 65 % and 72 % leave 0.115; 65 % and 76 % leave 0.095."""
    assert by_spare([Peak(0.65, 0), Peak(0.72, 0)], SHARED) == 0
    assert by_spare([Peak(0.65, 0), Peak(0.76, 0)], SHARED) == 1


@pytest.mark.parametrize(
    ("peaks", "step"),
    [
        ([Peak(0.1, 0)], 0),  # One is never taken away.
        ([Peak(0.1, 0), Peak(0.1, 0)], -1),
        ([Peak(0.35, 0), Peak(0.36, 0)], 0),  # The one left would have 0.09 to spare.
        ([Peak(0.35, 0), Peak(0.35, 0)], -1),  # 0.1, which is not below.
        ([Peak(0.1, 1), Peak(0.1, 1)], -1),
        ([Peak(0.1, 1.5), Peak(0.1, 1)], 0),
        ([Peak(0.1, 2.5)], 1),
        ([Peak(0.9, 0)], 1),  # None is left that is not saturated.
        ([Peak(0.9, 9), Peak(0.3, 0), Peak(0.3, 0)], -1),  # The saturated one is not asked.
        ([Peak(0.8, 0), Peak(0.5, 5)], 1),
    ],
)
def test_spare_decides_by_one(peaks: list[Peak], step: int) -> None:
    assert by_spare(peaks, SHARED) == step


def test_capacity_is_what_fits_what_the_queue_showed_or_what_the_flags_allow() -> None:
    engine = Engine("b", StepTime(1, 0, 0, 0, 0), 100_000, max_num_seqs=256, max_num_batched_tokens=8192)
    lengths = Lengths(1000.0, 200.0)
    assert derived_capacity(engine, lengths) == 256 * 1100
    assert derived_capacity(engine, Lengths()) == 0
    found = by_tokens([Peak(0.5, 0, 100_000)], lengths, SHARED, engine, ())
    assert found == Capacity(50_000, 80_000, ())  # 0.8 of the cache, below what the flags allow.
    full = by_tokens([Peak(0.6, 5, 100_000)], lengths, SHARED, engine, (40_000.0,))
    assert full == Capacity(60_000 + 5 * 1000, 60_000, (40_000, 60_000))
    later = by_tokens([Peak(0.2, 0, 100_000)], lengths, SHARED, engine, (40_000.0, 60_000.0))
    assert later == Capacity(20_000, 50_000, (40_000, 60_000))
    assert by_tokens([Peak(0.2, 0)], lengths, SHARED, engine, ()) is None


def test_only_the_last_ten_saturated_readings_count() -> None:
    """types_test.go: of 1 to 15 the window holds 6 to 15."""
    remembered = tuple(float(n) for n in range(1, 11))
    peaks = [Peak((n + 0.5) / 100_000, 9, 100_000) for n in range(11, 16)]
    found = by_tokens(peaks, Lengths(0, 50), SHARED, ENGINE, remembered)
    assert found is not None
    assert sum(found.observed) / len(found.observed) == pytest.approx(10.5)


@pytest.mark.parametrize(
    ("answer", "bucket"), [(0, "short"), (99.9, "short"), (100, "medium"), (499, "medium"), (500, "long")]
)
def test_answers_fall_into_three_buckets(answer: float, bucket: str) -> None:
    assert Lengths(0, answer).bucket == bucket


@pytest.mark.parametrize(
    ("demand", "current", "ready", "expected"),
    [
        (150, 2, 2, 2),  # 150/0.85 is less than 200, 200 - 150/0.7 is nothing.
        (171, 2, 2, 3),
        (300, 2, 2, 4),
        (300, 4, 2, 4),  # What boots counts as there when growing…
        (100, 4, 2, 4),  # …and as nothing when shrinking.
        (100, 4, 4, 2),
        (0, 4, 4, 1),
        (69, 2, 2, 1),
        (71, 2, 2, 2),
    ],
)
def test_what_lacks_is_rounded_up_and_what_is_spare_down(
    demand: float, current: int, ready: int, expected: int
) -> None:
    assert replicas_for(Capacity(demand, 100.0, ()), current, ready, SHARED) == expected


def busy(usage: float, waiting: float = 0.0) -> dict[str, float]:
    return {"kv_cache_usage": usage, "requests_waiting": waiting}


@pytest.mark.parametrize("analyzer", ["v1", "v2"])
def test_the_hpa_behind_it_waits_four_minutes_both_ways(analyzer: str) -> None:
    full, idle = busy(0.79, 2.4), busy(0.0)
    up = held(named(f"wva:analyzer={analyzer}"), lambda now: full, start=1, seconds=300)
    assert up[:16] == [1] * 16
    assert up[16] == 2
    down = held(named(f"wva:analyzer={analyzer}"), lambda now: idle, start=3, seconds=300)
    assert down[:16] == [3] * 16
    assert down[16] == (2 if analyzer == "v1" else 1)


def test_from_ten_replicas_on_one_more_is_within_the_hpas_tolerance() -> None:
    wva = named("wva:analyzer=v1,stabilization=0")
    assert replicas(wva, [seen(0.0, [busy(0.75)] * 9)]) == [10]
    assert replicas(wva, [seen(0.0, [busy(0.75)] * 10)]) == [10]


def test_v1_does_nothing_while_a_pod_boots() -> None:
    wva = named("wva:analyzer=v1,stabilization=0")
    assert replicas(wva, [seen(0.0, [busy(0.75)] * 2, booting=1)]) == [3]


def test_peaks_of_the_last_minute_count() -> None:
    looks = [seen(15.0 * i, [busy(0.75 if i == 0 else 0.1)]) for i in range(8)]
    wva = named("wva:analyzer=v1,stabilization=0")
    assert replicas(wva, looks)[:3] == [2, 2, 2]


def test_golden_decisions_of_a_ramp() -> None:
    assert told("wva") == V2
    assert told("wva:analyzer=v1") == V1


V2 = (
    "0:2 16:1 36:2 44:3 54:4 58:5 60:6 62:7 64:8 66:9 68:11 70:12 72:13 74:15 76:18 98:15 100:10 "
    "102:8 108:5 110:3 112:2 118:1 138:2 146:3 174:1 194:2"
)
V1 = "0:2 16:1 36:2 64:3 90:4 136:3 178:2 194:1"
