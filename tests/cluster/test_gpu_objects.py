"""Nodes and pods are cut down to what placement reads, and what Kubernetes would not write is named."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.gpu_objects import (
    TOUCHED,
    UnreadableObjectError,
    identity,
    place_of,
    seen_node,
    seen_pod,
)
from policies.placement.models import shipped_models
from policies.placement.reading import read_demand

GPU = "nvidia.com/gpu"


def container(gpus: object = None, **more: Any) -> dict[str, Any]:
    return {"name": "c", **({"resources": {"limits": {GPU: gpus}}} if gpus is not None else {}), **more}


def pod(*containers: Any, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": list(containers), **spec}, "status": {}}


def held(**spec: Any) -> dict[str, int]:
    containers = spec.pop("containers", [])
    place = place_of(pod(*containers, nodeName="here", **spec))
    assert place is not None
    return dict(place.gpus)


def test_of_a_node_only_what_is_read_is_kept() -> None:
    seen = seen_node(
        {
            "metadata": {
                "labels": {"nvidia.com/gpu.product": "X", "app": "y", "nvidia.com/mig-1g.5gb.count": "7"},
                "annotations": {"preheat.dev/links": "none", "other.example/x": "y" * 10_000},
            },
            "spec": {"unschedulable": True},
            "status": {
                "allocatable": {GPU: "8", "cpu": "64", "nvidia.com/mig-1g.5gb": "7", "nvidia.com/gpumem": "99"},
                "conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
            },
        }
    )
    assert seen.labels == {"nvidia.com/gpu.product": "X", "nvidia.com/mig-1g.5gb.count": "7"}
    assert seen.annotations == {"preheat.dev/links": "none"}
    assert seen.allocatable == {GPU: 8, "nvidia.com/mig-1g.5gb": 7}
    assert seen.cordoned


@pytest.mark.parametrize(
    ("quantity", "count"),
    [
        ("8", 8),
        (8, 8),
        ("1k", 1000),
        ("2Ki", 2048),
        ("1e3", 1000),
        ("1T", 10**12),
        ("1Ti", 2**40),
        ("-3", -3),
        ("0", 0),
    ],
)
def test_quantities_of_devices_are_whole_numbers(quantity: object, count: int) -> None:
    assert held(containers=[container(quantity)]) == {GPU: count}


def test_a_pod_holds_what_runs_together_or_the_largest_step_of_its_start() -> None:
    sidecar = container("1", restartPolicy="Always")
    assert held(containers=[container("2"), container("3")]) == {GPU: 5}
    assert held(containers=[container("2")], initContainers=[container("8")]) == {GPU: 8}
    assert held(containers=[container("2")], initContainers=[sidecar, container("4")]) == {GPU: 5}
    assert held(containers=[container("4")], initContainers=[sidecar, container("1")]) == {GPU: 5}
    assert held(containers=[container()]) == {}


def test_a_pod_asks_for_what_it_will_hold() -> None:
    """A sidecar that starts after an init container does not run beside it."""
    sidecar = container("1", restartPolicy="Always")
    for start, gpus in (([container("2"), sidecar], 2), ([sidecar, container("2")], 3), ([sidecar], 2)):
        asked = pod(container("1"), initContainers=start)
        assert read_demand(seen_pod(asked), shipped_models()).gpus == gpus
        assert held(containers=[container("1")], initContainers=start) == {GPU: gpus}


def test_a_pod_holds_from_its_binding_to_its_end() -> None:
    asked = pod(container("2"))
    place = place_of(asked)
    assert place is not None
    assert place.node == ""
    assert place.waiting is not None
    assert not place.waiting.unschedulable
    for phase in ("Succeeded", "Failed"):
        assert place_of({**asked, "status": {"phase": phase}}) is None


def test_a_pod_waits_unless_it_is_bound_or_gated() -> None:
    rejected = {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}
    asked = {**pod(container("2"), schedulerName="preheat"), "status": rejected}
    asked["metadata"]["annotations"] = {TOUCHED: "2026-01-01T00:00:00Z"}
    waiting = getattr(place_of(asked), "waiting", None)
    assert waiting is not None
    assert (waiting.scheduler, waiting.unschedulable, waiting.touched) == ("preheat", True, "2026-01-01T00:00:00Z")
    gated = place_of(pod(container("2"), schedulingGates=[{"name": "queue"}]))
    assert gated is not None
    assert gated.waiting is None


def test_the_words_of_every_container_are_kept() -> None:
    asked = pod(
        container("1", args=["--model", "m"], env=[{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"x": {}}}]),
        initContainers=[container(restartPolicy="Always"), container()],
        tolerations=[{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}],
    )
    seen = seen_pod(asked)
    assert seen.containers[0].args == ("--model", "m")
    assert seen.containers[0].env == {"A": "1", "B": None}
    assert [first.is_sidecar for first in seen.init_containers] == [True, False]
    assert seen.tolerates_cordon


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        ({}, "spec is missing"),
        ({"spec": 3}, "spec must be an object"),
        (pod(3), r"spec.containers must be a list of objects"),
        (pod(container("many")), r"limits\[nvidia.com/gpu\] is 'many': it must be a whole number of devices"),
        (pod(container(True)), "must be a whole number"),
        (pod(container(1.5)), "must be a whole number"),
        (pod(container(args="--model")), r"spec.containers\[0\].args must be a list of texts"),
        (pod(container(env=[{"name": 3}])), "must be a text"),
        ({**pod(), "metadata": {"labels": {"a": 1}}}, "metadata.labels must hold texts"),
    ],
)
def test_what_kubernetes_would_not_write_is_named(thing: Any, said: str) -> None:
    with pytest.raises(UnreadableObjectError, match=said):
        seen_pod(thing)


def test_an_object_without_a_name_is_nobody() -> None:
    assert identity({"metadata": {"name": "a", "namespace": "b"}}).key == "b/a"
    with pytest.raises(UnreadableObjectError, match=r"metadata\.name is missing"):
        identity({})
