"""What a model takes of a GPU's memory: its weights, and the cache of one token.

Placement asks whether a replica would start, the autoscaler's capacity and the simulated replicas how many tokens
one holds; all three do this arithmetic and no other. Everything is in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

GIB: Final = 1 << 30
BLOCK_TOKENS: Final = 16
"""vLLM's cache is handed out in blocks of this many tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """As much of a model's `config.json` as decides its memory."""

    name: str
    layers: int
    attention_heads: int
    kv_heads: int
    """Equal to `attention_heads` without grouped queries. Of a latent cache (MLA) it does not matter."""
    head_dim: int
    """Read, never derived: Qwen3-32B has 5,120 / 64 = 80, and 128."""
    parameters: int
    """All of them, experts and embeddings too."""
    linear_parameters: int
    """Those of them that quantisation shrinks: linear layers, without embeddings and output head."""
    weight_bits: float = 16.0
    """Of a parameter in linear layers, as the checkpoint stores it, its scales included."""
    other_bits: float = 16.0
    """Of every other parameter."""
    context_tokens: int | None = None
    """What the model was made for; vLLM takes it as `max_model_len` where none is given. None: not said."""
    cached_layers: int | None = None
    """Layers that keep a cache growing with every token; None: all. Fewer in hybrids (Mamba, linear attention)."""
    latent_dims: int | None = None
    """Numbers a token and a layer of a latent cache (MLA), the same on every tensor-parallel rank; None: no MLA."""
    quantization: str = ""
    """As the checkpoint names it; "" for none."""
    less_than_counted: str = ""
    """Why a token may take less cache than counted here (sliding window, hybrid); "" where the count is exact."""
    source: str = ""
    """Where it was read."""


def weight_bytes(shape: ModelShape) -> int:
    """Of the whole checkpoint, on all ranks together."""
    others = shape.parameters - shape.linear_parameters
    return ceil((shape.linear_parameters * shape.weight_bits + others * shape.other_bits) / 8)


def kv_bytes_per_token(
    shape: ModelShape, *, tensor_parallel: int = 1, pipeline_parallel: int = 1, bytes_per_element: float = 2.0
) -> float:
    """One token's cache on one GPU, of the stage that holds most layers.

    With more ranks than KV heads each rank keeps a copy of one head. A latent cache is on every rank whole.
    """
    layers = ceil((shape.layers if shape.cached_layers is None else shape.cached_layers) / pipeline_parallel)
    if shape.latent_dims is not None:
        return layers * shape.latent_dims * bytes_per_element
    heads = max(1, ceil(shape.kv_heads / tensor_parallel))
    return layers * 2 * heads * shape.head_dim * bytes_per_element


def whole_blocks(tokens: int) -> int:
    """As many tokens as the blocks hold that these need."""
    return ceil(tokens / BLOCK_TOKENS) * BLOCK_TOKENS


def kv_token_capacity(pool_bytes: float, bytes_per_token: float) -> int:
    """How many tokens, in whole blocks, a pool of this size holds; 0 where it is not even one block."""
    return max(0, int(pool_bytes // (bytes_per_token * BLOCK_TOKENS))) * BLOCK_TOKENS
