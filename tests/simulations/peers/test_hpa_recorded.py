"""Our HPA against the real controller's recorded decisions; `make record-hpa` asks the real one again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from simulations.peers.hpa import LABEL, Behavior, Hpa, RatePolicy, Rules, Select
from tests.parts import build
from tests.real.hpa.scenarios import SCENARIOS
from tests.simulations.peers.recorded_hpa import Json, judged, load, recordings

RECORDED = {path.stem: load(path) for path in recordings()}


@pytest.mark.parametrize("name", RECORDED)
def test_ours_decides_as_the_real_controller_sync_by_sync(name: str) -> None:
    differing = [(sync.real, sync.desired, sync.sentence) for sync in judged(RECORDED[name]) if not sync.agrees]
    assert differing == []


@pytest.mark.parametrize("name", RECORDED)
def test_ours_cannot_read_its_metrics_when_the_real_controller_cannot(name: str) -> None:
    for sync in judged(RECORDED[name]):
        failed = "metrics" in sync.real and "proposed" not in sync.real
        assert sync.sentence.startswith("a metric cannot be read") == failed, sync.real


def test_what_the_real_controller_says_of_itself_is_what_it_did() -> None:
    for sync in (sync for recorded in RECORDED.values() for sync in recorded["syncs"]):
        if "proposed" in sync and "status" in sync:
            assert sync["status"]["desired"] == sync["desired"]
        assert ("proposed" in sync) <= ("metrics" in sync)


def test_every_scenario_is_recorded_as_it_is_written_of_the_version_we_name() -> None:
    assert RECORDED.keys() == {scenario.name for scenario in SCENARIOS}
    for scenario in SCENARIOS:
        recorded = RECORDED[scenario.name]
        assert recorded["kubernetes"] == build.version(build.KUBERNETES)
        assert recorded["kubernetes"] in LABEL
        assert recorded["spec"]["metrics"] == list(scenario.metrics), "changed since: make record-hpa"
        assert recorded["spec"]["maxReplicas"] == scenario.most
        assert ("behavior" in recorded["spec"]) == (scenario.behavior is not None)
        assert sum("metrics" in sync for sync in recorded["syncs"]) == scenario.syncs


def test_the_recordings_show_what_they_were_made_for() -> None:
    reasons: set[str] = set()
    stages: set[str] = set()
    for sync in (sync for recorded in RECORDED.values() for sync in recorded["syncs"]):
        reasons |= {str(said) for said in sync.get("status", {}).values()}
        stages |= set(sync.get("pods", {}).values())
    assert reasons >= {
        "ScaleUpStabilized",
        "ScaleDownStabilized",
        "ScaleUpLimit",
        "ScaleDownLimit",
        "TooManyReplicas",
        "TooFewReplicas",
        "FailedGetExternalMetric",
        "FailedGetPodsMetric",
        "ScalingDisabled",
    }
    assert stages >= {"pending", "running", "ready", "failed", "ready leaving"}


def _rules(change: Callable[[Rules], Rules]) -> Callable[[Hpa], Hpa]:
    def altered(law: Hpa) -> Hpa:
        if law.behavior is None:
            return law
        return replace(law, behavior=Behavior(change(law.behavior.up), change(law.behavior.down)))

    return altered


def _other(rules: Rules) -> Rules:
    return replace(rules, select={Select.MAX: Select.MIN, Select.MIN: Select.MAX}.get(rules.select, rules.select))


def _slower(rules: Rules) -> Rules:
    slower = (RatePolicy(each.value, each.period_seconds + 1, each.percent) for each in rules.policies)
    return replace(rules, policies=tuple(slower))


@pytest.mark.parametrize(
    ("altered", "least"),
    [
        pytest.param(lambda law: replace(law, tolerance_up=law.tolerance_up - 1e-4), 1, id="tolerance up"),
        pytest.param(lambda law: replace(law, tolerance_down=law.tolerance_down - 1e-3), 1, id="tolerance down"),
        pytest.param(lambda law: replace(law, downscale_window_seconds=4.0), 2, id="window of the older rules"),
        pytest.param(lambda law: replace(law, behavior=None), 5, id="no behavior"),
        pytest.param(_rules(lambda rules: replace(rules, window_seconds=0.0)), 3, id="no windows"),
        pytest.param(_rules(lambda rules: replace(rules, window_seconds=rules.window_seconds + 1)), 3, id="windows"),
        pytest.param(_rules(_other), 2, id="which policy counts"),
        pytest.param(_rules(_slower), 3, id="periods"),
        pytest.param(lambda law: replace(law, max_replicas=law.max_replicas + 1), 3, id="most"),
    ],
)
def test_a_law_that_is_a_little_wrong_is_told_from_the_real_one(altered: Callable[[Hpa], Hpa], least: int) -> None:
    def is_told(recorded: Json) -> bool:
        return any(not sync.agrees for sync in judged(recorded, altered))

    assert sum(map(is_told, RECORDED.values())) >= least
