"""The table of models: what is in it, and by which names it is found."""

from __future__ import annotations

import pytest

from policies.gpu_memory import GIB, weight_bytes
from policies.placement.model_config import ModelConfigError
from policies.placement.models import shipped_models

MODELS = shipped_models()

BILLIONS = {
    # Published counts, as the models' own names or cards give them.
    "meta-llama/Llama-2-7b-hf": 6.74,
    "meta-llama/Llama-2-13b-hf": 13.0,
    "meta-llama/Llama-3.1-8B": 8.03,
    "meta-llama/Llama-3.1-70B": 70.55,
    "meta-llama/Llama-3.1-405B": 405.9,
    "meta-llama/Llama-3.2-1B": 1.24,
    "meta-llama/Llama-3.2-3B": 3.21,
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": 109,
    "mistralai/Mistral-7B-v0.1": 7.24,
    "mistralai/Mixtral-8x7B-v0.1": 46.7,
    "mistralai/Mixtral-8x22B-v0.1": 140.6,
    "Qwen/Qwen2.5-7B": 7.62,
    "Qwen/Qwen2.5-72B": 72.7,
    "Qwen/Qwen3-8B": 8.19,
    "Qwen/Qwen3-32B": 32.8,
    "Qwen/Qwen3-30B-A3B": 30.5,
    "Qwen/Qwen3-235B-A22B": 235,
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": 480,
    "Qwen/Qwen3.5-397B-A17B": 397,
    "deepseek-ai/DeepSeek-V3": 671,
    "deepseek-ai/DeepSeek-V2": 236,
    "deepseek-ai/DeepSeek-V2-Lite": 15.7,
    "ibm-granite/granite-3.0-8b-instruct": 8.1,
    "mistralai/Mistral-Small-24B-Instruct-2501": 23.6,
    "Qwen/Qwen3-Next-80B-A3B-Instruct": 80,
    "zai-org/GLM-4.5": 355,
    "openai/gpt-oss-20b": 20.9,
    "openai/gpt-oss-120b": 117,
    "google/gemma-2-9b": 9.24,
    "google/gemma-2-27b": 27.2,
    "google/gemma-3-27b-it": 27.0,
    "microsoft/phi-4": 14.7,
    "moonshotai/Kimi-K2-Instruct": 1026,
    "MiniMaxAI/MiniMax-M2.5": 229,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 31.6,
    "zai-org/GLM-4.5-Air": 106.9,
    "CohereForAI/c4ai-command-r-v01": 35.0,
}


@pytest.mark.parametrize("name", BILLIONS)
def test_parameters_are_as_published(name: str) -> None:
    shape = MODELS.find(name)
    assert shape is not None
    assert shape.parameters / 1e9 == pytest.approx(BILLIONS[name], rel=0.012)


def test_sixty_models_are_known_and_each_says_where_it_was_read() -> None:
    shapes = {shape.name: shape for shape in MODELS.shapes.values()}
    assert len(shapes) >= 60
    for shape in shapes.values():
        assert any(mark in shape.source for mark in ("aiconfigurator-core 0.12.0", "litgpt 0.5.13", ".py")), shape.name


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B"),
        ("/models/llama-3-1-70b-instruct/", "meta-llama/Meta-Llama-3.1-70B"),
        ("/cache/models--Qwen--Qwen3-8B/snapshots/0123abc", "Qwen/Qwen3-8B"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mistral-7B-v0.3"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mistralai/Mixtral-8x7B-v0.1"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", "Qwen/Qwen3-30B-A3B-Instruct-2507"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-ai/DeepSeek-R1"),
    ],
)
def test_a_name_is_found_without_its_owner_and_its_endings(name: str, known: str) -> None:
    shape = MODELS.find(name)
    assert shape is not None
    assert shape.name == known


@pytest.mark.parametrize("name", ["", "/", "org/Llama-3.1-8B-with-experts", "Llama-9B", "my-model", "meta-llama", "8b"])
def test_nothing_is_guessed_of_a_name_that_is_not_known(name: str) -> None:
    assert MODELS.find(name) is None


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4", 37.0),
        ("Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4", 38.6),
        ("Qwen/Qwen2.5-72B-Instruct-GPTQ-Int8", 70.0),
        ("RedHatAI/Llama-3.3-70B-Instruct-quantized.w4a16", 37.0),
        ("neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8", 8.5),
        ("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit", 5.6),
        ("acme/Meta-Llama-3.1-8B-Instruct-bnb-8bit", 8.5),
        ("acme/Meta-Llama-3.1-8B-Instruct-8bit-bnb", 8.5),
        ("meta-llama/Llama-3.1-405B-Instruct-FP8", 462.0),
        ("openai/gpt-oss-120b", 60.7),
    ],
)
def test_what_a_name_tells_of_quantisation_is_counted(name: str, gib: float) -> None:
    """Llama's own 405B in FP8 leaves its attention in 16 bits: the log in vllm-project/vllm#6746 shows 462 GiB."""
    shape = MODELS.find(name)
    assert shape is not None
    assert weight_bytes(shape) / GIB == pytest.approx(gib, rel=0.02)


def test_rows_laid_over_the_table_win_and_may_state_their_size() -> None:
    config = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "vocab_size": 100,
    }
    table = MODELS.with_models([{"name": "Qwen/Qwen3-8B", "config": config, "weightsGib": 3}], source="mine.json")
    shape = table.find("Qwen/Qwen3-8B")
    assert shape is not None
    assert shape.layers == 2
    assert shape.source == "mine.json"
    assert weight_bytes(shape) / GIB == pytest.approx(3, abs=1e-6)
    assert MODELS.find("Qwen/Qwen3-8B") != shape


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"config": {}}, "needs `name`"),
        ({"name": "a", "config": []}, "needs `name`"),
        ({"name": "a", "config": {}, "weightsGib": -1}, "weightsGib is -1"),
        ({"name": "a", "config": {}}, "model_type ''"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(row: dict[str, object], message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        MODELS.with_models([row], source="mine.json")
