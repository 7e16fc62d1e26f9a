"""Two real vLLM servers for the tests of this folder, and the real parts around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.parts.fixtures import control_plane
from tests.parts.vllm.install import Installation, installed
from tests.parts.vllm.server import Server, metrics_page, serving, warm_up

__all__ = ["control_plane"]


@dataclass(frozen=True)
class Pair:
    """Both servers, and what the first one showed before anybody had asked it anything."""

    first: Server
    second: Server
    idle_page: str

    @property
    def urls(self) -> tuple[str, str]:
        return self.first.url, self.second.url


@pytest.fixture(scope="session")
def installation() -> Installation:
    return installed()


@pytest.fixture(scope="session")
def pair(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Booted once: it takes half a minute."""
    with serving(installation, tmp_path_factory.mktemp("vllm"), count=2) as (first, second):
        idle_page = metrics_page(first)
        warm_up(first)
        warm_up(second)
        yield Pair(first, second, idle_page)
