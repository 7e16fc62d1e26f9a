"""Resources are watched as the API server keeps them, and told what became of them."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.autoscalers import Autoscalers, Stated, stated
from cluster.errors import RefusedError
from cluster.kubernetes import Cluster
from policies.scaling.resource import API_VERSION, KIND
from tests.stand_ins.kubernetes import Fault, Kind, KubernetesStandIn
from tests.stand_ins.waiting import until

PLURAL = "vllmautoscalers"


def serve(api: KubernetesStandIn, api_version: str = API_VERSION) -> None:
    api.kinds.append(Kind(api_version, KIND, PLURAL, has_scale=False))


def thing(name: str, namespace: str = "inference", most: int = 8) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "generation": 1}
    fields = [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]
    return {"kind": KIND, "metadata": {**metadata, "managedFields": fields}, "spec": {"maxReplicas": most}}


async def test_a_cluster_without_the_kind_is_told_what_to_apply(cluster: Cluster) -> None:
    with pytest.raises(RefusedError, match=r"not served here: apply its manifests/crds .*install its CRD"):
        await cluster.autoscalers(None).watch(lambda key, now: None)


async def test_a_cluster_with_another_version_of_it_too(api: KubernetesStandIn, cluster: Cluster) -> None:
    serve(api, "autoscaling.preheat.dev/v9")
    with pytest.raises(RefusedError, match=r"reads VLLMAutoscaler of \S+/v1alpha1, .*apply its manifests/crds .*/v9"):
        await cluster.autoscalers(None).watch(lambda key, now: None)


@pytest.mark.parametrize(("namespace", "expected"), [(None, {"a/x", "b/x"}), ("a", {"a/x"})])
async def test_new_changed_and_gone_are_heard_of_in_one_namespace_or_all(
    api: KubernetesStandIn, cluster: Cluster, namespace: str | None, expected: set[str]
) -> None:
    serve(api)
    heard: dict[str, Stated | None] = {}
    api.put(thing("x", "a"), thing("x", "b"))
    watch = await cluster.autoscalers(namespace).watch(heard.__setitem__)
    try:
        await until(lambda: set(heard) == expected)
        api.put(thing("x", "a", most=9))
        await until(lambda: (now := heard["a/x"]) is not None and now.document["spec"]["maxReplicas"] == 9)
        now = heard["a/x"]
        assert now is not None
        assert (now.generation, now.document["apiVersion"]) == (2, API_VERSION)
        assert "managedFields" not in now.document["metadata"]
        api.remove(thing("x", "a"))
        await until(lambda: heard["a/x"] is None)
    finally:
        await watch.stop()


@pytest.mark.parametrize(("status", "is_told"), [(404, False), (409, False), (403, True)])
async def test_a_status_for_an_object_that_is_gone_is_nobodys_business(
    api: KubernetesStandIn, cluster: Cluster, status: int, is_told: bool
) -> None:
    api.faults.append(Fault(status, method="PATCH", path=f"{PLURAL}/x/status"))
    autoscalers: Autoscalers = cluster.autoscalers(None)
    if is_told:
        with pytest.raises(RefusedError, match="the status of VLLMAutoscaler 'x' in namespace 'inference'"):
            await autoscalers.write_status(stated(thing("x")), {"reason": "tpot"})
    else:
        await autoscalers.write_status(stated(thing("x")), {"reason": "tpot"})
    body = api.bodies[-1]
    assert body["metadata"] == {"name": "x", "namespace": "inference", "uid": "uid-x"}
    assert body["status"] == {"reason": "tpot"}
