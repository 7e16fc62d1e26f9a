"""What is said of a pod and a node, in words that are the same for all nodes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from policies.placement.supply import Evidence


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
    """0 to 10, by itself; 0 for a refused one, and for one that passes only because something is unknown."""
    preference: float = 0.0
    """The same before rounding, 0 to 1; nodes of one question are ranked by it in `policy.scores`."""
    links: Evidence | None = None
    """The promise that the pod's GPUs will be linked; None where none is needed, or none can be."""
    memory: MemoryFit = MemoryFit.UNKNOWN
    needs_bytes_per_gpu: int | None = None
    """What vLLM must find of each GPU within its utilisation; None: unknown."""
    has_bytes_per_gpu: int | None = None
    """What its utilisation lets it take; None: unknown."""
    notes: tuple[str, ...] = ()
    """What is said though the node may pass, a sentence each."""

    @property
    def fits(self) -> bool:
        return self.reason is None

    @property
    def resolvable(self) -> bool:
        """Of a refusal: whether preemption may help."""
        return self.reason is not None and self.reason.resolvable
