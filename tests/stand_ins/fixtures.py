"""An API server to ask, for every suite that asks one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stand_ins.certificates import ELSEWHERE
from tests.stand_ins.kubernetes import KubernetesStandIn


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
