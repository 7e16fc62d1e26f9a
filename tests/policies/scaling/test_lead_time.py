from __future__ import annotations

import pytest

from policies.scaling.history import History
from policies.scaling.lead_time import KEPT, LeadTime, prior_seconds
from policies.scaling.observation import Observation, Pod, PodStage
from policies.scaling.policy import decide
from policies.scaling.supply import supply
from tests.policies.scaling.story import policy


def started(
    name: str, created: float, seconds: float, *, wait: float = 1.0, pull: float = 2.0, restarts: int = 0
) -> Pod:
    return Pod(
        name,
        PodStage.READY,
        created,
        scheduled_at=created + wait,
        started_at=created + wait + pull,
        ready_at=created + seconds,
        uid=name,
        restarts=restarts,
    )


def learnt(lead: LeadTime, *, cold: bool | None = None) -> float:
    """From its creation, or where `cold` says on which nodes, from its node on."""
    if cold is None:
        return lead.seconds(120.0)
    return lead.boot_seconds(120.0, cold=cold, cold_pull_seconds=15.0)


def test_what_was_told_holds_until_three_starts_were_measured() -> None:
    lead = LeadTime().then([started("a", 0, 200), started("b", 0, 210)])
    assert learnt(lead) == learnt(lead, cold=True) == 120.0
    assert learnt(lead.then([started("c", 0, 220)])) == 220.0


@pytest.mark.parametrize(("configured", "seconds"), [(120.0, 120.0), (None, 200.0)])
def test_before_any_start_the_configured_one_is_believed_or_a_guess_from_the_size(
    configured: float | None, seconds: float
) -> None:
    told = policy(cold_start_seconds=configured)
    decision = decide(Observation(0.0, 1, (), model_name="Llama-3.3-70B-Instruct"), History(), told)
    assert decision.horizon_seconds == seconds + told.tick_seconds + told.actuation_seconds


def test_the_lead_time_is_the_p90_of_recent_starts() -> None:
    lead = LeadTime()
    for place in range(10):
        lead = lead.then([started(f"p{place}", place * 1000.0, 100.0 + place)])
    assert learnt(lead) == 108.0


def test_a_pod_counts_once_and_a_big_fleet_is_not_counted_round_and_round() -> None:
    fleet = [started(f"p{place:03}", place * 10.0, 100.0) for place in range(3 * KEPT)]
    lead = LeadTime().then(fleet)
    assert lead.then(fleet) == lead
    later = lead.then([*fleet, started("new", 9999.0, 300.0)])
    assert later.starts[-1].total_seconds == 300.0
    assert later.starts[:-1] == lead.starts[1:]


def test_a_pod_that_restarted_tells_nothing_of_a_start() -> None:
    assert LeadTime().then([started("a", 0, 9000, restarts=2)]).starts == ()


def test_cold_and_warm_nodes_are_kept_apart() -> None:
    warm = [started(f"w{i}", i, 100.0) for i in range(5)]
    cold = [started(f"c{i}", i, 300.0, pull=150.0) for i in range(5)]
    lead = LeadTime().then([*warm, *cold])
    assert learnt(lead, cold=False) == 99.0, "from the node on, not from the creation"
    assert learnt(lead, cold=True) == 299.0
    assert learnt(lead) == 300.0


def test_an_hour_without_gpus_is_one_event_however_many_wait() -> None:
    usual = [started(f"u{i}", i * 1000.0, 100.0) for i in range(12)]
    waited = [started(f"w{i}", 20_000.0 + 60 * i, 4000.0 - 60 * i, wait=3900.0 - 60 * i) for i in range(40)]
    lead = LeadTime().then(usual).then([*usual, *waited])
    assert [start.total_seconds for start in lead.starts] == [*[100.0] * 12, 4000.0]
    assert learnt(lead) == 100.0
    again = lead.then([started("x", 40_000.0, 2000.0, wait=1900.0)]).then([started("y", 60_000.0, 2000.0, wait=1900.0)])
    assert learnt(again) == 2000.0, "what happens again and again is what starts take"


def test_nodes_that_are_added_for_a_while_are_part_of_every_start() -> None:
    pods = [started(f"n{i}", i * 1000.0, 300.0, wait=120.0) for i in range(5)]
    together = [started(f"t{i}", 9000.0, 300.0, wait=120.0) for i in range(5)]
    lead = LeadTime().then(pods).then([*pods, *together])
    assert len(lead.starts) == 10, "a wait that is shorter than a boot is no event"
    assert learnt(lead) == 300.0
    assert learnt(lead, cold=False) == 180.0


def test_the_first_starts_all_count_or_a_fleet_on_new_nodes_would_be_believed_late() -> None:
    lead = LeadTime().then([started(f"n{i}", 0.0, 400.0, wait=300.0) for i in range(3)])
    assert learnt(lead) == 400.0


@pytest.mark.parametrize(
    ("name", "seconds"), [("meta-llama/Llama-3.1-8B-Instruct", 76.0), ("Qwen2.5-0.5B", 61.0), ("my-model", 76.0)]
)
def test_the_prior_reads_the_size_from_the_model_name(name: str, seconds: float) -> None:
    assert prior_seconds(name, base_seconds=60.0, seconds_per_billion=2.0) == seconds


def test_each_booting_pod_is_expected_at_its_own_time() -> None:
    now = Observation(
        1000.0,
        6,
        (
            started("ready", 0, 100),
            Pod("half", PodStage.STARTING, 950.0, 951.0, 953.0),
            Pod("pulling", PodStage.SCHEDULED, 960.0, 961.0),
            Pod("late", PodStage.STARTING, 850.0, 851.0, 853.0),
            Pod("waited", PodStage.STARTING, 100.0, 930.0, 932.0),
            Pod("hung", PodStage.STARTING, 100.0, 101.0, 103.0),
            Pod("nowhere", PodStage.UNSCHEDULABLE, 900.0),
            Pod("leaving", PodStage.TERMINATING, 0.0),
        ),
    )
    coming = supply(now, lead_seconds=100.0, cold_lead_seconds=300.0, cold_pull_seconds=15.0)
    assert (coming.ready, coming.unschedulable, coming.terminating, coming.stuck) == (1, 1, 1, 1)
    # The late one is expected any moment, the warm ones 100 s after they had a node, the one that pulls after 300 s.
    assert coming.coming_at == (1000.0, 1030.0, 1051.0, 1261.0)
    assert coming.replicas_at(1100.0) == 4
    assert coming.replica_seconds(1000.0, 1100.0) == pytest.approx(100 + 100 + 70 + 49)
