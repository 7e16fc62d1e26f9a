"""One story on real parts, from the rise of a load to its end, and everything that Preheat says about it.

The load rises until it needs four replicas, and falls again. Three kinds of target go through it at once, a
fourth is in shadow mode; the autoscaler is the program as a user starts it, with no right but the shipped ones.
Only times are shorter than in life: a tick of 1 s, a cold start of 6 s, a window of 5 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.parts.control_plane import ControlPlane
from tests.parts.fixtures import new_namespace, running_prometheus
from tests.parts.kubernetes_api import Json
from tests.parts.processes import wait_until
from tests.real.access import apply_shipped, grant
from tests.real.autoscaler_process import Autoscaler
from tests.real.model_fleets import RULES, ModelFleets, model_fleet
from tests.real.simulated_pods import SimulatedPods
from tests.real.simulated_vllm import Truth
from tests.real.workloads import Workload, deployment, resource, stateful_set

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CALM_SECONDS, RISE_SECONDS, PEAK_SECONDS = 15.0, 110.0, 15.0
CALM_RATE, PEAK_RATE = 2.0, 10.0
"""Requests/s; one replica bears three."""
FLOOR, PEAK = 2, 4
"""Replicas."""
TTFT_OBJECTIVE_SECONDS = 1.0

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


@pytest.fixture(scope="module")
def stories(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Story]]:
    folder = tmp_path_factory.mktemp("story")
    (folder / "overlay").mkdir()
    with ExitStack() as stack:
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


@pytest.fixture(params=KINDS)
def story(stories: dict[str, Story], request: pytest.FixtureRequest) -> Story:
    return stories[request.param]


def test_it_scales_before_the_queue_forms(story: Story) -> None:
    rises = [turn["decision"] for turn in story.changes if turn["decision"]["replicas"] > turn["decision"]["desired"]]
    assert max(decision["replicas"] for decision in rises) >= PEAK
    late = [waited for _, waited in story.truth.waits if waited > TTFT_OBJECTIVE_SECONDS]
    assert len(story.truth.waits) > 300
    assert len(late) <= 0.01 * len(story.truth.waits), f"{len(late)} requests waited, one of them {max(late):.1f} s"


def test_it_shrinks_when_the_load_is_over_and_drops_nothing(story: Story) -> None:
    assert story.target.desired == FLOOR
    wait_until(lambda: story.target.ready == FLOOR, within=30, what="the others gone")
    falls = [turn["decision"] for turn in story.changes if turn["decision"]["replicas"] < turn["decision"]["desired"]]
    assert falls
    assert story.truth.finished >= story.truth.arrived - 20  # those still on their way when it was read


def test_every_change_is_an_event_with_the_decisions_own_sentence(story: Story) -> None:
    told = [event["message"] for event in story.events if event["reason"] == "Rescaled"]
    assert told == [turn["decision"]["sentence"] for turn in story.changes]


def test_its_metrics_agree_with_what_happened(story: Story) -> None:
    assert story.metric("preheat_scale_writes_total", result="rescaled") == len(story.changes)
    assert story.metric("preheat_replicas_desired") == story.target.desired
    assert story.metric("preheat_replicas_ready") == story.target.ready
    turns = story.metric("preheat_turns_total")
    assert turns is not None
    assert turns >= len(story.turns)


def test_explain_tells_a_change_as_the_journal_has_it(stories: dict[str, Story]) -> None:
    story = stories["deployment"]
    for change in (story.changes[0], story.changes[-1]):
        told = story.autoscaler.explain(story.target.key, at=change["time"])
        decision = change["decision"]
        assert decision["sentence"] in told
        assert f"{decision['desired']} → {decision['replicas']}" in told
        assert "written to scale" in told


def test_what_it_saw_arrive_is_what_was_sent(story: Story) -> None:
    demands = [turn["decision"]["demand"] for turn in story.turns if turn["decision"]]
    assert 0.7 * PEAK_RATE < max(demand for demand in demands if demand is not None) < 1.3 * PEAK_RATE


def test_shadow_mode_decides_and_writes_nothing(stories: dict[str, Story]) -> None:
    story = stories["shadow"]
    assert any(turn["outcome"] == "shadowed" for turn in story.turns)
    assert not story.changes
    assert story.events == []
    made = story.target.api.get(story.target.path)["metadata"]
    assert made["generation"] == 1
    assert "preheat" not in {field["manager"] for field in made["managedFields"]}
    assert story.metric("preheat_shadow") == 1


def test_all_the_while_it_is_healthy_and_errs_nowhere(stories: dict[str, Story]) -> None:
    autoscaler = stories["deployment"].autoscaler
    assert autoscaler.page("/healthz").text == "ok\n"
    assert autoscaler.page("/readyz").text == "ok\n"
    for story in stories.values():
        assert [turn["problem"] for turn in story.turns if turn["problem"]] == []
        # What it may meet is a pod that is ready a moment before its first sample.
        assert story.metric("preheat_errors_total") == story.metric("preheat_errors_total", kind="incomplete")
    assert not autoscaler.metric("preheat_events_dropped_total")
    assert not autoscaler.metric("preheat_journal_dropped_total")
