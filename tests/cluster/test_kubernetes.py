"""A target as the watches show it: its number, its own pods, its rollout; and who is refused by what name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cluster.errors import NotObservedError, RefusedError
from cluster.kubernetes import Cluster
from cluster.objects import TargetState
from policies.scaling.observation import PodStage
from policies.scaling.resource import ScaleTargetRef
from tests.stand_ins.kubernetes import Fault, Kind, KubernetesStandIn
from tests.stand_ins.kubernetes_objects import (
    NAMESPACE,
    START,
    Object,
    custom,
    deployment,
    pod,
    ready_pod,
    replica_set,
    stateful_set,
)
from tests.stand_ins.waiting import answer, failure, until

DEPLOYMENT = ScaleTargetRef(name="vllm-a")
STATEFUL_SET = ScaleTargetRef(kind="StatefulSet", name="vllm-s")
SERVER = ScaleTargetRef(api_version="example.dev/v1", kind="ModelServer", name="ms")
LEADERS = ScaleTargetRef(api_version="leaderworkerset.x-k8s.io/v1", kind="LeaderWorkerSet", name="lws")


def names(seen: TargetState) -> list[str]:
    return [p.name for p in seen.pods]


def look(cluster: Cluster, ref: ScaleTargetRef) -> Callable[[], Awaitable[TargetState]]:
    return lambda: cluster.target(ref, NAMESPACE)


async def test_a_deployment_is_seen_with_its_pods(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.deploy()
    seen = await cluster.target(DEPLOYMENT, NAMESPACE)
    assert (seen.desired, seen.selector) == (2, "app=vllm-a")
    assert names(seen) == ["vllm-a-6b7c8d9f4-b0000", "vllm-a-6b7c8d9f4-b0001"]
    assert {p.stage for p in seen.pods} == {PodStage.READY}
    assert seen.pods[0].ready_at == START + 60
    assert seen.pod_ips["vllm-a-6b7c8d9f4-b0001"] == "10.0.0.1"
    assert (seen.template, seen.rolling, seen.strangers) == ("6b7c8d9f4", False, 0)


async def test_a_tick_costs_no_requests(api: KubernetesStandIn, cluster: Cluster) -> None:
    refs = [ScaleTargetRef(name=f"vllm-{number}") for number in range(20)]
    for ref in refs:
        api.deploy(ref.name)
    await cluster.target(refs[0], NAMESPACE)
    await until(lambda: api.open_watches == 3)
    before = len(api.requests)
    for ref in refs:
        assert len((await cluster.target(ref, NAMESPACE)).pods) == 2
    assert len(api.requests) == before


async def test_changes_arrive_by_the_watch(api: KubernetesStandIn, cluster: Cluster) -> None:
    target, made = api.deploy()
    await cluster.target(DEPLOYMENT, NAMESPACE)
    api.put(pod(made, "vllm-a-6b7c8d9f4-new00", created=START + 99, unschedulable="Unschedulable"))
    seen = await answer(look(cluster, DEPLOYMENT), lambda seen: len(seen.pods) == 3)
    assert seen.pods[2].stage is PodStage.UNSCHEDULABLE
    target["spec"]["replicas"] = 7
    api.put(target)
    await answer(look(cluster, DEPLOYMENT), lambda seen: seen.desired == 7)


async def test_a_pod_that_is_selected_but_owned_by_another_is_a_stranger(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    api.deploy(replicas=1)
    neighbour = deployment("neighbour")
    theirs = replica_set(neighbour)
    theirs["metadata"]["labels"]["app"] = "vllm-a"
    job = custom("Job", "load-test", api_version="batch/v1")
    job["metadata"]["labels"]["app"] = "vllm-a"
    api.put(neighbour, theirs, ready_pod(theirs, "neighbour-6b7c8d9f4-bbbbb"), ready_pod(job, "load-test-bbbbb"))
    seen = await cluster.target(DEPLOYMENT, NAMESPACE)
    assert names(seen) == ["vllm-a-6b7c8d9f4-b0000"]
    assert seen.strangers == 2


async def test_a_pod_ahead_of_its_replica_set_is_waited_for(api: KubernetesStandIn, cluster: Cluster) -> None:
    _, made = api.deploy(replicas=1)
    api.remove(made)
    looking = asyncio.create_task(cluster.target(DEPLOYMENT, NAMESPACE))
    await until(lambda: api.open_watches == 3)
    api.put(made)
    seen = await looking
    assert (len(seen.pods), seen.strangers) == (1, 0)


async def test_a_pod_whose_owner_never_appears_is_waited_for_once(api: KubernetesStandIn, cluster: Cluster) -> None:
    _, made = api.deploy(replicas=1)
    api.remove(made)
    assert (await cluster.target(DEPLOYMENT, NAMESPACE)).strangers == 1
    again = cluster.target(DEPLOYMENT, NAMESPACE)
    with pytest.raises(StopIteration) as returned:
        again.send(None)  # it returns without ever waiting
    assert returned.value.value.strangers == 1


async def test_ended_pods_are_no_supply(api: KubernetesStandIn, cluster: Cluster) -> None:
    _, made = api.deploy(replicas=1)
    api.put(pod(made, "vllm-a-6b7c8d9f4-bbbbb", scheduled=START, phase="Failed"))
    assert names(await cluster.target(DEPLOYMENT, NAMESPACE)) == ["vllm-a-6b7c8d9f4-b0000"]


async def test_a_new_template_is_a_rollout_until_the_old_pods_are_gone(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    target, old = api.deploy(replicas=1)
    new = replica_set(target, template="newtmpl", revision=10)
    api.put(new, ready_pod(new, "vllm-a-newtmpl-bbbbb"))
    seen = await cluster.target(DEPLOYMENT, NAMESPACE)
    assert (seen.template, seen.rolling) == ("newtmpl", True)
    assert {p.template for p in seen.pods} == {"6b7c8d9f4", "newtmpl"}
    api.remove(ready_pod(old, "vllm-a-6b7c8d9f4-b0000"))
    seen = await answer(look(cluster, DEPLOYMENT), lambda seen: len(seen.pods) == 1)
    assert not seen.rolling


async def test_a_stateful_set_owns_its_pods_directly(api: KubernetesStandIn, cluster: Cluster) -> None:
    target = stateful_set()
    label = {"controller-revision-hash": "vllm-s-1"}
    api.put(target, ready_pod(target, "vllm-s-0", labels=label), ready_pod(target, "vllm-s-1", labels=label))
    seen = await cluster.target(STATEFUL_SET, NAMESPACE)
    assert (names(seen), seen.template, seen.rolling) == (["vllm-s-0", "vllm-s-1"], "vllm-s-1", False)
    assert api.number_of("GET", "replicasets") == 0


async def test_of_a_leader_worker_set_only_the_leaders_count(api: KubernetesStandIn, cluster: Cluster) -> None:
    target = custom("LeaderWorkerSet", "lws", api_version="leaderworkerset.x-k8s.io/v1", selector="group=lws")
    leaders = stateful_set("lws", owner=target, updateRevision="lws-2")
    leaders["metadata"]["labels"]["group"] = "lws"
    api.put(target, leaders)
    for group in range(2):
        index = "leaderworkerset.sigs.k8s.io/worker-index"
        leader = ready_pod(leaders, f"lws-{group}", labels={index: "0", "controller-revision-hash": "lws-2"})
        workers = stateful_set(f"lws-{group}", owner=leader)
        workers["metadata"]["labels"]["group"] = "lws"
        api.put(leader, workers, ready_pod(workers, f"lws-{group}-1", labels={index: "1"}))
    seen = await cluster.target(LEADERS, NAMESPACE)
    assert (seen.desired, names(seen), seen.strangers) == (2, ["lws-0", "lws-1"], 0)
    assert (seen.template, seen.rolling, seen.pod_name_pattern) == ("lws-2", True, "lws-[0-9]+")


async def test_a_custom_kind_is_followed_through_what_it_makes(api: KubernetesStandIn, cluster: Cluster) -> None:
    target = custom("ModelServer", "ms", selector="app=inner")
    inner = deployment("inner", owner=target)
    made = replica_set(inner)
    api.put(target, inner, made, ready_pod(made, "inner-6b7c8d9f4-bbbbb"))
    seen = await cluster.target(SERVER, NAMESPACE)
    assert (names(seen), seen.template) == (["inner-6b7c8d9f4-bbbbb"], "6b7c8d9f4")
    assert seen.pod_name_pattern.startswith("inner-")


async def test_a_node_that_controls_a_selected_pod_makes_it_a_stranger(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    target = custom("ModelServer", "ms", selector="app=static")
    node = custom("Node", "node-1", api_version="v1")
    node["metadata"]["labels"]["app"] = "static"
    api.put(target, ready_pod(node, "static-node-1"))
    assert (await cluster.target(SERVER, NAMESPACE)).strangers == 1


async def test_the_scale_of_a_custom_kind_is_read_once_for_each_change(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    target = custom("ModelServer", "ms", selector="app=ms")
    api.put(target, ready_pod(target, "ms-x", labels={"app": "ms"}))
    for _ in range(5):
        assert (await cluster.target(SERVER, NAMESPACE)).desired == 2
    assert api.number_of("GET", "/scale") == 1
    target["spec"]["replicas"] = 3
    api.put(target)
    await answer(look(cluster, SERVER), lambda seen: seen.desired == 3)
    assert api.number_of("GET", "/scale") == 2


async def test_a_custom_kind_with_pods_of_two_templates_is_rolling(api: KubernetesStandIn, cluster: Cluster) -> None:
    target = custom("ModelServer", "ms", selector="app=ms")
    for number, template in enumerate(("old", "new")):
        labels = {"app": "ms", "pod-template-hash": template}
        api.put(ready_pod(target, f"ms-{number}", at=START + number, labels=labels))
    api.put(target)
    seen = await cluster.target(SERVER, NAMESPACE)
    assert (seen.template, seen.rolling, seen.pod_name_pattern) == ("new", True, "")


@pytest.mark.parametrize(
    ("ref", "sentence"),
    [
        (
            ScaleTargetRef(kind="Deploymant", name="vllm-a"),
            "apps/v1 has no kind 'Deploymant': did you mean 'Deployment'?",
        ),
        (
            ScaleTargetRef(kind="DaemonSet", name="vllm-a"),
            "kind 'DaemonSet' of apps/v1 has no scale subresource: name a Deployment, a StatefulSet, "
            "a LeaderWorkerSet or another kind that has one",
        ),
        (
            ScaleTargetRef(api_version="v1", kind="Node", name="n"),
            "kind 'Node' of v1 lives in no namespace: name a Deployment, a StatefulSet, "
            "a LeaderWorkerSet or another kind that has one",
        ),
        (
            ScaleTargetRef(api_version="apps/v2", name="vllm-a"),
            "the cluster does not serve apps/v2: write apiVersion apps/v1",
        ),
        (
            ScaleTargetRef(api_version="leaderworkerset.k8s.io/v1", kind="LeaderWorkerSet", name="a"),
            "the cluster does not serve leaderworkerset.k8s.io/v1, so there is no 'LeaderWorkerSet': "
            "did you mean the group 'leaderworkerset.x-k8s.io'?",
        ),
        (
            ScaleTargetRef(api_version="nothing.like/v1", kind="It", name="a"),
            "the cluster does not serve nothing.like/v1, so there is no 'It': install its CRD, or correct apiVersion",
        ),
        (
            ScaleTargetRef(name="vlm-a"),
            "Deployment 'vlm-a' in namespace 'inference' does not exist: did you mean 'vllm-a'?",
        ),
        (
            ScaleTargetRef(name="quite-another"),
            "Deployment 'quite-another' in namespace 'inference' does not exist: create it, "
            "or correct spec.scaleTargetRef",
        ),
    ],
)
async def test_a_target_that_cannot_be_is_refused_by_name(
    api: KubernetesStandIn, cluster: Cluster, ref: ScaleTargetRef, sentence: str
) -> None:
    api.deploy()
    with pytest.raises(RefusedError) as refusal:
        await cluster.target(ref, NAMESPACE)
    assert str(refusal.value) == sentence


async def test_an_unknown_kind_is_asked_for_again_after_a_while(api: KubernetesStandIn, cluster: Cluster) -> None:
    ref = ScaleTargetRef(api_version="late.dev/v1", kind="LateComer", name="late")
    for _ in range(5):
        with pytest.raises(RefusedError):
            await cluster.target(ref, NAMESPACE)
    assert api.number_of("GET", "/apis/late.dev/v1") == 1
    api.kinds.append(Kind("late.dev/v1", "LateComer", "latecomers"))
    api.put(custom("LateComer", "late", api_version="late.dev/v1", selector="app=late"))
    assert (await answer(look(cluster, ref))).desired == 2


async def test_a_target_that_vanishes_is_refused_and_one_that_returns_is_seen(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    target, _ = api.deploy()
    await cluster.target(DEPLOYMENT, NAMESPACE)
    api.remove(target)
    assert "does not exist" in str(await failure(look(cluster, DEPLOYMENT), RefusedError))
    api.put(target)
    await answer(look(cluster, DEPLOYMENT))


async def test_a_target_on_its_way_out_is_refused(api: KubernetesStandIn, cluster: Cluster) -> None:
    target = deployment()
    target["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    api.put(target)
    with pytest.raises(RefusedError, match="is being deleted"):
        await cluster.target(DEPLOYMENT, NAMESPACE)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (custom("ModelServer", "ms"), "has no status.selector in its scale"),
        (custom("ModelServer", "ms", selector="a=b=c"), "'a=b=c' is not a label selector"),
        (custom("ModelServer", "ms", replicas=None, selector="a=b"), "does not say how many replicas it has"),
    ],
)
async def test_a_scale_that_says_too_little_is_refused(
    api: KubernetesStandIn, cluster: Cluster, target: Object, sentence: str
) -> None:
    api.put(target)
    with pytest.raises(RefusedError, match=sentence):
        await cluster.target(SERVER, NAMESPACE)


async def test_zero_replicas_are_seen_as_zero(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.put(custom("ModelServer", "ms", replicas=0, selector="app=ms"), deployment(replicas=0))
    assert (await cluster.target(SERVER, NAMESPACE)).desired == 0
    assert (await cluster.target(DEPLOYMENT, NAMESPACE)).desired == 0


@pytest.mark.parametrize(
    ("right", "ref"),
    [
        ("list pods", DEPLOYMENT),
        ("watch pods", DEPLOYMENT),
        ("list deployments", DEPLOYMENT),
        ("list replicasets", DEPLOYMENT),
        ("watch statefulsets", STATEFUL_SET),
        ("get modelservers/scale", SERVER),
    ],
)
async def test_a_missing_right_is_named_and_its_return_is_enough(
    api: KubernetesStandIn, cluster: Cluster, right: str, ref: ScaleTargetRef
) -> None:
    api.deploy()
    api.put(stateful_set(), custom("ModelServer", "ms", selector="app=ms"))
    api.denied.add(right)
    refusal = await failure(look(cluster, ref), RefusedError)
    assert refusal.right == right
    assert f'user "us" lacks the right "{right}"' in str(refusal)
    api.denied.clear()
    await answer(look(cluster, ref))


async def test_a_scale_that_cannot_be_read_for_now_is_not_observed(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.put(custom("ModelServer", "ms", selector="app=ms"))
    api.faults.append(Fault(503, path="/scale"))
    with pytest.raises(NotObservedError, match="HTTP 503"):
        await cluster.target(SERVER, NAMESPACE)
    assert (await cluster.target(SERVER, NAMESPACE)).desired == 2
