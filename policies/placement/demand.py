"""What a pod asks of a node: how many GPUs, how they must be linked, and what model must fit into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from policies.gpu_memory import ModelShape

GPU_RESOURCE: Final = "nvidia.com/gpu"
MIG_PREFIX: Final = "nvidia.com/mig-"
"""Of the resources of slices that have memory of their own."""


class NvLink(StrEnum):
    """What is done with tensor parallelism on GPUs that are known not to be linked."""

    REQUIRE = "require"
    PREFER = "prefer"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a pod, as far as anybody reads it."""

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str | None] = field(default_factory=dict)
    """None: it is set, from where a scheduler does not see (a Secret, a ConfigMap, the pod's own status)."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Text of mounted files that are seen (a ConfigMap's), by path in the container."""
    gpus: Mapping[str, int] = field(default_factory=dict)
    """By resource (`nvidia.com/gpu`, `nvidia.com/mig-3g.20gb`, …): the request, which equals the limit."""
    is_sidecar: bool = False
    """An init container with `restartPolicy: Always`: it runs beside all that start after it."""


@dataclass(frozen=True, slots=True)
class SeenPod:
    """A pod, cut down to what `read_demand` reads."""

    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] = ()
    """In the order of their start."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    tolerates_cordon: bool = False
    """It tolerates `node.kubernetes.io/unschedulable`, as a DaemonSet's pod does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodDemand:
    """What a pod asks. Two that ask the same are equal, wherever it was read; unknown is None."""

    gpus: int
    """Devices that kube-scheduler will count; 0: the pod passes everywhere."""
    resource: str = GPU_RESOURCE
    """Which devices; a slice has a resource of its own."""
    model: str = ""
    """"" where no vLLM was found in the pod."""
    shape: ModelShape | None = None
    """None: not a model that the table knows."""
    weights_bytes: int | None = None
    """On all ranks together, drafts and adapters not counted. None: unknown."""
    tensor_parallel: int | None = 1
    pipeline_parallel: int | None = 1
    data_parallel_local: int | None = 1
    """Engines in this pod's group, each with GPUs of its own: vLLM's data parallel size, where it is of this group."""
    data_parallel: int | None = 1
    """Engines in all, which share a mixture's routed experts."""
    prefill_context_parallel: int | None = 1
    pods_in_group: int | None = 1
    """Pods that share the parallel sizes; None: one of several, nobody said of how many."""
    max_model_len: int | None = None
    """In tokens, the model's full context where none is given; None: unknown, or `auto`."""
    max_model_len_auto: bool = False
    """vLLM takes what fits: the weights and one block must."""
    max_num_batched_tokens: int | None = None
    gpu_memory_utilization: float | None = 0.9
    kv_cache_memory_bytes: int | None = None
    """Set: the cache is this large, whatever the utilisation."""
    kv_element_bytes: float | None = 2.0
    """Of a number in the cache."""
    cpu_offload_bytes: int | None = 0
    """Of weights a GPU, kept in the host's memory."""
    extra_bytes_per_gpu: int = 0
    """Beyond weights, cache and overheads: adapters, a draft model."""
    enforce_eager: bool = False
    decode_context_parallel: int | None = 1
    """Ranks of a tensor-parallel group that share one sequence's cache."""
    memory_bytes_per_gpu: int | None = None
    """As an annotation states it; wins over all arithmetic."""
    nvlink: NvLink | None = None
    """As an annotation states it; None: as the settings say."""
    allow_unknown: bool | None = None
    """As an annotation states it: pass where the memory need is unknown; None: as the settings say."""
    tolerates_cordon: bool = False
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where each field was read, by name: "args of container vllm", "vLLM's default", "annotation …"."""
    remarks: tuple[str, ...] = field(default=(), compare=False)
    """What could not be read, and why, a sentence each."""
