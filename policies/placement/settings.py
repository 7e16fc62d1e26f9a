"""What an operator may choose of how pods are placed."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

from policies.placement.demand import NvLink

DEFAULT_MIX: Final = ((1, 0.55), (2, 0.20), (4, 0.15), (8, 0.10))
"""Shares of pods by tensor-parallel size, where nobody has counted the cluster's own."""


class PlacementSettings(BaseModel):
    """Unknown names are refused."""

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
    """Activations, CUDA's context and graphs of a GPU with TP = 1."""
    overhead_parallel_gib: float = Field(default=3.5, ge=0.0)
    """The same with NCCL's buffers, with TP > 1."""
    small_gpu_gib: float = Field(default=70.0, ge=0.0)
    """Below this much memory vLLM takes 2,048 tokens and 256 sequences a step instead of 8,192 and 1,024."""
    small_gpu_overhead_gib: float = Field(default=1.0, ge=0.0)
    small_gpu_overhead_parallel_gib: float = Field(default=1.75, ge=0.0)
    graphs_gib: float = Field(default=0.5, ge=0.0)
    """The part of the overheads that `--enforce-eager` saves."""
    reserved_gib: float = Field(default=0.45, ge=0.0)
    """What the driver keeps of the memory that the label counts: CUDA sees 79.2 GiB of an H100's 79.65."""
    mix: tuple[tuple[int, float], ...] = DEFAULT_MIX
    """Tensor-parallel sizes and their shares of pods, for which fragmentation is measured."""

    @field_validator("mix", mode="before")
    @classmethod
    def _mix_as_pairs(cls, value: object) -> object:
        """A mapping, as people write it: `{1: 0.55, 2: 0.2}`."""
        return tuple(sorted(value.items())) if isinstance(value, dict) else value

    @field_validator("mix")
    @classmethod
    def _mix_is_of_shares(cls, mix: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
        if not mix or any(size < 1 or not 0 <= share <= 1 for size, share in mix):
            raise ValueError("mix: it needs sizes of at least 1, each with a share between 0 and 1")
        total = sum(share for _, share in mix)
        if not 0.999 < total < 1.001:
            raise ValueError(f"mix: the shares add up to {total:g}: they must add up to 1")
        return mix


DEFAULT_SETTINGS: Final = PlacementSettings()
