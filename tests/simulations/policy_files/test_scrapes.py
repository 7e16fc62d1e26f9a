"""What the simulated fleet shows, beside a page of a real vLLM."""

from __future__ import annotations

import gzip

import pytest

from cluster.vllm_metrics import page_series
from policies.scaling.resource import Objectives
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions, Scraping
from simulations.model.engine import shipped_engine
from simulations.model.fleet import SimulatedFleet
from simulations.policy_files.evaluation import evaluate
from simulations.policy_files.promql import parse
from simulations.policy_files.scrapes import HISTOGRAMS, SOURCES, Needs, Scrapes
from simulations.traces import shipped_trace
from tests.checkout import ROOT

PAGE = list(
    page_series(gzip.decompress((ROOT / "tests/data/vllm_metrics/vllm-0.32.0-loaded.txt.gz").read_bytes()).decode())
)
REAL = {name for name, _, _ in PAGE}


def shown(query: str, *, until: float = 600.0) -> dict[tuple[tuple[str, str], ...], float]:
    """What a query answers over a simulated fleet, looked at every 15 s."""
    fleet = SimulatedFleet(
        shipped_trace().until(900.0),
        shipped_engine("llama3-70b_a100_tp4"),
        objectives=Objectives(ttft_seconds=2.0, tpot_seconds=0.06),
        conditions=Conditions(Constant(45.0), scraping=Scraping(15.0, 3.0)),
        start_replicas=2,
    )
    tree = parse(query)
    needs, scrapes, previous = Needs.of([tree]), Scrapes(), None
    for tick in range(int(until / 15) + 1):
        fleet.advance(15.0 * tick)
        previous = fleet.observe(previous, histograms="whole")
        scrapes = needs.scraped(scrapes, previous)
    answer = evaluate(tree, scrapes)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize("name", sorted(name for name in SOURCES if name.startswith("vllm:") and name in REAL))
def test_a_series_has_the_labels_that_the_real_one_has(name: str) -> None:
    own = ("le", "finished_reason")
    real = {tuple(labels.get(label) for label in own) for each, labels, _ in PAGE if each == name}
    ours = {tuple(dict(labels).get(label) for label in own) for labels in shown(name, until=60.0)}
    assert ours == real


def test_every_histogram_of_a_release_of_today_is_a_real_one() -> None:
    older = {"vllm:time_per_output_token_seconds"}
    assert {name for name in HISTOGRAMS if ":" in name} - older <= {name.rsplit("_", 1)[0] for name in REAL}


def test_times_of_requests_add_up() -> None:
    counts = "count(vllm:num_requests_running)"
    assert shown(counts) == {(): 2.0}
    total = "sum(vllm:{}_seconds_sum)"
    parts = [shown(total.format(f"request_{part}_time")) for part in ("queue", "prefill", "decode", "inference")]
    queue, prefill, decode, inference = (each[()] for each in parts)
    whole = shown(total.format("e2e_request_latency"))[()]
    assert inference == pytest.approx(prefill + decode)
    assert whole == pytest.approx(queue + inference)
    finished = shown("sum(vllm:request_success_total)")[()]
    assert shown("sum(vllm:e2e_request_latency_seconds_count)")[()] == finished > 1000


def test_a_quantile_lies_in_the_bucket_of_the_requests_it_counts() -> None:
    buckets = shown("sum by (le) (vllm:e2e_request_latency_seconds_bucket)")
    cumulative = sorted((float(dict(labels)["le"]), count) for labels, count in buckets.items())
    median = shown("histogram_quantile(0.5, sum by (le) (vllm:e2e_request_latency_seconds_bucket))")[()]
    below = max((count for edge, count in cumulative if edge < median), default=0.0)
    above = min(count for edge, count in cumulative if edge >= median)
    assert below <= cumulative[-1][1] / 2 <= above
