"""A Hugging Face `config.json` in the terms of memory: how many parameters of which kind, and what is cached.

The file says no parameter count; it follows from the sizes. A kind of model whose layers are not known here is
refused rather than guessed, unless the size of its checkpoint is stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from policies.gpu_memory import ModelShape
from policies.placement.numbers import END
from policies.placement.quantization import bits_of_config

Config = Mapping[str, Any]

UNGATED: Final = frozenset({"phi", "falcon", "gpt_neox", "opt", "starcoder2"})
"""Kinds whose MLP has two matrices; all others have a gate besides."""
_KNOWN_KINDS: Final = (
    "llama mistral mixtral qwen2 qwen2_moe qwen2_vl qwen2_5_vl qwen3 qwen3_moe qwen3_vl qwen3_vl_text qwen3_vl_moe "
    "qwen3_vl_moe_text qwen3_next qwen3_5_text qwen3_5_moe_text gemma gemma2 gemma3 gemma3_text phi phi3 cohere "
    "cohere2 deepseek_v2 deepseek_v3 deepseek_v32 kimi_k2 glm_moe_dsa gpt_oss llama4_text minimax_m2 nemotron_h "
    "granite glm4 glm4_moe olmo olmo2 falcon gpt_neox opt starcoder2 mimo"
)
KNOWN: Final = frozenset(_KNOWN_KINDS.split())
"""Kinds whose layers are counted rightly."""
INDEXED: Final = frozenset({"deepseek_v32", "glm_moe_dsa"})

LAYERS_END: Final = 10_000
SIZES_END: Final = 10_000_000
PARAMETERS_END: Final = 1000 * END
"""What no model reaches. A `config.json` may stand in anybody's annotation: its layers become a list."""


class ModelConfigError(ValueError):
    """A `config.json` cannot be used; the message names the field and the remedy."""


@dataclass(frozen=True, slots=True)
class _Parameters:
    """Counts by what quantisation configs tell apart."""

    embeddings: int
    attention: int
    mlp: int
    experts: int
    shared_experts: int
    vision: int

    @property
    def total(self) -> int:
        return self.embeddings + self.attention + self.mlp + self.experts + self.shared_experts + self.vision


def shape_of_config(name: str, config: Config, *, source: str = "", weights_bytes: int | None = None) -> ModelShape:
    """What a `config.json` says of memory; `weights_bytes`, the checkpoint's size, wins over the count.

    Raises `ModelConfigError`.
    """
    try:
        shape = _shape(name, config, source, weights_bytes)
    except ModelConfigError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError, OverflowError) as error:
        raise ModelConfigError(f"model {name}: its config.json is not as one of a model is: {error}") from error
    sizes = (shape.sliding_window, shape.latent_dims or 0, shape.context_tokens or 0)
    if shape.linear_parameters < 0 or min(shape.parameters, shape.head_dim) <= 0 or min(sizes) < 0:
        raise ModelConfigError(f"model {name}: its config.json has sizes below 0")
    if shape.parameters >= PARAMETERS_END or max(shape.head_dim, *sizes) >= END:
        raise ModelConfigError(f"model {name}: its config.json has sizes that no model has: correct it")
    if not 0 < shape.weight_bits < END:
        raise ModelConfigError(
            f"model {name}: quantization_config in its config.json comes to {shape.weight_bits:g} bits a weight, "
            f"which must be above 0 and below {END:,}: correct it, or state the size of its checkpoint"
        )
    return shape


def _shape(name: str, config: Config, source: str, weights_bytes: int | None) -> ModelShape:
    text = _text(config)
    kind = str(text.get("model_type", config.get("model_type", "")))
    if kind not in KNOWN and weights_bytes is None:
        raise ModelConfigError(
            f"model {name}: the layers of model_type '{kind}' are not known here, so its parameters cannot be counted: "
            "state the size of its checkpoint"
        )
    layers = _layers_of(name, text)
    heads = _number(name, text, "num_attention_heads")
    hidden = _number(name, text, "hidden_size")
    kv_heads = _kv_heads(name, text, heads)
    head_dim = int(text.get("head_dim") or text.get("attention_head_dim") or hidden // heads)
    kinds = _layer_kinds(text, layers)
    cached, sliding = _cached(kinds), kinds.count("sliding_attention")
    quantized = config.get("quantization_config") or text.get("quantization_config") or {}
    caveats = []
    if cached < layers:
        caveats.append(f"states of its {layers - cached} layers without a growing cache are not counted")
    if "vision_config" in config and not _vision_parameters(config):
        caveats.append("its vision tower is not counted")
    counts = None
    if kind in KNOWN:
        try:
            counts = _count(name, kind, text, config, kinds, hidden, heads, kv_heads, head_dim)
        except ModelConfigError:
            if weights_bytes is None:
                raise
    if counts is not None:
        bits, names_left_alone = bits_of_config(quantized)
        linear = _quantized_part(counts, names_left_alone)
        parameters, experts = counts.total, counts.experts
    else:
        parameters = linear = -(-(weights_bytes or 0) // 2)
        bits, experts = 16.0, 0
        caveats.append("its size is as stated, not counted")
    if counts is not None and weights_bytes is not None:
        # Whatever its parts are stored in, together they are as large as was measured.
        linear, bits = parameters, weights_bytes * 8 / parameters
    return ModelShape(
        name=name,
        layers=layers,
        attention_heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        parameters=parameters,
        linear_parameters=linear,
        expert_parameters=experts,
        weight_bits=bits,
        context_tokens=_context(text),
        cached_layers=cached if cached != layers else None,
        sliding_layers=sliding if text.get("sliding_window") else 0,
        sliding_window=int(text.get("sliding_window") or 0) if sliding else 0,
        latent_dims=_latent_dims(kind, text) if text.get("kv_lora_rank") else None,
        quantization=str(quantized.get("quant_method", "")),
        caveat="; ".join(caveats),
        source=source,
    )


def _text(config: Config) -> Config:
    """The language model inside one that also sees or hears."""
    for key in ("text_config", "llm_config", "language_config"):
        inner = config.get(key)
        if isinstance(inner, Mapping):
            tied = config.get("tie_word_embeddings")
            return inner if tied is None else {"tie_word_embeddings": tied, **inner}
    return config


def _number(name: str, config: Config, key: str, end: int = SIZES_END) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < end:
        raise ModelConfigError(
            f"model {name}: {key} is {value!r} in its config.json: it must be a whole number above 0 and below {end:,}"
        )
    return value


def _layers_of(name: str, text: Config) -> int:
    blocks = text.get("layers_block_type")
    if "num_hidden_layers" not in text and isinstance(blocks, list) and blocks:
        return len(blocks)
    return _number(name, text, "num_hidden_layers", LAYERS_END)


def _kv_heads(name: str, text: Config, heads: int) -> int:
    # Of Falcon's architectures the new one does not regard `multi_query`, and the old one not the number beside it.
    if text.get("multi_query") and not text.get("new_decoder_architecture"):
        return 1
    key = next((key for key in ("num_key_value_heads", "num_kv_heads") if text.get(key) is not None), None)
    return _number(name, text, key) if key else heads


def _context(text: Config) -> int | None:
    """As vLLM derives it: positions, stretched by what the rope scaling says beyond its original length."""
    longest = text.get("max_position_embeddings") or text.get("n_positions")
    if not isinstance(longest, int):
        return None
    scaling = text.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    factor = scaling.get("factor")
    if factor and kind not in ("default", "llama3", "longrope", "su", "mrope"):
        # With yarn the factor counts from the original length.
        start = scaling.get("original_max_position_embeddings", longest) if kind == "yarn" else longest
        return int(start * factor)
    return longest


def _layer_kinds(text: Config, layers: int) -> list[str]:
    """A layer each: full_attention, sliding_attention, linear_attention, mamba, moe or mlp."""
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        return [{"M": "mamba", "*": "full_attention", "E": "moe"}.get(mark, "mlp") for mark in pattern]
    if isinstance(text.get("layers_block_type"), list):
        return [{"attention": "full_attention"}.get(block, str(block)) for block in text["layers_block_type"]]
    if isinstance(text.get("layer_types"), list):
        return [
            kind if kind in ("sliding_attention", "linear_attention") else "full_attention"
            for kind in text["layer_types"]
        ]
    every = text.get("full_attention_interval")
    if every and ("linear_num_value_heads" in text):
        return ["full_attention" if (i + 1) % every == 0 else "linear_attention" for i in range(layers)]
    every = text.get("sliding_window_pattern")
    if every and text.get("sliding_window"):
        return ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
    if (
        text.get("sliding_window")
        and text.get("use_sliding_window", True)
        and text.get("model_type")
        in (
            "mistral",
            "phi3",
            "starcoder2",
        )
    ):
        return ["sliding_attention"] * layers
    return ["full_attention"] * layers


def _cached(kinds: list[str]) -> int:
    return sum(kind in ("full_attention", "sliding_attention") for kind in kinds)


def _latent_dims(kind: str, text: Config) -> int:
    # An indexer keeps a key of its own a token: a byte a number, and a 32-bit scale.
    index = (int(text.get("index_head_dim") or 0) + 4) // 2 if kind in INDEXED else 0
    return int(text["kv_lora_rank"]) + int(text.get("qk_rope_head_dim") or 0) + index


def _count(
    name: str,
    kind: str,
    text: Config,
    config: Config,
    kinds: list[str],
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
) -> _Parameters:
    """Matrices only: norms and biases are below a thousandth."""
    vocabulary = _number(name, text, "vocab_size")
    # OPT-350M's are narrower than its layers.
    embeddings = vocabulary * int(text.get("word_embed_proj_dim") or hidden) * (1 if _tied(kind, text) else 2)
    if text.get("kv_lora_rank"):
        one = _latent_attention(name, kind, text, hidden, heads)
    else:
        gate = heads * head_dim if text.get("attn_output_gate", kind == "qwen3_next") else 0
        one = hidden * (2 * heads * head_dim + 2 * kv_heads * head_dim + gate)
    attention = _cached(kinds) * one
    attention += kinds.count("linear_attention") * _delta_net(text, hidden)
    attention += kinds.count("mamba") * _mamba(text, hidden)
    dense, routed, shared = _feed_forward(name, kind, text, kinds, hidden)
    return _Parameters(embeddings, attention, dense, routed, shared, _vision_parameters(config))


def _tied(kind: str, text: Config) -> bool:
    # These families share the matrix unless they say otherwise.
    usual = kind.startswith("gemma") or kind in ("cohere", "cohere2", "falcon", "opt")
    return bool(text.get("tie_word_embeddings", usual))


def _latent_attention(name: str, kind: str, text: Config, hidden: int, heads: int) -> int:
    rope, nope = _number(name, text, "qk_rope_head_dim"), _number(name, text, "qk_nope_head_dim")
    value, latent = _number(name, text, "v_head_dim"), _number(name, text, "kv_lora_rank")
    queries = text.get("q_lora_rank")
    wide = heads * (rope + nope)
    found = hidden * queries + queries * wide if queries else hidden * wide
    found += hidden * (latent + rope) + latent * heads * (nope + value) + heads * value * hidden
    if kind in INDEXED and text.get("index_n_heads"):
        index = text["index_n_heads"] * text["index_head_dim"]
        found += (queries or hidden) * index + hidden * (text["index_head_dim"] + text["index_n_heads"])
    return int(found)


def _delta_net(text: Config, hidden: int) -> int:
    keys = int(text.get("linear_num_key_heads", 0)) * int(text.get("linear_key_head_dim", 0))
    value_heads = int(text.get("linear_num_value_heads", 0))
    values = value_heads * int(text.get("linear_value_head_dim", 0))
    return hidden * (2 * keys + 2 * values + 2 * value_heads) + values * hidden


def _mamba(text: Config, hidden: int) -> int:
    heads = int(text.get("mamba_num_heads", 0))
    inner = heads * int(text.get("mamba_head_dim", 0))
    states = 2 * int(text.get("n_groups", 1)) * int(text.get("ssm_state_size", 0))
    return hidden * (2 * inner + states + heads) + inner * hidden


def _feed_forward(name: str, kind: str, text: Config, kinds: list[str], hidden: int) -> tuple[int, int, int]:
    """Dense, routed and shared parameters."""
    experts = next(
        (int(text[key]) for key in ("num_experts", "n_routed_experts", "num_local_experts") if text.get(key)), 0
    )
    if kind == "nemotron_h":
        # Each of its layers is one thing only, and its MLPs square a ReLU, without a gate.
        moe, dense = kinds.count("moe"), kinds.count("mlp")
        width = int(text.get("moe_intermediate_size") or 0)
        inner = int(text.get("moe_latent_size") or hidden)
        beside = hidden * experts + (2 * hidden * inner if inner != hidden else 0)
        shared = 2 * hidden * int(text.get("moe_shared_expert_intermediate_size") or 0)
        wide = int(text.get("intermediate_size") or 0)
        return dense * 2 * hidden * wide + moe * beside, moe * experts * 2 * inner * width, moe * shared
    layers = len(kinds)
    matrices = 2 if kind in UNGATED else 3
    if not experts:
        return layers * matrices * hidden * _width(name, kind, text, hidden), 0, 0
    if kind == "llama4_text":
        every = int(text.get("interleave_moe_layer_step") or 1)
        moe = layers // every
        width, dense_width, shared_width = (
            _number(name, text, "intermediate_size"),
            int(text.get("intermediate_size_mlp") or 0),
            _number(name, text, "intermediate_size"),
        )
    else:
        first = int(text.get("first_k_dense_replace") or 0)
        moe = layers - first - len(text.get("mlp_only_layers") or ())
        width = int(text.get("moe_intermediate_size") or text.get("intermediate_size") or 0)
        dense_width = int(text.get("intermediate_size") or 0)
        shared_width = int(
            text.get("shared_expert_intermediate_size") or width * int(text.get("n_shared_experts") or 0)
        )
    router = hidden * experts
    return (
        (layers - moe) * 3 * hidden * dense_width + moe * router,
        moe * experts * 3 * hidden * width,
        moe * 3 * hidden * shared_width,
    )


def _width(name: str, kind: str, text: Config, hidden: int) -> int:
    """Of an MLP without experts, by the name that the kind has for it."""
    key = {"opt": "ffn_dim", "falcon": "ffn_hidden_size"}.get(kind, "intermediate_size")
    if kind == "falcon" and text.get(key) is None:
        return 4 * hidden
    return _number(name, text, key)


def _vision_parameters(config: Config) -> int:
    """A plain vision transformer's; 0 where there is none, or it does not say its sizes."""
    vision = config.get("vision_config")
    if not isinstance(vision, Mapping):
        return 0
    depth = vision.get("depth") or vision.get("num_hidden_layers") or 0
    width, wide = vision.get("hidden_size") or 0, vision.get("intermediate_size") or 0
    return int(depth * (4 * width * width + 2 * width * wide))


def _quantized_part(counts: _Parameters, left_alone: tuple[str, ...]) -> int:
    """Embeddings, the head and vision towers stay in 16 bits in every checkpoint that was looked at."""
    part = counts.experts
    if not any("self_attn" in name or "attention" in name for name in left_alone):
        part += counts.attention
    if not any("shared_expert" in name for name in left_alone):
        part += counts.shared_experts
    if not any(
        name.endswith(("mlp.gate_proj", "layers.0.mlp", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"))
        for name in left_alone
    ):
        part += counts.mlp
    return part
