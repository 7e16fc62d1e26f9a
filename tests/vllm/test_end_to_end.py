"""All of it real but the GPUs: vLLM under load, read by Prometheus, scaled by `preheat autoscaler`.

Two vLLM servers stand for the two pods that a Deployment has; kwok lets the pods live. First a few clients ask one
after the other, then comes a load that the servers bear, and what is read of both is held against what the clients
saw; then one that rises until a third pod is asked for. There the story ends: the third has no server behind it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import pytest

from autoscaler.journal import Entry, decoded
from autoscaler.loop import Outcome
from policies.scaling.demand import HangUps, activity
from policies.scaling.observation import Observation, PodStage
from tests.parts.control_plane import ControlPlane
from tests.parts.fixtures import new_namespace, running_prometheus
from tests.parts.kubernetes_api import Json, is_true
from tests.parts.processes import wait_until
from tests.parts.prometheus import HOST, Target
from tests.parts.vllm.client import Ending, HangUp, Ledger, Load, run, steady
from tests.parts.vllm.server import Server
from tests.real.autoscaler_process import Autoscaler
from tests.real.workloads import Workload, resource
from tests.vllm.conftest import Pair

# Two servers boot in half a minute on idle processors, in two on busy ones, and are as much slower after it.
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

TICK_SECONDS = 5.0

STEADY = Load(
    seconds=30,
    requests_per_second=steady(5),
    most_requests_per_second=5,
    generation_tokens=(48, 144),
    hang_ups=((HangUp.BEFORE_FIRST_TOKEN, 0.05), (HangUp.AFTER_FIRST_TOKEN, 0.05)),
    patience_seconds=0.5,
)


CALM_REQUESTS = 8


def one(seed: int) -> Load:
    """A single request of many tokens.

    A client measures a token's time only where it, and what hands it the token, have a processor to themselves:
    beside a busy engine or two on two cores, the clients' times were seen 13 % above the engine's.
    """
    return Load(
        seconds=60,
        requests_per_second=steady(10),
        most_requests_per_second=10,
        generation_tokens=(400, 600),
        most_requests=1,
        seed=seed,
    )


class RisingLoad:
    """Requests/s that grow beyond what any two servers of 16 places bear, until `with` is left: then all hang up."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self.urls = urls
        self.ledger = Ledger()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="clients")

    def __enter__(self) -> Self:
        self.clients = self.loop.create_task(run(self._load(), self.urls, self.ledger))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.clients.cancel)
        self.thread.join()
        self.loop.close()

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self.loop.run_until_complete(self.clients)

    def _load(self) -> Load:
        return Load(
            seconds=90,
            requests_per_second=lambda seconds: min(60.0, 4.0 + seconds**2 / 60),
            most_requests_per_second=60,
            generation_tokens=(96, 192),
            most_requests=3000,
        )


@dataclass(frozen=True)
class Story:
    """What happened, as each of those present tells it."""

    calm: Ledger
    steady: Ledger
    rising: Ledger
    steady_at: float
    rises_at: float
    entries: list[Entry]
    """The autoscaler's journal."""
    deployment: Json
    pods: list[Json]
    events: list[Json]

    @property
    def seen_whole(self) -> list[Observation]:
        """From before the first request to when all of it was over: what was seen without a gap.

        On a machine with more to do than it can, a scrape now and then takes longer than the second it has.
        """
        return self._whole(until=self.rises_at)

    @property
    def calm_seen_whole(self) -> list[Observation]:
        """The first of these, when clients asked one after the other."""
        return self._whole(until=self.steady_at)

    def _whole(self, until: float) -> list[Observation]:
        seen = [entry.observation for entry in self.entries if entry.observation is not None and entry.time < until]
        return [each for each in seen if not each.unseen_ready_pods and not each.problems]

    @property
    def rescaled(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.outcome is Outcome.RESCALED]


@pytest.fixture(scope="module")
def story(pair: Pair, control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    with ExitStack() as parts:
        namespace = parts.enter_context(new_namespace(control_plane))
        prometheus = parts.enter_context(running_prometheus(folder / "prometheus"))
        deployment = Workload(control_plane, namespace)
        deployment.create(2)
        wait_until(lambda: deployment.ready == 2, within=60, what="two ready pods")
        servers = zip(deployment.pods(), (pair.first, pair.second), strict=True)
        prometheus.watch([behind(pod, server) for pod, server in servers])
        prometheus.wait_value("count(vllm:num_requests_running)", 2)
        settings = resource(
            deployment,
            prometheus,
            minReplicas=2,
            maxReplicas=3,
            objectives={"ttftSeconds": 1, "tpotSeconds": 0.1, "attainment": 0.9},
        )
        kubeconfig = control_plane.kubeconfig("admin")
        autoscaler = parts.enter_context(
            Autoscaler(folder / "autoscaler", [settings], kubeconfig, tick_seconds=TICK_SECONDS)
        )
        autoscaler.wait_turns(deployment.key, 1)
        calm, steadily = Ledger(), Ledger()
        for index in range(CALM_REQUESTS):
            asyncio.run(run(one(seed=index), [pair.urls[index % 2]], calm))
        # Two: the first may have looked while the last answers were still on their way into Prometheus.
        autoscaler.wait_turns(deployment.key, 2)
        steady_at = time.time()
        asyncio.run(run(STEADY, pair.urls, steadily))
        autoscaler.wait_turns(deployment.key, 2)
        rises_at = time.time()
        with RisingLoad(pair.urls) as rising:
            wait_until(lambda: len(deployment.pods()) == 3, within=85, what="a third pod: two cannot bear this load")
        wait_until(lambda: deployment.ready == 3, within=60, what="the third pod ready")
        wait_until(deployment.events, within=30, what="an event that tells of it")
        journal = sorted(autoscaler.journal.glob("*.jsonl"))
        lines = [line for path in journal for line in path.read_bytes().splitlines(keepends=True)]
        yield Story(
            calm,
            steadily,
            rising.ledger,
            steady_at,
            rises_at,
            [decoded(line) for line in lines if line.endswith(b"\n")],  # the last may be half written
            control_plane.api.get(deployment.path),
            deployment.pods(),
            deployment.events(),
        )


def behind(pod: Json, server: Server) -> Target:
    """The server as Prometheus is told of it: at its port, by its pod's name."""
    about = pod["metadata"]
    return Target(f"{HOST}:{server.port}", labels={"namespace": about["namespace"], "pod": about["name"]})


def test_two_real_servers_are_seen_whole_as_the_pods_they_stand_for(story: Story) -> None:
    assert len(story.seen_whole) >= 5
    last = story.seen_whole[-1]
    assert {pod.name for pod in last.ready_pods} <= {pod["metadata"]["name"] for pod in story.pods}
    assert last.count(PodStage.READY) == 2
    # Both have served since the first look: no series was taken for the other's.
    for before, after in zip(story.seen_whole[0].pods, last.pods, strict=True):
        assert before.sample is not None
        assert after.sample is not None
        assert (after.sample.generation_tokens or 0.0) > (before.sample.generation_tokens or 0.0) + 1000


def test_arrivals_it_reads_are_those_the_clients_count(story: Story) -> None:
    assert [request.failure for request in story.steady.ended(Ending.FAILED)] == []
    hang_ups: dict[str, HangUps] = {}
    arrivals = 0.0
    for previous, now in pairwise(story.seen_whole):
        done = activity(previous, now, hang_ups=hang_ups, max_gap_seconds=60)
        assert done is not None
        assert done.trusted
        assert done.arrivals >= 0
        arrivals += done.arrivals
        hang_ups |= {pod: seen.hang_ups for pod, seen in done.pods.items()}
    sent = story.calm.sent() + story.steady.sent()
    assert sent > 100
    assert arrivals == pytest.approx(sent, rel=0.05)


def test_the_tpot_it_reads_is_that_which_the_clients_measure(story: Story) -> None:
    seconds_before, count_before = tpot_so_far(story.calm_seen_whole[0])
    seconds, count = tpot_so_far(story.calm_seen_whole[-1])
    measured = [request.tpot_seconds for request in story.calm.requests if request.tpot_seconds is not None]
    assert count - count_before == len(measured) == CALM_REQUESTS
    assert (seconds - seconds_before) / CALM_REQUESTS == pytest.approx(sum(measured) / CALM_REQUESTS, rel=0.05)


def test_those_it_reads_a_tpot_of_are_those_that_were_answered_to_the_end(story: Story) -> None:
    _, before = tpot_so_far(story.calm_seen_whole[-1])
    _, after = tpot_so_far(story.seen_whole[-1])
    assert after - before == pytest.approx(len(story.steady.ended(Ending.FINISHED)), rel=0.05)


def tpot_so_far(seen: Observation) -> tuple[float, float]:
    """Sum and count of requests' mean times a token, over all pods, since each began."""
    distributions = [pod.sample.tpot for pod in seen.pods if pod.sample and pod.sample.tpot]
    return sum(each.sum_seconds for each in distributions), sum(each.count for each in distributions)


def test_a_load_that_two_servers_bear_changes_nothing(story: Story) -> None:
    before = [entry for entry in story.entries if entry.time < story.rises_at]
    assert {entry.outcome for entry in before} == {Outcome.UNCHANGED}


def test_a_rising_load_makes_it_patch_the_scale_and_the_pods_follow(story: Story) -> None:
    (entry,) = story.rescaled
    assert entry.decision is not None
    assert (entry.decision.desired, entry.decision.replicas) == (2, 3)
    assert story.rising.sent(until=entry.time) > 10
    assert story.deployment["spec"]["replicas"] == 3
    assert [is_true(pod, "Ready") for pod in story.pods] == [True, True, True]
    writers = [manager["manager"] for manager in story.deployment["metadata"]["managedFields"]]
    assert "preheat" in writers
    assert entry.decision.sentence in [event["message"] for event in story.events]
