"""Our HPA against the real controller of today, for a few of the scenarios that are recorded."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.parts.kubernetes_api import Json
from tests.real.hpa.recording import studio
from tests.real.hpa.scenarios import SCENARIOS
from tests.simulations.peers.recorded_hpa import judged

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAMES = ("windows-and-rates", "pods-pending-and-silent", "two-metrics-one-fails", "external-average-while-pods-start")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Json]]]:
    """Side by side."""
    chosen = [scenario for scenario in SCENARIOS if scenario.name in NAMES]
    with studio(tmp_path_factory.mktemp("hpa")) as there:
        yield {scenario.name: recorded for scenario, recorded in there.record(chosen)}


@pytest.mark.parametrize("name", NAMES)
def test_ours_decides_as_the_real_controller_does(played: dict[str, Future[Json]], name: str) -> None:
    syncs = list(judged(played[name].result()))
    assert len({sync.desired for sync in syncs}) > 1
    assert [(sync.real, sync.desired, sync.sentence) for sync in syncs if not sync.agrees] == []
