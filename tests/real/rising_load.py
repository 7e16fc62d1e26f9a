"""The story that `test_scaling_ahead.py` reads: a load rises until it needs four replicas, and falls again.

Three kinds of target go through it at once, a fourth is in shadow mode; the autoscaler is the program as a user
starts it, with no right but the shipped ones. Only times are shorter than in life: a tick of 1 s, a cold start
of 6 s, a window of 5 s. It has a control plane of its own, so that it can be told while other tests break theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.parts.fixtures import new_namespace, running_control_plane, running_prometheus
from tests.parts.kubernetes_api import Json
from tests.parts.processes import wait_until
from tests.real.access import apply_shipped, grant
from tests.real.autoscaler_process import Autoscaler
from tests.real.model_fleets import RULES, ModelFleets, model_fleet
from tests.real.simulated_pods import SimulatedPods
from tests.real.simulated_vllm import Truth
from tests.real.workloads import Workload, deployment, resource, stateful_set

CALM_SECONDS, RISE_SECONDS, PEAK_SECONDS = 15.0, 110.0, 15.0
CALM_RATE, PEAK_RATE = 2.0, 10.0
"""Requests/s; one replica bears three."""
FLOOR, PEAK = 2, 4
"""Replicas."""
KINDS = ("deployment", "statefulset", "modelfleet")


def load(seconds: float) -> float:
    if seconds > CALM_SECONDS + RISE_SECONDS + PEAK_SECONDS:
        return CALM_RATE / 4
    share = (seconds - CALM_SECONDS) / RISE_SECONDS
    return CALM_RATE + (PEAK_RATE - CALM_RATE) * min(1.0, max(0.0, share))


@dataclass
class Story:
    """What there is to read when it is over."""

    target: Workload
    turns: list[Json]
    events: list[Json]
    truth: Truth
    autoscaler: Autoscaler

    @property
    def changes(self) -> list[Json]:
        """The turns that were written to `scale`, oldest first."""
        return [turn for turn in self.turns if turn["outcome"] == "rescaled"]

    def metric(self, metric: str, **labels: str) -> float | None:
        return self.autoscaler.metric(metric, namespace=self.target.namespace, name=self.target.name, **labels)


@contextmanager
def told(folder: Path) -> Iterator[dict[str, Story]]:
    """The story, told; the autoscaler still runs when it is over."""
    (folder / "overlay").mkdir(parents=True)
    with ExitStack() as stack:
        control_plane = stack.enter_context(running_control_plane(folder / "control-plane"))
        namespace = stack.enter_context(new_namespace(control_plane))
        prometheus = stack.enter_context(running_prometheus(folder / "prometheus"))
        refs = {
            "deployment": deployment("by-deployment"),
            "statefulset": stateful_set("by-statefulset"),
            "modelfleet": model_fleet("by-modelfleet"),
            "shadow": deployment("in-shadow"),
        }
        targets = {kind: Workload(control_plane, namespace, ref) for kind, ref in refs.items()}
        stack.enter_context(ModelFleets(control_plane, targets["modelfleet"], replicas=FLOOR))
        for kind in ("deployment", "statefulset", "shadow"):
            targets[kind].create(FLOOR)
        pods = {
            kind: stack.enter_context(SimulatedPods(control_plane, prometheus, namespace, app=target.name))
            for kind, target in targets.items()
        }
        kubeconfig = apply_shipped(control_plane, folder / "overlay", namespace)
        grant(control_plane, namespace, RULES, to_namespace=namespace, name="modelfleets")
        for target in targets.values():
            wait_until(lambda target=target: target.ready == FLOOR, within=60, what=f"{target.name} ready")  # type: ignore[misc]
        resources = [
            resource(target, prometheus, minReplicas=FLOOR, mode="Shadow" if kind == "shadow" else "Active")
            for kind, target in targets.items()
        ]
        with Autoscaler(folder, resources, kubeconfig) as autoscaler:
            for each in pods.values():
                each.bear(load)
            active = [targets[kind] for kind in KINDS]
            for reached, what in (
                (lambda: min(target.desired for target in active) >= PEAK, "enough of each"),
                (lambda: max(target.desired for target in active) == FLOOR, "as few of each as may be"),
            ):
                wait_until(reached, within=300, what=what, every=1)
            for target in targets.values():
                autoscaler.wait_turns(target.key, 2)
            # An event is written after its turn; the last of them must be there too.
            wait_until(
                lambda: all(
                    [event["message"] for event in target.events()][-1:] == [last_sentence(autoscaler, target)]
                    for target in active
                ),
                within=30,
                what="the events of the last changes",
                every=0.5,
            )
            yield {
                kind: Story(target, autoscaler.entries(target.key), target.events(), pods[kind].truth, autoscaler)
                for kind, target in targets.items()
            }


def last_sentence(autoscaler: Autoscaler, target: Workload) -> str:
    """Of the newest turn that was told as an event."""
    changes = [turn for turn in autoscaler.entries(target.key) if turn["outcome"] == "rescaled"]
    sentence: str = changes[-1]["decision"]["sentence"]
    return sentence
