"""A watch through everything that can happen to it; above all, a blind cluster never looks calm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import NotObservedError, RefusedError
from cluster.kubernetes import Cluster
from cluster.objects import TargetState
from policies.scaling.observation import PodStage
from policies.scaling.resource import ScaleTargetRef
from tests.stand_ins.kubernetes import QUICK, Fault, KubernetesStandIn
from tests.stand_ins.kubernetes_objects import NAMESPACE, START, Object, deployment, pod, ready_pod
from tests.stand_ins.waiting import answer, failure, until

REF = ScaleTargetRef(name="vllm-a")
WATCHES = 3  # pods, deployments, replicasets


def look(cluster: Cluster) -> Callable[[], Awaitable[TargetState]]:
    return lambda: cluster.target(REF, NAMESPACE)


def has(pods: int) -> Callable[[TargetState], bool]:
    return lambda seen: len(seen.pods) == pods


async def watching(api: KubernetesStandIn, cluster: Cluster) -> Object:
    """A target whose watches are all open; returns its ReplicaSet."""
    _, made = api.deploy()
    await answer(look(cluster))
    await until(lambda: api.open_watches == WATCHES)
    return made


@pytest.fixture
async def impatient(api: KubernetesStandIn, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Takes a short silence for a broken watch, and believes a broken one for no time at all."""
    pace = replace(QUICK, silence_seconds=0.15, blind_after_seconds=0.05, retry_first_seconds=0.3)
    connected = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=pace)
    yield connected
    await connected.close()


async def test_a_watch_that_ends_goes_on_where_it_was(api: KubernetesStandIn, cluster: Cluster) -> None:
    made = await watching(api, cluster)
    lists = api.number_of("GET", "/pods")
    api.cut_watches()
    await until(lambda: api.open_watches == WATCHES)
    api.put(ready_pod(made, "vllm-a-6b7c8d9f4-late0"))
    await answer(look(cluster), has(3))
    assert cluster.counters.relists == 0
    # One request to watch again, none to list.
    assert api.number_of("GET", "/pods") == lists + 1


async def test_what_happened_in_a_gap_is_caught_up(api: KubernetesStandIn, cluster: Cluster) -> None:
    made = await watching(api, cluster)
    await api.stop()
    api.remove(ready_pod(made, "vllm-a-6b7c8d9f4-b0000"))
    api.put(ready_pod(made, "vllm-a-6b7c8d9f4-b0007"))
    await api.start()
    seen = await answer(look(cluster), lambda seen: "b0007" in seen.pods[-1].name)
    assert [p.name[-5:] for p in seen.pods] == ["b0001", "b0007"]


async def test_a_server_that_is_down_makes_the_target_unobserved_until_it_is_back(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    await watching(api, cluster)
    await api.stop()
    error = await failure(look(cluster), NotObservedError)
    assert "were last seen" in str(error)
    assert "could not be asked" in str(error)
    assert cluster.counters.errors["connection"] > 0
    assert cluster.watch_age_seconds > QUICK.blind_after_seconds
    await api.start()
    await answer(look(cluster), has(2))


async def test_a_short_break_does_not_stop_the_show(api: KubernetesStandIn, tmp_path: Path) -> None:
    pace = replace(QUICK, blind_after_seconds=60.0)
    cluster = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=pace)
    await watching(api, cluster)
    await api.stop()
    await until(lambda: cluster.counters.watch_failures >= WATCHES)
    assert len((await cluster.target(REF, NAMESPACE)).pods) == 2
    await cluster.close()


async def test_a_server_that_was_never_there_is_told_within_the_bound(api: KubernetesStandIn, tmp_path: Path) -> None:
    pace = replace(QUICK, first_sight_seconds=0.5)
    cluster = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=pace)
    api.deploy()
    api.faults.append(Fault(503, times=10_000, path="/pods"))
    with pytest.raises(NotObservedError, match=r"could not be listed within 0.5 s: HTTP 503"):
        await cluster.target(REF, NAMESPACE)
    api.faults.clear()
    await answer(look(cluster), has(2))
    await cluster.close()


async def test_an_expired_version_is_listed_anew(api: KubernetesStandIn, cluster: Cluster) -> None:
    made = await watching(api, cluster)
    await api.stop()
    api.remove(ready_pod(made, "vllm-a-6b7c8d9f4-b0000"))
    api.forget_history()
    await api.start()
    seen = await answer(look(cluster), has(1))
    assert seen.pods[0].name.endswith("b0001")
    assert cluster.counters.relists > 0


async def test_an_expiry_by_status_is_listed_anew_too(api: KubernetesStandIn, cluster: Cluster) -> None:
    made = await watching(api, cluster)
    api.faults.append(Fault(410, times=WATCHES))
    api.cut_watches()
    await until(lambda: cluster.counters.relists == WATCHES)
    await until(lambda: api.open_watches == WATCHES)
    api.put(ready_pod(made, "vllm-a-6b7c8d9f4-late0"))
    await answer(look(cluster), has(3))


async def test_a_list_that_expires_between_its_pages_begins_again(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.deploy(replicas=5)
    api.page = 2
    api.faults.append(Fault(410, query="continue"))
    assert len((await cluster.target(REF, NAMESPACE)).pods) == 5


async def test_a_bookmark_moves_the_version_on(api: KubernetesStandIn, cluster: Cluster) -> None:
    await watching(api, cluster)
    api.bookmark()
    # A second one after it, so that the first is known to have been read when the third event is.
    api.bookmark()
    api.put(deployment("another"))
    await answer(lambda: cluster.target(ScaleTargetRef(name="another"), NAMESPACE))
    api.forget_history(before=api.version - 2)
    api.cut_watches()
    await until(lambda: api.open_watches == WATCHES)
    assert cluster.counters.relists == 0


async def test_a_watch_that_falls_silent_is_opened_again(api: KubernetesStandIn, impatient: Cluster) -> None:
    made = await watching(api, impatient)
    api.silent = True
    api.put(ready_pod(made, "vllm-a-6b7c8d9f4-late0"))
    error = await failure(look(impatient), NotObservedError)
    assert "did not answer within" in str(error)
    api.silent = False
    await answer(look(impatient), has(3))
    assert impatient.counters.errors["timeout"] > 0


async def test_watches_that_end_as_they_begin_show_changes_but_make_no_storm(
    api: KubernetesStandIn, tmp_path: Path
) -> None:
    pace = replace(QUICK, retry_first_seconds=0.4, retry_longest_seconds=0.4, blind_after_seconds=5.0)
    cluster = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=pace)
    api.watches_end_at_once = True
    _, made = api.deploy()
    await cluster.target(REF, NAMESPACE)
    await until(lambda: cluster.counters.watch_failures == WATCHES)
    asked = len(api.requests)
    await asyncio.sleep(0.1)  # time for hundreds of them, were there no pause
    assert len(api.requests) == asked
    api.put(ready_pod(made, "vllm-a-6b7c8d9f4-late0"))
    await answer(look(cluster), has(3))
    await cluster.close()


async def test_a_server_that_asks_for_patience_gets_it(api: KubernetesStandIn, tmp_path: Path) -> None:
    pace = replace(QUICK, retry_longest_seconds=1.0)
    cluster = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=pace)
    await watching(api, cluster)
    api.faults.append(Fault(429, times=1, path="/pods", headers={"Retry-After": "1"}))
    api.cut_watches()
    await until(lambda: cluster.counters.errors["429"] == 1)
    asked = api.number_of("GET", "/pods")
    await asyncio.sleep(0.2)  # twenty of its own pauses
    assert api.number_of("GET", "/pods") == asked
    await until(lambda: api.open_watches == WATCHES)
    await cluster.close()


async def test_a_right_taken_away_from_a_running_watch_is_named(api: KubernetesStandIn, cluster: Cluster) -> None:
    await watching(api, cluster)
    api.denied.add("watch pods")
    api.cut_watches()
    assert (await failure(look(cluster), RefusedError)).right == "watch pods"


async def test_a_server_that_has_not_read_its_roles_yet_is_no_missing_right(
    api: KubernetesStandIn, tmp_path: Path
) -> None:
    pace = replace(QUICK, blind_after_seconds=0.0, retry_first_seconds=0.2, retry_longest_seconds=0.2)
    cluster = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=pace)
    await watching(api, cluster)
    words = 'pods is forbidden: User "us" cannot watch resource "pods" in API group ""'
    api.faults.append(Fault(403, times=WATCHES, message=words))
    api.cut_watches()
    await until(lambda: cluster.counters.errors["403"] == WATCHES)
    with pytest.raises(NotObservedError, match=r"were last seen .* lacks the right"):
        await cluster.target(REF, NAMESPACE)
    await answer(look(cluster), has(2))
    await cluster.close()


async def test_an_object_that_cannot_be_read_is_not_passed_over_in_silence(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    made = await watching(api, cluster)
    broken = ready_pod(made, "vllm-a-6b7c8d9f4-odd00")
    broken["metadata"]["creationTimestamp"] = "yesterday"
    api.put(broken)
    error = await failure(look(cluster), NotObservedError)
    assert "pods in namespace 'inference' could not be read" in str(error) or "were last seen" in str(error)
    api.remove(broken)
    await answer(look(cluster), has(2))


async def test_long_lists_come_in_pages(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.page = 2
    api.deploy(replicas=7)
    assert len((await cluster.target(REF, NAMESPACE)).pods) == 7
    assert api.number_of("GET", "/pods") >= 4


async def test_owners_are_asked_for_by_their_metadata_alone(api: KubernetesStandIn, cluster: Cluster) -> None:
    await watching(api, cluster)
    asked = {path.rsplit("/", 1)[1]: accept for path, accept in api.accepted if "namespaces" in path}
    assert "as=PartialObjectMetadata" in asked["replicasets"]
    assert "as=" not in asked["pods"] + asked["deployments"]


async def test_the_first_ready_time_outlives_a_flap_and_a_new_list(api: KubernetesStandIn, cluster: Cluster) -> None:
    made = await watching(api, cluster)

    def shown(ready: float | None = None, flapped: float | None = None) -> Object:
        started = START + 5 if ready else None
        name = "vllm-a-6b7c8d9f4-flaps"
        return pod(made, name, scheduled=START + 1, started=started, ready=ready, flapped=flapped)

    api.put(shown())
    await answer(look(cluster), has(3))
    api.put(shown(ready=START + 65))
    await answer(look(cluster), lambda seen: seen.pods[-1].stage is PodStage.READY)
    api.put(shown(ready=START + 65, flapped=START + 7_000))
    unready = await answer(look(cluster), lambda seen: seen.pods[-1].stage is PodStage.STARTING)
    assert unready.pods[-1].ready_at is None
    api.put(deployment("another"))  # the pods' own watch does not hear of it and falls behind
    api.forget_history()
    api.cut_watches()
    api.put(shown(ready=START + 9_000))
    seen = await answer(look(cluster), lambda seen: seen.pods[-1].stage is PodStage.READY)
    assert seen.pods[-1].ready_at == START + 65
    assert cluster.counters.relists > 0


async def test_closing_ends_every_watch_and_leaves_nothing_behind(api: KubernetesStandIn, tmp_path: Path) -> None:
    cluster = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=QUICK)
    await watching(api, cluster)
    await cluster.close()
    await until(lambda: api.open_watches == 0)
