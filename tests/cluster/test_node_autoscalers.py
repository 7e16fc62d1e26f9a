"""Something that adds nodes is seen by its API or by what it writes, and is not believed to live for ever."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from cluster.api import StatusError
from cluster.errors import NotObservedError
from cluster.node_autoscalers import LAST_UPDATED, STALE_SECONDS, NodeAutoscalers

GROUPS = {"groups": [{"name": "apps"}]}


class Server:
    """Answers two paths."""

    def __init__(self, status: dict[str, Any] | StatusError, groups: dict[str, Any] | StatusError = GROUPS) -> None:
        self.answers = {"/apis": groups}
        self.status = status
        self.asked = 0

    async def call(self, method: str, path: str) -> dict[str, Any]:
        self.asked += 1
        answer = self.answers.get(path, self.status)
        if isinstance(answer, StatusError):
            raise answer
        return answer


def seen_of(server: Server) -> NodeAutoscalers:
    return NodeAutoscalers(server)  # type: ignore[arg-type]


def written(seconds_ago: float, zone: timezone = UTC) -> dict[str, Any]:
    at = datetime.fromtimestamp(time.time() - seconds_ago, zone)
    return {"metadata": {"annotations": {LAST_UPDATED: at.strftime("%Y-%m-%d %H:%M:%S.123456789 %z XST")}}}


NONE = StatusError(404, 'configmaps "cluster-autoscaler-status" not found')
KARPENTER = {"groups": [{"name": "karpenter.sh"}]}


@pytest.mark.parametrize(
    ("server", "name"),
    [
        (Server(NONE), ""),
        (Server(NONE, KARPENTER), "Karpenter"),
        (Server(written(10)), "cluster-autoscaler"),
        (Server(written(10, timezone(timedelta(hours=-5)))), "cluster-autoscaler"),
        (Server(written(STALE_SECONDS + 60)), ""),
        (Server(written(STALE_SECONDS + 60, timezone(timedelta(hours=5)))), ""),
        (Server({"metadata": {}}), "cluster-autoscaler"),
    ],
)
async def test_what_adds_nodes_is_named(server: Server, name: str) -> None:
    assert await seen_of(server).name() == name


async def test_the_server_is_asked_again_only_after_a_while() -> None:
    server = Server(NONE)
    seen = seen_of(server)
    assert (await seen.name(), await seen.name()) == ("", "")
    assert server.asked == 2


async def test_what_may_not_be_looked_at_is_not_taken_for_none() -> None:
    denied = StatusError(
        403,
        'HTTP 403: configmaps "cluster-autoscaler-status" is forbidden: User "us" cannot get resource "configmaps" '
        'in API group "" in the namespace "kube-system"',
    )
    server = Server(denied)
    seen = seen_of(server)
    for _ in range(3):
        with pytest.raises(NotObservedError, match='lacks the right "get configmaps"'):
            await seen.name()
    assert server.asked == 2
