"""The real parts as fixtures; a suite's conftest.py imports those it wants."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.control_plane import ControlPlane
from tests.parts.processes import wait_until
from tests.parts.prometheus import Prometheus

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One for all tests, with a node of many GPUs; each test has a namespace of its own."""
    running = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    try:
        running.start()
        running.add_node("node-1", gpus=64)
        yield running
    finally:
        running.stop()


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace in which pods can be created; deleted afterwards, without waiting for the end of that."""
    name = f"test-{next(_numbers)}"
    control_plane.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    accounts = f"/api/v1/namespaces/{name}/serviceaccounts"
    wait_until(lambda: control_plane.api.items(accounts), within=30, what="the namespace's service account")
    yield name
    control_plane.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """Scrapes every second; nothing yet."""
    running = Prometheus(tmp_path / "prometheus")
    try:
        running.start()
        yield running
    finally:
        running.stop()
