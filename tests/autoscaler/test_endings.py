"""Who cuts requests off is told when that is first seen and when it changes, and in shadow mode by the log alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from autoscaler import endings
from autoscaler.endings import Endings
from autoscaler.events import Announcement
from cluster.errors import NotObservedError
from cluster.kubernetes import Cluster
from cluster.prometheus import Prometheus
from policies.scaling.resource import VLLMAutoscaler
from tests.autoscaler.worlds import resource
from tests.stand_ins.waiting import until


class Looks:
    """What the looks find, one after the other; the last of it again and again."""

    def __init__(self) -> None:
        self.found: list[tuple[str, ...] | Exception] = [()]
        self.taken = 0
        self.told: list[Announcement] = []

    async def look(self, *_: object) -> tuple[str, ...]:
        found = self.found[min(self.taken, len(self.found) - 1)]
        self.taken += 1
        if isinstance(found, Exception):
            raise found
        return found

    async def tell(self, said: Announcement) -> None:
        self.told.append(said)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    made = Looks()
    monkeypatch.setattr(endings, "look", made.look)
    monkeypatch.setattr(endings, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(endings, "AGAIN_SECONDS", 0.001)
    return made


def begun(looks: Looks, stated: VLLMAutoscaler) -> Callable[[], None]:
    # Both are only handed on to `look`.
    made = Endings(cast("Cluster", None))
    made.begin(stated, cast("Prometheus", None), looks.tell)
    return lambda: made.end(stated.key)


async def test_it_is_told_once_and_again_when_it_changes(looks: Looks) -> None:
    looks.found = [(), ("a",), ("a",), NotObservedError("dark"), ("a",), ("a", "b"), ("a", "b")]
    end = begun(looks, resource())
    await until(lambda: looks.taken > len(looks.found))
    end()
    assert [(said.reason, said.message, said.is_warning) for said in looks.told] == [
        ("ShrinkCutsRequests", "a", True),
        ("ShrinkCutsRequests", "a; b", True),
    ]


async def test_shadow_mode_writes_nothing_not_even_this(looks: Looks, caplog: pytest.LogCaptureFixture) -> None:
    looks.found = [("a",)]
    end = begun(looks, resource(mode="Shadow"))
    await until(lambda: looks.taken > 2)
    end()
    assert looks.told == []
    assert [record.getMessage() for record in caplog.records] == ["a"]
