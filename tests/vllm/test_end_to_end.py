"""All of it real but the GPUs: vLLM under a rising load, read by Prometheus, scaled by `preheat autoscaler`.

Two vLLM servers stand for the two pods that a Deployment comes to have; kwok lets the pods live. The second
server is a fresh one, as a fresh pod's is, and gets requests once its pod is ready.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from autoscaler.journal import Entry, decoded
from autoscaler.loop import Outcome
from policies.scaling.demand import HangUps, activity
from policies.scaling.observation import Observation, PodStage
from tests.parts.control_plane import ControlPlane
from tests.parts.fixtures import new_namespace, running_prometheus
from tests.parts.kubernetes_api import Json
from tests.parts.processes import wait_until
from tests.parts.prometheus import HOST, Target
from tests.parts.vllm.client import Ending, HangUp, Ledger, Load, run
from tests.parts.vllm.install import Installation
from tests.parts.vllm.server import Server, start, stop, wait_healthy
from tests.real.autoscaler_process import Autoscaler
from tests.real.simulated_pods import is_ready
from tests.real.workloads import Workload, resource
from tests.vllm.conftest import Pair

pytestmark = pytest.mark.vllm

TICK_SECONDS = 5.0
LABELS = {"namespace": "namespace", "pod": "name"}
"""What Prometheus puts on a pod's series, and where in the pod it is from."""


class RisingLoad:
    """Requests/s that grow until it is told to end; a minute and a half at most."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.ledger = Ledger()
        self.urls: list[str] = []
        self.thread = threading.Thread(target=self._run, name="clients")

    def requests_per_second(self, seconds: float) -> float:
        return 0.0 if self.ended.is_set() else min(20.0, 1.0 + seconds / 2)

    def _run(self) -> None:
        load = Load(
            seconds=90,
            requests_per_second=self.requests_per_second,
            most_requests_per_second=20,
            generation_tokens=(64, 160),
            hang_ups=((HangUp.BEFORE_FIRST_TOKEN, 0.05), (HangUp.AFTER_FIRST_TOKEN, 0.05)),
            patience_seconds=0.5,
            most_requests=1500,
        )
        asyncio.run(run(load, self.urls, self.ledger))


@dataclass(frozen=True)
class Story:
    """What happened, as each of those present tells it."""

    ledger: Ledger
    entries: list[Entry]
    """The autoscaler's journal."""
    deployment: Json
    pods: list[Json]
    events: list[Json]
    asked_again_at: float
    """When the second pod was seen to be there."""

    @property
    def observations(self) -> list[Observation]:
        return [entry.observation for entry in self.entries if entry.observation is not None]


def behind(pod: Json, server: Server) -> Target:
    return Target(f"{HOST}:{server.port}", labels={label: pod["metadata"][key] for label, key in LABELS.items()})


@pytest.fixture(scope="module")
def fresh(installation: Installation, pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that nobody has asked anything."""
    server = start(installation, core=max(os.sched_getaffinity(0)), folder=tmp_path_factory.mktemp("fresh"))
    try:
        yield server
    finally:
        stop([server])


@pytest.fixture(scope="module")
def story(
    fresh: Server, pair: Pair, control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    with ExitStack() as parts:
        namespace = parts.enter_context(new_namespace(control_plane))
        prometheus = parts.enter_context(running_prometheus(folder / "prometheus"))
        deployment = Workload(control_plane, namespace)
        deployment.create(1)
        (first_pod,) = wait_until(
            lambda: [p for p in deployment.pods() if is_ready(p)], within=60, what="the first pod"
        )
        prometheus.watch([behind(first_pod, pair.first)])
        prometheus.wait_value("count(vllm:num_requests_running)", 1)
        wait_healthy(fresh)
        settings = resource(
            deployment,
            prometheus,
            maxReplicas=2,
            objectives={"ttftSeconds": 1, "tpotSeconds": 0.1, "attainment": 0.9},
            # What comes is to stay: the counts are compared when all is over.
            behavior={"scaleDown": {"windowSeconds": 600}},
        )
        load = RisingLoad()
        load.urls.append(pair.first.url)
        kubeconfig = control_plane.kubeconfig("admin")
        with Autoscaler(folder / "autoscaler", [settings], kubeconfig, tick_seconds=TICK_SECONDS) as autoscaler:
            autoscaler.wait_turns(deployment.key, 1)
            load.thread.start()
            try:
                second_pod = second(deployment, first_pod)
                asked_again_at = time.time()
                prometheus.watch([behind(first_pod, pair.first), behind(second_pod, fresh)])
                wait_until(lambda: deployment.ready == 2, within=60, what="the second pod ready")
                load.urls.append(fresh.url)
                autoscaler.wait_turns(deployment.key, 3)
            finally:
                load.ended.set()
                load.thread.join()
            autoscaler.wait_turns(deployment.key, 2)
            journal = sorted(autoscaler.journal.glob("*.jsonl"))
            entries = [decoded(line) for path in journal for line in path.read_bytes().splitlines()]
        yield Story(
            load.ledger,
            entries,
            control_plane.api.get(deployment.path),
            deployment.pods(),
            deployment.events(),
            asked_again_at,
        )


def second(deployment: Workload, first_pod: Json) -> Json:
    """The pod that the Deployment got for being scaled up."""

    def others() -> list[Json]:
        return [pod for pod in deployment.pods() if pod["metadata"]["name"] != first_pod["metadata"]["name"]]

    (pod,) = wait_until(others, within=80, what="a second pod, under a load that one server cannot bear")
    return pod


def test_a_rising_load_makes_it_patch_the_scale_and_the_pod_follows(story: Story) -> None:
    assert story.deployment["spec"]["replicas"] == 2
    assert [is_ready(pod) for pod in story.pods] == [True, True]
    rescaled = [entry for entry in story.entries if entry.outcome is Outcome.RESCALED]
    assert len(rescaled) == 1
    (entry,) = rescaled
    assert entry.decision is not None
    assert (entry.decision.desired, entry.decision.replicas) == (1, 2)
    writers = [manager["manager"] for manager in story.deployment["metadata"]["managedFields"]]
    assert any("preheat" in writer.lower() for writer in writers), writers
    assert any("1 to 2" in event["message"] or "2" in event["message"] for event in story.events)


def test_it_asked_for_the_second_pod_because_the_load_had_risen(story: Story) -> None:
    """Not before there was a load, nor because it could not see."""
    assert story.ledger.sent(until=story.asked_again_at) > 10
    before = [entry for entry in story.entries if entry.time < story.asked_again_at]
    assert all(entry.outcome in (Outcome.UNCHANGED, Outcome.RESCALED) for entry in before)
    assert before[0].outcome is Outcome.UNCHANGED


def test_both_servers_are_seen_whole_as_the_pods_they_stand_for(story: Story) -> None:
    last = story.observations[-1]
    assert last.count(PodStage.READY) == 2
    assert last.unseen_ready_pods == ()
    assert last.problems == ()


def test_every_client_was_answered_or_left(story: Story) -> None:
    assert [request.failure for request in story.ledger.ended(Ending.FAILED)] == []
    assert story.ledger.sent() > 50


def test_arrivals_it_reads_are_those_the_clients_count(story: Story) -> None:
    hang_ups: dict[str, HangUps] = {}
    arrivals = 0.0
    previous: Observation | None = None
    for now in story.observations:
        done = activity(previous, now, hang_ups=hang_ups, max_gap_seconds=60)
        if done is not None:
            assert done.arrivals >= 0
            arrivals += done.arrivals
            hang_ups |= {pod: seen.hang_ups for pod, seen in done.pods.items()}
        previous = now
    assert arrivals == pytest.approx(story.ledger.sent(), rel=0.05)


def test_the_tpot_it_reads_is_that_which_the_clients_measure(story: Story) -> None:
    first, last = story.observations[0], story.observations[-1]
    seconds, count = tpot_so_far(last)
    seconds_before, count_before = tpot_so_far(first)
    measured = [request.tpot_seconds for request in story.ledger.requests if request.tpot_seconds is not None]
    assert count - count_before == pytest.approx(len(measured), rel=0.05)
    read_seconds = (seconds - seconds_before) / (count - count_before)
    assert read_seconds == pytest.approx(sum(measured) / len(measured), rel=0.05)


def tpot_so_far(seen: Observation) -> tuple[float, float]:
    """Sum and count of requests' mean times a token, over all pods, since each began."""
    distributions = [pod.sample.tpot for pod in seen.pods if pod.sample and pod.sample.tpot]
    return sum(each.sum_seconds for each in distributions), sum(each.count for each in distributions)
