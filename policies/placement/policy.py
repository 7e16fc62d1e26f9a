"""The judgement: may this pod land on this node, how well would it lie there, and in which words is it refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from policies.placement.demand import NvLink, PodDemand
from policies.placement.supply import Evidence, NodeFacts

HIGHEST_SCORE: Final = 10


class Reason(StrEnum):
    """Every refusal, in words without numbers, so that the scheduler counts alike ones together."""

    NODE_UNKNOWN = "node is not known to the extender"
    TOO_FEW_FREE = "too few free GPUs"
    TOO_FEW = "node has too few GPUs"
    NOT_LINKED = "GPUs are not NVLink-connected"
    DOMAIN_TOO_SMALL = "tensor parallel size exceeds the NVLink domain"
    LINKS_UNKNOWN = "NVLink connection of the GPUs is unknown"
    LINKED_MAY_BE_TAKEN = "free GPUs may not be NVLink-connected"
    SHARED = "tensor parallelism on shared or sliced GPUs"
    MIXED = "tensor parallelism on mixed GPU models"
    HEADS = "tensor parallel size does not divide the attention heads"
    TOO_FEW_ASKED = "pod asks for fewer GPUs than its parallel sizes need"
    MEMORY = "model does not fit GPU memory"
    MEMORY_UNKNOWN = "memory need of the model is unknown"
    CORDONED = "node is cordoned"

    @property
    def resolvable(self) -> bool:
        """Whether pods leaving the node could turn it: it goes to `FailedNodes`, else to the unresolvable ones."""
        return self in (Reason.TOO_FEW_FREE, Reason.LINKED_MAY_BE_TAKEN, Reason.NODE_UNKNOWN)


class MemoryFit(StrEnum):
    """Whether vLLM would start."""

    FITS = "fits"
    TIGHT = "tight"
    DOES_NOT_FIT = "does not fit"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is said of a node. It passes where `reason` is None."""

    reason: Reason | None = None
    score: int = 0
    """0 to 10; 0 for a refused one."""
    preference: float = 0.0
    """The same before rounding, 0 to 1; nodes of one question compare by it in `scores`."""
    links: Evidence | None = None
    """The promise that the pod's GPUs will be linked; None where none is needed."""
    memory: MemoryFit = MemoryFit.UNKNOWN
    needs_bytes_per_gpu: int | None = None
    """What vLLM must find of each GPU within its utilisation."""
    has_bytes_per_gpu: int | None = None
    """Utilisation × memory."""
    notes: tuple[str, ...] = ()
    """What is said though the node passes, a sentence each."""

    @property
    def fits(self) -> bool:
        return self.reason is None

    @property
    def resolvable(self) -> bool:
        """Of a refusal: whether preemption may help."""
        return self.reason is not None and self.reason.resolvable


class PlacementSettings(BaseModel):
    """What an operator may choose; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    nvlink: NvLink = NvLink.REQUIRE
    """On nodes known to be unlinked: refuse TP > 1, allow it at the lowest score, or do not look."""
    unknown_link: Literal["pass", "refuse"] = "pass"
    """Where nobody can say whether the GPUs will be linked; passing is at score 0."""
    unknown_model: Literal["pass", "refuse"] = "pass"
    """Where the memory need is unknown; passing is at the lowest score."""
    score: Literal["shape", "tutorial"] = "shape"
    """`tutorial`: +50 NVLink, +10 a free GPU, +30 exact memory, to compare with."""
    tight_share: float = Field(default=0.05, ge=0.0, lt=1.0)
    """Spare memory below this share of what is to be had: tight."""
    overhead_gib: float = Field(default=2.5, ge=0.0)
    """Activations, CUDA context, graphs of a GPU with TP = 1."""
    overhead_parallel_gib: float = Field(default=3.5, ge=0.0)
    """The same with NCCL's buffers, with TP > 1."""
    mix: dict[int, float] = Field(default={1: 0.55, 2: 0.20, 4: 0.15, 8: 0.10})
    """Shares of pods by tensor parallel size that fragmentation is measured for."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())


DEFAULT_SETTINGS: Final = PlacementSettings()


def judge(demand: PodDemand, node: NodeFacts, settings: PlacementSettings = DEFAULT_SETTINGS) -> Verdict:
    """May the pod land on the node, how well, and why not. A function of its arguments alone."""
    if demand.gpus == 0:
        return Verdict(score=0)
    if demand.gpus > node.gpus:
        return Verdict(reason=Reason.TOO_FEW)
    if demand.gpus > node.free_gpus:
        return Verdict(reason=Reason.TOO_FEW_FREE)
    return Verdict()
