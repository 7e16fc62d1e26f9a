"""The write: it lands, it is void, it is refused or it is tried again; and each is told apart."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import NotObservedError, OvertakenError, RefusedError
from cluster.kubernetes import Cluster
from policies.scaling.resource import ScaleTargetRef
from tests.stand_ins.kubernetes import QUICK, Fault, KubernetesStandIn
from tests.stand_ins.kubernetes_objects import NAMESPACE, custom, deployment, stateful_set
from tests.stand_ins.waiting import answer

REF = ScaleTargetRef(name="vllm-a")


async def test_a_scale_lands_by_a_patch_that_tests_before_it_replaces(api: KubernetesStandIn, cluster: Cluster) -> None:
    target, _ = api.deploy()
    assert await cluster.scale(REF, NAMESPACE, expected=2, replicas=5) == 5
    assert api.replicas(target) == 5
    assert api.bodies[-1] == [
        {"op": "test", "path": "/spec/replicas", "value": 2},
        {"op": "replace", "path": "/spec/replicas", "value": 5},
    ]


@pytest.mark.parametrize(
    ("ref", "target"),
    [
        (ScaleTargetRef(kind="StatefulSet", name="vllm-s"), stateful_set()),
        (ScaleTargetRef(api_version="example.dev/v1", kind="ModelServer", name="ms"), custom("ModelServer", "ms")),
    ],
)
async def test_anything_with_a_scale_can_be_scaled(
    api: KubernetesStandIn, cluster: Cluster, ref: ScaleTargetRef, target: dict[str, object]
) -> None:
    api.put(target)
    assert await cluster.scale(ref, NAMESPACE, expected=2, replicas=3) == 3
    assert api.replicas(target) == 3


async def test_zero_replicas_can_be_left_though_the_server_does_not_write_them(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    target = deployment(replicas=0)
    api.put(target)
    await cluster.scale(REF, NAMESPACE, expected=0, replicas=1)
    assert api.replicas(target) == 1
    await cluster.scale(REF, NAMESPACE, expected=1, replicas=0)
    assert api.replicas(target) == 0


async def test_churn_of_the_status_does_not_disturb_a_write(api: KubernetesStandIn, cluster: Cluster) -> None:
    target, _ = api.deploy()
    await cluster.target(REF, NAMESPACE)
    for ready in range(5):
        target["status"]["readyReplicas"] = ready
        api.put(target)
    assert await cluster.scale(REF, NAMESPACE, expected=2, replicas=3) == 3


async def test_a_change_by_hand_makes_the_write_void(api: KubernetesStandIn, cluster: Cluster) -> None:
    target, _ = api.deploy()
    await cluster.target(REF, NAMESPACE)
    target["spec"]["replicas"] = 6
    api.put(target)
    with pytest.raises(OvertakenError, match="was set to 6 by somebody else, not the 2 the decision was made from"):
        await cluster.scale(REF, NAMESPACE, expected=2, replicas=3)
    assert api.replicas(target) == 6
    await answer(lambda: cluster.target(REF, NAMESPACE), lambda seen: seen.desired == 6)


async def test_the_next_look_knows_what_was_just_written(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.deploy()
    await cluster.target(REF, NAMESPACE)
    api.silent = True  # the watch has not heard of it
    await cluster.scale(REF, NAMESPACE, expected=2, replicas=3)
    assert (await cluster.target(REF, NAMESPACE)).desired == 3


async def test_what_is_written_by_hand_later_wins_over_what_we_wrote(api: KubernetesStandIn, cluster: Cluster) -> None:
    target, _ = api.deploy()
    await cluster.target(REF, NAMESPACE)
    await cluster.scale(REF, NAMESPACE, expected=2, replicas=3)
    target["spec"]["replicas"] = 9
    api.put(target)
    await answer(lambda: cluster.target(REF, NAMESPACE), lambda seen: seen.desired == 9)


@pytest.mark.parametrize("status", [409, 429, 500, 502, 503, 504])
async def test_a_passing_failure_is_tried_again(api: KubernetesStandIn, cluster: Cluster, status: int) -> None:
    target, _ = api.deploy()
    api.faults.append(Fault(status, times=2, method="PATCH"))
    assert await cluster.scale(REF, NAMESPACE, expected=2, replicas=3) == 3
    assert api.number_of("PATCH") == 3
    assert api.replicas(target) == 3
    assert cluster.counters.errors[str(status)] == 2


@pytest.mark.parametrize("status", [409, 429, 503])
async def test_a_failure_that_stays_is_given_up_within_the_bound(
    api: KubernetesStandIn, cluster: Cluster, status: int
) -> None:
    target, _ = api.deploy()
    api.faults.append(Fault(status, times=100, method="PATCH"))
    with pytest.raises(NotObservedError, match=rf"could not be scaled to 3 in 4 attempts: .*HTTP {status}"):
        await cluster.scale(REF, NAMESPACE, expected=2, replicas=3)
    assert api.number_of("PATCH") == 4
    assert api.replicas(target) == 2


async def test_a_server_that_wants_more_patience_than_a_write_has_is_left_alone(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    api.deploy()
    api.faults.append(Fault(429, method="PATCH", headers={"Retry-After": "30"}))
    with pytest.raises(NotObservedError, match="in 1 attempt: "):
        await cluster.scale(REF, NAMESPACE, expected=2, replicas=3)
    assert api.number_of("PATCH") == 1


async def test_retry_after_is_waited_for(api: KubernetesStandIn, tmp_path: Path) -> None:
    pace = replace(QUICK, write_seconds=4.0)
    cluster = await Cluster.connect(api.kubeconfig(tmp_path / "kubeconfig"), pace=pace)
    api.deploy()
    api.faults.append(Fault(429, method="PATCH", headers={"Retry-After": "1"}))
    began = asyncio.get_running_loop().time()
    await cluster.scale(REF, NAMESPACE, expected=2, replicas=3)
    assert asyncio.get_running_loop().time() - began >= 1.0
    await cluster.close()


async def test_a_write_whose_answer_was_lost_is_not_taken_for_somebody_elses(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    target, _ = api.deploy()
    api.faults.append(Fault(504, method="PATCH", after_effect=True))
    assert await cluster.scale(REF, NAMESPACE, expected=2, replicas=3) == 3
    api.drop_answers = 1
    assert await cluster.scale(REF, NAMESPACE, expected=3, replicas=4) == 4
    assert api.replicas(target) == 4
    assert api.number_of("PATCH") == 4


async def test_a_server_that_is_down_does_not_take_the_write(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.deploy()
    await cluster.target(REF, NAMESPACE)
    await api.stop()
    with pytest.raises(NotObservedError, match="could not be asked"):
        await cluster.scale(REF, NAMESPACE, expected=2, replicas=3)


async def test_a_right_that_is_missing_is_named(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.deploy()
    api.denied.add("patch deployments/scale")
    with pytest.raises(RefusedError) as refusal:
        await cluster.scale(REF, NAMESPACE, expected=2, replicas=3)
    assert refusal.value.right == "patch deployments/scale"
    assert api.number_of("PATCH") == 1


async def test_a_webhook_that_denies_is_quoted_and_no_right_is_blamed(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.deploy()
    api.faults.append(Fault(403, method="PATCH", message='admission webhook "quota" denied the request: no GPUs'))
    with pytest.raises(RefusedError, match="no GPUs") as refusal:
        await cluster.scale(REF, NAMESPACE, expected=2, replicas=3)
    assert refusal.value.right == ""


async def test_credentials_that_are_not_accepted_are_told(api: KubernetesStandIn, cluster: Cluster) -> None:
    api.deploy()
    api.faults.append(Fault(401, method="PATCH"))
    with pytest.raises(RefusedError, match="does not accept these credentials"):
        await cluster.scale(REF, NAMESPACE, expected=2, replicas=3)


async def test_a_number_that_the_schema_forbids_is_refused_with_its_reason(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    target = custom("ModelServer", "ms")
    target["spec"]["maximum"] = 4
    api.put(target)
    ref = ScaleTargetRef(api_version="example.dev/v1", kind="ModelServer", name="ms")
    with pytest.raises(RefusedError, match=r"refuses 5 replicas: .*must be at most 4"):
        await cluster.scale(ref, NAMESPACE, expected=2, replicas=5)


async def test_a_target_that_is_gone_is_refused(api: KubernetesStandIn, cluster: Cluster) -> None:
    with pytest.raises(RefusedError, match="does not exist"):
        await cluster.scale(REF, NAMESPACE, expected=2, replicas=3)


async def test_a_custom_resource_without_replicas_is_refused_with_the_remedy(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    api.put(custom("ModelServer", "ms", replicas=None))
    ref = ScaleTargetRef(api_version="example.dev/v1", kind="ModelServer", name="ms")
    with pytest.raises(RefusedError, match="set its replicas once by hand"):
        await cluster.scale(ref, NAMESPACE, expected=0, replicas=1)


async def test_a_void_write_that_cannot_be_explained_is_overtaken_all_the_same(
    api: KubernetesStandIn, cluster: Cluster
) -> None:
    target, _ = api.deploy()
    target["spec"]["replicas"] = 6
    api.put(target)
    api.faults.append(Fault(503, times=9, method="GET", path="/scale"))
    with pytest.raises(OvertakenError, match="no longer asks for 2 replicas"):
        await cluster.scale(REF, NAMESPACE, expected=2, replicas=3)
