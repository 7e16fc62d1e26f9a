"""Histograms shown whole: what each replica's hold, and the times of whole requests beside the requests themselves."""

from __future__ import annotations

import numpy as np

from cluster.vllm_metrics import E2E_EDGES, TTFT_EDGES
from policies.scaling.resource import Objectives
from simulations.model import kernel
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions, Scraping
from simulations.model.engine import PICOSECONDS, shipped_engine
from simulations.model.fleet import SimulatedFleet
from simulations.model.shown import WholeSample
from simulations.traces import shipped_trace

OBJECTIVES = Objectives(ttft_seconds=2.0, tpot_seconds=0.06)


def fleet(replicas: int) -> SimulatedFleet:
    conditions = Conditions(Constant(45.0), scraping=Scraping(15.0, 5.0))
    trace, engine = shipped_trace().until(900.0), shipped_engine("llama3-70b_a100_tp8")
    return SimulatedFleet(trace, engine, objectives=OBJECTIVES, conditions=conditions, start_replicas=replicas)


def samples(seen: SimulatedFleet) -> dict[str, WholeSample]:
    pods = seen.observe(histograms="whole").ready_pods
    return {pod.name: pod.sample for pod in pods if isinstance(pod.sample, WholeSample)}


def test_every_bucket_agrees_with_the_two_around_the_objective() -> None:
    seen = fleet(2)
    whole = samples(seen)
    for now in (0.0, 5.0, 300.0, 600.0):
        seen.advance(now)
        whole = samples(seen)
        for pod in seen.observe().ready_pods:
            if pod.name not in whole or pod.sample is None or pod.sample.ttft is None:
                continue
            two, shown = pod.sample.ttft, whole[pod.name].histograms["ttft"]
            assert (shown.counts[-1], shown.sum_seconds) == (two.count, two.sum_seconds)
            assert shown.counts[TTFT_EDGES.index(two.lower_edge_seconds)] == two.lower_count
            assert shown.counts[TTFT_EDGES.index(two.upper_edge_seconds)] == two.upper_count
            assert whole[pod.name].requests_running == pod.sample.requests_running
    assert len(whole) == 2


def test_times_of_whole_requests_are_those_of_the_requests_that_each_replica_finished() -> None:
    seen = fleet(1)
    whole = samples(seen)
    for tick in range(50):
        seen.advance(15.0 * tick)
        if tick in (10, 20, 30):
            seen.scale({10: 4, 20: 2, 30: 3}[tick])
        whole = samples(seen)
    requests, scraped_at = seen.servers.requests, 725 * PICOSECONDS
    done = (requests[:, kernel.FATE] == kernel.DONE) & (requests[:, kernel.LAST] <= scraped_at)
    assert len(whole) == 3
    for name, sample in whole.items():
        shown = sample.histograms["end_to_end"]
        finished = sample.requests_finished
        assert shown.counts[-1] == finished == sample.histograms["decode"].counts[-1]
        if name == "replica-0":  # Its slot was never another's.
            own = requests[done & (requests[:, kernel.REPLICA] == 0)]
            took = (own[:, kernel.LAST] - own[:, kernel.ENTERED]) / PICOSECONDS
            assert finished == len(own) > 100
            assert np.isclose(shown.sum_seconds, took.sum())
            assert [shown.counts[E2E_EDGES.index(edge)] for edge in (2.0, 10.0)] == [
                (took <= 2.0).sum(),
                (took <= 10.0).sum(),
            ]


def test_whole_samples_are_shown_only_to_those_who_ask() -> None:
    seen = fleet(1)
    seen.advance(60.0)
    assert not any(isinstance(pod.sample, WholeSample) for pod in seen.observe().ready_pods)
