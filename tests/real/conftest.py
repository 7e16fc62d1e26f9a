"""The real parts for the tests of this folder, and the two long stories among them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from tests.parts.fixtures import control_plane, namespace, prometheus
from tests.real.rising_load import Story, told
from tests.real.tutorial import Played, played

__all__ = ["control_plane", "namespace", "prometheus"]


@pytest.fixture(scope="session", autouse=True)
def _story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[dict[str, Story]] | None]:
    """Told in the background from the first test on, if any test reads it: most of its minutes are waiting."""
    if not any("stories" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    folder = tmp_path_factory.mktemp("story")
    ready: Future[dict[str, Story]] = Future()
    read = threading.Event()

    def tell() -> None:
        try:
            with told(folder / "parts") as stories:
                ready.set_result(stories)
                read.wait()
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    with ThreadPoolExecutor(1) as background:
        telling = background.submit(tell)
        yield ready
        read.set()
        telling.result()


@pytest.fixture(scope="session")
def stories(_story: Future[dict[str, Story]]) -> dict[str, Story]:
    return _story.result()


@pytest.fixture(scope="session", autouse=True)
def _tutorial(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    _story: Future[dict[str, Story]] | None,
) -> Iterator[Future[Played] | None]:
    """Played in the background likewise, once the story is told: three control planes at a time would be many."""
    if not any("tutorial" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    folder = tmp_path_factory.mktemp("tutorial")

    def play() -> Played:
        if _story is not None:
            wait([_story])
        return played(folder)

    with ThreadPoolExecutor(1) as background:
        yield background.submit(play)


@pytest.fixture(scope="session")
def tutorial(_tutorial: Future[Played]) -> Played:
    return _tutorial.result()
