"""The HPA's laws, each against figures worked out from the controller's own source."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.observation import Observation, Pod, PodSample, PodStage, SampleState
from simulations.peers.hpa import (
    Behavior,
    ExternalAverageMetric,
    ExternalValueMetric,
    Hpa,
    HpaState,
    PodsMetric,
    RatePolicy,
    Rules,
    Select,
)
from simulations.peers.rules import hpa_on_in_flight, hpa_on_waiting, keda_on_waiting


def pod(number: int, waiting: float | None, stage: PodStage = PodStage.READY) -> Pod:
    sample = None if waiting is None else PodSample(0.0, SampleState.FRESH, 1.0, waiting)
    return Pod(f"pod-{number}", stage, 0.0, sample=sample)


def seen(*waiting: float | None, now: float = 0.0, desired: int | None = None, others: str = "") -> Observation:
    """Ready pods with so many waiting (None: silent), and others: p pending, s starting, t terminating."""
    kinds = {"p": PodStage.CREATED, "s": PodStage.STARTING, "t": PodStage.TERMINATING}
    pods = [pod(i, w) for i, w in enumerate(waiting)]
    pods += [pod(100 + i, None, kinds[kind]) for i, kind in enumerate(others)]
    living = sum(p.stage is not PodStage.TERMINATING for p in pods)
    return Observation(now, living if desired is None else desired, tuple(pods))


def wanted(hpa: Hpa, observation: Observation) -> int:
    return hpa.decide(observation, hpa.begin())[0].wanted


PODS = Hpa((PodsMetric(("requests_waiting",), 10),), 1, 100)
EXTERNAL = Hpa((ExternalAverageMetric(("requests_waiting",), 5),), 1, 100)


@pytest.mark.parametrize("kind", [PodsMetric, ExternalAverageMetric, ExternalValueMetric])
@pytest.mark.parametrize(
    ("target", "number"), [(1e-9, 2000), (0.0005, 2000), (0.001, 2000), (0.0011, 1000), (1e306, 1)]
)
def test_a_target_is_rounded_up_to_thousandths_and_never_to_none(
    kind: type[PodsMetric] | type[ExternalAverageMetric] | type[ExternalValueMetric], target: float, number: int
) -> None:
    assert wanted(Hpa((kind(("requests_waiting",), target),), 1, 10_000), seen(2)) == number


@pytest.mark.parametrize(
    ("observation", "number"),
    [
        (seen(20, 20), 4),
        (seen(11, 11), 2),  # within a tenth of the target
        (seen(9, 9), 2),
        (seen(8.99, 8.99), 2),  # ⌈0.899 × 2⌉
        (seen(4, 4), 1),
        (seen(0, 0, 0), 0),
        # Pending pods count as 0 when it goes up: (40 + 40 + 0 + 0) / 4 = 20 a pod, ⌈2 × 4⌉.
        (seen(40, 40, others="pp"), 8),
        # … and that may turn the direction, which holds: (12 + 0) / 2 = 6 a pod.
        (seen(12, others="p"), 2),
        # When it goes down they do not count.
        (seen(2, 2, others="pp"), 1),
        # A container that runs and shows nothing is missing: the target when it goes down,
        (seen(2, 2, others="s"), 2),  # (2 + 2 + 10) / 3 = 4.666, ⌈0.4666 × 3⌉
        # nothing when it goes up.
        (seen(40, None), 4),  # (40 + 0) / 2 = 20, ⌈2 × 2⌉
        # Terminating pods are nowhere.
        (seen(20, 20, others="tt"), 4),
        # A reading is rounded up to thousandths, a mean is cut to them, then compared.
        (seen(11.0009), 2),
        (seen(11.001, 11), 2),
    ],
)
def test_a_pods_metric_with_pending_and_missing_pods(observation: Observation, number: int) -> None:
    assert wanted(PODS, observation) == number


def test_without_any_reading_the_number_stands_and_only_the_first_one_found_is_remembered() -> None:
    decision, state = PODS.decide(seen(None, None, desired=7), HpaState())
    assert (decision.replicas, decision.changes) == (7, False)
    assert state.recommendations == ((0.0, 7),)


@pytest.mark.parametrize(
    ("observation", "number"),
    [
        (seen(6, 7), 3),  # ⌈13 / 5⌉
        (seen(5, 6), 2),  # 11 / (5 × 2) = 1.1, within a tenth
        (seen(0, 0, 0), 0),
        # No correction for pods that come: each of the three counts in the tolerance only.
        (seen(30, others="ss"), 6),
        (seen(16, others="p"), 4),
        (seen(5, 5, others="t"), 2),
    ],
)
def test_an_external_metric_by_average_value(observation: Observation, number: int) -> None:
    assert wanted(EXTERNAL, observation) == number


@pytest.mark.parametrize(
    ("observation", "number"),
    [
        (seen(6, 7), 3),  # ⌈13 / 10 × 2⌉
        (seen(5, 6), 2),  # within a tenth
        # Only those that are ready are multiplied.
        (seen(20, others="ssp"), 2),
        # One that drains is ready still, if it ever was.
        (Observation(0, 1, (pod(1, 20), replace(pod(2, 0, PodStage.TERMINATING), ready_at=0.0))), 4),
        (Observation(0, 1, (pod(1, 20), pod(2, 0, PodStage.TERMINATING))), 2),
    ],
)
def test_an_external_metric_by_value(observation: Observation, number: int) -> None:
    assert wanted(Hpa((ExternalValueMetric(("requests_waiting",), 10),), 1, 100), observation) == number


def test_an_external_metric_that_is_not_there_holds_unless_its_server_says_zero() -> None:
    silent = seen(None, None, None)
    for metric in (ExternalAverageMetric, ExternalValueMetric):
        hpa = Hpa((metric(("requests_waiting",), 5),), 1, 100)
        assert wanted(hpa, silent) == 3
        assert "cannot be read" in hpa.decide(silent, hpa.begin())[0].sentence
        assert wanted(Hpa((metric(("requests_waiting",), 5, nothing_is_zero=True),), 1, 100), silent) == 0


def test_of_several_metrics_the_greatest_counts_and_one_that_fails_holds_what_would_shrink() -> None:
    hpa = Hpa((*EXTERNAL.metrics, PodsMetric(("requests_running",), 1)), 1, 100)

    def with_running(observation: Observation, running: float) -> Observation:
        pods = (replace(p, sample=replace(p.sample, requests_running=running)) for p in observation.pods if p.sample)
        return replace(observation, pods=tuple(pods))

    assert wanted(hpa, with_running(seen(10, 10), 1)) == 4
    assert wanted(hpa, with_running(seen(10, 10), 3)) == 6
    assert wanted(hpa, seen(10, 10)) == 4  # nothing runs that anybody knows of, and the other would grow
    assert wanted(hpa, seen(1, 1)) == 2


def test_at_zero_replicas_it_is_switched_off() -> None:
    decision, state = EXTERNAL.decide(seen(desired=0), EXTERNAL.begin())
    assert (decision.replicas, decision.changes) == (0, False)
    assert state.recommendations == ((0.0, 0),)


def test_a_reading_of_seven_hundredths_is_seventy_thousandths() -> None:
    hpa = Hpa((PodsMetric(("kv_cache_usage",), 0.07),), 1, 100, tolerance_up=0.0, tolerance_down=0.0)
    sample = PodSample(0.0, SampleState.FRESH, kv_cache_usage=0.07)
    assert wanted(hpa, Observation(0, 1, (Pod("pod", PodStage.READY, 0.0, sample=sample),))) == 1


def test_the_older_rules_double_at_most_and_shrink_to_the_highest_wish_of_five_minutes() -> None:
    state = EXTERNAL.begin()
    asked: list[int] = []
    for tick, waiting in enumerate([100, 100, 100, 0, 0, 0]):
        decision, state = EXTERNAL.decide(seen(waiting, now=tick * 15, desired=asked[-1] if asked else 1), state)
        asked.append(decision.replicas)
    assert asked == [4, 8, 16, 20, 20, 20]
    # The last wish for 20 was at 30 s: it holds to 330 s, inclusive.
    decision, state = EXTERNAL.decide(seen(0, now=330, desired=20), state)
    assert decision.replicas == 20
    decision, state = EXTERNAL.decide(seen(0, now=345, desired=20), state)
    assert decision.replicas == 1


def test_the_default_behavior_adds_four_or_doubles_in_fifteen_seconds() -> None:
    hpa = Hpa(EXTERNAL.metrics, 1, 100, Behavior())
    state = hpa.begin()
    asked = [1]
    for tick in range(5):
        decision, state = hpa.decide(seen(500, now=tick * 15, desired=asked[-1]), state)
        asked.append(decision.replicas)
    assert asked == [1, 5, 10, 20, 40, 80]


def test_rate_policies_look_back_over_their_period() -> None:
    down = Rules((RatePolicy(1, 60), RatePolicy(10, 120, percent=True)), 0.0, Select.MIN)
    hpa = Hpa(EXTERNAL.metrics, 1, 100, Behavior(down=down))
    state = hpa.begin()
    numbers = [20]
    for tick in range(9):
        decision, state = hpa.decide(seen(0, now=tick * 30, desired=numbers[-1]), state)
        numbers.append(decision.replicas)
    # One pod in 60 s is less than a tenth in 120 s (two of 20); the third waits for the first to age.
    assert numbers == [20, 19, 19, 18, 18, 17, 17, 16, 16, 15]
    off = Hpa(EXTERNAL.metrics, 1, 100, Behavior(down=Rules(down.policies, 0.0, Select.DISABLED)))
    assert off.decide(seen(0, desired=20), off.begin())[0].replicas == 20


def test_a_window_for_the_way_up_waits_for_the_lowest_wish() -> None:
    up = Rules((RatePolicy(100, 15),), 45.0)
    hpa = Hpa(EXTERNAL.metrics, 1, 100, Behavior(up=up))
    state = hpa.begin()
    numbers = [1]
    for tick, waiting in enumerate([5, 50, 50, 50, 50]):
        decision, state = hpa.decide(seen(waiting, now=tick * 15, desired=numbers[-1]), state)
        numbers.append(decision.replicas)
    assert numbers == [1, 1, 1, 1, 10, 10]


def test_between_two_syncs_nothing_is_decided() -> None:
    state = EXTERNAL.begin()
    numbers = []
    for tick in range(4):
        decision, state = EXTERNAL.decide(seen(50, now=tick * 5, desired=1), state)
        numbers.append(decision.replicas)
    assert numbers == [4, 1, 1, 4]


def test_a_number_outside_the_bounds_is_brought_back_before_anything_is_measured() -> None:
    hpa = Hpa(EXTERNAL.metrics, 3, 6)
    for desired, number in ((9, 6), (1, 3)):
        decision, state = hpa.decide(seen(50, desired=desired), hpa.begin())
        assert decision.replicas == number
        assert state.recommendations == ((0.0, desired),)


@given(
    waiting=st.lists(st.none() | st.floats(0, 1e4), min_size=1, max_size=12),
    desired=st.integers(1, 30),
    others=st.text("pst", max_size=6),
    past=st.lists(st.tuples(st.floats(-600, 0), st.integers(0, 60)), max_size=5).map(tuple),
    behavior=st.sampled_from([None, Behavior()]),
    pods=st.booleans(),
)
def test_the_bounds_are_kept_whatever_is_seen(
    waiting: list[float | None],
    desired: int,
    others: str,
    past: tuple[tuple[float, int], ...],
    behavior: Behavior | None,
    pods: bool,
) -> None:
    metric = PodsMetric(("requests_waiting",), 10) if pods else ExternalAverageMetric(("requests_waiting",), 5)
    hpa = Hpa((metric,), 2, 20, behavior)
    observation = seen(*waiting, desired=desired, others=others)
    decision, _ = hpa.decide(observation, HpaState(recommendations=past))
    assert 2 <= decision.replicas <= 20 or decision.replicas == desired


def test_the_rules_people_start_with_read_what_they_mean_to() -> None:
    four_pods = seen(10, 10, 10, 10)
    assert keda_on_waiting(1, 12).decide(four_pods, HpaState())[0].wanted == 8
    assert hpa_on_waiting(1, 12).decide(four_pods, HpaState())[0].wanted == 4
    # One runs in each of the pods beside those that wait.
    assert hpa_on_in_flight(1, 12, target=5.5).decide(four_pods, HpaState())[0].wanted == 8
