"""Weights and caches against figures that were published or logged."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.gpu_memory import (
    BLOCK_TOKENS,
    GIB,
    ModelShape,
    kv_bytes_per_sequence,
    kv_bytes_per_token,
    kv_token_capacity,
    weight_bytes,
    weight_bytes_per_gpu,
    whole_blocks,
)
from policies.placement.models import shipped_models

KIB = 1 << 10


def shape(name: str) -> ModelShape:
    found = shipped_models().find(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "kib_per_token", "gib_of_4096_tokens"),
    [
        ("meta-llama/Llama-2-7b-hf", 512, 2.00),
        ("meta-llama/Llama-3.1-8B", 128, 0.50),
        ("meta-llama/Llama-3.2-3B", 112, 0.4375),
        ("meta-llama/Llama-3.1-70B", 320, 1.25),
        ("meta-llama/Llama-3.1-405B", 504, 1.97),
        ("mistralai/Mixtral-8x22B-v0.1", 224, 0.875),
        ("Qwen/Qwen2.5-7B", 56, 0.22),
        ("Qwen/Qwen3-32B", 256, 1.00),
        ("Qwen/Qwen3-30B-A3B", 96, 0.375),
        ("deepseek-ai/DeepSeek-V3", 68.625, 0.27),
    ],
)
def test_a_token_takes_what_its_kv_heads_take_not_what_the_hidden_size_would(
    name: str, kib_per_token: float, gib_of_4096_tokens: float
) -> None:
    """By the hidden size an 8B of Llama 3 would take 2 GiB for 4,096 tokens: four times what it does."""
    assert kv_bytes_per_token(shape(name)) == kib_per_token * KIB
    assert kv_bytes_per_sequence(shape(name), 4096) / GIB == pytest.approx(gib_of_4096_tokens, abs=0.005)


def test_a_logged_need_of_cache_is_reproduced() -> None:
    """vllm-project/vllm#34076: 24.0 GiB for 262,144 tokens of a Qwen3 30B-A3B, over all its layers."""
    assert kv_bytes_per_sequence(shape("Qwen/Qwen3-30B-A3B-Instruct-2507"), 262144) == 24 * GIB


@pytest.mark.parametrize(
    ("name", "tensor_parallel", "gib"),
    [
        ("meta-llama/Llama-Guard-3-8B", 1, 14.9888),  # vllm-project/vllm#12568, the shape of Llama-3.1-8B
        ("Qwen/Qwen2.5-14B", 2, 13.9476),  # #13061
        ("mistralai/Mistral-7B-v0.1", 1, 13.4966),  # #2140
        ("openai/gpt-oss-20b", 1, 13.72),  # myoceane.fr, vLLM 0.19.0
    ],
)
def test_logged_weights_are_reproduced(name: str, tensor_parallel: int, gib: float) -> None:
    model = shape("meta-llama/Llama-3.1-8B" if "Guard" in name else name)
    per_gpu = weight_bytes_per_gpu(model, weight_bytes(model), tensor_parallel=tensor_parallel)
    # gpt-oss's scales are padded by its kernel: 7 % more than the checkpoint.
    assert per_gpu / GIB == pytest.approx(gib, rel=0.08 if "oss" in name else 0.02)


def test_kv_heads_are_shared_among_ranks_and_copied_where_there_are_more_ranks() -> None:
    model = shape("meta-llama/Llama-3.1-70B")
    assert kv_bytes_per_token(model, tensor_parallel=4) * 4 == kv_bytes_per_token(model)
    assert kv_bytes_per_token(model, tensor_parallel=16) == kv_bytes_per_token(model, tensor_parallel=8)


def test_a_latent_cache_is_whole_on_every_rank() -> None:
    model = shape("deepseek-ai/DeepSeek-V3")
    assert kv_bytes_per_token(model, tensor_parallel=8) == kv_bytes_per_token(model)


def test_a_stage_holds_whole_layers() -> None:
    model = shape("meta-llama/Llama-3.1-405B")  # 126 layers: 32 on the fullest of four stages
    assert kv_bytes_per_token(model, pipeline_parallel=4) == kv_bytes_per_token(model) * 32 / 126
    assert weight_bytes_per_gpu(model, 126 * GIB, pipeline_parallel=4) == 32 * GIB


def test_data_parallel_engines_share_the_experts_only() -> None:
    model = replace(shape("Qwen/Qwen3-30B-A3B"), parameters=100, linear_parameters=100, expert_parameters=80)
    assert weight_bytes_per_gpu(model, 1000, data_parallel=8) == 300


@pytest.mark.parametrize(
    ("name", "gib"),
    [("nvidia/DeepSeek-V3.1-NVFP4", 69.55), ("nvidia/Kimi-K2.5-NVFP4", 83.99), ("openai/gpt-oss-120b", 11.04)],
)
def test_the_experts_share_is_that_of_their_bytes_where_they_are_stored_in_fewer_bits(name: str, gib: float) -> None:
    """By parameters it would be 54.4, 74.1 and 8.55 GiB on each of eight engines."""
    model = shape(name)
    assert weight_bytes_per_gpu(model, weight_bytes(model), data_parallel=8) / GIB == pytest.approx(gib, abs=0.01)


def test_a_sliding_window_bounds_its_layers_and_no_others() -> None:
    model = shape("openai/gpt-oss-120b")  # every other layer looks back 128 tokens
    short, long = kv_bytes_per_sequence(model, 2048), kv_bytes_per_sequence(model, 131072)
    assert short == 2048 * kv_bytes_per_token(model)
    whole = 131072 * kv_bytes_per_token(model)
    assert whole / 2 < long < whole * 0.55


@given(st.integers(1, 10**6))
def test_tokens_are_counted_in_whole_blocks(tokens: int) -> None:
    assert tokens <= whole_blocks(tokens) < tokens + BLOCK_TOKENS
    assert kv_token_capacity(whole_blocks(tokens) * 100.0, 100.0) == whole_blocks(tokens)


def test_less_than_a_block_is_no_token() -> None:
    assert kv_token_capacity(15 * 100.0, 100.0) == 0
    assert kv_token_capacity(-5.0, 100.0) == 0


@given(
    st.sampled_from(sorted({model.name for model in shipped_models().shapes.values()})),
    st.integers(1, 200_000),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 3]),
)
def test_more_tokens_never_take_less_and_more_ranks_never_more(name: str, tokens: int, ranks: int, stages: int) -> None:
    model = shape(name)
    one = kv_bytes_per_sequence(model, tokens, tensor_parallel=ranks, pipeline_parallel=stages)
    assert kv_bytes_per_sequence(model, tokens + 16, tensor_parallel=ranks, pipeline_parallel=stages) >= one
    assert kv_bytes_per_sequence(model, tokens, tensor_parallel=2 * ranks, pipeline_parallel=stages) <= one
    total = weight_bytes(model)
    assert weight_bytes_per_gpu(model, total, tensor_parallel=ranks) * ranks >= total
