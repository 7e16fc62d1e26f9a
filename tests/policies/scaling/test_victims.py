"""A shrink takes those that do least, and never counts on taking one that serves while others do not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.observation import Observation, Pod, PodSample, PodStage, SampleState
from policies.scaling.victims import victims


def pod(
    name: str,
    running: float | None = 0.0,
    *,
    waiting: float = 0.0,
    kv: float = 0.0,
    created: float = 0.0,
    stage: PodStage = PodStage.READY,
) -> Pod:
    sample = PodSample(1.0, SampleState.FRESH, requests_running=running, requests_waiting=waiting, kv_cache_usage=kv)
    return Pod(name, stage, created, sample=sample)


def seen(*pods: Pod) -> Observation:
    return Observation(1.0, len(pods), pods)


def test_the_least_busy_go_first() -> None:
    assert victims(seen(pod("a", 7), pod("b", 1), pod("c", 3)), 2) == ("b", "c")


def test_what_waits_counts_as_what_runs() -> None:
    assert victims(seen(pod("a", 2), pod("b", 1, waiting=4)), 1) == ("a",)


def test_of_equally_busy_ones_the_emptier_cache_goes_then_the_younger() -> None:
    assert victims(seen(pod("a", 1, kv=0.5), pod("b", 1, kv=0.2)), 1) == ("b",)
    assert victims(seen(pod("a", 1, created=5.0), pod("b", 1, created=9.0)), 1) == ("b",)


def test_one_of_which_nothing_is_known_goes_last() -> None:
    assert victims(seen(pod("a", None), Pod("b", PodStage.READY, 0.0), pod("c", 50)), 1) == ("c",)


def test_those_that_do_not_serve_go_anyway_and_need_no_victim() -> None:
    booting = pod("b", stage=PodStage.STARTING)
    leaving = pod("c", stage=PodStage.TERMINATING)
    assert victims(seen(pod("a", 1), booting, leaving, pod("d", 2)), 1) == ()
    assert victims(seen(pod("a", 1), booting, leaving, pod("d", 2)), 2) == ("a",)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(list(PodStage))), max_size=8), st.integers(1, 9))
def test_nobody_who_stays_does_less_than_one_who_goes(given_pods: list[tuple[int, PodStage]], removed: int) -> None:
    pods = [pod(f"p{place}", running, stage=stage) for place, (running, stage) in enumerate(given_pods)]
    gone = victims(seen(*pods), removed)
    ready = {
        each.name: each.sample.requests_running or 0 for each in pods if each.stage is PodStage.READY and each.sample
    }
    assert set(gone) <= ready.keys()
    assert len(gone) <= removed
    stay = [running for name, running in ready.items() if name not in gone]
    assert not gone or not stay or max(ready[name] for name in gone) <= min(stay)
