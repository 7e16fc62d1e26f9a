"""How a pod ends stands in its spec: grace, preStop, and what vLLM is started with, in any spelling."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.objects import DEFAULT_CONTAINER, watched_pod
from policies.scaling.endings import Ending
from tests.stand_ins.kubernetes_objects import Object, deployment, ready_pod, replica_set


def ending(container: Object, **spec: Any) -> Ending | None:
    shown = ready_pod(replica_set(deployment()), "a")
    shown["spec"] = {"containers": [{"name": "istio"}, {"name": "vllm", **container}], **spec}
    shown["metadata"]["annotations"] = {DEFAULT_CONTAINER: "vllm"}
    read = watched_pod(shown, None)
    assert read is not None
    return read.ending


@pytest.mark.parametrize(
    "started_with",
    [
        {"args": ["--model=x", "--shutdown-timeout=60"]},
        {"args": ["--shutdown-timeout", "60"]},
        {"command": ["sh", "-c", "vllm serve x --shutdown-timeout 60 --port 8000"]},
        {"command": ["vllm", "serve"], "args": ["x", "--shutdown_timeout=60.0"]},
    ],
)
def test_a_shutdown_timeout_is_read_in_every_spelling(started_with: Object) -> None:
    found = ending(started_with, terminationGracePeriodSeconds=90)
    assert found == Ending(90.0, has_pre_stop=False, shutdown_timeout_seconds=60.0)


def test_pre_stop_is_that_of_the_container_that_serves() -> None:
    found = ending({"lifecycle": {"preStop": {"sleep": {"seconds": 15}}}})
    assert found == Ending(30.0, has_pre_stop=True, shutdown_timeout_seconds=None)
