"""A pod is anybody's to write: whatever stands in it, it is read and judged, soon and without an exception."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies.placement.annotations import PREFIX
from policies.placement.demand import PodDemand
from policies.placement.device_annotations import KOORDINATOR_PARTITIONS, held_by_koordinator, told_links
from policies.placement.models import shipped_models
from policies.placement.policy import judge
from policies.placement.reading import LWS_SIZE, read_demand
from policies.placement.remedies import memory_sentence
from policies.placement.vllm_options import READ
from tests.policies.placement.seen import L4, demand, node, pod

LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
OPTIONAL = ("head_dim", "sliding_window", "kv_lora_rank", "num_experts", "rope_scaling", "quantization_config")
LONG = "9" * 5000
NODES = (node(), node(L4, 4), node("unheard-of", 1))


def judged(asked: PodDemand) -> None:
    for facts in NODES:
        memory_sentence(asked, judge(asked, facts), facts.memory_bytes_per_gpu)


@pytest.mark.parametrize(
    "size",
    [LONG, "9" * 400, "9" * 310 + "k", LONG + "K", LONG + "k", "9" * 13, "999T", "1e320", "inf", "nan", "-" + LONG],
)
@pytest.mark.parametrize(
    ("option", "field"),
    [
        ("--max-model-len", "max_model_len"),
        ("--tensor-parallel-size", "tensor_parallel"),
        ("--pipeline-parallel-size", "pipeline_parallel"),
        ("--data-parallel-size", "data_parallel"),
        ("--kv-cache-memory-bytes", "kv_cache_memory_bytes"),
    ],
)
def test_a_size_that_nothing_has_is_unknown_and_said(option: str, field: str, size: str) -> None:
    asked = demand(LLAMA_8B, option, size)
    assert getattr(asked, field) is None
    judged(asked)
    assert any(option in remark for remark in asked.remarks) or size.startswith("-")


def test_the_longest_context_that_a_model_has_is_read() -> None:
    assert demand(LLAMA_8B, "--max-model-len", "10485760").max_model_len == 10_485_760


def test_adapters_beyond_number_are_unknown_and_said() -> None:
    asked = demand(LLAMA_8B, "--enable-lora", "--max-loras", "9" * 400)
    assert any("--max-loras" in remark for remark in asked.remarks)
    judged(asked)


@pytest.mark.parametrize("size", [LONG, "9" * 13])
def test_a_stated_size_that_nothing_has_is_remarked(size: str) -> None:
    asked = demand(LLAMA_8B, annotations={PREFIX + "tensor-parallel-size": size, LWS_SIZE: size})
    assert (asked.tensor_parallel, asked.pods_in_group) == (1, None)
    assert len(asked.remarks) == 2


@pytest.mark.parametrize("field", [*CONFIG, "head_dim", "sliding_window", "kv_lora_rank", "qk_rope_head_dim"])
@pytest.mark.parametrize(
    "size", ["5" + "0" * 20, "1" + "0" * 320, "1e320", "-1e320", "NaN", "-5" + "0" * 20, '"' + LONG + '"']
)
def test_an_annotated_model_of_sizes_that_none_has_is_read_or_remarked(field: str, size: str) -> None:
    text = json.dumps({**CONFIG, "kv_lora_rank" if field == "qk_rope_head_dim" else field: 512, field: 0})
    asked = demand(
        "acme/secret", annotations={PREFIX + "model-shape": text.replace(f'"{field}": 0', f'"{field}": {size}')}
    )
    judged(asked)


@pytest.mark.parametrize("layers", [10_000, 10**7, 5 * 10**8])
def test_layers_beyond_number_are_refused_before_they_become_a_list(layers: int) -> None:
    text = json.dumps({**CONFIG, "num_hidden_layers": layers})
    asked = demand("acme/secret", annotations={PREFIX + "model-shape": text})
    assert asked.shape is None
    assert any("model-shape" in remark for remark in asked.remarks)


@pytest.mark.parametrize("bits", ["1e308", "1e300", "1e320", "1" + "0" * 320])
def test_bits_beyond_number_are_refused(bits: str) -> None:
    text = json.dumps({**CONFIG, "quantization_config": {"quant_method": "gptq", "bits": 0}})
    asked = demand("acme/secret", annotations={PREFIX + "model-shape": text.replace('"bits": 0', f'"bits": {bits}')})
    assert asked.shape is None
    judged(asked)


def test_a_release_of_any_length_is_read() -> None:
    judged(demand(LLAMA_8B, image=f"vllm/vllm-openai:v0.{LONG}"))


@pytest.mark.parametrize(
    "text", ["seed: 2001-99-99", f"seed: {LONG}", "seed: 0x" + "f" * 5000, "seed: !!bool maybe", "- a"]
)
def test_a_file_of_options_that_python_cannot_hold_is_not_seen(text: str) -> None:
    seen = pod(LLAMA_8B, "--config", "/etc/vllm.yaml", files={"/etc/vllm.yaml": text})
    assert any("/etc/vllm.yaml are not seen" in remark for remark in read_demand(seen, shipped_models()).remarks)


def test_devices_beyond_number_are_none() -> None:
    assert held_by_koordinator('{"gpu": [{"minor": 1e999}]}') == frozenset()
    told, remarks = told_links({KOORDINATOR_PARTITIONS: '{"2": [{"minors": [1e999, 2], "gpuLinkType": "NVLink"}]}'})
    assert told is None
    assert remarks


DIGITS = st.integers(1, 6000).flatmap(lambda n: st.sampled_from(["9", "0", "٣", "³"]).map(lambda digit: digit * n))
EXTREME = (
    DIGITS
    | st.builds(
        lambda sign, digits, unit: sign + digits + unit,
        st.sampled_from(["-", "+", ""]),
        DIGITS,
        st.sampled_from("kKtT"),
    )
    | st.sampled_from(
        ["", "0", "-1", "1e320", "-1e320", "1e-320", "inf", "-Infinity", "nan", "NaN", "auto", "{}", "[]", "null"]
    )
    | st.text(max_size=8)
)
WORDS = st.lists(st.builds(lambda option, value: f"{option}={value}", st.sampled_from([*READ]), EXTREME), max_size=6)
NAMES = ("weights-gib", "memory-per-gpu-gib", "tensor-parallel-size", "nvlink", "require-nvlink", "allow-unknown")
ANNOTATIONS = st.dictionaries(st.sampled_from([*(PREFIX + name for name in NAMES), LWS_SIZE]), EXTREME, max_size=4)
NUMBERS = st.sampled_from(
    [-1, 0, 1, 10**7, 10**12, 10**320, float("inf"), float("nan"), 1e308, 5e-324, True, "9" * 5000]
)
CONFIGS = st.dictionaries(
    st.sampled_from([*CONFIG, *OPTIONAL]),
    NUMBERS | st.dictionaries(st.sampled_from(["bits", "group_size", "factor", "rope_type"]), NUMBERS),
    max_size=4,
)


@given(WORDS, ANNOTATIONS, CONFIGS)
@example(["--max-model-len=" + "9" * 310 + "k"], {}, {})
@example([], {}, {"hidden_size": 10**320})
def test_whatever_a_pod_says_it_is_read_and_judged(
    words: list[str], annotations: dict[str, str], config: dict[str, object]
) -> None:
    judged(demand(LLAMA_8B, *words, annotations=annotations))
    shaped = {**annotations, PREFIX + "model-shape": json.dumps({**CONFIG, **config})}
    judged(demand(LLAMA_8B, "--enable-lora", *words, annotations=shaped))
