"""What a pod asks of nodes is read once for all pods that say the same, and a template says it too."""

from __future__ import annotations

from typing import Any

from cluster.asks import OUTRANKS_NOBODY, Ask, ask_of
from cluster.kubernetes import Cluster
from cluster.objects import workload_of
from policies.scaling.resource import ScaleTargetRef
from tests.cluster.test_gpu_nodes import holder
from tests.stand_ins.kubernetes import KubernetesStandIn
from tests.stand_ins.kubernetes_objects import NAMESPACE, deployment
from tests.stand_ins.waiting import answer

SIZE = "leaderworkerset.sigs.k8s.io/size"


def asked(gpus: int = 2, annotations: dict[str, str] | None = None, **spec: Any) -> Ask:
    pod = holder("a", "somewhere", gpus, **spec)
    pod["metadata"]["annotations"] = annotations or {}
    found = ask_of(pod)
    assert found is not None
    return found


def test_pods_that_say_the_same_share_one_answer() -> None:
    assert ask_of(holder("a", "one", 2)) is ask_of(holder("b", "two", 2))
    assert asked(2) is not asked(3)
    assert asked(annotations={"kubernetes.io/whatever": "1"}) is asked(annotations={"kubernetes.io/whatever": "2"})


def test_of_pods_that_the_extender_does_not_place_only_gpus_are_asked() -> None:
    args = {"image": "vllm/vllm-openai:v0.11.0", "args": ["--model", "m", "--tensor-parallel-size", "2"]}
    pod = holder("a", "", 2)
    pod["spec"]["containers"][0] |= args
    plain = ask_of(pod)
    pod["spec"]["schedulerName"] = "preheat"
    placed = ask_of(pod)
    assert plain is not None
    assert placed is not None
    assert (plain.demand.gpus, plain.demand.tensor_parallel) == (2, 1)
    assert (placed.demand.gpus, placed.demand.tensor_parallel) == (2, 2)
    assert asked(annotations={"preheat.dev/nvlink": "require"}).demand.nvlink is not None


def test_whom_it_outranks_and_how_many_make_a_replica() -> None:
    assert asked().outranks == 0
    assert asked(priority=1_000).outranks == 1_000
    assert asked(priority=1_000, preemptionPolicy="Never").outranks == OUTRANKS_NOBODY
    assert asked().pods == 1
    assert asked(annotations={SIZE: "4"}).pods == 4
    assert asked(annotations={SIZE: "many"}).pods == 1


def test_a_pod_that_cannot_be_read_asks_nobody_knows_what() -> None:
    broken = holder("a", "")
    broken["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "1.5"
    assert ask_of(broken) is None
    none = ask_of({"metadata": {}, "spec": {"containers": [{"name": "a"}]}})
    assert none is not None
    assert none.demand.gpus == 0


async def test_a_target_without_a_pod_still_says_what_a_replica_takes(api: KubernetesStandIn, cluster: Cluster) -> None:
    target = deployment("vllm-a", 0)
    assert workload_of("Deployment", target).gpus is None
    target["spec"]["template"] = {"spec": holder("a", "", 4)["spec"]}
    api.put(target)
    state = await answer(lambda: cluster.target(ScaleTargetRef(name="vllm-a"), NAMESPACE))
    assert (state.gpus, state.ask) == (4, None)
