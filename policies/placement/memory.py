"""Whether vLLM would start: its own inequality, for one GPU.

    weights / (TP · PP) + one sequence of max_model_len + activations and all that is not PyTorch's
        ≤ gpu_memory_utilization · memory

The requirement is one sequence; how many more fit beside it is performance, not fit. Source: what vLLM 0.32 does in
`v1/worker/gpu_worker.py` (determine_available_memory) and `v1/core/kv_cache_utils.py` (_check_enough_kv_cache_memory).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

from policies.gpu_memory import BLOCK_TOKENS, GIB, kv_bytes_per_sequence, weight_bytes_per_gpu
from policies.placement.demand import PodDemand
from policies.placement.settings import PlacementSettings
from policies.placement.verdict import MemoryFit

CONTEXT_GIB: Final = 0.1
"""A CUDA context takes no less of a GPU, before vLLM looks at what is free."""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes of one GPU, the fullest; None: unknown."""

    weights: int | None
    sequence: int | None
    """The cache of one sequence of max_model_len."""
    overhead: int
    """Activations, CUDA's context, graphs, NCCL; and adapters or a draft model."""

    @property
    def total(self) -> int | None:
        if self.weights is None or self.sequence is None:
            return None
        return self.weights + self.sequence + self.overhead

    @property
    def least(self) -> int:
        """What is needed for sure."""
        return (self.weights or 0) + (self.sequence or 0) + self.overhead


def memory_need(demand: PodDemand, memory_bytes: int | None, settings: PlacementSettings) -> MemoryNeed:
    """What one GPU of the pod must bear; of a small one vLLM asks less at a time."""
    if demand.memory_bytes_per_gpu is not None:
        return MemoryNeed(demand.memory_bytes_per_gpu, 0, 0)
    tensor, pipeline = demand.tensor_parallel, demand.pipeline_parallel
    overhead = _overhead_gib(parallel=(tensor or 1) > 1, memory_bytes=memory_bytes, settings=settings)
    overhead = max(0.0, overhead - (settings.graphs_gib if demand.enforce_eager else 0.0))
    overhead_bytes = ceil(overhead * GIB) + demand.extra_bytes_per_gpu
    if tensor is None or pipeline is None:
        return MemoryNeed(None, None, overhead_bytes)
    return MemoryNeed(_weights(demand, tensor, pipeline), _sequence(demand, tensor, pipeline), overhead_bytes)


def _overhead_gib(*, parallel: bool, memory_bytes: int | None, settings: PlacementSettings) -> float:
    if memory_bytes is not None and memory_bytes < settings.small_gpu_gib * GIB:
        return settings.small_gpu_overhead_parallel_gib if parallel else settings.small_gpu_overhead_gib
    return settings.overhead_parallel_gib if parallel else settings.overhead_gib


def _weights(demand: PodDemand, tensor: int, pipeline: int) -> int | None:
    total = demand.weights_bytes
    if total is None or demand.cpu_offload_bytes is None:
        return None
    if demand.shape is None:
        share = ceil(total / (tensor * pipeline))
    elif demand.data_parallel is None and demand.shape.expert_parameters:
        return None
    else:
        share = weight_bytes_per_gpu(
            demand.shape,
            total,
            tensor_parallel=tensor,
            pipeline_parallel=pipeline,
            data_parallel=demand.data_parallel or 1,
        )
    return max(0, share - demand.cpu_offload_bytes)


def _sequence(demand: PodDemand, tensor: int, pipeline: int) -> int | None:
    tokens = BLOCK_TOKENS if demand.max_model_len_auto else demand.max_model_len
    ranks = demand.decode_context_parallel
    if demand.shape is None or tokens is None or demand.kv_element_bytes is None or ranks is None:
        return None
    whole = kv_bytes_per_sequence(
        demand.shape,
        tokens,
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        bytes_per_element=demand.kv_element_bytes,
        batched_tokens=demand.max_num_batched_tokens or 8192,
    )
    return ceil(whole / ranks)


def memory_had(demand: PodDemand, memory_bytes: int, settings: PlacementSettings) -> int:
    """What vLLM may take, at most, of a GPU whose label says so many bytes."""
    visible = max(0.0, memory_bytes - settings.reserved_gib * GIB)
    if demand.memory_bytes_per_gpu is not None:
        return memory_bytes
    # A cache of a stated size is taken whatever the utilisation.
    if demand.kv_cache_memory_bytes is not None or demand.gpu_memory_utilization is None:
        return int(visible)
    return int(visible * demand.gpu_memory_utilization)


def _leaves_no_room(demand: PodDemand, memory_bytes: int, had: int, settings: PlacementSettings) -> bool:
    """Whether vLLM would ask for more than is free once its own CUDA context is there: with all of it, always."""
    visible = memory_bytes - settings.reserved_gib * GIB
    return demand.memory_bytes_per_gpu is None and had > visible - CONTEXT_GIB * GIB


def memory_fit(
    demand: PodDemand, memory_bytes: int | None, settings: PlacementSettings
) -> tuple[MemoryFit, int | None, int | None]:
    """The verdict, what is needed and what is had, in bytes a GPU.

    With a part unknown it does not fit where the rest alone is too much, and is unknown otherwise.
    """
    need = memory_need(demand, memory_bytes, settings)
    total = need.total
    cache = demand.kv_cache_memory_bytes
    if cache is not None and need.sequence is not None and total is not None:
        if cache < need.sequence:
            return MemoryFit.DOES_NOT_FIT, need.sequence, cache
        total += cache - need.sequence
    if memory_bytes is None:
        return MemoryFit.UNKNOWN, total, None
    had = memory_had(demand, memory_bytes, settings)
    is_known = demand.gpu_memory_utilization is not None or cache is not None or demand.memory_bytes_per_gpu is not None
    if total is None or not is_known:
        short = (need.weights is not None or need.sequence is not None) and need.least > had
        return (MemoryFit.DOES_NOT_FIT if short else MemoryFit.UNKNOWN), need.least if short else total, had
    if total > had or (cache is None and _leaves_no_room(demand, memory_bytes, had, settings)):
        return MemoryFit.DOES_NOT_FIT, total, had
    return (MemoryFit.TIGHT if had - total < settings.tight_share * had else MemoryFit.FITS), total, had
