"""A leader that is stopped between the check of its lease and the send: what becomes of a write that arrives late.

The write is kept on its way, its sender frozen, and let go once the other replica leads: to the API server that is a
leader that slept between the two.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.parts.control_plane import ControlPlane
from tests.parts.fixtures import running_prometheus
from tests.parts.kubernetes_api import Api
from tests.parts.processes import wait_until
from tests.parts.relay import Kept, Relay
from tests.real.access import apply_shipped, one_writer
from tests.real.autoscaler_process import Autoscaler
from tests.real.custom_resource import Resource, give_lease_back, install
from tests.real.simulated_pods import SimulatedPods
from tests.real.test_leadership import TAKEN_OVER_SECONDS, Pair
from tests.real.test_one_writer import token_of_pod
from tests.real.workloads import Workload, deployment, resource

pytestmark = pytest.mark.cluster

NAMES = ("one", "two")


class Late:
    """Two replicas, each in a pod of its name and behind a relay of its own."""

    def __init__(self, pair: Pair, relays: dict[int, Relay]) -> None:
        self.pair = pair
        self._relays = relays

    def keep_a_write_of(self, leader: Autoscaler, *, floor: int) -> Kept:
        """Raise the floor; the write that follows from it stays on its way, and its sender stands still."""
        relay = self._relays[id(leader)]
        relay.keep(rf"PATCH {self.pair.target.path}/scale\?")
        self.pair.made.change(minReplicas=floor)
        kept = relay.wait_kept(within=60)
        leader.process.signal(signal.SIGSTOP)
        return kept

    def arrives(self, leader: Autoscaler, kept: Kept) -> str:
        return self._relays[id(leader)].arrives(kept, within=30)


@pytest.fixture
def late(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Late]:
    install(control_plane)
    (tmp_path / "overlay").mkdir()
    with ExitStack() as stack:
        prometheus = stack.enter_context(running_prometheus(tmp_path / "prometheus"))
        target = Workload(control_plane, namespace, deployment("led"))
        target.create(2, cold_start_seconds=0)
        stack.enter_context(SimulatedPods(control_plane, prometheus, namespace, app="led"))
        apply_shipped(control_plane, tmp_path / "overlay", namespace)
        made = Resource(control_plane.api, resource(target, prometheus, minReplicas=2)).create()
        give_lease_back(control_plane.api, namespace)
        replicas, relays = [], {}
        for name in NAMES:
            relay = stack.enter_context(Relay(control_plane.url, control_plane.ca))
            (tmp_path / name).mkdir()
            kubeconfig = relay.kubeconfig(tmp_path / name, token_of_pod(control_plane, namespace, name))
            env = {"POD_NAME": name, "POD_NAMESPACE": namespace}
            replica = Autoscaler(tmp_path / name, None, kubeconfig, options=("--namespace", namespace), env=env)
            replicas.append(replica)
            relays[id(replica)] = relay
        for each in replicas:
            stack.enter_context(each)
            stack.callback(each.process.signal, signal.SIGCONT)  # to be stopped at the end it must run
        made.wait_condition("Ready", "True")
        yield Late(Pair(control_plane, target, made, replicas), relays)


def test_a_write_that_arrives_after_its_leader_was_followed_changes_nothing(late: Late) -> None:
    pair = late.pair
    api, target = pair.control_plane.api, pair.target

    # The next leader has written: the number that the late write was decided from is no longer there.
    first = pair.leader()
    second = pair.other(first)
    kept = late.keep_a_write_of(first, floor=4)
    assert b'{"op": "test", "path": "/spec/replicas", "value": 2}' in kept.request
    assert target.desired == 2
    second.wait_line("leads after", within=TAKEN_OVER_SECONDS)
    wait_until(lambda: target.desired == 4, within=TAKEN_OVER_SECONDS, what="the next leader's write")
    generation = api.get(target.path)["metadata"]["generation"]
    answer = late.arrives(first, kept)
    assert answer.startswith("HTTP/1.1 422 "), answer
    assert api.get(target.path)["metadata"]["generation"] == generation
    first.process.signal(signal.SIGCONT)
    first.wait_line("leads no longer", within=30)

    # The next leader has seen no need to write: the number is what it was, and only the policy knows better.
    with one_writer(pair.control_plane):
        kept = late.keep_a_write_of(second, floor=5)
        pair.made.change(minReplicas=4)
        first.wait_line("leads after", within=TAKEN_OVER_SECONDS)
        first.wait_turns(target.key, 3)
        answer = late.arrives(second, kept)
        assert answer.startswith(("HTTP/1.1 403 ", "HTTP/1.1 422 ")), answer
        assert "pod 'two' does not lead" in answer or "pod 'one' does not lead" in answer
        assert api.get(target.path)["metadata"]["generation"] == generation
        second.process.signal(signal.SIGCONT)
        second.wait_line("leads no longer", within=30)

    # Without the policy the very same bytes are taken: this is the gap that it is there for.
    wait_until(lambda: _sent_again(api, kept) == 5, within=60, what="the same write, without the policy")


def _sent_again(api: Api, kept: Kept) -> int | None:
    """The number of replicas that the very same request sets; None where it is refused."""
    head, _, body = kept.request.partition(b"\r\n\r\n")
    method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
    fields = (line.decode().partition(": ") for line in head.split(b"\r\n")[1:])
    headers = {name: value for name, _, value in fields if name.lower() not in ("host", "content-length")}
    answer = requests.request(
        method, f"{api.url}{path}", data=body, headers=headers, verify=str(api.session.verify), timeout=10
    )
    return answer.json()["spec"]["replicas"] if answer.ok else None
