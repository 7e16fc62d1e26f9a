"""What breaks in life, broken on real parts: no shrinking while blind, a clear line, a count, recovery by itself.

One target goes through it all: two replicas under a load that needs both. Every fault begins from that and is
over only when that is so again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import pytest

from tests.parts.control_plane import ControlPlane
from tests.parts.fixtures import new_namespace, running_prometheus
from tests.parts.kubernetes_api import Json
from tests.parts.processes import wait_until
from tests.parts.prometheus import PASSWORD, USERNAME, Prometheus
from tests.real.access import RBAC, apply_shipped, grant, shipped_role
from tests.real.autoscaler_process import Autoscaler, preheat
from tests.real.simulated_pods import SimulatedPods
from tests.real.workloads import Workload, deployment, resource

pytestmark = pytest.mark.cluster

RATE = 4.0
"""Requests/s; one replica bears three."""
DECIDED = ("unchanged", "rescaled")


@dataclass
class Steady:
    """The target, all that serves and scales it, and a neighbour that must not notice."""

    control_plane: ControlPlane
    prometheus: Prometheus
    target: Workload
    neighbour: Workload
    pods: SimulatedPods
    autoscaler: Autoscaler

    def turns(self, count: int, *outcomes: str) -> list[Json]:
        """So many turns in a row that ended in one of these ways, from now on."""
        before = len(self.autoscaler.entries(self.target.key))

        def in_a_row() -> list[Json] | None:
            newest = self.autoscaler.entries(self.target.key)[before:][-count:]
            fitting = len(newest) == count and all(turn["outcome"] in outcomes for turn in newest)
            return newest if fitting else None

        return wait_until(in_a_row, within=90, what=f"{count} turns in a row that are {outcomes}", every=0.2)

    def shrunk(self, since: int) -> list[str]:
        """Sentences of the turns from that one on that asked for less."""
        decisions = [turn["decision"] for turn in self.autoscaler.entries(self.target.key)[since:]]
        return [each["sentence"] for each in decisions if each and each["replicas"] < each["desired"]]

    @property
    def number_of_turns(self) -> int:
        return len(self.autoscaler.entries(self.target.key))

    def count(self, kind: str) -> float:
        return self.autoscaler.metric("preheat_errors_total", name=self.target.name, kind=kind) or 0.0

    def settle(self) -> None:
        """Two replicas wanted, asked for and serving, and seen so.

        Asked for by hand where it is not: what a fault made one turn of a second see may have raised it, and
        nothing shrinks within this hour.
        """

        def is_steady() -> bool:
            turns = self.autoscaler.entries(self.target.key)
            if not turns or turns[-1]["outcome"] != "unchanged":
                return False
            if self.target.desired != 2:
                self.target.set_by_hand(2)
                return False
            seen, decision = turns[-1]["observation"], turns[-1]["decision"]
            return (
                decision["desired"] == decision["ready"] == 2
                and not seen["problems"]
                and all(pod["sample"] and pod["sample"]["state"] == "fresh" for pod in seen["pods"])
            )

        wait_until(
            is_steady, within=120, what=lambda: f"steadiness; {self.autoscaler.process.end_of_log(5)}", every=0.2
        )


@pytest.fixture(scope="module")
def running(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steady]:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "overlay").mkdir()
    with ExitStack() as stack:
        namespace = stack.enter_context(new_namespace(control_plane))
        elsewhere = stack.enter_context(new_namespace(control_plane))
        prometheus = stack.enter_context(running_prometheus(folder / "prometheus"))
        target = Workload(control_plane, namespace)
        neighbour = Workload(control_plane, elsewhere, deployment("neighbour"))
        target.create(2)
        neighbour.create(1)
        pods = stack.enter_context(SimulatedPods(control_plane, prometheus, namespace))
        beside = stack.enter_context(SimulatedPods(control_plane, prometheus, elsewhere, app="neighbour"))
        kubeconfig = apply_shipped(control_plane, folder / "overlay", namespace)
        grant(control_plane, elsewhere, shipped_role()["rules"], to_namespace=namespace, name="neighbour")
        wait_until(lambda: target.ready == 2 and neighbour.ready == 1, within=60, what="ready pods")
        # Longer than all of this takes: whatever shrinks here was shrunk for want of knowing better.
        patient = {"behavior": {"scaleDown": {"windowSeconds": 3600}}}
        resources = [resource(target, prometheus, **patient), resource(neighbour, prometheus, **patient)]
        for each in resources:
            each["spec"]["prometheus"]["timeoutSeconds"] = 1
        pods.bear(RATE)
        beside.bear(1.0)
        prometheus.wait_value("sum(vllm:num_requests_running)", 10, within=60)
        autoscaler = stack.enter_context(Autoscaler(folder, resources, kubeconfig))
        yield Steady(control_plane, prometheus, target, neighbour, pods, autoscaler)


@pytest.fixture
def steady(running: Steady) -> Iterator[Steady]:
    running.settle()
    yield running
    running.settle()
    running.autoscaler.wait_turns(running.neighbour.key, 1)
    assert running.neighbour.desired == 1


def test_prometheus_down_and_back(steady: Steady) -> None:
    since, errors = steady.number_of_turns, steady.count("prometheus")
    steady.prometheus.stop()
    try:
        blind = steady.turns(4, "blind")
        steady.autoscaler.wait_line("holds: ", reason="HeldMetricsIncomplete", target=steady.target.key)
    finally:
        steady.prometheus.start()
    assert "Prometheus" in blind[-1]["problem"]
    assert steady.count("prometheus") >= errors + 4
    steady.turns(3, *DECIDED)
    assert steady.shrunk(since) == []
    assert steady.target.desired == 2


def test_two_minutes_without_prometheus_bring_back_what_the_hour_before_wanted(steady: Steady) -> None:
    """Somebody takes a replica away while nobody can see that it is needed."""
    steady.turns(5, *DECIDED)  # whoever never measured anything brings nothing back
    since = steady.number_of_turns
    steady.prometheus.stop()
    try:
        steady.turns(2, "blind")
        steady.pods.bear(1.0)  # so that the one is not drowned meanwhile
        steady.target.set_by_hand(1)
        steady.turns(2, "blind")
        assert steady.target.desired == 1
        told = steady.autoscaler.wait_line("nothing was measured for 2 min", within=180, reason="RaisedUnmeasured")
        assert told["target"] == steady.target.key
        assert steady.target.desired == 2
        steady.turns(3, "blind")
        assert steady.target.desired == 2
    finally:
        steady.pods.bear(RATE)
        steady.prometheus.start()
    raised = [turn for turn in steady.autoscaler.entries(steady.target.key)[since:] if turn["outcome"] == "raised"]
    assert [(turn["decision"]["desired"], turn["decision"]["replicas"]) for turn in raised] == [(1, 2)]
    wait_until(
        lambda: [event for event in steady.target.events() if event["reason"] == "RaisedUnmeasured"],
        within=20,
        what="the event",
    )
    steady.turns(3, *DECIDED)
    assert steady.shrunk(since) == []


def test_prometheus_slow_to_answer(steady: Steady) -> None:
    since = steady.number_of_turns
    steady.prometheus.freeze()
    try:
        blind = steady.turns(2, "blind")
    finally:
        steady.prometheus.thaw()
    assert "1 s" in blind[-1]["problem"]
    steady.turns(3, *DECIDED)
    assert steady.shrunk(since) == []


def test_prometheus_back_with_an_empty_store(steady: Steady) -> None:
    since = steady.number_of_turns
    steady.prometheus.restart(empty=True)
    steady.turns(3, *DECIDED)
    assert steady.shrunk(since) == []
    assert steady.target.desired == 2


def test_the_api_server_down_and_back(steady: Steady) -> None:
    since = steady.number_of_turns
    failed = steady.autoscaler.metric("preheat_kubernetes_errors_total") or 0.0
    steady.control_plane.stop_api_server()
    try:
        wait_until(
            lambda: (steady.autoscaler.metric("preheat_kubernetes_errors_total") or 0.0) > failed,
            within=30,
            what="errors of the API server counted",
        )
        during = steady.number_of_turns
        steady.autoscaler.wait_turns(steady.target.key, 3)
    finally:
        steady.control_plane.start_api_server()
    steady.turns(3, *DECIDED)
    assert steady.number_of_turns > during
    assert steady.shrunk(since) == []


def test_scaled_by_hand(steady: Steady) -> None:
    since = steady.number_of_turns
    before = steady.autoscaler.metric("preheat_scaled_by_others_total", name=steady.target.name) or 0.0
    steady.target.set_by_hand(4)
    told = steady.autoscaler.wait_line("somebody else scaled from 2 to 4", reason="ScaledByOther")
    assert told["target"] == steady.target.key
    wait_until(
        lambda: [event for event in steady.target.events() if event["reason"] == "ScaledByOther"],
        within=20,
        what="the event",
    )
    overridden = steady.autoscaler.metric("preheat_scaled_by_others_total", name=steady.target.name)
    assert overridden == before + 1
    wait_until(lambda: steady.target.ready == 4, within=30, what="four ready pods")
    assert steady.target.desired == 4
    assert steady.shrunk(since) == []


def test_a_pod_without_samples(steady: Steady) -> None:
    since, silent = steady.number_of_turns, sorted(steady.pods.servers)[0]
    steady.pods.silent.add(silent)
    steady.pods.bear(0.5)  # so little that one would do
    try:
        wait_until(
            lambda: steady.autoscaler.metric("preheat_samples", name=steady.target.name, state="absent") == 1,
            within=30,
            what="the silent pod counted",
        )
        # Its last sample stands in for a minute; then it is missing.
        told = steady.autoscaler.wait_line(silent, within=180, reason="HeldMetricsIncomplete")
        assert told["level"] == "warning"
        steady.turns(5, "unchanged")
    finally:
        steady.pods.silent.clear()
        steady.pods.bear(RATE)
    assert steady.shrunk(since) == []


def test_a_server_that_restarts_counts_from_zero(steady: Steady) -> None:
    since = steady.number_of_turns
    steady.pods.restart(sorted(steady.pods.servers)[0])
    turns = steady.turns(8, *DECIDED)
    demands = [turn["decision"]["demand"] for turn in turns if turn["decision"]["demand"] is not None]
    assert demands
    # What the one server did while it restarted is not known; nothing is made up for it, nor taken off. A single
    # turn counts but a few requests, so that only their mean says so; its counter going back to zero would show
    # as a hundred.
    assert min(demands) >= 0
    assert 0.5 * RATE <= mean(demands) <= 1.5 * RATE
    assert steady.shrunk(since) == []


def test_the_rights_taken_away_and_given_back(steady: Steady) -> None:
    binding = f"{RBAC}/{steady.target.namespace}/rolebindings/preheat-autoscaler"
    kept = steady.control_plane.api.get(binding)
    steady.control_plane.api.delete(binding)
    try:
        steady.target.set_by_hand(7)  # above the ceiling: it must be written, and is refused
        refused = steady.turns(2, "refused")
        assert "lacks the right" in refused[-1]["problem"]
        steady.autoscaler.wait_line("lacks the right", reason="MissingRight", target=steady.target.key)
        assert steady.target.desired == 7
    finally:
        metadata = {"name": kept["metadata"]["name"]}
        collection = binding.rpartition("/")[0]
        steady.control_plane.api.create(
            collection, {"metadata": metadata, "roleRef": kept["roleRef"], "subjects": kept["subjects"]}
        )
    wait_until(lambda: steady.target.desired == 6, within=60, what="its ceiling")


def test_the_target_deleted_and_made_anew(steady: Steady) -> None:
    before = steady.autoscaler.metric("preheat_turns_total", name=steady.neighbour.name) or 0.0
    steady.target.api.delete(steady.target.path)
    gone = steady.turns(3, "refused")
    assert f"Deployment '{steady.target.name}'" in gone[-1]["problem"]
    assert "does not exist" in gone[-1]["problem"]
    assert steady.autoscaler.metric("preheat_turns_total", name=steady.neighbour.name) >= before + 2  # type: ignore[operator]
    wait_until(lambda: not steady.target.pods(), within=30, what="its pods gone")
    steady.target.create(2)


def test_prometheus_behind_tls_and_a_password(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "right").write_text(f"{PASSWORD}\n")
    (tmp_path / "wrong").write_text("not it\n")
    with ExitStack() as stack:
        prometheus = stack.enter_context(running_prometheus(tmp_path / "prometheus", tls=True, basic_auth=True))
        authority = {"caFile": str(prometheus.ca)}
        password = {"username": USERNAME, "passwordFile": str(tmp_path / "right")}
        cases: dict[str, tuple[Json, str]] = {
            "unknown-authority": ({"basicAuth": password}, "certificate"),
            "nobody": (authority, "401"),
            "wrong-password": (authority | {"basicAuth": password | {"passwordFile": str(tmp_path / "wrong")}}, "401"),
            "all-right": (authority | {"basicAuth": password}, ""),
        }
        targets = {name: Workload(control_plane, namespace, deployment(name)) for name in cases}
        resources = []
        for name, target in targets.items():
            target.create(1, cold_start_seconds=0)
            stack.enter_context(SimulatedPods(control_plane, prometheus, namespace, app=name))
            resources.append(resource(target, prometheus))
            resources[-1]["spec"]["prometheus"] |= cases[name][0]
        prometheus.wait_value("count(vllm:num_requests_running)", len(cases), within=60)
        with Autoscaler(tmp_path / "autoscaler", resources, control_plane.kubeconfig("admin")) as autoscaler:
            for name, (_, says) in cases.items():
                turns = autoscaler.wait_turns(targets[name].key, 2)
                assert [turn["outcome"] for turn in turns] == ["blind" if says else "unchanged"] * 2
                assert says in turns[-1]["problem"]


def test_a_prometheus_that_shows_nothing_of_vllm(
    control_plane: ControlPlane, prometheus: Prometheus, namespace: str, tmp_path: Path
) -> None:
    target = Workload(control_plane, namespace)
    target.create(2, cold_start_seconds=0)
    with Autoscaler(tmp_path, [resource(target, prometheus)], control_plane.kubeconfig("admin")) as autoscaler:
        told = autoscaler.wait_line("no series of vLLM")
        assert told["reason"] == "HeldMetricsIncomplete"
        checked = preheat("check", autoscaler.config, "--kubeconfig", control_plane.kubeconfig("admin"))
        assert checked.returncode == 2
        assert "has no series of vLLM" in checked.stderr
    assert target.desired == 2
