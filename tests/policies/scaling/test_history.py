from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.prometheus_history import finest
from policies.scaling.demand import LoadBin
from policies.scaling.history import History
from policies.scaling.observation import Observation, Pod, PodSample
from policies.scaling.policy import ScalingPolicy, decide
from policies.scaling.resource import Spec
from policies.scaling.series import ARRIVALS, Series
from policies.scaling.utilisation import LATE, UNTIL
from tests.policies.scaling.story import Server, Story, policy

TICK, HOUR, DAY = 15.0, 3600.0, 86_400.0


def size_bytes(history: History) -> int:
    arrays: list[NDArray[np.floating]] = [history.ticks, history.recent]
    for series in (history.fine, history.coarse):
        assert series is not None
        arrays.append(series.sums)
    return sum(array.nbytes for array in arrays)


def nine_days() -> list[LoadBin]:
    start = 1_699_999_200.0 - 9 * DAY
    coarse = [LoadBin(start + i * 300, 300, 2.0, 2000.0, 400.0) for i in range(9 * 288)]
    fine = [LoadBin(start + 8 * DAY + i * 60, 60, 2.0, 2000.0, 400.0) for i in range(1440)]
    return coarse + fine


def test_nine_days_at_the_shortest_tick_stay_within_two_hundred_kilobytes() -> None:
    short = policy(tick_seconds=5.0)
    story = Story(lambda _: 3.0, short, start=2, history=History().refilled(nine_days(), short)).tell(2 * HOUR)
    assert size_bytes(story.history) <= 200_000
    assert story.history.coarse is not None
    assert len(story.history.coarse.sums) == 8 * 288


def test_a_refilled_history_foresees_from_the_first_minute() -> None:
    told = policy()
    story = Story(lambda _: 2.0, told, start=2, history=History().refilled(nine_days(), told)).tell(300)
    fitted = story.history.forecast
    assert fitted is not None
    assert fitted.compared > 1000


class TwoServers:
    """Two Prometheus behind one Service: whichever it is, one tells when a pod was scraped, and one what it counted."""

    def __init__(self, interval_seconds: float) -> None:
        self.interval_seconds = interval_seconds
        self.chance = Random(7)
        self.scraped: list[Observation | None] = [None, None]

    def answer(self, seen: Observation) -> Observation:
        for number in range(2):
            offset = number * self.interval_seconds / 2
            if self.scraped[number] is None or (seen.time + offset) % self.interval_seconds < TICK:
                self.scraped[number] = seen
        said, counted = (self.chance.choice(self.scraped) for _ in range(2))
        assert said is not None
        assert counted is not None
        times = {pod.name: pod.sample.time for pod in said.pods if pod.sample}
        samples = {pod.name: pod.sample for pod in counted.pods if pod.sample}
        both = {name: replace(sample, time=times[name]) for name, sample in samples.items() if name in times}
        return replace(seen, pods=tuple(replace(pod, sample=both.get(pod.name)) for pod in seen.pods))


@pytest.mark.parametrize("interval_seconds", [30.0, 60.0])
def test_of_two_prometheus_behind_one_service_no_request_counts_twice(interval_seconds: float) -> None:
    told = policy(tick_seconds=TICK)
    one, two = (
        Story(lambda _: 6.0, told, start=5, observed=observed).settled().tell(2 * HOUR)
        for observed in (lambda seen: seen, TwoServers(interval_seconds).answer)
    )
    fallen = [decision for decision in two.decisions if "not wholly seen" in decision.sentence]
    assert fallen, "some looks show an older count"
    assert max(two.replicas) <= 3 * max(one.replicas), "what is read within a tick may be of twice as long"
    counted = [float(story.history.fine.sums[:, ARRIVALS].sum()) for story in (one, two) if story.history.fine]
    assert counted[1] == pytest.approx(counted[0], rel=0.02)


def test_what_is_read_for_long_to_be_less_is_what_there_is() -> None:
    """Of eight engines behind each pod one began anew: nothing shrinks for as long as a gap, and all is as before."""
    lost: dict[str, float] = {}

    def seven_of_eight(seen: Observation) -> Observation:
        def of(pod: Pod) -> Pod:
            if pod.sample is None or pod.sample.requests_finished is None:
                return pod
            less = lost.setdefault(pod.name, pod.sample.requests_finished / 8)
            return replace(pod, sample=replace(pod.sample, requests_finished=pod.sample.requests_finished - less))

        return replace(seen, pods=tuple(map(of, seen.pods)))

    story = Story(lambda _: 6.0, policy(), start=5).settled().tell(2 * HOUR)
    before = len(story.decisions)
    story.observed = seven_of_eight
    story.tell(HOUR)
    unseen = [
        n for n, made in enumerate(story.decisions[before:]) if made.demand is None or "not wholly" in made.sentence
    ]
    assert unseen == list(range(len(unseen)))
    assert max(story.replicas[before:]) <= max(story.replicas[:before])
    assert len(unseen) * story.policy.tick_seconds <= story.policy.max_gap_seconds + 2 * story.policy.tick_seconds


def test_what_falls_across_two_bins_is_shared_by_time() -> None:
    series = Series(60.0, 10).add(90.0, 150.0, (60.0, 6.0, 0.0, 0.0, 0.0, 0.0))
    assert series.first == 1
    assert list(series.sums[:, ARRIVALS]) == [3.0, 3.0]


def test_a_bin_seen_for_less_than_half_is_unknown_and_never_zero() -> None:
    series = (
        Series(60.0, 10)
        .add(0.0, 60.0, (60.0, 6.0, 0.0, 0.0, 0.0, 0.0))
        .add(120.0, 140.0, (20.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    )
    rates = series.rates()
    assert rates[0] == pytest.approx(0.1)
    assert np.isnan(rates[1])
    assert np.isnan(rates[2])


def test_bins_beyond_what_is_kept_are_dropped_oldest_first() -> None:
    series = Series(60.0, 3)
    for minute in range(10):
        series = series.add(minute * 60.0, minute * 60.0 + 60, (60.0, float(minute), 0.0, 0.0, 0.0, 0.0))
    assert list(series.sums[:, ARRIVALS]) == [7.0, 8.0, 9.0]


def test_adding_leaves_the_old_series_as_it_was() -> None:
    series = Series(60.0, 3).add(0.0, 60.0, (60.0, 6.0, 0.0, 0.0, 0.0, 0.0))
    series.add(30.0, 60.0, (30.0, 6.0, 0.0, 0.0, 0.0, 0.0))
    assert list(series.sums[:, ARRIVALS]) == [6.0]


def test_refits_come_once_a_period_at_their_own_offset() -> None:
    told = policy(refit_offset_seconds=100.0)
    story = Story(lambda _: 3.0, told, start=2)
    fitted = set()
    for _ in range(4 * 60):
        story.tell(15)
        if story.history.fitted_at is not None:
            fitted.add(story.history.fitted_at)
    later = sorted(fitted)[1:]
    assert 10 <= len(later) <= 12
    assert {(at - 100.0) % 300.0 < 15.0 for at in later} == {True}


def test_a_decision_needs_no_memory_but_history() -> None:
    story = Story(lambda t: 3.0 + 3.0 * (t > HOUR), policy(), start=2).tell(2 * HOUR)
    seen = story.observations[-1]
    assert decide(seen, story.history, story.policy) == decide(seen, story.history, story.policy)


@pytest.mark.parametrize("rate", [pytest.param(7.0, id="one-of-four-lacks"), pytest.param(12.0, id="most-lack")])
def test_who_was_late_for_want_of_gpus_is_not_held_against_how_full_replicas_are_planned(rate: float) -> None:
    story = Story(lambda time: 5.0 if time < 2 * HOUR else rate, policy(), start=3, slots=3).tell(4 * HOUR)
    times, late = story.history.utilisation.periods[:, UNTIL] - story.epoch, story.history.utilisation.periods[:, LATE]
    assert not np.isnan(late[times < 2 * HOUR]).any()
    # The first replicas wished for could not have been there sooner than a lead time after.
    assert np.isnan(late[times > 2 * HOUR + 900]).all()
    assert np.count_nonzero(times > 2 * HOUR + 900) > 20


def test_a_fleet_that_gets_what_it_wishes_for_is_held_to_it() -> None:
    story = Story(lambda time: 5.0 if time < 2 * HOUR else 12.0, policy(), start=3).tell(4 * HOUR)
    late = story.history.utilisation.periods[:, LATE]
    assert len(late) > 40
    assert not np.isnan(late).any()


@pytest.mark.parametrize("boots", [pytest.param(True, id="replaced"), pytest.param(False, id="without-a-node")])
def test_who_was_late_for_replicas_that_are_lost_counts_where_others_come_in_their_place(boots: bool) -> None:
    story = Story(lambda _: 5.0, policy(), start=4, slots=4 if boots else 3).tell(HOUR)
    for lost in range(6):
        story.servers.pop(0)
        story.servers.append(Server(f"next-{lost}", story.now, story.now + 180.0 if boots else math.inf))
        story.tell(HOUR / 2)
    late = story.history.utilisation.periods[:, LATE]
    assert len(late) > 40
    assert np.isnan(late).any() == (not boots)


@pytest.mark.parametrize("window_seconds", [3_600.0, 5_400.0])
def test_a_window_of_an_hour_and_more_ends(window_seconds: float) -> None:
    told = policy(scale_down_window_seconds=window_seconds)
    story = Story(lambda t: 12.0 if t < HOUR else 2.0, told, start=6).settled().tell(1.7 * HOUR + window_seconds)
    assert story.replicas[-1] < 3


def test_after_a_restart_the_hours_of_yesterday_are_known_as_before() -> None:
    told = policy()
    start = 1_699_999_200.0 - 3 * DAY
    coarse = tuple(LoadBin(start + i * 300, 300, 2.0, 2000.0, 400.0) for i in range(3 * 288))
    fine = tuple(LoadBin(start + 2 * DAY + i * 60, 60, 2.0, 2000.0, 400.0) for i in range(1440))
    history = History().refilled(finest(coarse, fine), told)
    assert history.coarse is not None
    assert len(history.coarse.rates()) == 3 * 288
    assert history.coarse.rates().tolist() == pytest.approx([2.0] * 3 * 288)


@pytest.mark.parametrize("back_seconds", [1_800.0, 2 * HOUR])
def test_a_clock_that_is_set_back_spoils_what_is_seen_for_no_longer_than_a_look_back(back_seconds: float) -> None:
    """It is set back after two hours; soon after the load doubles, and is seen to."""

    def told(set_back_seconds: float) -> Story:
        story = Story(lambda t: 8.0 if t < 2.1 * HOUR else 16.0, policy(), start=4).settled()

        def turned(seen: Observation) -> Observation:
            if seen.time < story.epoch + 2 * HOUR:
                return seen
            pods = tuple(p if p.sample is None else replace(p, sample=earlier(p.sample)) for p in seen.pods)
            return replace(seen, time=seen.time - set_back_seconds, pods=pods)

        def earlier(sample: PodSample) -> PodSample:
            assert sample.time is not None
            return replace(sample, time=sample.time - set_back_seconds)

        story.observed = turned
        return story.tell(2.1 * HOUR + 180)

    as_it_is, spoilt = told(0.0).decisions[-1], told(back_seconds).decisions[-1]
    assert as_it_is.demand == pytest.approx(16.0, rel=0.05)
    assert spoilt.demand == pytest.approx(16.0, rel=0.05)
    assert spoilt.forecast is not None


def test_who_looks_seldom_measures_all_the_same() -> None:
    spec = Spec.model_validate(
        {
            "scaleTargetRef": {"kind": "Deployment", "name": "x"},
            "maxReplicas": 8,
            "objectives": {"ttftSeconds": 2.5, "tpotSeconds": 0.1, "attainment": 0.99},
            "prometheus": {"url": "http://prometheus"},
        }
    )
    told = ScalingPolicy.of(spec, tick_seconds=300.0)
    story = Story(lambda _: 6.0, told, start=4).settled().tell(2 * HOUR)
    assert story.decisions[-1].demand == pytest.approx(6.0, rel=0.05)


def test_of_pods_with_unlike_caches_the_smallest_is_what_a_replica_is_taken_to_hold() -> None:
    def unlike(seen: Observation) -> Observation:
        def of(pod: Pod, tokens: float) -> Pod:
            return replace(pod, sample=pod.sample and replace(pod.sample, kv_cache_tokens=tokens))

        return replace(
            seen, pods=tuple(of(pod, tokens) for pod, tokens in zip(seen.pods, (9e4, 3e4, 6e4), strict=True))
        )

    story = Story(lambda _: 3.0, policy(max_replicas=3), start=3, observed=unlike).tell(60)
    assert story.history.kv_cache_tokens == 3e4
