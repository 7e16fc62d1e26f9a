"""What a pod asks for, read from the pod itself: its containers' words, its annotations, the group it belongs to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import yaml

from policies.gpu_memory import GIB, ModelShape, kv_bytes_per_sequence, weight_bytes
from policies.placement import quantization
from policies.placement.annotations import annotated
from policies.placement.command_line import UNREADABLE, Started, started_vllm
from policies.placement.demand import GPU_RESOURCE, Container, PodDemand, SeenPod
from policies.placement.models import ModelTable
from policies.placement.numbers import DIGITS, whole
from policies.placement.requested import requested
from policies.placement.vllm_options import Options, human_int, parse

LWS_SIZE: Final = "leaderworkerset.sigs.k8s.io/size"
RAY_CLUSTER: Final = "ray.io/cluster"

NEWER_DEFAULT_UTILIZATION: Final = ((0, 32), 0.92)
"""From this release on, vLLM takes so much of a GPU's memory where nothing is said."""
DEFAULT_UTILIZATION: Final = 0.9

KV_BYTES: Final[Mapping[str, float]] = {
    "bfloat16": 2.0,
    "float16": 2.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
    "fp8_inc": 1.0,
    # 512 bytes, 64 numbers of 16 bits and four 32-bit scales for the 576 numbers of a token.
    "fp8_ds_mla": 656 / 576,
    # With a 32-bit scale for each head of, usually, 128.
    "fp8_per_token_head": 1 + 4 / 128,
    "int8_per_token_head": 1 + 4 / 128,
    "int4_per_token_head": 0.5 + 4 / 128,
    "nvfp4": 0.5 + 1 / 16,
}


VARIABLES: Final = {"data_parallel_size": "VLLM_DP_SIZE", "data_parallel_rank": "VLLM_DP_RANK"}
"""Variables that vLLM reads where the option is not given."""
STAGES_VARIABLE: Final = "VLLM_PP_LAYER_PARTITION"


class _Notes:
    """Where each field was read, and what could not be, while a pod is looked at."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self.remarks: list[str] = []


def read_demand(pod: SeenPod, models: ModelTable) -> PodDemand:
    """What the pod asks. Never raises: what cannot be read is None, and a remark says why."""
    notes = _Notes()
    gpus, resource = _gpus(pod, notes)
    if gpus == 0:
        return PodDemand(gpus=0, tolerates_cordon=pod.tolerates_cordon, remarks=tuple(notes.remarks))
    starting = _starting(pod, notes)
    if starting is None:
        notes.remarks.append("no container was seen to start vLLM: only its GPUs are counted")
        demand = PodDemand(gpus=gpus, resource=resource, kv_element_bytes=None)
    else:
        container, started = starting
        demand = _of_options(gpus, resource, container, started, pod, models, notes)
    demand = annotated(demand, pod.annotations, models, sources=notes.sources, remarks=notes.remarks)
    return replace(
        demand,
        tolerates_cordon=pod.tolerates_cordon,
        sources=notes.sources,
        remarks=tuple(dict.fromkeys(notes.remarks)),
    )


def _gpus(pod: SeenPod, notes: _Notes) -> tuple[int, str]:
    start = ((container.gpus, container.is_sidecar) for container in pod.init_containers)
    counts = requested((container.gpus for container in pod.containers), start)
    asked = sorted((resource, count) for resource, count in counts.items() if count > 0)
    if not asked:
        return 0, GPU_RESOURCE
    # Whole GPUs sort before slices of them.
    resource, count = asked[0]
    if len(asked) > 1:
        kinds = ", ".join(resource for resource, _ in asked)
        notes.remarks.append(f"it asks for several kinds of devices ({kinds}): only the first is judged")
    return count, resource


def _starting(pod: SeenPod, notes: _Notes) -> tuple[Container, Started] | None:
    """The container that starts vLLM, one with GPUs before one without."""
    sidecars = [container for container in pod.init_containers if container.is_sidecar]
    found = [(c, s) for c in (*pod.containers, *sidecars) if (s := started_vllm(c)) is not None]
    found.sort(key=lambda pair: not any(pair[0].gpus.values()))
    with_gpus = [container.name for container, _ in found if any(container.gpus.values())]
    if len(with_gpus) > 1:
        notes.remarks.append(
            f"vLLM is started by several containers ({', '.join(with_gpus)}): only the first is judged"
        )
    return found[0] if found else None


def _of_options(
    gpus: int,
    resource: str,
    container: Container,
    started: Started,
    pod: SeenPod,
    models: ModelTable,
    notes: _Notes,
) -> PodDemand:
    options = parse(started.options)
    read = _Reader(options, started, container, notes)
    model = read.text("model", options.positional)
    shape = models.find(model) if model else None
    if not model:
        notes.remarks.append("no model is named")
    elif UNREADABLE.search(model):
        notes.remarks.append(f"its model is {model}, which is not known before it runs")
        shape = None
    elif shape is None:
        notes.remarks.append(f"model {model} is not in the table: add its config.json, or state its weights")
    else:
        notes.sources["shape"] = shape.source
    dtype = read.text("dtype") or "auto"
    shape = _stored(shape, read.text("quantization"), dtype)
    as_stored = not read.any_unseen("quantization", "dtype")
    if STAGES_VARIABLE in started.env:
        notes.remarks.append(f"{STAGES_VARIABLE} is set, and not regarded: stages are counted as equal")
    if read.text("hf_overrides"):
        notes.remarks.append("--hf-overrides may change the model's shape, and is not regarded")
    length = read.text("max_model_len")
    automatic = length.strip().lower() in ("auto", "-1")
    max_len = read.whole("max_model_len", None) if length and not automatic else None
    if not length and not read.any_unseen("max_model_len") and shape is not None:
        max_len = shape.context_tokens
        notes.sources["max_model_len"] = "the model's full context, as none is given"
    tensor, pipeline = read.whole("tensor_parallel_size", 1), read.whole("pipeline_parallel_size", 1)
    total_data = read.whole("data_parallel_size", 1)
    data, group = _group(read, pod, total_data, notes)
    utilization = read.number("gpu_memory_utilization")
    if read.any_unseen("gpu_memory_utilization", "kv_cache_memory_bytes"):
        # With a cache of a stated size the utilisation does not count.
        utilization = None
    elif utilization is None or not 0 < utilization <= 1:
        utilization = _default_utilization(container.image)
        notes.sources["gpu_memory_utilization"] = "vLLM's default"
    offload = None if read.any_unseen("cpu_offload_gb") else int((read.number("cpu_offload_gb") or 0.0) * GIB)
    demand = PodDemand(
        gpus=gpus,
        resource=resource,
        model=model,
        shape=shape,
        weights_bytes=weight_bytes(shape) if shape is not None and as_stored else None,
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        data_parallel_local=data,
        data_parallel=total_data,
        prefill_context_parallel=read.whole("prefill_context_parallel_size", 1),
        pods_in_group=group,
        max_model_len=max_len,
        max_model_len_auto=automatic,
        max_num_batched_tokens=read.whole("max_num_batched_tokens", None),
        gpu_memory_utilization=utilization,
        kv_cache_memory_bytes=read.whole("kv_cache_memory_bytes", None),
        kv_element_bytes=_kv_bytes(read, dtype, notes),
        cpu_offload_bytes=offload,
        enforce_eager=options.values.get("enforce_eager") == "true",
        decode_context_parallel=read.whole("decode_context_parallel_size", 1),
    )
    return replace(demand, extra_bytes_per_gpu=_extra(demand, read, models, notes))


class _Reader:
    """Values of options, each with where it was read; what a file given by `--config` says comes after the words."""

    def __init__(self, options: Options, started: Started, container: Container, notes: _Notes) -> None:
        self._options, self._started, self._notes = options, started, notes
        self._file: Mapping[str, str] = {}
        self._unseen = ""
        path = options.values.get("config", "")
        if path:
            text = container.files.get(path)
            loaded = _loaded(text) if text is not None else None
            if loaded is None:
                self._unseen = path
                notes.remarks.append(f"the options in {path} are not seen: annotations can state them")
            else:
                self._file = loaded
        if options.unknown:
            notes.remarks.append(f"options not known to vLLM 0.32: {', '.join(options.unknown)}")

    def text(self, field: str, otherwise: str = "") -> str:
        value = self._options.values.get(field) or otherwise
        if value:
            self._notes.sources[field] = self._started.where
            return value
        variable = VARIABLES.get(field, "")
        value = self._started.env.get(variable) or ""
        if value:
            self._notes.sources[field] = f"variable {variable}"
            return value
        told = self._file.get(field, self._file.get("model_tag") if field == "model" else None)
        if told is None:
            return ""
        self._notes.sources[field] = f"file {self._options.values['config']}"
        return told

    def any_unseen(self, *fields: str) -> bool:
        """Whether one of them is given, or may be, where its value is not seen; what is given so is remarked."""
        unseen = [field for field in fields if self._is_unseen(field)]
        return bool(unseen)

    def _is_unseen(self, field: str) -> bool:
        text = self.text(field)
        if text:
            unreadable = UNREADABLE.search(text) is not None
            if unreadable:
                self._unreadable(field, text, "")
            return unreadable
        variable = VARIABLES.get(field, "")
        if self._started.env.get(variable, "") is None:
            self._notes.sources[field] = f"variable {variable}"
            self._notes.remarks.append(f"variable {variable} is set, and its value is not seen")
            return True
        if self._unseen:
            self._notes.sources[field] = f"file {self._unseen}, which is not seen"
        return bool(self._unseen)

    def whole(self, field: str, default: int | None) -> int | None:
        """None where it is written and cannot be read, or may be given where it is not seen."""
        text = self.text(field)
        if not text:
            if self.any_unseen(field):
                return None
            self._notes.sources.setdefault(field, "vLLM's default")
            return default
        number = human_int(text)
        if number is None or number < 1:
            if text.strip().lower() not in ("auto", "-1"):
                self._unreadable(field, text, f"a whole number above 0 of at most {DIGITS} digits")
            return None
        return number

    def number(self, field: str) -> float | None:
        text = self.text(field)
        if not text:
            return None
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if 0 <= number < 1e9:
            return number
        self._unreadable(field, text, "a number")
        return None

    def _unreadable(self, field: str, text: str, wanted: str) -> None:
        option = f"--{field.replace('_', '-')}"
        why = "which is not known before it runs" if UNREADABLE.search(text) else f"which is not {wanted}"
        self._notes.remarks.append(f"{option} is {text!r}, {why}")


def _loaded(text: str) -> Mapping[str, str] | None:
    """Options by field, as texts; None where it is no YAML of an object."""
    try:
        loaded = yaml.safe_load(text)
        if not isinstance(loaded, Mapping):
            return None
        return {str(key).replace("-", "_"): str(value) for key, value in loaded.items() if value is not None}
    except Exception:  # besides its own errors PyYAML lets out whatever a date, a number or a tag makes Python raise
        return None


def _stored(shape: ModelShape | None, method: str, dtype: str) -> ModelShape | None:
    """The shape as vLLM will hold it, by `--quantization` and `--dtype`."""
    if shape is None:
        return None
    kind = quantization.METHODS.get(method.lower().replace("-", "_"), "")
    if kind and shape.weight_bits == quantization.PLAIN_BITS:
        shape = replace(shape, weight_bits=quantization.BITS[kind], quantization=method)
    if dtype in ("float32", "float"):
        plain = shape.weight_bits == quantization.PLAIN_BITS
        shape = replace(shape, other_bits=32.0, weight_bits=32.0 if plain else shape.weight_bits)
    return shape


def _kv_bytes(read: _Reader, dtype: str, notes: _Notes) -> float | None:
    kind = read.text("kv_cache_dtype") or "auto"
    if kind == "auto":
        if read.any_unseen("kv_cache_dtype", "dtype"):
            return None
        return 4.0 if dtype in ("float32", "float") else 2.0
    known = KV_BYTES.get(kind)
    if known is None:
        notes.remarks.append(f"--kv-cache-dtype is {kind!r}, whose size is not known here")
    return known


def _group(read: _Reader, pod: SeenPod, data: int | None, notes: _Notes) -> tuple[int | None, int | None]:
    """Engines whose GPUs are counted together, and in how many pods those GPUs are."""
    local = read.whole("data_parallel_size_local", None)
    if local is not None:
        return local, 1
    if read.text("data_parallel_rank"):
        data = 1
    elif data != 1 and read.any_unseen("data_parallel_size_local", "data_parallel_rank"):
        data = None
    size = pod.annotations.get(LWS_SIZE) or pod.labels.get(LWS_SIZE)
    if size:
        if pods := whole(size):
            notes.sources["pods_in_group"] = f"annotation {LWS_SIZE}"
            return data, pods
        notes.remarks.append(f"{LWS_SIZE} is {size!r}, which is no number of pods")
        return data, None
    nodes = read.whole("nnodes", 1)
    if nodes != 1:
        return data, nodes
    if RAY_CLUSTER in pod.labels or read.text("distributed_executor_backend") == "ray":
        # With Ray the GPUs may be in any number of pods, and none of them says in how many.
        notes.sources["pods_in_group"] = "Ray, which does not say"
        return data, None
    if read.any_unseen("distributed_executor_backend"):
        return data, None
    return data, 1


def _default_utilization(image: str) -> float:
    tag = image.rpartition("/")[2].partition("@")[0].rpartition(":")[2]
    version = re.match(r"v?(\d{1,12})\.(\d{1,12})", tag)
    (since, newer) = NEWER_DEFAULT_UTILIZATION
    return newer if version and (int(version[1]), int(version[2])) >= since else DEFAULT_UTILIZATION


def _extra(demand: PodDemand, read: _Reader, models: ModelTable, notes: _Notes) -> int:
    """What adapters and a draft model take of each GPU."""
    ranks = demand.tensor_parallel or 1
    extra = 0.0
    if read.text("enable_lora") == "true" and demand.shape is not None:
        slots, rank = read.whole("max_loras", 1) or 1, read.whole("max_lora_rank", 16) or 16
        # An adapter beside a matrix of n x n has 2·r·n parameters of 16 bits.
        width = demand.shape.attention_heads * demand.shape.head_dim
        extra += 2 * slots * demand.shape.linear_parameters * 2 * rank / width / ranks
    draft = read.text("spec_model")
    config = read.text("speculative_config")
    if config:
        try:
            told = json.loads(config)
            draft = str(told.get("model") or draft)
        except (ValueError, AttributeError, RecursionError):
            notes.remarks.append("--speculative-config is not the JSON of an object")
    if draft and draft not in ("[ngram]", "ngram"):
        shape = models.find(draft)
        if shape is None:
            notes.remarks.append(f"draft model {draft} is not in the table: its memory is not counted")
        else:
            tokens = demand.max_model_len or 0
            extra += weight_bytes(shape) / ranks + kv_bytes_per_sequence(shape, tokens, tensor_parallel=ranks)
    return int(extra)
