"""What the tests of `cluster` share: an API server to ask, and a cluster that asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.kubernetes import Cluster
from tests.stand_ins.fixtures import api, few_authorities
from tests.stand_ins.kubernetes import QUICK, KubernetesStandIn

__all__ = ["api", "few_authorities"]


@pytest.fixture
async def cluster(api: KubernetesStandIn, tmp_path: Path) -> AsyncIterator[Cluster]:
    connected = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=QUICK)
    yield connected
    await connected.close()
