"""Pods and nodes as tests write them."""

from __future__ import annotations

from collections.abc import Mapping

from policies.placement.demand import GPU_RESOURCE, Container, PodDemand, SeenPod
from policies.placement.models import shipped_models
from policies.placement.nodes import read_node
from policies.placement.products import shipped_products
from policies.placement.reading import read_demand
from policies.placement.supply import NodeFacts, SeenNode

IMAGE = "vllm/vllm-openai:v0.11.0"

H100, A100_PCIE, L4, V100 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-80GB-PCIe", "NVIDIA-L4", "Tesla-V100-SXM2-32GB"
MEMORY_MIB = {H100: 81559, A100_PCIE: 81920, L4: 23034, V100: 32768, "NVIDIA-H100-NVL": 95830, "NVIDIA-H200": 143771}


def container(*args: str, gpus: int = 1, image: str = IMAGE, name: str = "vllm", **more: object) -> Container:
    return Container(name=name, image=image, args=args, gpus={GPU_RESOURCE: gpus}, **more)  # type: ignore[arg-type]


def pod(*args: str, gpus: int = 1, annotations: Mapping[str, str] | None = None, **more: object) -> SeenPod:
    return SeenPod(containers=(container(*args, gpus=gpus, **more),), annotations=annotations or {})  # type: ignore[arg-type]


def demand(*args: str, gpus: int = 1, annotations: Mapping[str, str] | None = None, **more: object) -> PodDemand:
    return read_demand(pod(*args, gpus=gpus, annotations=annotations, **more), shipped_models())


def seen_node(
    product: str = H100,
    gpus: int = 8,
    held: int = 0,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **more: object,
) -> SeenNode:
    told = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.count": str(gpus)}
    if product in MEMORY_MIB:
        told["nvidia.com/gpu.memory"] = str(MEMORY_MIB[product])
    return SeenNode(
        labels={**told, **(labels or {})},
        annotations=annotations or {},
        allocatable={GPU_RESOURCE: gpus},
        held={GPU_RESOURCE: held},
        **more,  # type: ignore[arg-type]
    )


def node(product: str = H100, gpus: int = 8, held: int = 0, **more: object) -> NodeFacts:
    return read_node(seen_node(product, gpus, held, **more), shipped_products())  # type: ignore[arg-type]
