"""The judgement: may this pod land on this node, how well would it lie there, and in which words is it refused."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from policies.gpu_memory import ModelShape
from policies.placement.demand import GPU_RESOURCE, NvLink, PodDemand
from policies.placement.links import link_domain, link_promise, links_are_known
from policies.placement.memory import memory_fit
from policies.placement.scoring import preference, ranked_scores, score_of, tutorial_preference
from policies.placement.settings import DEFAULT_SETTINGS, PlacementSettings
from policies.placement.supply import Evidence, NodeFacts, Sharing
from policies.placement.verdict import MemoryFit, Reason, Verdict

__all__ = ["DEFAULT_SETTINGS", "MemoryFit", "PlacementSettings", "Reason", "Verdict", "judge", "scores"]

FAST_ALL_REDUCE = (2, 4, 6, 8)
"""Sizes for which vLLM has an all-reduce of its own over NVLink; others take NCCL's."""


def judge(demand: PodDemand, node: NodeFacts, settings: PlacementSettings = DEFAULT_SETTINGS) -> Verdict:
    """May the pod land on the node, how well, and why not. A function of its arguments alone.

    What no other pod's leaving would change is looked at first, so that nobody is evicted for a node that would be
    refused all the same.
    """
    if demand.gpus == 0:
        return Verdict()
    offered, free, device_memory, shared = _devices(demand, node)
    memory, needs, has = _memory(demand, device_memory, settings, shared=shared)
    promise, notes = _promise(demand, node)
    reason = (
        _static(demand, node, offered)
        or _unlinked(demand, node, settings, promise)
        or (Reason.MEMORY if memory is MemoryFit.DOES_NOT_FIT else None)
        or _unknown_memory(demand, memory, settings)
        or (Reason.CORDONED if node.cordoned and not demand.tolerates_cordon else None)
        or (Reason.TOO_FEW_FREE if demand.gpus > free else None)
        or _not_sure(demand, settings, promise)
    )
    preferred = 0.0
    if reason is None and memory is not MemoryFit.UNKNOWN and _links_are_known(demand, promise):
        if settings.score == "tutorial":
            preferred = tutorial_preference(node, memory)
        else:
            preferred = preference(demand, node, settings, links=promise, need_bytes=needs, has_bytes=has)
    return Verdict(
        reason=reason,
        score=score_of(preferred),
        preference=preferred,
        links=promise if _needs_links(demand) else None,
        memory=memory,
        needs_bytes_per_gpu=needs,
        has_bytes_per_gpu=has,
        notes=(*notes, *_notes(demand, node)),
    )


def scores(verdicts: Sequence[Verdict]) -> list[int]:
    """What `/prioritize` answers for the nodes of one question, 0 to 10 each, in their order."""
    return ranked_scores([verdict.preference for verdict in verdicts])


def gpus_needed(demand: PodDemand) -> int | None:
    """GPUs that the pod's share of its group's engines runs on; None: unknown."""
    tensor, pipeline, data = demand.tensor_parallel, demand.pipeline_parallel, demand.data_parallel_local
    prefill, pods = demand.prefill_context_parallel, demand.pods_in_group
    if tensor is None or pipeline is None or data is None or prefill is None or pods is None:
        return None
    return ceil(tensor * pipeline * data * prefill / pods)


def divides_heads(tensor: int, shape: ModelShape) -> bool:
    """As vLLM asks for: whole heads a rank, and whole KV heads a rank or whole ranks a KV head."""
    return shape.attention_heads % tensor == 0 and (shape.kv_heads % tensor == 0 or tensor % shape.kv_heads == 0)


def ranks_linked(demand: PodDemand) -> int:
    """Tensor-parallel ranks within this pod, which talk in every layer; 1 where it is not known."""
    return min(demand.tensor_parallel or 1, demand.gpus)


def _devices(demand: PodDemand, node: NodeFacts) -> tuple[int, int, int | None, bool]:
    """How many of the asked kind the node has, how many are free, the memory of one, and whether pods share it."""
    if demand.resource == GPU_RESOURCE:
        return node.gpus, node.free_gpus, node.memory_bytes_per_gpu, node.sharing not in (Sharing.NONE, Sharing.MIG)
    for slices in node.slices:
        if slices.resource == demand.resource:
            return slices.allocatable, slices.free, slices.memory_bytes, slices.shared
    return 0, 0, None, False


def _memory(
    demand: PodDemand, device_memory: int | None, settings: PlacementSettings, *, shared: bool
) -> tuple[MemoryFit, int | None, int | None]:
    fit, needs, has = memory_fit(demand, device_memory, settings)
    if shared and fit is not MemoryFit.DOES_NOT_FIT:
        # Its neighbours on the device take of the same memory, and nobody says how much.
        return MemoryFit.UNKNOWN, needs, has
    return fit, needs, has


def _needs_links(demand: PodDemand) -> bool:
    return ranks_linked(demand) > 1


def _promise(demand: PodDemand, node: NodeFacts) -> tuple[Evidence | None, tuple[str, ...]]:
    """That each engine's tensor-parallel ranks will be linked."""
    ranks = ranks_linked(demand)
    if ranks == 1:
        return Evidence.GUARANTEED, ()
    promise = link_promise(node, size=ranks, sets=max(1, demand.gpus // ranks))
    if promise is Evidence.UNKNOWN and not links_are_known(node):
        return promise, (f"how the node's GPUs are linked is {node.links.value}",)
    return promise, ()


def _static(demand: PodDemand, node: NodeFacts, offered: int) -> Reason | None:
    """What would be wrong with an empty node too."""
    tensor, shape = demand.tensor_parallel, demand.shape
    needed = gpus_needed(demand)
    if needed is not None and demand.gpus < needed:
        return Reason.TOO_FEW_ASKED
    if tensor is not None and shape is not None and not divides_heads(tensor, shape):
        return Reason.HEADS
    if demand.gpus > offered:
        return Reason.TOO_FEW
    if _needs_links(demand):
        if demand.resource != GPU_RESOURCE or node.sharing is not Sharing.NONE:
            return Reason.SHARED
        if node.mixed_products:
            return Reason.MIXED
    return None


def _unlinked(
    demand: PodDemand, node: NodeFacts, settings: PlacementSettings, promise: Evidence | None
) -> Reason | None:
    if not _needs_links(demand) or (demand.nvlink or settings.nvlink) is not NvLink.REQUIRE:
        return None
    if promise is None:
        return Reason.NOT_LINKED if link_domain(node) == 1 else Reason.DOMAIN_TOO_SMALL
    if promise is Evidence.UNKNOWN and not links_are_known(node) and settings.unknown_link == "refuse":
        return Reason.LINKS_UNKNOWN
    return None


def _not_sure(demand: PodDemand, settings: PlacementSettings, promise: Evidence | None) -> Reason | None:
    """Linked GPUs are there, and may be the ones that others hold."""
    required = _needs_links(demand) and (demand.nvlink or settings.nvlink) is NvLink.REQUIRE
    if required and promise is Evidence.UNKNOWN and settings.unknown_link == "refuse":
        return Reason.LINKED_MAY_BE_TAKEN
    return None


def _unknown_memory(demand: PodDemand, memory: MemoryFit, settings: PlacementSettings) -> Reason | None:
    if memory is not MemoryFit.UNKNOWN:
        return None
    allowed = settings.unknown_model == "pass" if demand.allow_unknown is None else demand.allow_unknown
    return None if allowed else Reason.MEMORY_UNKNOWN


def _links_are_known(demand: PodDemand, promise: Evidence | None) -> bool:
    """Whether a score above the lowest is deserved."""
    if demand.tensor_parallel is None:
        return demand.gpus == 1
    return (
        not _needs_links(demand) or promise in (Evidence.GUARANTEED, Evidence.LIKELY) or demand.nvlink is NvLink.IGNORE
    )


def _notes(demand: PodDemand, node: NodeFacts) -> tuple[str, ...]:
    notes = []
    needed = gpus_needed(demand)
    if needed is None:
        notes.append("how many GPUs its parallel sizes need in this pod is unknown")
    elif needed < demand.gpus:
        notes.append(f"it asks for {demand.gpus} GPUs and runs on {needed}")
    tensor = demand.tensor_parallel
    if tensor is not None and tensor > 1 and tensor not in FAST_ALL_REDUCE:
        notes.append(f"vLLM has no fast all-reduce for {tensor} GPUs")
    if tensor is not None and tensor > demand.gpus and not node.clique:
        notes.append("its tensor-parallel group spans nodes, and no multi-node NVLink is seen")
    if demand.shape is not None:
        if demand.shape.latent_dims is not None and (tensor or 1) > 1:
            notes.append("its latent cache is whole on each of the tensor-parallel ranks")
        if demand.shape.caveat:
            notes.append(demand.shape.caveat)
    return tuple(notes)
