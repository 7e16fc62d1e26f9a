"""Of two replicas one writes: killed, frozen and resumed, on the real control plane."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from cluster.own_pod import LEADS
from tests.parts.control_plane import ControlPlane
from tests.parts.fixtures import new_namespace, running_prometheus
from tests.parts.kubernetes_api import Api, Json
from tests.parts.processes import wait_until
from tests.parts.prometheus import Prometheus
from tests.real.access import ACCOUNT, apply_shipped, grant
from tests.real.autoscaler_process import Autoscaler
from tests.real.custom_resource import Resource, give_lease_back, install
from tests.real.simulated_pods import SimulatedPods
from tests.real.test_rights import OF_LEADING, without
from tests.real.workloads import Workload, deployment, resource

pytestmark = pytest.mark.cluster

TAKEN_OVER_SECONDS = 60
"""A take-over takes up to 17 s and the first turns; the bound is for a machine that does much else."""


def lease(api: Api, namespace: str) -> Json:
    found: Json = api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/preheat-autoscaler")["spec"]
    return found


@dataclass
class Pair:
    """Two replicas over one target."""

    control_plane: ControlPlane
    target: Workload
    made: Resource
    replicas: list[Autoscaler]

    @property
    def holder(self) -> str:
        return str(lease(self.control_plane.api, self.target.namespace).get("holderIdentity", ""))

    def leader(self) -> Autoscaler:
        """Whoever says that it leads; there must be one and no other."""

        def alone() -> Autoscaler | None:
            leading = [each for each in self.replicas if each.process.status is None and each.metric("preheat_leads")]
            return leading[0] if len(leading) == 1 else None

        return wait_until(alone, within=TAKEN_OVER_SECONDS, what="one leader")

    def other(self, than: Autoscaler) -> Autoscaler:
        return next(each for each in self.replicas if each is not than)


@pytest.fixture(scope="module")
def a_prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with running_prometheus(tmp_path_factory.mktemp("leadership") / "prometheus") as running:
        yield running


@pytest.fixture
def pair(control_plane: ControlPlane, a_prometheus: Prometheus, namespace: str, tmp_path: Path) -> Iterator[Pair]:
    install(control_plane)
    (tmp_path / "overlay").mkdir()
    with ExitStack() as stack:
        target = Workload(control_plane, namespace, deployment("led"))
        target.create(2, cold_start_seconds=0)
        stack.enter_context(SimulatedPods(control_plane, a_prometheus, namespace, app="led"))
        kubeconfig = apply_shipped(control_plane, tmp_path / "overlay", namespace)
        made = Resource(control_plane.api, resource(target, a_prometheus, minReplicas=2)).create()
        give_lease_back(control_plane.api, namespace)
        options = ("--namespace", namespace)
        replicas = [Autoscaler(tmp_path / name, None, kubeconfig, options=options) for name in ("one", "two")]
        for each in replicas:
            stack.enter_context(each)
        made.wait_condition("Ready", "True")
        yield Pair(control_plane, target, made, replicas)


def seconds_of(line: Json) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()


def test_killed_frozen_and_resumed_there_is_never_a_second_writer(pair: Pair) -> None:
    first = pair.leader()
    second = pair.other(first)
    api = pair.control_plane.api
    assert second.page("/readyz").text == "ok\n"
    assert second.metric("preheat_turns_total") is None

    first.process.signal(signal.SIGSTOP)
    # Below its floor: whoever leads must write; and what the frozen one remembers is an older number.
    led = second.wait_line("leads after", within=TAKEN_OVER_SECONDS)
    pair.made.change(minReplicas=4)
    wait_until(lambda: pair.target.desired == 4, within=TAKEN_OVER_SECONDS, what="the new leader's write")
    wrote = second.wait_line("goes from 2 to 4")
    # By its own log: a new leader writes nothing for one lease duration.
    assert seconds_of(wrote) - seconds_of(led) >= 7.9
    writes = wait_until(
        lambda: [turn for turn in second.entries(pair.target.key) if turn["outcome"] == "rescaled"],
        within=20,
        what="its turn in the journal",
    )
    assert [(turn["decision"]["desired"], turn["decision"]["replicas"]) for turn in writes] == [(2, 4)]
    assert any(turn["outcome"] == "withheld" for turn in second.entries(pair.target.key))

    version = api.get(pair.target.path)["metadata"]["generation"]
    first.process.signal(signal.SIGCONT)
    first.wait_line("leads no longer", within=30)
    second.wait_turns(pair.target.key, 3)
    assert api.get(pair.target.path)["metadata"]["generation"] == version, "the resumed one wrote"
    assert pair.leader() is second
    transitions = lease(api, pair.target.namespace)["leaseTransitions"]
    assert transitions == 2

    # Of the two that were asked for: what the next leader cannot know but from the status.
    wait_until(lambda: bool(pair.made.status["learnt"]["starts"]), within=60, what="starts learnt")
    learnt = pair.made.status["learnt"]["starts"]
    second.kill()
    assert pair.leader() is first
    pair.made.change(minReplicas=5)
    wait_until(lambda: pair.target.desired == 5, within=TAKEN_OVER_SECONDS, what="a write after the kill")
    assert {each["uid"] for each in learnt} <= {each["uid"] for each in pair.made.status["learnt"]["starts"]}


def test_who_is_told_to_stop_gives_the_lease_back(pair: Pair) -> None:
    first = pair.leader()
    second = pair.other(first)
    assert first.process.stop(within=8) == 0
    second.wait_line("leads; writes from now on", within=20)
    pair.made.change(minReplicas=3)
    wait_until(lambda: pair.target.desired == 3, within=TAKEN_OVER_SECONDS, what="its write")


def test_the_pod_of_the_leader_is_marked_for_those_who_ask_for_numbers(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    install(control_plane)
    (tmp_path / "overlay").mkdir()
    kubeconfig = apply_shipped(control_plane, tmp_path / "overlay", namespace)
    pods = f"/api/v1/namespaces/{namespace}/pods"
    container = {"name": "autoscaler", "image": "preheat"}
    control_plane.api.create(pods, {"metadata": {"name": "ours"}, "spec": {"containers": [container]}})

    def label() -> str:
        return str(control_plane.api.get(f"{pods}/ours")["metadata"].get("labels", {}).get(LEADS, ""))

    options = ("--namespace", namespace, "--keda-port", "0")
    env = {"POD_NAME": "ours", "POD_NAMESPACE": namespace}
    with Autoscaler(tmp_path / "ours", None, kubeconfig, options=options, env=env):
        wait_until(lambda: label() == "true", within=60, what="the label of the leader")
        assert str(lease(control_plane.api, namespace)["holderIdentity"]).startswith("ours_")
    assert label() == ""


@pytest.mark.parametrize("right", OF_LEADING, ids=lambda right: f"{right[0]} {right[2]}")
def test_each_right_on_leases_is_needed(
    control_plane: ControlPlane, right: tuple[str, str, str], tmp_path: Path
) -> None:
    install(control_plane)
    with new_namespace(control_plane) as namespace:
        api = control_plane.api
        api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": ACCOUNT}})
        grant(control_plane, namespace, without(*right), to_namespace=namespace, name="cut-down")
        kubeconfig = control_plane.kubeconfig_of_service_account(namespace, ACCOUNT)
        with Autoscaler(tmp_path, None, kubeconfig, options=("--namespace", namespace)) as autoscaler:
            line = autoscaler.wait_line(f'lacks the right "{right[0]} {right[2]}"', within=60)
            assert "add it to its Role" in line["message"]
