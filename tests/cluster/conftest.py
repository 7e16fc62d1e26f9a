"""What the tests of `cluster` share: an API server to ask, and a cluster that asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.kubernetes import Cluster
from tests.stand_ins.certificates import ELSEWHERE
from tests.stand_ins.kubernetes import QUICK, KubernetesStandIn


@pytest.fixture
async def api() -> AsyncIterator[KubernetesStandIn]:
    stand_in = KubernetesStandIn()
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@pytest.fixture(autouse=True)
def few_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own certificate authorities take 0.1 s to load, for each client of each test."""
    only = tmp_path / "authorities.crt"
    only.write_text(ELSEWHERE)
    monkeypatch.setenv("SSL_CERT_FILE", str(only))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))


@pytest.fixture
async def cluster(api: KubernetesStandIn, tmp_path: Path) -> AsyncIterator[Cluster]:
    connected = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=QUICK)
    yield connected
    await connected.close()
