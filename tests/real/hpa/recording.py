"""Plays scenarios to the real HPA controller, and writes down what it read and decided, sync by sync.

What it read of the scale and what it wrote stands in the API server's audit log, what it would have had by the metrics
alone in its own log, and the metrics are ours. Of the pods it sees a copy; so the metrics are answered only
once the pods have stood still for a while, and at a moment at which no earlier decision is about to leave a window:
neither a late watch nor a slow machine then makes a recording mean something else.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import yaml

from tests.parts.control_plane import ControlPlane
from tests.parts.fixtures import new_namespace, running_control_plane
from tests.parts.kubernetes_api import STRATEGIC, Json
from tests.parts.metrics_api import Answer, Question, serving_metrics
from tests.parts.processes import wait_until
from tests.parts.progress import say
from tests.real.hpa.scenarios import DOWNSCALE_WINDOW_SECONDS, Hand, Scenario, Served, Shown
from tests.real.hpa.writing import Heard, Told, UnsteadyError, horizons, recording, stage
from tests.real.workloads import Workload, deployment, pods_of

AT_ONCE = 3
"""How many scenarios are played side by side: each sleeps most of its seconds, but their pods are many."""
SECONDS_STILL = 0.2
"""For so long the pods have not changed when a metric is answered."""
MARGIN_SECONDS = 0.1
"""No decision is made nearer to the moment at which an earlier one leaves a window."""
ATTEMPTS = 6
CONTROLLER = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "RequestResponse",
            "users": [CONTROLLER],
            "resources": [
                {"group": "apps", "resources": ["deployments/scale"]},
                {"group": "autoscaling", "resources": ["horizontalpodautoscalers/status"]},
            ],
        },
        {"level": "None"},
    ],
}


class Studio:
    """A control plane whose HPA controller syncs every second, and an adapter to serve it metrics."""

    def __init__(self, control_plane: ControlPlane, audit: Path) -> None:
        self.control_plane = control_plane
        self.audit = audit
        self.plays: dict[str, Play] = {}

    def answer(self, question: Question) -> Answer:
        play = self.plays.get(question.namespace)
        return None if play is None else play.answer(question)

    def record(self, scenarios: Sequence[Scenario]) -> Iterator[tuple[Scenario, Future[Json]]]:
        """In their order."""
        with ThreadPoolExecutor(AT_ONCE) as stages:
            yield from [(scenario, stages.submit(self.record_one, scenario)) for scenario in scenarios]

    def record_one(self, scenario: Scenario) -> Json:
        for attempt in range(ATTEMPTS):
            try:
                return self._played(scenario)
            except UnsteadyError as error:
                say(f"{scenario.name}, played {attempt + 1} of at most {ATTEMPTS} times: {error}")
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("not reached")

    def _played(self, scenario: Scenario) -> Json:
        with new_namespace(self.control_plane) as namespace:
            play = self.plays[namespace] = Play(scenario, self.control_plane, namespace)
            play.run()
            proposed = self._logged(rf'"Proposing desired replicas" desiredReplicas=(\d+) .*"Deployment/{namespace}/')
            rescaled = self._logged(rf'"Successfully rescaled" HPA="{namespace}/.* desiredReplicas=(\d+)')
            heard = Heard(self._audited(namespace), proposed, rescaled, play.told, play.changed)
            return recording(scenario, play.spec, heard)

    def _audited(self, namespace: str) -> list[Json]:
        """What the controller asked of the API server here, in the order in which it did."""
        events = [json.loads(line) for line in self.audit.read_text().splitlines()]
        here = [event for event in events if event["objectRef"]["namespace"] == namespace]
        return sorted(here, key=lambda event: str(event["requestReceivedTimestamp"]))

    def _logged(self, pattern: str) -> list[tuple[float, int]]:
        """The times of such lines in the controller's log, and the number in each."""
        log = self.control_plane.processes["kube-controller-manager"].said()
        found = re.findall(rf"^I(\d{{4}} \S+) .*{pattern}", log, re.MULTILINE)
        return [(local_time(when), int(number)) for when, number in found]


def local_time(logged: str) -> float:
    """Unix seconds of "1121 14:34:56.866810", as klog has it: local, without a year."""
    logged = f"{time.localtime().tm_year}{logged}"
    return datetime.strptime(logged, "%Y%m%d %H:%M:%S.%f").astimezone().timestamp()


@contextmanager
def studio(folder: Path) -> Iterator[Studio]:
    policy, audit = folder / "audit.yaml", folder / "audit.log"
    policy.write_text(yaml.safe_dump(AUDIT))
    options = {
        "kube-apiserver": [f"--audit-policy-file={policy}", f"--audit-log-path={audit}"],
        "kube-controller-manager": [
            "--horizontal-pod-autoscaler-sync-period=1s",
            f"--horizontal-pod-autoscaler-downscale-stabilization={DOWNSCALE_WINDOW_SECONDS}s",
            f"--concurrent-horizontal-pod-autoscaler-syncs={2 * AT_ONCE}",
            "--kube-api-qps=1000",
            "--kube-api-burst=1000",
            "--vmodule=horizontal=4",
        ],
    }
    with running_control_plane(folder / "control-plane", options) as control_plane:
        there = Studio(control_plane, audit)
        with serving_metrics(control_plane, there.answer):
            yield there


class Play:
    """One scenario in a namespace of its own."""

    def __init__(self, scenario: Scenario, control_plane: ControlPlane, namespace: str) -> None:
        self.scenario = scenario
        self.control_plane = control_plane
        self.namespace = namespace
        self.target = Workload(control_plane, namespace, deployment("web"))
        self.target.api = control_plane.api_as("admin")  # connections of its own: this is another thread
        self.seen = Workload(control_plane, namespace, deployment("web"))
        self.seen.api = control_plane.api_as("admin")
        self.path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
        self.names: dict[str, str] = {}
        self.told: list[Told] = []
        self.changed: list[tuple[float, Json]] = []
        self.asked: dict[str, int] = dict.fromkeys(scenario.series, 0)
        self.moments: list[float] = []
        self.horizons: set[float] = set()
        self.spec: Json = {}
        self.done = threading.Event()
        self.problem: Exception | None = None
        self.hands: list[threading.Timer] = []

    def run(self) -> None:
        scenario = self.scenario
        self.control_plane.add_node(self.namespace, gpus=scenario.room, labels={"room": self.namespace})
        self._create_target()
        made = self.target.api.create(self.path, self._hpa())
        self.spec = made["spec"]
        self.horizons = horizons(self.spec)
        try:
            within = 30 + 4 * scenario.syncs
            if not self.done.wait(within) and self.problem is None:
                raise AssertionError(f"{scenario.name}: not played within {within} s, asked {self.asked}")
        finally:
            self.target.api.delete(f"{self.path}/web")
            self.target.api.delete(self.target.path)
            for hand in self.hands:
                hand.join()
            self.target.api.session.close()
            self.seen.api.session.close()
        if self.problem is not None:
            raise self.problem

    def _create_target(self) -> None:
        scenario, target = self.scenario, self.target
        spec = pods_of("web", scenario.start, cold_start_seconds=0, drain_seconds=0)
        spec["template"]["metadata"]["annotations"] = {"cold-start": scenario.cold_start, "drain": scenario.drain}
        spec["template"]["spec"]["nodeSelector"] = {"room": self.namespace}
        target.api.create(target.collection, {"metadata": {"name": "web"}, "spec": spec})
        first = min(scenario.start, scenario.room)
        wait_until(lambda: target.ready == first, within=60, what=f"{scenario.name}: the first pods ready")

    def _hpa(self) -> Json:
        scenario = self.scenario
        spec: Json = {
            "scaleTargetRef": self.target.ref,
            "minReplicas": scenario.least,
            "maxReplicas": scenario.most,
            "metrics": list(scenario.metrics),
        }
        if scenario.behavior is not None:
            spec["behavior"] = scenario.behavior
        return {"metadata": {"name": "web"}, "spec": spec}

    def answer(self, question: Question) -> Answer:
        """In the thread of the controller's request: it waits for us."""
        place = self.asked[question.metric]
        self.asked[question.metric] += 1
        if place >= self.scenario.syncs or self.problem is not None:
            self.done.set()
            return None
        try:
            return self._answer(question, place)
        except Exception as error:
            self.problem = error
            self.done.set()
            return None

    def _answer(self, question: Question, place: int) -> Answer:
        if not self.moments:
            self.moments.append(time.time())  # it has just stored the number it found
        pods = self._still_pods()
        self._wait_for_clear_windows()
        served = self._served(self.scenario.series[question.metric][place], pods)
        told = Told(time.time(), question.metric, served, {self.names[name]: stage for name, stage in pods.items()})
        self.told.append(told)
        if question.metric == list(self.scenario.series)[-1]:
            self.moments.append(told.time)
            self._later(0.02, partial(self._check_still, pods))
            for hand in self.scenario.hands:
                if hand.after == place + 1:
                    self._later(hand.seconds, partial(self._interfere, hand))
        if isinstance(served, Mapping):
            return {name: served[self.names[name]] for name in pods if self.names[name] in served}
        return served

    def _pods(self) -> dict[str, str]:
        """The stage of each by its name, oldest first."""
        pods = {pod["metadata"]["name"]: pod for pod in self.seen.pods()}
        new = pods.keys() - self.names.keys()
        for name in sorted(new, key=lambda name: (pods[name]["metadata"]["creationTimestamp"], name)):
            self.names[name] = f"pod-{len(self.names) + 1}"
        return {name: stage(pods[name]) for name in self.names if name in pods}

    def _still_pods(self) -> dict[str, str]:
        """Once the Deployment has what was asked for and nothing has changed for a while."""

        def still() -> tuple[dict[str, str]] | None:
            pods, target = self._pods(), self.seen.api.get(self.seen.path)
            there = sum(not stage.endswith("leaving") and stage != "failed" for stage in pods.values())
            if not target["spec"]["replicas"] == target["status"].get("replicas", 0) == there:
                return None
            time.sleep(SECONDS_STILL)
            return (pods,) if self._pods() == pods else None

        return wait_until(still, within=20, what=f"{self.scenario.name}: the pods still", every=0.1)[0]

    def _wait_for_clear_windows(self) -> None:
        while True:
            now = time.time()
            edges = [at + horizon for at in self.moments for horizon in self.horizons]
            clear = max((edge + MARGIN_SECONDS for edge in edges if abs(edge - now) < MARGIN_SECONDS), default=now)
            if clear <= now:
                return
            time.sleep(clear - now)

    def _served(self, shown: Served, pods: Mapping[str, str]) -> Answer:
        if not isinstance(shown, Shown):
            return shown
        able = {
            "running": ("running", "ready"),
            "ready": ("ready",),
            "all": ("pending", "running", "ready", "pending leaving", "running leaving", "ready leaving"),
        }[shown.of]
        showing = [self.names[name] for name, stage in pods.items() if stage in able]
        quantities = (*shown.oldest, *[shown.others] * len(showing))
        return {name: quantity for name, quantity in zip(showing, quantities, strict=False) if quantity is not None}

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        def acted() -> None:
            try:
                act()
            except Exception as error:
                self.problem = self.problem or error

        timer = threading.Timer(seconds, acted)
        self.hands.append(timer)
        timer.start()

    def _check_still(self, pods: Mapping[str, str]) -> None:
        with self.control_plane.api_as("admin") as api:
            path = f"/api/v1/namespaces/{self.namespace}/pods"
            now = {pod["metadata"]["name"]: stage(pod) for pod in api.items(path, labelSelector="app=web")}
        # What the decision itself brought about is no matter: pods that come, and ready ones that go.
        moved = [name for name, was in pods.items() if was.endswith("leaving") and name not in now]
        moved += [name for name, was in pods.items() if was == "running" and now.get(name, "").startswith("ready")]
        if moved:
            raise UnsteadyError(f"{self.scenario.name}: {moved} moved as the controller looked")

    def _interfere(self, hand: Hand) -> None:
        with self.control_plane.api_as("admin") as api:
            if hand.replicas is not None:
                api.patch(f"{self.target.path}/scale", {"spec": {"replicas": hand.replicas}})
            if hand.spec is not None:
                api.patch(f"{self.path}/web", {"spec": hand.spec})
                self.changed.append((time.time(), hand.spec))
            if hand.fails:
                pod = next(name for name, label in self.names.items() if label == hand.fails)
                path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/status"
                api.patch(path, {"status": {"phase": "Failed"}}, content=STRATEGIC)
