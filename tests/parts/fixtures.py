"""The real parts as fixtures; a suite's conftest.py imports those it wants."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from tests.parts.control_plane import ControlPlane
from tests.parts.processes import wait_until
from tests.parts.prometheus import Prometheus

_numbers = itertools.count(1)


@contextmanager
def running_control_plane(folder: Path, options: Mapping[str, Sequence[str]] | None = None) -> Iterator[ControlPlane]:
    """With a node of many GPUs."""
    running = ControlPlane(folder, options)
    try:
        running.start()
        running.add_node("node-1", gpus=64)
        yield running
    finally:
        running.stop()


@contextmanager
def new_namespace(control_plane: ControlPlane) -> Iterator[str]:
    """In which pods can be created; deleted afterwards, without waiting for the end of that."""
    name = f"test-{next(_numbers)}"
    control_plane.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    accounts = f"/api/v1/namespaces/{name}/serviceaccounts"
    wait_until(lambda: control_plane.api.items(accounts), within=30, what="the namespace's service account")
    yield name
    control_plane.api.delete(f"/api/v1/namespaces/{name}")


@contextmanager
def running_prometheus(
    folder: Path, *, tls: bool = False, basic_auth: bool = False, certificate_ends: datetime | None = None
) -> Iterator[Prometheus]:
    """Scrapes every second; nothing yet."""
    running = Prometheus(folder, tls=tls, basic_auth=basic_auth, certificate_ends=certificate_ends)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One for all tests; each has a namespace of its own."""
    with running_control_plane(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    with new_namespace(control_plane) as name:
        yield name


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    with running_prometheus(tmp_path / "prometheus") as running:
        yield running
