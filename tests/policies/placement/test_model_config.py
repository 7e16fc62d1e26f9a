"""A `config.json` becomes parameters and a cache."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.gpu_memory import GIB, weight_bytes
from policies.placement.model_config import ModelConfigError, shape_of_config

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


OPT_350M: dict[str, Any] = {
    "model_type": "opt",
    "num_hidden_layers": 24,
    "hidden_size": 1024,
    "ffn_dim": 4096,
    "word_embed_proj_dim": 512,
    "num_attention_heads": 16,
    "vocab_size": 50272,
    "max_position_embeddings": 2048,
}
OPT_6_7B = OPT_350M | {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "ffn_dim": 16384,
    "word_embed_proj_dim": 4096,
    "num_attention_heads": 32,
}
FALCON_7B: dict[str, Any] = {
    "model_type": "falcon",
    "num_hidden_layers": 32,
    "hidden_size": 4544,
    "num_attention_heads": 71,
    "num_kv_heads": 71,
    "multi_query": True,
    "new_decoder_architecture": False,
    "vocab_size": 65024,
}
FALCON_40B = FALCON_7B | {
    "num_hidden_layers": 60,
    "hidden_size": 8192,
    "num_attention_heads": 128,
    "num_kv_heads": 8,
    "new_decoder_architecture": True,
}
FALCON_RW_1B = FALCON_7B | {
    "num_hidden_layers": 24,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_kv_heads": None,
    "multi_query": False,
    "vocab_size": 50304,
}
FALCON2_11B = FALCON_40B | {
    "hidden_size": 4096,
    "ffn_hidden_size": 16384,
    "num_attention_heads": 32,
    "tie_word_embeddings": False,
}
"""As published; what says nothing of memory is left out."""


@pytest.mark.parametrize(
    ("config", "billions", "kv_heads"),
    [
        (OPT_350M, 0.331, 16),
        (OPT_6_7B, 6.66, 32),
        (FALCON_7B, 6.92, 1),
        (FALCON_40B, 41.3, 8),
        (FALCON_RW_1B, 1.31, 32),
        (FALCON2_11B, 11.1, 8),
    ],
)
def test_kinds_with_names_of_their_own_are_read_by_them(config: dict[str, Any], billions: float, kv_heads: int) -> None:
    shape = shape_of_config("a", config)
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.012)
    assert shape.kv_heads == kv_heads


def test_a_plain_config_is_counted_to_a_thousandth() -> None:
    shape = shape_of_config("Llama-3.1-8B", LLAMA)
    assert shape.parameters == pytest.approx(8.030e9, rel=1e-3)
    assert shape.head_dim == 128
    assert shape.context_tokens == 131072


def test_tied_embeddings_are_counted_once() -> None:
    untied, tied = shape_of_config("a", LLAMA), shape_of_config("a", {**LLAMA, "tie_word_embeddings": True})
    assert untied.parameters - tied.parameters == 128256 * 4096


def test_the_head_dimension_is_read_where_it_is_said() -> None:
    assert shape_of_config("a", {**LLAMA, "head_dim": 96}).head_dim == 96


def test_heads_without_groups_are_their_own_kv_heads() -> None:
    config = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    assert shape_of_config("a", config).kv_heads == 32


def test_a_language_model_inside_a_seeing_one_is_found() -> None:
    config = {"model_type": "mistral3", "text_config": {**LLAMA, "model_type": "mistral"}, "vision_config": {}}
    shape = shape_of_config("a", config)
    assert shape.layers == 32
    assert "vision" in shape.caveat


@pytest.mark.parametrize(
    ("quantized", "bits"),
    [
        ({"quant_method": "fp8"}, 8.0),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4.15625),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, 8.0),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, 4.0),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}},
            },
            4.5,
        ),
    ],
)
def test_a_quantised_checkpoint_says_its_bits(quantized: dict[str, Any], bits: float) -> None:
    shape = shape_of_config("a", {**LLAMA, "quantization_config": quantized})
    assert shape.weight_bits == bits
    # Embeddings and the head stay in 16 bits.
    assert shape.parameters - shape.linear_parameters == 2 * 128256 * 4096


@pytest.mark.parametrize(
    "quantized",
    [
        {"quant_method": "gptq", "bits": -4},
        {"quant_method": "gptq", "bits": 0, "group_size": 128},
        {"quant_method": "gptq", "bits": float("inf")},
        {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": -4}}}},
    ],
)
def test_weights_of_no_bits_are_refused_unless_the_size_is_stated(quantized: dict[str, Any]) -> None:
    config = {**LLAMA, "quantization_config": quantized}
    with pytest.raises(
        ModelConfigError, match=r"quantization_config .* bits a weight.* state the size of its checkpoint"
    ):
        shape_of_config("a", config)
    assert weight_bytes(shape_of_config("a", config, weights_bytes=9 * GIB)) == pytest.approx(9 * GIB, abs=8)


def test_what_a_quantised_checkpoint_leaves_alone_stays_in_16_bits() -> None:
    plain = shape_of_config("a", {**LLAMA, "quantization_config": {"quant_method": "fp8"}})
    config = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    partly = shape_of_config("a", {**LLAMA, "quantization_config": config})
    assert partly.linear_parameters < plain.linear_parameters
    assert weight_bytes(partly) > weight_bytes(plain)


def test_a_stated_size_wins_over_the_count() -> None:
    assert weight_bytes(shape_of_config("a", LLAMA, weights_bytes=9 * GIB)) == pytest.approx(9 * GIB, abs=8)


def test_what_cannot_be_counted_is_as_large_as_is_stated() -> None:
    config = {key: value for key, value in LLAMA.items() if key != "intermediate_size"}
    with pytest.raises(ModelConfigError, match="intermediate_size is None"):
        shape_of_config("a", config)
    shape = shape_of_config("a", config, weights_bytes=9 * GIB)
    assert weight_bytes(shape) == 9 * GIB
    assert "as stated" in shape.caveat
    assert shape.kv_heads == 8


def test_yarn_stretches_the_context_and_llama3_scaling_does_not() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert shape_of_config("a", {**LLAMA, "rope_scaling": yarn}).context_tokens == 131072
    llama3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
    assert shape_of_config("a", {**LLAMA, "rope_scaling": llama3}).context_tokens == 131072


def test_layers_without_a_growing_cache_are_left_out_and_said() -> None:
    config = {**LLAMA, "model_type": "qwen3_next", "layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8}
    shape = shape_of_config("a", config)
    assert shape.cached_layers == 8
    assert "24 layers" in shape.caveat


def test_a_model_of_an_unknown_kind_is_refused_unless_its_size_is_stated() -> None:
    config = {**LLAMA, "model_type": "brand_new"}
    with pytest.raises(ModelConfigError, match=r"model_type 'brand_new' .* state the size of its checkpoint"):
        shape_of_config("a", config)
    shape = shape_of_config("a", config, weights_bytes=10 * GIB)
    assert weight_bytes(shape) == 10 * GIB
    assert "as stated" in shape.caveat


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"])
@pytest.mark.parametrize("value", [None, 0, -1, "32", 1.5, True])
def test_a_size_that_cannot_be_is_named(key: str, value: object) -> None:
    with pytest.raises(ModelConfigError, match=f"model a: {key} is"):
        shape_of_config("a", {**LLAMA, key: value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *LLAMA,
                "quantization_config",
                "layer_types",
                "rope_scaling",
                "kv_lora_rank",
                "num_experts",
                "text_config",
                "vision_config",
                "sliding_window",
            ]
        ),
        JSON,
    )
)
def test_whatever_a_config_holds_it_is_read_or_refused_in_a_sentence(changes: dict[str, object]) -> None:
    with suppress(ModelConfigError):
        assert shape_of_config("a", {**LLAMA, **changes}).parameters > 0
