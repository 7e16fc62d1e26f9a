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

    def __init__(self, *statuses: dict[str, Any] | StatusError, groups: dict[str, Any] = GROUPS) -> None:
        self.statuses = statuses
        self.groups = groups
        self.asked = 0

    async def call(self, method: str, path: str, *, query: object = ()) -> dict[str, Any]:
        self.asked += 1
        if path == "/apis":
            return self.groups
        assert (path, query) == ("/api/v1/configmaps", [("fieldSelector", "metadata.name=cluster-autoscaler-status")])
        for answer in self.statuses:
            if isinstance(answer, StatusError):
                raise answer
        return {"items": list(self.statuses)}


def seen_of(server: Server) -> NodeAutoscalers:
    return NodeAutoscalers(server)  # type: ignore[arg-type]


def written(seconds_ago: float, zone: timezone = UTC) -> dict[str, Any]:
    at = datetime.fromtimestamp(time.time() - seconds_ago, zone)
    return {"metadata": {"annotations": {LAST_UPDATED: at.strftime("%Y-%m-%d %H:%M:%S.123456789 %z XST")}}}


KARPENTER = {"groups": [{"name": "karpenter.sh"}]}
OPEN_SHIFT = {"groups": [{"name": "autoscaling.openshift.io"}]}


@pytest.mark.parametrize(
    ("server", "name"),
    [
        (Server(), ""),
        (Server(groups=KARPENTER), "Karpenter"),
        (Server(groups=OPEN_SHIFT), "OpenShift's cluster autoscaler"),
        (Server(written(STALE_SECONDS + 60), written(10)), "cluster-autoscaler"),
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
    server = Server()
    seen = seen_of(server)
    assert (await seen.name(), await seen.name()) == ("", "")
    assert server.asked == 2


async def test_what_may_not_be_looked_at_is_not_taken_for_none() -> None:
    denied = StatusError(
        403,
        'HTTP 403: configmaps "cluster-autoscaler-status" is forbidden: User "us" cannot list resource "configmaps" '
        'in API group "" at the cluster scope',
    )
    server = Server(denied)
    seen = seen_of(server)
    for _ in range(3):
        with pytest.raises(NotObservedError, match='lacks the right "list configmaps"'):
            await seen.name()
    assert server.asked == 2
