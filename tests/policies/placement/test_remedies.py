"""What would make a model fit, in the user's own options."""

from __future__ import annotations

import json

from policies.placement.demand import PodDemand
from policies.placement.policy import judge
from policies.placement.remedies import memory_sentence, remedies
from policies.placement.verdict import Reason
from tests.policies.placement.seen import H100, L4, demand, node

LLAMA_8B, LLAMA_70B = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"


def said(*args: str, product: str = H100, gpus: int = 2) -> str:
    asked, facts = demand(*args, gpus=gpus), node(product, 8)
    return memory_sentence(asked, judge(asked, facts), facts.memory_bytes_per_gpu)


def test_a_tight_fit_is_told_with_its_numbers_and_what_would_loosen_it() -> None:
    sentence = said(LLAMA_70B, "-tp", "2", "--max-model-len", "8192")
    assert sentence == "needs 70.5 GiB a GPU, has 71.3: tight; fits with TP 4, or an FP8 checkpoint"


def test_a_long_context_is_the_first_to_give_way() -> None:
    sentence = said(LLAMA_8B, product=L4, gpus=1)
    assert sentence.startswith("needs 32.0 GiB a GPU, has 19.8: does not fit; fits with --max-model-len ")


def test_what_fits_needs_no_remedy() -> None:
    assert said(LLAMA_8B, "--max-model-len", "8192", gpus=1) == "needs 18.5 GiB a GPU, has 71.3: fits"


def test_asking_for_all_of_the_memory_is_told_to_ask_for_less() -> None:
    sentence = said(LLAMA_8B, "--max-model-len", "8192", "--gpu-memory-utilization", "1", gpus=1)
    assert sentence.startswith("needs 18.5 GiB a GPU, has 79.2: does not fit; fits with --gpu-memory-utilization 0.9")


def test_each_remedy_makes_it_fit() -> None:
    asked, facts = demand(LLAMA_8B), node(L4, 4)
    (length, *_) = remedies(asked, facts.memory_bytes_per_gpu)
    tokens = length.removeprefix("--max-model-len ")
    assert judge(demand(LLAMA_8B, "--max-model-len", tokens), facts).memory.value == "fits"


def test_a_tensor_parallel_size_that_would_be_refused_is_no_remedy() -> None:
    """Phi-3-medium has 40 heads and 10 KV heads: by 4 only the former can be divided."""
    config = {
        "model_type": "phi3",
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 10,
        "hidden_size": 5120,
        "intermediate_size": 17920,
        "vocab_size": 32064,
    }
    shape = {"preheat.dev/model-shape": json.dumps(config)}

    def asked(tensor: int) -> PodDemand:
        words = ("microsoft/Phi-3-medium-4k-instruct", "--max-model-len", "4096", "-tp", str(tensor))
        return demand(*words, gpus=tensor, annotations=shape)

    facts = node(gpus=8, labels={"nvidia.com/gpu.memory": "16384"})
    assert judge(asked(4), facts).reason is Reason.HEADS
    assert "TP 4" not in remedies(asked(1), facts.memory_bytes_per_gpu)
    larger = node(gpus=8, labels={"nvidia.com/gpu.memory": "24576"})
    assert "TP 2" in remedies(asked(1), larger.memory_bytes_per_gpu)
    assert judge(asked(2), larger).fits


def test_what_is_unknown_is_said() -> None:
    assert said("acme/secret", gpus=1) == "what it needs of a GPU's memory is unknown"
    asked, facts = demand(LLAMA_8B), node("unheard-of", 8)
    assert memory_sentence(asked, judge(asked, facts), None) == "needs 33.5 GiB a GPU, whose memory is unknown"
    assert remedies(demand("acme/secret"), 80 << 30) == ()
