"""Recordings are put together from what others saw, and refused where that leaves a doubt."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.parts.kubernetes_api import Json
from tests.real.hpa.scenarios import AT_ONCE, QUEUE, Scenario, average, rules, totals, value
from tests.real.hpa.writing import Heard, Told, UnsteadyError, horizons, recording, save
from tests.simulations.peers.recorded_hpa import judged, load

SPEC: Json = {
    "minReplicas": 1,
    "maxReplicas": 9,
    "metrics": [average(QUEUE, "5")],
    "behavior": {"scaleUp": rules(("Pods", 9, 3)), "scaleDown": rules(("Pods", 9, 2), window=5)},
}
SCENARIO = Scenario("two-syncs", (average(QUEUE, "5"),), {QUEUE: totals(20, 20)})


def event(time: float, verb: str, replicas: int, *, code: int = 200, there: int | None = None) -> Json:
    scale = {"spec": {"replicas": replicas}, "status": {"replicas": replicas if there is None else there}}
    return {
        "requestReceivedTimestamp": datetime.fromtimestamp(time, UTC).isoformat(),
        "verb": verb,
        "objectRef": {"resource": "deployments"},
        "responseStatus": {"code": code},
        "requestObject": scale,
        "responseObject": scale,
    }


def heard(**other: Any) -> Heard:
    """Two syncs, 2 → 4 and 4 → 4, and the first reading of a third."""
    two, four = ({f"pod-{number}": "ready" for number in range(1, count + 1)} for count in (2, 4))
    seen: dict[str, Any] = {
        "audited": [
            event(100.0, "get", 2),
            event(100.3, "update", 4, code=409),
            event(100.31, "get", 2),
            event(100.32, "update", 4),
            event(101.4, "get", 4),
            event(102.8, "get", 4),
        ],
        "proposed": [(100.25, 4), (101.7, 4)],
        "rescaled": [(100.33, 4)],
        "told": [Told(100.24, QUEUE, ["20"], two), Told(101.69, QUEUE, ["20"], four)],
        "changed": [],
    }
    return Heard(**(seen | other))


def test_an_update_that_is_refused_and_tried_again_is_of_the_same_sync() -> None:
    syncs = recording(SCENARIO, SPEC, heard())["syncs"]
    assert [(sync["time"], sync["replicas"], sync["desired"]) for sync in syncs] == [(0.0, 2, 4), (1.45, 4, 4)]
    assert [sync["metrics"] for sync in syncs] == [{QUEUE: ["20"]}] * 2


def test_what_is_saved_is_what_is_judged(tmp_path: Path) -> None:
    saved = load(save(recording(SCENARIO, SPEC, heard()), tmp_path))
    assert saved["syncs"][0]["pods"] == {"pod-1": "ready", "pod-2": "ready"}
    assert all(sync.agrees for sync in judged(saved))


def test_a_sync_as_an_earlier_one_leaves_a_window_is_refused() -> None:
    assert horizons(SPEC) == {2, 3, 5}
    late = heard(proposed=[(100.25, 4), (102.29, 4)], audited=[*heard().audited[:-1], event(103.4, "get", 4)])
    with pytest.raises(UnsteadyError, match="too near to 2 s"):  # whether 100.25 or 100.33 counts is not known
        recording(SCENARIO, SPEC, late)


def test_a_status_that_lags_behind_the_pods_is_refused_where_both_are_reckoned_with() -> None:
    lagging = heard(audited=[*heard().audited[:-2], event(101.4, "get", 4, there=2), event(102.8, "get", 4)])
    assert recording(SCENARIO, SPEC, lagging)["syncs"][1]["status_replicas"] == 2
    mixed = replace(SCENARIO, metrics=(*SCENARIO.metrics, value(QUEUE, "5")))
    with pytest.raises(UnsteadyError, match="lagged behind the pods"):
        recording(mixed, SPEC, lagging)


def test_a_change_of_the_hpa_is_written_with_the_sync_that_first_knows_of_it() -> None:
    changed = recording(SCENARIO, SPEC, heard(changed=[(100.6, {"maxReplicas": 5})]))["syncs"]
    assert [sync.get("changed") for sync in changed] == [None, {"maxReplicas": 5}]
    with pytest.raises(UnsteadyError, match="a moment before"):
        recording(SCENARIO, SPEC, heard(changed=[(101.35, {"maxReplicas": 5})]))


def test_scenarios_that_scale_at_once_forget_nothing_while_they_last() -> None:
    assert horizons({"behavior": AT_ONCE}) == {60}
    assert horizons({}) == {5}
