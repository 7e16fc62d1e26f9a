from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies.scaling.demand import Activity, HangUps, activity, pod_activity
from policies.scaling.observation import Distribution, Interval, Observation, Pod, PodSample, PodStage, SampleState


def reading(
    time: float,
    *,
    running: float = 0,
    waiting: float = 0,
    first: float = 0,
    finished: float = 0,
    ended: float | None = None,
) -> PodSample:
    return PodSample(
        time=time,
        state=SampleState.FRESH,
        requests_running=running,
        requests_waiting=waiting,
        requests_finished=finished,
        http_requests_ended=ended,
        prompt_tokens=first * 100,
        generation_tokens=first * 20,
        ttft=Distribution(first, first, 2.5, first, 5.0, first),
    )


def seen(time: float, *pods: Pod, desired: int = 1) -> Observation:
    return Observation(time, desired, pods)


def pod(name: str, sample: PodSample | None, *, ready_at: float = 0.0) -> Pod:
    return Pod(name, PodStage.READY, 0.0, ready_at=ready_at, uid=name, sample=sample)


def between(before: Observation, after: Observation, *, max_gap_seconds: float = 60) -> Activity:
    done = activity(before, after, hang_ups={}, max_gap_seconds=max_gap_seconds)
    assert done is not None
    return done


class Client:
    """One server as its clients see it: who arrived, who hung up where."""

    def __init__(self, *, counts_http: bool) -> None:
        self.counts_http = counts_http
        self.waiting = self.prefilling = self.decoding = self.first = self.finished = self.ended = self.arrived = 0

    def play(self, moves: str) -> None:
        for move in moves:
            match move:
                case "a":
                    self.waiting, self.arrived = self.waiting + 1, self.arrived + 1
                case "p" if self.waiting:
                    self.waiting, self.prefilling = self.waiting - 1, self.prefilling + 1
                case "f" if self.prefilling:
                    self.prefilling, self.decoding, self.first = self.prefilling - 1, self.decoding + 1, self.first + 1
                case "e" if self.decoding:
                    self.decoding, self.finished, self.ended = self.decoding - 1, self.finished + 1, self.ended + 1
                case "w" if self.waiting:
                    self.waiting, self.ended = self.waiting - 1, self.ended + 1
                case "x" if self.decoding:
                    self.decoding, self.ended = self.decoding - 1, self.ended + 1

    def sample(self, time: float) -> PodSample:
        return reading(
            time,
            running=self.prefilling + self.decoding,
            waiting=self.waiting,
            first=self.first,
            finished=self.finished,
            ended=self.ended if self.counts_http else None,
        )


@given(st.lists(st.text("apfewx", max_size=30), min_size=1, max_size=20))
def test_with_the_http_layer_seen_every_arrival_is_counted_whoever_hangs_up(stretches: list[str]) -> None:
    client, counted, carried = Client(counts_http=True), 0.0, HangUps(0.0)
    before = client.sample(0.0)
    for place, moves in enumerate(stretches, 1):
        client.play(moves)
        after = client.sample(15.0 * place)
        done = pod_activity(before, after, hang_ups=carried)
        assert done is not None
        counted, carried, before = counted + done.arrivals, done.hang_ups, after
    assert counted == client.arrived


@given(st.lists(st.text("aapffe", max_size=30), min_size=1, max_size=20))
def test_without_hang_ups_the_engine_counters_alone_count_every_arrival(stretches: list[str]) -> None:
    client, counted, carried = Client(counts_http=False), 0.0, HangUps(0.0)
    before = client.sample(0.0)
    for place, moves in enumerate(stretches, 1):
        client.play(moves)
        after = client.sample(15.0 * place)
        done = pod_activity(before, after, hang_ups=carried)
        assert done is not None
        assert done.hung_up == 0
        counted, carried, before = counted + done.arrivals, done.hang_ups, after
    assert counted == client.arrived


@example(["aa", "pfpx", "f"])  # hangs up within the stretch of its first token, behind one that prefills
@given(st.lists(st.text("aapffex", max_size=30), min_size=1, max_size=20))
def test_hang_ups_after_the_first_token_never_read_as_negative_arrivals_nor_as_more_than_came(
    stretches: list[str],
) -> None:
    client, counted, carried = Client(counts_http=False), 0.0, HangUps(0.0)
    before = client.sample(0.0)
    for place, moves in enumerate(stretches, 1):
        client.play(moves)
        after = client.sample(15.0 * place)
        done = pod_activity(before, after, hang_ups=carried)
        assert done is not None
        assert done.arrivals >= 0
        counted, carried, before = counted + done.arrivals, done.hang_ups, after
    client.play("pf" * client.arrived)
    done = pod_activity(before, client.sample(15.0 * (len(stretches) + 1)), hang_ups=carried)
    assert done is not None
    # Once nobody is left before a first token, every hang-up has shown itself.
    assert counted + done.arrivals >= client.first
    assert counted <= client.arrived


def test_a_first_look_at_a_server_does_not_count_the_hang_ups_of_its_past() -> None:
    before = reading(0, running=2, first=100, finished=60)
    after = reading(15, running=2, first=110, finished=70)
    done = pod_activity(before, after, hang_ups=None)
    assert done is not None
    assert done.arrivals == 10


def test_a_counter_that_falls_to_less_than_half_counts_from_zero_whoever_says_so() -> None:
    """A server that restarts inside its container tells Kubernetes nothing."""
    before, after = reading(0, running=5, first=1000, finished=995), reading(15, running=1, first=4, finished=3)
    done = between(seen(0, pod("a", before)), seen(15, pod("a", after)))
    assert done.arrivals == 4
    assert done.prompt_tokens == 400
    assert done.whole


@pytest.mark.parametrize("changes", [{"uid": "another"}, {"restarts": 1}])
def test_a_counter_that_falls_where_kubernetes_says_restart_counts_from_zero(changes: dict[str, Any]) -> None:
    before, after = pod("a", reading(0, first=10, finished=10)), pod("a", reading(15, first=8, finished=8))
    done = between(seen(0, before), seen(15, replace(after, **changes)))
    assert done.arrivals == 8
    assert done.whole


def shown(time: float, served: float) -> PodSample:
    """All counters of a server that answers at once."""
    latency = Distribution(served, served, 2.5, served, 5.0, served)
    return replace(reading(time, first=served, finished=served, ended=served), tpot=latency, inter_token=latency)


LESS = Distribution(1000.0, 1000.0, 2.5, 990.0, 5.0, 1000.0)
OLDER: Sequence[dict[str, Any]] = (
    {"http_requests_ended": 990.0},
    {"requests_finished": 990.0},
    {"prompt_tokens": 99_000.0},
    {"generation_tokens": 19_800.0},
    {"ttft": replace(LESS, count=990.0)},
    {"ttft": LESS},
    {"tpot": replace(LESS, lower_count=1000.0, upper_count=990.0)},
    {"tpot": replace(LESS, lower_count=1000.0, sum_seconds=990.0)},
    {"inter_token": replace(LESS, lower_count=1000.0, count=990.0)},
)


@pytest.mark.parametrize("older", OLDER)
def test_a_counter_that_falls_a_little_is_an_older_reading_and_no_measure(older: dict[str, Any]) -> None:
    before, after = shown(0, 1000), replace(shown(15, 1000), requests_running=3.0, **older)
    done = between(seen(0, pod("a", before)), seen(15, pod("a", after)))
    assert (done.arrivals, done.prompt_tokens) == (0, 0)
    assert not done.whole


def test_a_sum_of_seconds_that_is_added_up_in_another_order_is_no_older_reading() -> None:
    a, b = (Distribution(total, 1000, 2.5, 1000, 5.0, 1000) for total in (0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1))
    samples = [replace(shown(15.0 * n, 1000), tpot=each) for n, each in enumerate((a, b, a))]
    for before, after in pairwise(samples):
        assert between(seen(0, pod("a", before)), seen(15, pod("a", after))).whole


def test_another_objective_reads_other_buckets_and_is_no_older_reading() -> None:
    before, after = shown(0, 1000), replace(shown(15, 1000), ttft=Distribution(1000.0, 1000.0, 0.5, 700, 1.0, 1000))
    assert between(seen(0, pod("a", before)), seen(15, pod("a", after))).whole


def test_a_queue_that_empties_without_first_tokens_is_people_leaving_not_negative_demand() -> None:
    done = pod_activity(reading(0, waiting=50), reading(15, waiting=20, first=5, finished=5), hang_ups=HangUps(0.0))
    assert done is not None
    assert done.arrivals == 0
    assert done.hung_up == 25


def test_a_pod_ready_since_the_last_look_counts_from_zero() -> None:
    old = pod("a", reading(0, first=10, finished=10))
    fresh = pod("b", reading(15, first=3, finished=3), ready_at=5.0)
    done = between(seen(0, old), seen(15, pod("a", reading(15, first=20, finished=20)), fresh))
    assert done.arrivals == 13
    assert done.whole


@given(ready=st.integers(1, 12), unread=st.integers(0, 12), first=st.integers(1, 40), routed=st.booleans())
@example(ready=2, unread=1, first=9, routed=True)
@example(ready=3, unread=2, first=9, routed=False)
def test_who_cannot_be_read_is_taken_to_do_as_the_others_if_those_are_half(
    ready: int, unread: int, first: int, routed: bool
) -> None:
    """The same rates as if all were read, but nothing that a fleet may shrink by."""
    unread = min(unread, ready)

    def at(time: float, first: int, unread: int) -> Observation:
        shows = reading(time, running=4, waiting=2, first=first, finished=first)
        pods = [pod(f"{i:02d}", None if i < unread else shows) for i in range(ready)]
        return replace(seen(time, *pods), arrivals_total=ready * first if routed else None)

    whole, part = (between(at(0, 0, n), at(15, first, n)) for n in (0, unread))
    assert (whole.trusted, whole.whole) == (True, True)
    assert (part.trusted, part.whole) == (2 * unread <= ready, unread == 0)
    if part.trusted:
        assert part.seconds == 15
        for name in (
            "arrivals",
            "first_tokens",
            "finished",
            "prompt_tokens",
            "generation_tokens",
            "running",
            "waiting",
        ):
            assert getattr(part, name) == pytest.approx(getattr(whole, name))


def test_a_pod_known_for_long_but_first_seen_now_has_no_baseline() -> None:
    done = between(seen(100, pod("a", None)), seen(115, pod("a", reading(115, first=20, finished=20))))
    assert done.arrivals == 0
    assert not done.trusted


def test_a_stretch_that_spans_a_gap_is_not_trusted() -> None:
    quiet = between(seen(0, pod("a", reading(0))), seen(300, pod("a", reading(300, first=9, finished=9))))
    assert not quiet.trusted


def test_one_pod_that_was_not_scraped_for_long_makes_a_gap_however_often_it_is_looked_at() -> None:
    def looked(first: float, second: float) -> Activity:
        others = [(pod("b", reading(time)), pod("c", reading(time))) for time in (100, 115)]
        return between(
            seen(100, pod("a", reading(first)), *others[0]),
            seen(115, pod("a", reading(second, first=9, finished=9)), *others[1]),
        )

    assert looked(50, 110).trusted
    assert not looked(49, 110).trusted


def test_who_is_shown_but_was_not_before_counts_with_what_runs_there_and_not_for_the_others() -> None:
    before = seen(100, pod("a", reading(100)), pod("b", None))
    done = between(before, seen(115, pod("a", reading(115, running=4, waiting=2)), pod("b", reading(115, running=1))))
    assert done.trusted
    assert (done.running, done.waiting) == (5, 2)


def test_a_pod_not_scraped_anew_adds_no_time() -> None:
    a = pod("a", reading(0))
    done = between(seen(0, a, pod("b", reading(0))), seen(15, a, pod("b", reading(15, first=6, finished=6))))
    assert done.seconds == 7.5
    assert done.arrivals == 6


def test_a_router_counter_is_believed_over_the_pods() -> None:
    before = replace(seen(0, pod("a", reading(0))), arrivals_total=100.0)
    after = replace(seen(15, pod("a", reading(15, first=6, finished=6))), arrivals_total=130.0)
    assert between(before, after).arrivals == 30


def test_a_router_counter_that_has_fallen_tells_nothing_of_what_came() -> None:
    before = replace(seen(0, pod("a", reading(0))), arrivals_total=5_000_000.0)
    after = replace(seen(15, pod("a", reading(15, first=6, finished=6))), arrivals_total=30_000.0)
    assert between(before, after).arrivals == 6


def test_a_share_is_an_interval_unless_the_objective_lies_on_an_edge() -> None:
    def at(time: float, low: float, high: float, count: float) -> PodSample:
        return replace(
            reading(time, first=count, finished=count),
            ttft=Distribution(0, count, 1.0, low, 2.5, high),
            tpot=Distribution(0, count, 0.1, count * 0.9, 0.1, count * 0.9),
        )

    done = between(seen(0, pod("a", at(0, 0, 0, 0))), seen(15, pod("a", at(15, 80, 95, 100))))
    assert done.pods["a"].within_ttft == Interval(80, 95)
    assert done.pods["a"].within_tpot == Interval(90, 90)
    both = done.share_within_both
    assert both is not None
    assert both.low == pytest.approx(0.7)
    assert both.high == pytest.approx(0.9)


@pytest.mark.parametrize(("slow_between", "late"), [(0.0, 0.0), (0.5, 0.2), (1.0, 0.4)])
def test_of_tokens_that_buckets_leave_open_as_many_are_late_as_is_told(slow_between: float, late: float) -> None:
    def at(time: float, count: float) -> PodSample:
        tpot = Distribution(0, count, 0.05, count * 0.6, 0.075, count)
        return replace(reading(time, first=count, finished=count), tpot=tpot)

    done = between(seen(0, pod("a", at(0, 0))), seen(15, pod("a", at(15, 100))))
    assert done.late_share(slow_between) == pytest.approx(late)


@pytest.mark.parametrize("slow_between", [0.0, 0.5, 1.0])
def test_with_its_tokens_objective_on_an_edge_half_of_who_is_open_are_late(slow_between: float) -> None:
    def at(time: float, count: float) -> PodSample:
        ttft = Distribution(0, count, 1.0, count * 0.8, 2.5, count)
        tpot = Distribution(0, count, 0.1, count * 0.9, 0.1, count * 0.9)
        return replace(reading(time, first=count, finished=count), ttft=ttft, tpot=tpot)

    done = between(seen(0, pod("a", at(0, 0))), seen(15, pod("a", at(15, 100))))
    assert done.late_share(slow_between) == pytest.approx(0.2)


def test_nothing_is_known_without_a_previous_observation_or_with_time_standing_still() -> None:
    now = seen(0, pod("a", reading(0)))
    assert activity(None, now, hang_ups={}, max_gap_seconds=60) is None
    assert activity(now, now, hang_ups={}, max_gap_seconds=60) is None


def test_what_draining_pods_still_do_counts_and_their_time_does_not() -> None:
    """Two serve and two drain, each at a request a second: four requests a second for 15 seconds."""

    def four(time: float) -> Observation:
        names = ("a", "b", "c", "d")
        pods = [pod(name, reading(time, first=time, finished=time, running=5)) for name in names]
        draining = (replace(each, stage=PodStage.TERMINATING) for each in pods[2:])
        return seen(time, *pods[:2], *draining, desired=2)

    done = between(four(1000.0), four(1015.0))
    assert done.seconds == 15.0
    assert done.first_tokens / done.seconds == pytest.approx(4.0)


def test_of_pods_that_only_drain_the_time_is_that_of_one() -> None:
    draining = [replace(pod(name, None), stage=PodStage.TERMINATING) for name in ("a", "b")]
    first = seen(0.0, *(replace(each, sample=reading(0.0)) for each in draining))
    then = seen(15.0, *(replace(each, sample=reading(15.0, first=15, finished=15)) for each in draining))
    assert between(first, then).seconds == 15.0


def test_numbers_of_a_pod_that_is_not_whole_are_not_added_to_what_stands_in_for_it() -> None:
    def two(time: float) -> Observation:
        whole = pod("a", reading(time, first=time, finished=time, running=20, waiting=10))
        partial = replace(reading(time, running=20, waiting=10), state=SampleState.PARTIAL)
        return seen(time, whole, pod("b", partial), desired=2)

    done = between(two(1000.0), two(1015.0))
    assert (done.running, done.waiting) == (40.0, 20.0)


@pytest.mark.parametrize("changes", [{"uid": "another"}, {"restarts": 1}])
def test_hang_ups_of_a_process_that_is_gone_are_not_taken_off_the_next_ones_arrivals(changes: dict[str, Any]) -> None:
    """Half of its clients hang up, before it ends and after; no HTTP layer tells of them."""
    told: dict[str, HangUps] = {}

    def look(before: Pod, after: Pod) -> float:
        done = activity(seen(*before_at, before), seen(*after_at, after), hang_ups=told, max_gap_seconds=60)
        assert done is not None
        told.clear()
        told.update(done.hang_ups)
        return done.arrivals

    old = pod("vllm-0", reading(0.0))
    before_at, after_at = (0.0,), (15.0,)
    look(old, replace(old, sample=reading(15.0, first=1000, finished=500)))
    assert told["vllm-0"].aborted == 500
    booting = replace(old, sample=None, stage=PodStage.STARTING, ready_at=None, **changes)
    before_at, after_at = (15.0,), (30.0,)
    look(replace(old, sample=reading(15.0, first=1000, finished=500)), booting)
    before_at, after_at = (30.0,), (45.0,)
    new = replace(booting, stage=PodStage.READY, ready_at=31.0)
    assert look(booting, replace(new, sample=reading(45.0, first=100, finished=50))) == 100


def test_between_readings_of_two_objectives_it_is_open_who_kept_which() -> None:
    """70 and 30 more had a first token, within 5 s and then within 2.5 s."""
    lax = reading(0.0, first=70)
    strict = replace(reading(15.0, first=100), ttft=Distribution(100, 100, 1.0, 60, 2.5, 80))
    done = between(seen(0.0, pod("a", lax)), seen(15.0, pod("a", strict)))
    assert done.pods["a"].within_ttft == Interval(0.0, 30.0)
