"""What a model takes of a GPU's memory: its weights, and the cache of the tokens it reads.

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
    """Read, never derived where it is said: Qwen3-32B has 5,120 / 64 = 80, and 128."""
    parameters: int
    """All of them, experts and embeddings too."""
    linear_parameters: int
    """Those that quantisation shrinks: linear layers, without embeddings and output head."""
    expert_parameters: int = 0
    """Those of routed experts, which data-parallel engines share among them; linear parameters all."""
    weight_bits: float = 16.0
    """Of a parameter in linear layers, as the checkpoint stores it, its scales included."""
    other_bits: float = 16.0
    """Of every other parameter."""
    context_tokens: int | None = None
    """What the model was made for; vLLM takes it as `max_model_len` where none is given. None: not said."""
    cached_layers: int | None = None
    """Layers whose cache grows with every token; None: all. Fewer in hybrids (Mamba, linear attention)."""
    sliding_layers: int = 0
    """Those of the cached layers that look back no further than `sliding_window` tokens."""
    sliding_window: int = 0
    latent_dims: int | None = None
    """Numbers a token and a layer of a latent cache (MLA), the same on every tensor-parallel rank; None: no MLA."""
    quantization: str = ""
    """As the checkpoint names it; "" for none."""
    caveat: str = ""
    """What the count leaves out, in words; "" where it is whole."""
    source: str = ""
    """Where it was read."""


def weight_bytes(shape: ModelShape) -> int:
    """Of the whole checkpoint, on all ranks together."""
    others = shape.parameters - shape.linear_parameters
    return ceil((shape.linear_parameters * shape.weight_bits + others * shape.other_bits) / 8)


def weight_bytes_per_gpu(
    shape: ModelShape,
    total_bytes: int,
    *,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    data_parallel: int = 1,
) -> int:
    """Of `total_bytes` the part on the fullest GPU.

    A stage holds whole layers. Routed experts are shared by all engines of a data-parallel group, the rest is
    on each of them.
    """
    # Of the bytes, not of the parameters: experts are often all that is stored in few bits.
    experts = shape.expert_parameters * shape.weight_bits / 8 / max(1, weight_bytes(shape))
    share = (1 - experts) + experts / data_parallel
    return ceil(total_bytes * share / tensor_parallel * ceil(shape.layers / pipeline_parallel) / shape.layers)


def kv_bytes_per_token(
    shape: ModelShape, *, tensor_parallel: int = 1, pipeline_parallel: int = 1, bytes_per_element: float = 2.0
) -> float:
    """One token's cache on one GPU, in every layer that keeps one, of the stage that holds most layers.

    With more ranks than KV heads each rank keeps a copy of one head. A latent cache is whole on every rank.
    """
    layers = ceil(_cached_layers(shape) / pipeline_parallel)
    return layers * _layer_bytes(shape, tensor_parallel, bytes_per_element)


def kv_bytes_per_sequence(
    shape: ModelShape,
    tokens: int,
    *,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    bytes_per_element: float = 2.0,
    batched_tokens: int = 8192,
) -> int:
    """One sequence of so many tokens on one GPU: what vLLM asks for before it starts.

    A layer with a sliding window keeps the window, and beside it as many tokens as one step may bring.
    """
    sliding = min(shape.sliding_layers, _cached_layers(shape))
    whole = _cached_layers(shape) - sliding
    seen = whole_blocks(min(tokens, shape.sliding_window + batched_tokens))
    layer_tokens = ceil(whole / pipeline_parallel) * whole_blocks(tokens) + ceil(sliding / pipeline_parallel) * seen
    return ceil(layer_tokens * _layer_bytes(shape, tensor_parallel, bytes_per_element))


def kv_token_capacity(pool_bytes: float, bytes_per_token: float) -> int:
    """How many tokens, in whole blocks, a pool of this size holds; 0 where it is not even one block."""
    return max(0, int(pool_bytes // (bytes_per_token * BLOCK_TOKENS))) * BLOCK_TOKENS


def whole_blocks(tokens: int) -> int:
    """As many tokens as the blocks hold that these need."""
    return ceil(tokens / BLOCK_TOKENS) * BLOCK_TOKENS


def _cached_layers(shape: ModelShape) -> int:
    return shape.layers if shape.cached_layers is None else shape.cached_layers


def _layer_bytes(shape: ModelShape, tensor_parallel: int, bytes_per_element: float) -> float:
    """Of one token."""
    if shape.latent_dims is not None:
        return shape.latent_dims * bytes_per_element
    heads = max(1, ceil(shape.kv_heads / tensor_parallel))
    return 2 * heads * shape.head_dim * bytes_per_element
