"""vLLM's start-up inequality, against published starts and by its own laws."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.gpu_memory import GIB
from policies.placement.demand import PodDemand
from policies.placement.memory import memory_fit, memory_need
from policies.placement.products import MIB
from policies.placement.settings import DEFAULT_SETTINGS
from policies.placement.verdict import MemoryFit
from tests.checkout import ROOT
from tests.policies.placement.seen import demand

REPORTS: list[dict[str, Any]] = json.loads((ROOT / "tests/data/vllm_starts.json").read_text())["reports"]
BORDERLINE = {
    ("meta-llama/Meta-Llama-3.1-405B-Instruct-FP8", "refused"),
    ("openai/gpt-oss-120b", "refused"),
    ("meta-llama/Llama-2-7b-hf", "started"),
}
"""Reports within 5 % of the memory, of which both outcomes are told."""
H100_BYTES, L4_BYTES = 81559 * MIB, 23034 * MIB
LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"


def fit(asked: PodDemand, memory_bytes: int | None = H100_BYTES) -> MemoryFit:
    return memory_fit(asked, memory_bytes, DEFAULT_SETTINGS)[0]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: f"{report['model']}-{report['outcome']}")
def test_the_verdict_on_a_published_start_is_right(report: dict[str, Any]) -> None:
    """Issue threads and posts, each with its address; what is within 5 % of the memory must be called tight."""
    asked = demand(report["model"], *report["options"], gpus=report["gpus"])
    verdict = fit(asked, report["memoryMib"] * MIB)
    if (report["model"], report["outcome"]) in BORDERLINE:
        assert verdict is MemoryFit.TIGHT
    else:
        assert verdict is (MemoryFit.FITS if report["outcome"] == "started" else MemoryFit.DOES_NOT_FIT)


def test_fifteen_reports_are_held_against_and_each_is_cited() -> None:
    assert len(REPORTS) >= 15
    assert all(report["source"].startswith("https://") and report["said"] for report in REPORTS)


@pytest.mark.parametrize(
    ("args", "memory_bytes", "expected"),
    [
        # 16-bit Llama 70B on two H100: 65.7 GiB of weights, 1.25 of cache, 3.5 besides, of 71.3.
        (("meta-llama/Llama-3.1-70B-Instruct", "-tp", "2", "--max-model-len", "8192"), H100_BYTES, MemoryFit.TIGHT),
        (("Qwen/Qwen2.5-72B-Instruct", "-tp", "2", "--max-model-len", "8192"), H100_BYTES, MemoryFit.DOES_NOT_FIT),
        (("Qwen/Qwen2.5-72B-Instruct", "-tp", "4", "--max-model-len", "8192"), H100_BYTES, MemoryFit.FITS),
        (("Qwen/Qwen3-32B", "--max-model-len", "8192"), H100_BYTES, MemoryFit.FITS),
        ((LLAMA_8B,), L4_BYTES, MemoryFit.DOES_NOT_FIT),
        ((LLAMA_8B, "--max-model-len", "16384"), L4_BYTES, MemoryFit.FITS),
        ((LLAMA_8B, "--max-model-len", "auto"), L4_BYTES, MemoryFit.FITS),
        (("meta-llama/Llama-3.1-70B-Instruct", "--max-model-len", "auto"), H100_BYTES, MemoryFit.DOES_NOT_FIT),
    ],
)
def test_worked_examples(args: tuple[str, ...], memory_bytes: int, expected: MemoryFit) -> None:
    assert fit(demand(*args), memory_bytes) is expected


def test_the_need_is_the_sum_of_its_parts() -> None:
    need = memory_need(demand(LLAMA_8B, "--max-model-len", "8192"), H100_BYTES, DEFAULT_SETTINGS)
    assert need.weights == 8030261248 * 2 or need.weights == pytest.approx(14.96 * GIB, rel=1e-3)
    assert need.sequence == GIB
    assert need.overhead == 2.5 * GIB


def test_weights_that_stay_in_the_hosts_memory_take_none_of_a_gpus() -> None:
    whole = memory_need(demand(LLAMA_8B), H100_BYTES, DEFAULT_SETTINGS).weights
    part = memory_need(demand(LLAMA_8B, "--cpu-offload-gb", "4"), H100_BYTES, DEFAULT_SETTINGS).weights
    assert whole is not None
    assert part == whole - 4 * GIB
    assert memory_need(demand(LLAMA_8B, "--cpu-offload-gb", "40"), H100_BYTES, DEFAULT_SETTINGS).weights == 0


def test_ranks_that_share_a_sequence_hold_a_part_of_its_cache_each() -> None:
    args = ("deepseek-ai/DeepSeek-V3", "-tp", "8", "--max-model-len", "131072")
    whole = memory_need(demand(*args, gpus=8), H100_BYTES, DEFAULT_SETTINGS).sequence
    part = memory_need(demand(*args, "-dcp", "4", gpus=8), H100_BYTES, DEFAULT_SETTINGS).sequence
    assert whole is not None
    assert part == whole / 4


def test_a_smaller_gpu_is_asked_less_besides() -> None:
    asked = demand(LLAMA_8B)
    assert memory_need(asked, L4_BYTES, DEFAULT_SETTINGS).overhead == GIB
    eager = demand(LLAMA_8B, "--enforce-eager")
    assert memory_need(eager, L4_BYTES, DEFAULT_SETTINGS).overhead == GIB // 2


def test_a_cache_of_a_stated_size_is_taken_whatever_the_utilisation() -> None:
    small = demand(LLAMA_8B, "--max-model-len", "8192", "--kv-cache-memory-bytes", "2G", "--gpu-memory-utilization=0.1")
    assert fit(small) is MemoryFit.FITS
    assert fit(demand(LLAMA_8B, "--max-model-len", "32768", "--kv-cache-memory-bytes", "2G")) is MemoryFit.DOES_NOT_FIT
    assert fit(demand(LLAMA_8B, "--max-model-len", "8192", "--kv-cache-memory-bytes", "70G")) is MemoryFit.DOES_NOT_FIT


def test_an_annotated_need_is_compared_with_the_whole_memory() -> None:
    asked = replace(demand(LLAMA_8B), memory_bytes_per_gpu=20 * GIB)
    assert fit(asked, 24 * GIB) is MemoryFit.FITS
    assert fit(asked, 20 * GIB) is MemoryFit.TIGHT
    assert fit(asked, 19 * GIB) is MemoryFit.DOES_NOT_FIT


def test_what_is_unknown_stays_unknown_unless_the_rest_alone_is_too_much() -> None:
    assert fit(demand("acme/secret")) is MemoryFit.UNKNOWN
    assert fit(demand(LLAMA_8B), None) is MemoryFit.UNKNOWN
    no_length = replace(demand(LLAMA_8B), max_model_len=None)
    assert fit(no_length) is MemoryFit.UNKNOWN
    assert fit(no_length, 16 * GIB) is MemoryFit.DOES_NOT_FIT
    no_cache = replace(demand(LLAMA_8B), kv_element_bytes=None)
    assert fit(no_cache) is MemoryFit.UNKNOWN
    assert fit(replace(demand(LLAMA_8B), tensor_parallel=None)) is MemoryFit.UNKNOWN
    no_utilization = replace(demand(LLAMA_8B, "--max-model-len", "8192"), gpu_memory_utilization=None)
    assert fit(no_utilization) is MemoryFit.UNKNOWN
    assert fit(no_utilization, 16 * GIB) is MemoryFit.DOES_NOT_FIT
    assert fit(replace(no_utilization, kv_cache_memory_bytes=2 * GIB)) is MemoryFit.FITS
    assert fit(replace(no_utilization, memory_bytes_per_gpu=20 * GIB)) is MemoryFit.FITS
    offloads = replace(demand("meta-llama/Llama-3.1-70B-Instruct", "--max-model-len", "8192"), cpu_offload_bytes=None)
    assert fit(offloads) is MemoryFit.UNKNOWN
    experts = demand("Qwen/Qwen3-235B-A22B-FP8", "--max-model-len", "8192")
    assert fit(experts) is MemoryFit.DOES_NOT_FIT
    assert fit(replace(experts, data_parallel=None)) is MemoryFit.UNKNOWN


ORDER = [MemoryFit.DOES_NOT_FIT, MemoryFit.TIGHT, MemoryFit.FITS]
MODELS = [LLAMA_8B, "Qwen/Qwen3-32B", "openai/gpt-oss-120b", "deepseek-ai/DeepSeek-V3", "google/gemma-3-27b-it"]


@st.composite
def demands(draw: st.DrawFn) -> PodDemand:
    args = [draw(st.sampled_from(MODELS)), "-tp", str(draw(st.sampled_from([1, 2, 4, 8])))]
    args += ["--max-model-len", str(draw(st.integers(1, 131072)))]
    args += ["--gpu-memory-utilization", str(draw(st.floats(0.1, 1.0)))]
    return demand(*args, gpus=8)


@given(demands(), st.integers(1, 300), st.integers(1, 100))
def test_more_memory_never_turns_a_fit_into_a_misfit(asked: PodDemand, gib: int, more: int) -> None:
    # A large GPU is asked 2.5 GiB more than a small one, as vLLM does: only within each is there an order.
    small, large = gib * GIB, (gib + more) * GIB
    limit = DEFAULT_SETTINGS.small_gpu_gib * GIB
    if (small < limit) == (large < limit):
        assert ORDER.index(fit(asked, small)) <= ORDER.index(fit(asked, large))


@given(demands(), st.integers(1, 300), st.floats(1.0, 2.0))
def test_a_shorter_context_never_fits_worse(asked: PodDemand, gib: int, shorter: float) -> None:
    assert asked.max_model_len is not None
    less = replace(asked, max_model_len=max(1, int(asked.max_model_len / shorter)))
    assert ORDER.index(fit(less, gib * GIB)) >= ORDER.index(fit(asked, gib * GIB))
