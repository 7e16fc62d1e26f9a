"""What the conditions do to a fleet: graces, lost nodes, warm nodes, impatient clients, scrapes that fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policies.scaling.observation import PodStage, SampleState
from policies.scaling.resource import Objectives
from simulations.model import kernel
from simulations.model.cold_start import Changing, Constant, Jittered, WarmAndColdNodes
from simulations.model.conditions import Conditions, ConditionsError, Rollout, Scraping
from simulations.model.engine import Engine, StepTime
from simulations.model.fleet import SimulatedFleet
from simulations.traces.trace import PromptBlocks, Trace

ENGINE = Engine("plain", StepTime(10, 0, 0, 0, 0), kv_tokens=100_000, max_num_seqs=4)
"""Every step takes 10 ms, whatever it holds."""
SOON = Conditions(Constant(10))


def fleet_of(trace: Trace, conditions: Conditions, *, start_replicas: int = 1) -> SimulatedFleet:
    objectives = Objectives(ttft_seconds=3, tpot_seconds=0.1)
    return SimulatedFleet(trace, ENGINE, objectives=objectives, conditions=conditions, start_replicas=start_replicas)


SLOWER = replace(ENGINE, name="slower", step_ms=StepTime(20, 0, 0, 0, 0))
ROLLOUT = Rollout(100, SLOWER)


def booting(fleet: SimulatedFleet) -> list[float]:
    """How long those will take that were just created."""
    slots = [m.slot for m in fleet._members if m.created_at == fleet._now]
    return [float(fleet.servers.numbers[slot, kernel.READY_AT] - fleet._now) / 1e12 for slot in slots]


def requests(*arrivals: float, output: int = 100) -> Trace:
    count = len(arrivals)
    return Trace.of("few", np.array(arrivals), np.full(count, 10), np.full(count, output))


def test_a_replica_past_its_grace_is_killed_and_what_it_held_begins_anew() -> None:
    fleet = fleet_of(requests(0, 0, output=2_000), replace(SOON, grace_seconds=5), start_replicas=2)
    fleet.advance(2)
    fleet.scale(1)
    fleet.advance(6.9)
    assert [pod.stage for pod in fleet.observe().pods] == [PodStage.READY, PodStage.TERMINATING]
    fleet.advance(60)
    assert [pod.stage for pod in fleet.observe().pods] == [PodStage.READY]
    servers = fleet.servers
    assert servers.requeued == 1
    assert (servers.requests[:, kernel.FATE] == kernel.DONE).all()
    # The second began anew at 7 s, in the company of the first.
    assert servers.time_to_first_token_ps()[1] / 1e12 == pytest.approx(7.01, abs=0.011)
    assert fleet.gpu_hours() == pytest.approx((60 + 7) / 3600)


def test_without_a_grace_it_answers_all_it_holds() -> None:
    fleet = fleet_of(requests(0, 0, output=2_000), SOON, start_replicas=2)
    fleet.advance(2)
    fleet.scale(1)
    fleet.advance(60)
    assert fleet.servers.requeued == 0
    assert fleet.gpu_hours() == pytest.approx((60 + 20) / 3600)


def test_a_lost_node_is_replaced_and_its_requests_begin_anew() -> None:
    steady = requests(*np.arange(0, 7200, 10.0), output=500)
    fleet = fleet_of(steady, replace(SOON, spot_losses_per_hour=6, seed=4), start_replicas=2)
    names = set()
    for now in range(0, 7290, 30):
        fleet.advance(now)
        pods = fleet.observe().pods
        assert len(pods) == 2
        names |= {pod.name for pod in pods}
    # Two replicas, six losses an hour each, two hours: 24 are expected.
    assert 14 <= len(names) - 2 <= 34
    assert fleet.servers.requeued > 0
    assert fleet.servers.is_idle()


def test_a_replica_starts_sooner_on_a_node_that_another_has_left() -> None:
    nodes = WarmAndColdNodes(warm=Constant(20), cold=Constant(300), warm_nodes=1, kept_seconds=600)
    fleet = fleet_of(requests(0, 5000), replace(SOON, cold_start=nodes))
    fleet.advance(100)
    fleet.scale(3)
    assert booting(fleet) == [20, 300]
    fleet.advance(500)
    fleet.scale(1)
    fleet.advance(700)
    fleet.scale(4)
    # Two nodes are left, and a third is made.
    assert booting(fleet) == [20, 20, 300]
    fleet.advance(1100)
    fleet.scale(1)
    fleet.advance(1800)
    fleet.scale(2)
    assert booting(fleet) == [300]


def test_cold_starts_change_for_those_created_from_then_on() -> None:
    fleet = fleet_of(requests(0, 5000), replace(SOON, cold_start=Changing(Constant(180), Constant(540), 1000)))
    fleet.advance(999)
    fleet.scale(2)
    assert booting(fleet) == [180]
    fleet.advance(1000)
    fleet.scale(4)
    assert booting(fleet) == [540, 540]
    fleet.advance(999 + 180)
    assert fleet.counts() == (4, 2, 0)
    fleet.advance(1000 + 540)
    assert fleet.counts() == (4, 4, 0)


def test_only_nodes_that_are_made_may_change_their_cold_start() -> None:
    nodes = WarmAndColdNodes(warm=Constant(20), cold=Changing(Constant(300), Constant(900), 1000), warm_nodes=1)
    fleet = fleet_of(requests(0, 5000), replace(SOON, cold_start=nodes))
    fleet.advance(1000)
    fleet.scale(3)
    assert booting(fleet) == [20, 900]


def test_cold_starts_go_by_the_seed_and_the_number_of_the_replica() -> None:
    def ready_at(seed: int) -> list[int]:
        fleet = fleet_of(requests(0), replace(SOON, cold_start=Jittered(100, 50), seed=seed), start_replicas=0)
        fleet.scale(3)
        return [int(at) for at in fleet.servers.numbers[:3, kernel.READY_AT]]

    assert ready_at(1) == ready_at(1)
    assert len({*ready_at(1), *ready_at(2)}) == 6
    assert all(50 <= at / 1e12 <= 150 for at in ready_at(1))


def test_clients_hang_up_at_the_gateway_and_ask_again() -> None:
    fleet = fleet_of(requests(0, 0, 18, output=5), replace(SOON, client_timeout_seconds=8), start_replicas=0)
    fleet.scale(1)
    fleet.advance(100)
    fates = fleet.servers.requests[:, kernel.FATE].tolist()
    assert fates == [kernel.HUNG_UP, kernel.HUNG_UP, kernel.DONE]
    again = replace(SOON, client_timeout_seconds=8, client_retries=1)
    fleet = fleet_of(requests(0, 0, 18, output=5), again, start_replicas=0)
    fleet.scale(1)
    fleet.advance(100)
    assert (fleet.servers.requests[:, kernel.FATE] == kernel.DONE).all()
    assert fleet.servers.hang_ups == 2
    # Users count from when they first asked.
    assert fleet.servers.time_to_first_token_ps()[0] / 1e12 == pytest.approx(10.01)


def test_a_client_that_hangs_up_counts_as_ended_but_not_as_finished() -> None:
    fleet = fleet_of(requests(*[0.0] * 5, output=1_000), replace(SOON, client_timeout_seconds=2))
    fleet.advance(15)
    sample = fleet.observe().pods[0].sample
    assert sample is not None
    assert (sample.requests_finished, sample.http_requests_ended, sample.requests_waiting) == (4, 5, 0)


def test_a_failed_scrape_shows_nothing_and_a_broken_one_no_gauges() -> None:
    trace = requests(*np.arange(0, 6000, 1.0))
    scraping = Scraping(missed_share=0.2, nan_share=0.1)
    fleet = fleet_of(trace, replace(SOON, scraping=scraping))
    states = []
    for now in range(0, 6000, 15):
        fleet.advance(now)
        sample = fleet.observe().pods[0].sample
        assert sample is not None
        states.append(sample.state)
        if sample.state is SampleState.NOT_A_NUMBER:
            assert sample.requests_running is None
            assert sample.prompt_tokens is not None
    assert 0.15 < states.count(SampleState.ABSENT) / 400 < 0.25
    assert 0.05 < states.count(SampleState.NOT_A_NUMBER) / 400 < 0.12


def test_what_was_scraped_too_long_ago_is_not_shown() -> None:
    fleet = fleet_of(requests(0), replace(SOON, scraping=Scraping(100, stale_after_seconds=100)))
    seen = []
    for now in (50, 150):
        fleet.advance(now)
        seen.append(fleet.observe().pods[0].sample)
    assert [sample.time if sample else None for sample in seen] == [0, 100]
    late = fleet_of(requests(0), replace(SOON, scraping=Scraping(100, offset_seconds=30)))
    late.advance(20)
    sample = late.observe().pods[0].sample
    assert sample is not None
    assert sample.state is SampleState.ABSENT


def test_a_prompt_that_begins_like_one_before_is_computed_in_part() -> None:
    engine = replace(ENGINE, step_ms=StepTime(10, 0, 0, 1, 0))
    blocks = PromptBlocks(64, np.array([0, 2, 4]), np.array([7, 8, 7, 9]))
    trace = Trace.of("alike", np.array([0.0, 5.0]), np.array([128, 128]), np.array([5, 5]), prompt_blocks=blocks)
    objectives = Objectives(ttft_seconds=3, tpot_seconds=0.1)
    fleet = SimulatedFleet(trace, engine, objectives=objectives, conditions=replace(SOON, prefix_cache=True))
    fleet.advance(20)
    assert (fleet.servers.time_to_first_token_ps() / 1e9).tolist() == [10 + 128, 10 + 64]
    assert fleet.servers.numbers[0, [kernel.CACHE_QUERIES, kernel.CACHE_HITS]].tolist() == [256, 64]


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (replace(SOON, prefix_cache=True), "does not tell the blocks of its prompts"),
        (replace(SOON, scheduling="priority"), "has no priorities"),
    ],
)
def test_what_the_trace_does_not_tell_is_asked_for(conditions: Conditions, said: str) -> None:
    with pytest.raises(ConditionsError, match=said):
        fleet_of(requests(0), conditions)


def templates(fleet: SimulatedFleet) -> list[str]:
    """Of the replicas that were not asked to go, in order of creation."""
    pods = [pod for pod in fleet.observe().pods if pod.terminating_at is None]
    return [pod.template for pod in sorted(pods, key=lambda pod: int(pod.name.removeprefix("replica-")))]


def test_a_rollout_replaces_one_replica_after_the_other_and_never_serves_with_less() -> None:
    fleet = fleet_of(requests(0, 500), replace(SOON, rollout=ROLLOUT), start_replicas=3)
    old, new = "template-0", "template-1"
    seen = []
    for now in (99, 100, 109, 110, 120, 130, 200):
        fleet.advance(now)
        observation = fleet.observe()
        assert fleet.counts()[1] >= 3
        seen.append((templates(fleet), observation.template, observation.rolling))
    assert seen == [
        ([old, old, old], old, False),
        ([old, old, old, new], new, True),
        ([old, old, old, new], new, True),
        ([old, old, new, new], new, True),
        ([old, new, new, new], new, True),
        ([new, new, new], new, False),
        ([new, new, new], new, False),
    ]


def test_a_rollout_with_more_surge_is_over_sooner() -> None:
    fleet = fleet_of(requests(0, 500), replace(SOON, rollout=replace(ROLLOUT, max_surge=5)), start_replicas=3)
    fleet.advance(105)
    assert fleet.counts() == (6, 3, 0)
    fleet.advance(110)
    assert templates(fleet) == ["template-1"] * 3


def test_a_rollout_to_replicas_that_start_in_no_time_is_over_at_once() -> None:
    fleet = fleet_of(requests(0, 500), Conditions(Constant(0), rollout=ROLLOUT), start_replicas=3)
    fleet.advance(100)
    assert templates(fleet) == ["template-1"] * 3


def test_a_fleet_grows_and_shrinks_while_a_rollout_is_under_way() -> None:
    fleet = fleet_of(requests(0, 500), replace(SOON, rollout=ROLLOUT), start_replicas=3)
    fleet.advance(105)
    fleet.scale(5)
    # Two more and the one beyond, all of the new template.
    assert templates(fleet) == ["template-0"] * 3 + ["template-1"] * 3
    fleet.advance(106)
    fleet.scale(2)
    # The old ones go first, but none before a new one is ready in its place; what is asked for is new already.
    assert templates(fleet) == ["template-0"] * 2 + ["template-1"] * 2
    fleet.advance(130)
    assert templates(fleet) == ["template-1"] * 2
    assert not fleet.observe().rolling
    fleet.scale(1)
    assert fleet.counts() == (1, 1, 0)


def test_a_fleet_whose_engine_takes_twice_as_long_does_half_the_work() -> None:
    trace = requests(*np.arange(200, 1000, 1.0), output=1_000)
    finished = []
    for rollout in (None, ROLLOUT):
        fleet = fleet_of(trace, replace(SOON, rollout=rollout), start_replicas=2)
        fleet.advance(1000)
        finished.append(int((fleet.servers.requests[:, kernel.FATE] == kernel.DONE).sum()))
    # Two replicas, four at a time, ten seconds each or twenty.
    assert finished == pytest.approx([2 * 4 * 80, 2 * 4 * 40], abs=8)


def test_a_rollout_to_an_engine_that_holds_less_is_refused() -> None:
    less = replace(SLOWER, kv_tokens=50_000)
    with pytest.raises(ConditionsError, match=r"slower has kv_tokens 50000, plain has 100000.* give it the same"):
        fleet_of(requests(0), replace(SOON, rollout=Rollout(0, less)))
