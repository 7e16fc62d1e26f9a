"""A pod becomes what it asks for, each part with where it was read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.gpu_memory import GIB, weight_bytes
from policies.placement.annotations import PREFIX
from policies.placement.demand import GPU_RESOURCE, Container, NvLink, SeenPod
from policies.placement.models import shipped_models
from policies.placement.reading import KV_BYTES, LWS_SIZE, read_demand
from tests.checkout import ROOT
from tests.policies.placement.seen import container, demand, pod

MODELS = shipped_models()
LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"


def test_a_plain_pod_is_read_whole_and_says_where() -> None:
    asked = demand("--model=" + LLAMA_8B, "-tp", "4", "--max-model-len", "32k", gpus=4)
    assert (asked.gpus, asked.model, asked.tensor_parallel, asked.max_model_len) == (4, LLAMA_8B, 4, 32000)
    assert asked.weights_bytes == pytest.approx(14.96 * GIB, rel=0.01)
    assert asked.sources["tensor_parallel_size"] == "args of container vllm"
    assert asked.sources["pipeline_parallel_size"] == "vLLM's default"
    assert asked.sources["shape"].startswith("aiconfigurator-core")
    assert asked.remarks == ()


def test_a_pod_without_gpus_asks_for_nothing() -> None:
    assert demand(LLAMA_8B, gpus=0).gpus == 0


def test_a_length_that_is_not_given_is_the_models_full_context() -> None:
    asked = demand(LLAMA_8B)
    assert asked.max_model_len == 131072
    assert "full context" in asked.sources["max_model_len"]


@pytest.mark.parametrize("text", ["auto", "AUTO", "-1"])
def test_an_automatic_length_is_no_length(text: str) -> None:
    asked = demand(LLAMA_8B, "--max-model-len", text)
    assert asked.max_model_len_auto
    assert asked.max_model_len is None
    assert asked.remarks == ()


@pytest.mark.parametrize(
    ("image", "utilization"),
    [
        ("vllm/vllm-openai:v0.32.0", 0.92),
        ("vllm/vllm-openai:v0.33.1-cu129", 0.92),
        ("vllm/vllm-openai:v1.0.0", 0.92),
        ("vllm/vllm-openai:v0.9.2", 0.9),
        ("vllm/vllm-openai:latest", 0.9),
        ("vllm/vllm-openai", 0.9),
        ("registry:5000/vllm@sha256:0123", 0.9),
    ],
)
def test_the_default_utilisation_is_that_of_the_images_release(image: str, utilization: float) -> None:
    assert demand(LLAMA_8B, image=image).gpu_memory_utilization == utilization


def test_a_stated_utilisation_wins_and_one_that_cannot_be_does_not() -> None:
    assert demand(LLAMA_8B, "--gpu-memory-utilization=0.5").gpu_memory_utilization == 0.5
    assert demand(LLAMA_8B, "--device_memory_utilization", "0.6").gpu_memory_utilization == 0.6
    assert demand(LLAMA_8B, "--gpu-memory-utilization=90").gpu_memory_utilization == 0.9


def test_every_kind_of_cache_that_vllm_has_is_of_a_known_size_or_said_to_be_unknown() -> None:
    recorded = json.loads((ROOT / "tests/data/vllm_options.json").read_text())["options"]
    (option,) = [option for option in recorded if option["name"] == "--kv-cache-dtype"]
    assert set(KV_BYTES) <= set(option["choices"])
    for kind in option["choices"]:
        asked = demand(LLAMA_8B, "--kv-cache-dtype", kind)
        assert (asked.kv_element_bytes is None) == bool(asked.remarks), kind
        assert asked.kv_element_bytes is None or 0.5 <= asked.kv_element_bytes <= 2


@pytest.mark.parametrize(
    ("args", "bits"),
    [
        ((LLAMA_8B,), 16),
        ((LLAMA_8B, "--quantization", "fp8"), 8),
        ((LLAMA_8B, "-q", "bitsandbytes"), 4.5),
        (("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8",), 8),
        (("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8", "--quantization", "compressed-tensors"), 8),
        (("/models/Llama-3.1-8B-Instruct", "--quantization=awq_marlin"), 4.15625),
        ((LLAMA_8B, "--dtype", "float32"), 32),
    ],
)
def test_weights_are_counted_as_vllm_will_hold_them(args: tuple[str, ...], bits: float) -> None:
    shape = demand(*args).shape
    assert shape is not None
    assert shape.weight_bits == bits


def test_gpus_are_counted_as_kube_scheduler_counts_them() -> None:
    """What runs together, or the largest step of the start if that is more; a sidecar runs beside what follows it."""
    warm = container(gpus=3, name="warm", image="x")
    side = container(gpus=1, name="side", image="x", is_sidecar=True)
    served = SeenPod(containers=(container(LLAMA_8B, gpus=2), Container("metrics")))
    assert read_demand(replace(served, init_containers=(side, warm)), MODELS).gpus == 4
    assert read_demand(replace(served, init_containers=(warm, side)), MODELS).gpus == 3
    assert read_demand(replace(served, init_containers=(side,)), MODELS).gpus == 3
    small = SeenPod(
        containers=(container(LLAMA_8B, gpus=1),), init_containers=(replace(warm, gpus={GPU_RESOURCE: 2}), side)
    )
    assert read_demand(small, MODELS).gpus == 2


def test_slices_are_devices_of_their_own() -> None:
    sliced = Container("c", "vllm/vllm-openai", args=(LLAMA_8B,), gpus={"nvidia.com/mig-3g.40gb": 1})
    asked = read_demand(SeenPod(containers=(sliced,)), MODELS)
    assert (asked.gpus, asked.resource) == (1, "nvidia.com/mig-3g.40gb")


def test_of_several_kinds_of_devices_whole_gpus_are_judged_and_the_others_told_of() -> None:
    kinds = {"nvidia.com/mig-3g.40gb": 1, GPU_RESOURCE: 2}
    asked = read_demand(SeenPod(containers=(Container("c", "vllm/vllm-openai", args=(LLAMA_8B,), gpus=kinds),)), MODELS)
    assert (asked.gpus, asked.resource) == (2, GPU_RESOURCE)
    assert "only the first is judged" in asked.remarks[0]


def test_the_container_with_gpus_is_the_one_that_serves() -> None:
    both = SeenPod(containers=(container("Qwen/Qwen3-8B", gpus=0, name="router"), container(LLAMA_8B, gpus=1)))
    assert read_demand(both, MODELS).model == LLAMA_8B
    twice = SeenPod(containers=(container(LLAMA_8B, name="a"), container("Qwen/Qwen3-8B", name="b")))
    assert "several containers (a, b)" in read_demand(twice, MODELS).remarks[0]


def test_a_pod_that_starts_something_else_is_counted_and_no_more() -> None:
    asked = read_demand(SeenPod(containers=(container(gpus=2, image="acme/train:1"),)), MODELS)
    assert (asked.gpus, asked.shape, asked.weights_bytes) == (2, None, None)
    assert "no container was seen to start vLLM" in asked.remarks[0]


def test_what_only_the_running_pod_knows_is_unknown_and_said() -> None:
    asked = demand("$(MODEL)", "-tp", "$(TP)", gpus=4)
    assert asked.tensor_parallel is None
    assert asked.shape is None
    assert any("--tensor-parallel-size is '$(TP)', which is not known before it runs" in r for r in asked.remarks)
    assert any("$(MODEL)" in remark for remark in asked.remarks)


def test_options_in_a_file_that_is_seen_are_read_and_of_one_that_is_not_are_unknown() -> None:
    file = "model: " + LLAMA_8B + "\ntensor-parallel-size: 4\nmax-model-len: 8192\n"
    seen = container("--config", "/etc/vllm.yaml", "-tp", "2", gpus=2, files={"/etc/vllm.yaml": file})
    asked = read_demand(SeenPod(containers=(seen,)), MODELS)
    assert (asked.model, asked.tensor_parallel, asked.max_model_len) == (LLAMA_8B, 2, 8192)
    assert asked.sources["model"] == "file /etc/vllm.yaml"
    unseen = read_demand(SeenPod(containers=(replace(seen, files={}),)), MODELS)
    assert (unseen.tensor_parallel, unseen.pipeline_parallel) == (2, None)
    assert any("/etc/vllm.yaml are not seen" in remark for remark in unseen.remarks)


@pytest.mark.parametrize(
    ("args", "annotations", "data", "pods"),
    [
        ((), {}, 1, 1),
        (("-dp", "4"), {}, 4, 1),
        (("-dp", "16", "--data-parallel-size-local", "8"), {}, 8, 1),
        (("-dp", "16", "--data-parallel-rank", "3"), {}, 1, 1),
        (("-tp", "8", "-pp", "2"), {LWS_SIZE: "2"}, 1, 2),
        (("--nnodes", "2"), {}, 1, 2),
        (("--distributed-executor-backend", "ray"), {}, 1, None),
        ((), {LWS_SIZE: "many"}, 1, None),
    ],
)
def test_the_group_that_a_pod_belongs_to_is_known_or_said_to_be_unknown(
    args: tuple[str, ...], annotations: dict[str, str], data: int, pods: int | None
) -> None:
    asked = demand(LLAMA_8B, *args, gpus=8, annotations=annotations)
    assert (asked.data_parallel_local, asked.pods_in_group) == (data, pods)


def test_variables_that_vllm_reads_are_read() -> None:
    asked = demand(LLAMA_8B, gpus=4, env={"VLLM_DP_SIZE": "4"})
    assert (asked.data_parallel, asked.sources["data_parallel_size"]) == (4, "variable VLLM_DP_SIZE")
    assert demand(LLAMA_8B, "-dp", "2", gpus=4, env={"VLLM_DP_SIZE": "4"}).data_parallel == 2
    stages = demand(LLAMA_8B, "-pp", "2", gpus=2, env={"VLLM_PP_LAYER_PARTITION": "12,20"})
    assert any("VLLM_PP_LAYER_PARTITION is set" in remark for remark in stages.remarks)


def test_a_variable_whose_value_is_not_seen_is_unknown_and_said() -> None:
    ranked = demand(LLAMA_8B, "-dp", "8", env={"VLLM_DP_RANK": None})
    assert (ranked.data_parallel, ranked.data_parallel_local) == (8, None)
    assert "variable VLLM_DP_RANK is set, and its value is not seen" in ranked.remarks
    sized = demand(LLAMA_8B, env={"VLLM_DP_SIZE": None})
    assert (sized.data_parallel, sized.data_parallel_local) == (None, None)
    assert sized.sources["data_parallel_size"] == "variable VLLM_DP_SIZE"
    assert "variable VLLM_DP_SIZE is set, and its value is not seen" in sized.remarks
    assert demand(LLAMA_8B, "-dp", "2", env={"VLLM_DP_SIZE": None}).remarks == ()
    assert demand(LLAMA_8B, env={"VLLM_DP_RANK": None}).data_parallel_local == 1


@pytest.mark.parametrize(
    ("option", "field"),
    [
        ("--max-model-len", "max_model_len"),
        ("--kv-cache-dtype", "kv_element_bytes"),
        ("--dtype", "kv_element_bytes"),
        ("--dtype", "weights_bytes"),
        ("--quantization", "weights_bytes"),
        ("--gpu-memory-utilization", "gpu_memory_utilization"),
        ("--kv-cache-memory-bytes", "gpu_memory_utilization"),
        ("--cpu-offload-gb", "cpu_offload_bytes"),
        ("-dcp", "decode_context_parallel"),
        ("-pcp", "prefill_context_parallel"),
        ("-dp", "data_parallel"),
        ("-dpl", "data_parallel_local"),
        ("--distributed-executor-backend", "pods_in_group"),
    ],
)
def test_no_default_stands_in_for_an_option_whose_value_is_not_seen(option: str, field: str) -> None:
    sizes = ("-dp", "2") if option == "-dpl" else ()
    asked = demand(LLAMA_8B, *sizes, option, "$(SIZE)", env={"SIZE": None})
    assert getattr(asked, field) is None
    assert any("'$(SIZE)'" in remark for remark in asked.remarks)
    file = demand(LLAMA_8B, *sizes, "--config", "/etc/vllm.yaml")
    assert getattr(file, field) is None
    assert any("/etc/vllm.yaml are not seen" in remark for remark in file.remarks)
    assert getattr(demand(LLAMA_8B, *sizes), field) is not None


def test_an_annotated_shape_gives_no_length_and_no_cache_in_place_of_what_is_not_seen() -> None:
    shape = {PREFIX + "model-shape": LLAMA_8B}
    asked = demand("acme/tuned", "--max-model-len", "$(LEN)", "--kv-cache-dtype", "$(KV)", annotations=shape)
    assert (asked.max_model_len, asked.kv_element_bytes) == (None, None)
    asked = demand("acme/tuned", "--config", "/etc/vllm.yaml", annotations=shape)
    assert (asked.max_model_len, asked.kv_element_bytes) == (None, None)


def test_a_pod_of_a_ray_cluster_is_of_a_group_of_unknown_size() -> None:
    asked = read_demand(SeenPod(containers=(container(LLAMA_8B, gpus=8),), labels={"ray.io/cluster": "c"}), MODELS)
    assert asked.pods_in_group is None


def test_adapters_and_a_draft_model_take_memory_of_each_gpu() -> None:
    plain = demand(LLAMA_8B)
    adapted = demand(LLAMA_8B, "--enable-lora", "--max-loras", "4", "--max-lora-rank", "64")
    assert plain.extra_bytes_per_gpu == 0
    assert 0.5 * GIB < adapted.extra_bytes_per_gpu < 3 * GIB
    draft = '{"model": "meta-llama/Llama-3.2-1B-Instruct", "num_speculative_tokens": 4}'
    drafted = demand(LLAMA_8B, "--max-model-len", "4096", "--speculative-config", draft)
    one_b = MODELS.find("meta-llama/Llama-3.2-1B")
    assert one_b is not None
    assert drafted.extra_bytes_per_gpu > weight_bytes(one_b)
    unknown = demand(LLAMA_8B, "--speculative-config", '{"model": "acme/draft"}')
    assert any("acme/draft is not in the table" in remark for remark in unknown.remarks)
    assert demand(LLAMA_8B, "--speculative-config", '{"method": "ngram"}').extra_bytes_per_gpu == 0


def test_offloaded_weights_and_a_stated_cache_are_read() -> None:
    asked = demand(LLAMA_8B, "--cpu-offload-gb", "4", "--kv-cache-memory-bytes", "2G")
    assert (asked.cpu_offload_bytes, asked.kv_cache_memory_bytes) == (4 * GIB, 2 * GIB)


def test_annotations_win_over_all_that_was_read() -> None:
    asked = demand(
        "acme/secret-13b",
        gpus=2,
        annotations={
            PREFIX + "model-shape": "meta-llama/Llama-2-13b-hf",
            PREFIX + "weights-gib": "13",
            PREFIX + "tensor-parallel-size": "2",
            PREFIX + "nvlink": "prefer",
            PREFIX + "allow-unknown": "false",
        },
    )
    assert asked.shape is not None
    assert asked.shape.layers == 40
    assert asked.model == "acme/secret-13b"
    assert asked.max_model_len == 4096
    assert (asked.weights_bytes, asked.tensor_parallel) == (13 * GIB, 2)
    assert (asked.nvlink, asked.allow_unknown) == (NvLink.PREFER, False)
    assert asked.sources["weights_bytes"] == "annotation preheat.dev/weights-gib"


def test_a_shape_may_be_annotated_as_a_config() -> None:
    config = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "vocab_size": 100,
    }
    asked = demand("acme/tiny", annotations={PREFIX + "model-shape": json.dumps(config)})
    assert asked.shape is not None
    assert asked.shape.layers == 2


@pytest.mark.parametrize(("value", "nvlink"), [("true", NvLink.REQUIRE), ("false", NvLink.IGNORE)])
def test_nvlink_may_be_required_or_let_go(value: str, nvlink: NvLink) -> None:
    assert demand(LLAMA_8B, annotations={PREFIX + "require-nvlink": value}).nvlink is nvlink


@pytest.mark.parametrize(
    "name",
    [
        "model-shape",
        "weights-gib",
        "memory-per-gpu-gib",
        "tensor-parallel-size",
        "require-nvlink",
        "nvlink",
        "allow-unknown",
    ],
)
def test_an_annotation_that_cannot_be_is_remarked_and_changes_nothing(name: str) -> None:
    changed = demand(LLAMA_8B, annotations={PREFIX + name: "-12 of them"})
    assert replace(changed, remarks=()) == demand(LLAMA_8B)
    assert f"annotation preheat.dev/{name} is '-12 of them'" in changed.remarks[0]
    assert not any("annotation" in source for source in changed.sources.values())


def test_two_pods_that_ask_the_same_are_equal() -> None:
    one = demand("--model", LLAMA_8B, "-tp", "2", gpus=2)
    other = read_demand(
        SeenPod(containers=(Container("x", command=("vllm", "serve", LLAMA_8B, "-tp=2"), gpus={GPU_RESOURCE: 2}),)),
        MODELS,
    )
    assert one == other
    assert hash(one) == hash(other)


@given(
    st.lists(
        st.text(max_size=10)
        | st.sampled_from(
            ["-tp", "--model", "--config", "--max-model-len", "-sc", "{}", "[]", "0", "-1", "1e999", "nan"]
        ),
        max_size=8,
    ),
    st.dictionaries(
        st.sampled_from(
            [PREFIX + name for name in ("model-shape", "weights-gib", "nvlink", "tensor-parallel-size")] + [LWS_SIZE]
        ),
        st.text(max_size=6) | st.sampled_from(["{}", "[]", "inf", "nan", "²"]),
    ),
    st.integers(-2, 16),
)
def test_any_pod_is_read(args: list[str], annotations: dict[str, str], gpus: int) -> None:
    asked = read_demand(pod(*args, gpus=gpus, annotations=annotations), MODELS)
    assert asked.gpus == max(0, gpus)
