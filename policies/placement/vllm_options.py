"""vLLM's command-line options: which of them say something of memory or of GPUs, and how their values are written.

Names and forms are those of vLLM 0.32 (`vllm serve --help=all`) and the older spellings that it dropped. What is not
read is either ignored knowingly or unknown; a test walks vLLM's own options and shows which is which.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from policies.placement.numbers import END

READ: Final[Mapping[str, str]] = {
    # The option, and the field of `Options` it becomes. A switch's other form is `--no-…`.
    "--model": "model",
    "--quantization": "quantization",
    "--dtype": "dtype",
    "--kv-cache-dtype": "kv_cache_dtype",
    "--max-model-len": "max_model_len",
    "--max-num-batched-tokens": "max_num_batched_tokens",
    "--gpu-memory-utilization": "gpu_memory_utilization",
    "--kv-cache-memory-bytes": "kv_cache_memory_bytes",
    "--cpu-offload-gb": "cpu_offload_gb",
    "--tensor-parallel-size": "tensor_parallel_size",
    "--pipeline-parallel-size": "pipeline_parallel_size",
    "--data-parallel-size": "data_parallel_size",
    "--data-parallel-size-local": "data_parallel_size_local",
    "--data-parallel-rank": "data_parallel_rank",
    "--decode-context-parallel-size": "decode_context_parallel_size",
    "--prefill-context-parallel-size": "prefill_context_parallel_size",
    "--nnodes": "nnodes",
    "--distributed-executor-backend": "distributed_executor_backend",
    "--enforce-eager": "enforce_eager",
    "--enable-lora": "enable_lora",
    "--max-loras": "max_loras",
    "--max-lora-rank": "max_lora_rank",
    "--speculative-config": "speculative_config",
    "--spec-model": "spec_model",
    "--hf-overrides": "hf_overrides",
    "--config": "config",
}
ALIASES: Final[Mapping[str, str]] = {
    "-q": "--quantization",
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-dpl": "--data-parallel-size-local",
    "-dpn": "--data-parallel-rank",
    "-dcp": "--decode-context-parallel-size",
    "-pcp": "--prefill-context-parallel-size",
    "-n": "--nnodes",
    "-sc": "--speculative-config",
    "--device-memory-utilization": "--gpu-memory-utilization",
    # Before 0.8 a draft model was named by itself.
    "--speculative-model": "--spec-model",
}
SWITCHES: Final = frozenset({"--enforce-eager", "--enable-lora"})

_IGNORED_SWITCHES: Final = """
    aggregate-engine-logging allow-credentials allow-deprecated-quantization async-scheduling
    cohere-is-reasoning-model cudagraph-metrics data-parallel-external-lb data-parallel-hybrid-lb
    data-parallel-multi-port-external-lb dcp-q-replicate disable-cascade-attn disable-chunked-mm-input
    disable-custom-all-reduce disable-fastapi-docs disable-hybrid-kv-cache-manager disable-log-stats
    disable-nccl-for-dp-synchronization disable-sliding-window disable-uvicorn-access-log
    enable-auto-tool-choice enable-batch-sharded-sampling enable-chunked-prefill enable-cumem-allocator
    enable-dbo enable-elastic-ep enable-ep-weight-filter enable-eplb enable-expert-parallel
    enable-fault-tolerance enable-flash-late-interaction enable-flashinfer-autotune enable-force-include-usage
    enable-hc-sp enable-layerwise-nvtx-tracing enable-log-deltas enable-log-outputs enable-log-requests
    enable-logging-iteration-details enable-mamba-cache-stochastic-rounding
    enable-mamba-shared-prefix-checkpoint enable-mfu-metrics enable-mixed-moe-lora-format enable-mm-embeds
    enable-moe-shared-loras enable-nccl-comm-suspend enable-offline-docs enable-per-request-metrics
    enable-prefix-caching enable-prompt-embeds enable-prompt-tokens-details enable-request-id-headers
    enable-return-routed-experts enable-scale-out enable-server-load-tracking enable-shm-tensor-arena
    enable-sleep-mode enable-ssl-refresh enable-tokenizer-info-endpoint enable-tower-connector-lora
    enable-trace-replay exclude-tools-when-tool-choice-none fail-on-environ-validation fully-sharded-loras grpc
    headless interleave-mm-strings jit-monitor-verbose kv-cache-metrics kv-sharing-fast-prefill
    language-model-only log-error-stack long-prefill-token-threshold-adaptive mm-device-do-normalize
    mm-encoder-only numa-bind ray-workers-use-nsight return-sampling-mask return-tokens-as-token-ids
    scheduler-reserve-full-isl skip-mm-profiling skip-tokenizer-init sleep-mode-offload-cudagraph
    specialize-active-lora swa-bounded-replay tokens-only trust-remote-code trust-request-chat-template
    trust-request-mm-kwargs use-fp64-gumbel use-replayssm use-tqdm-on-load
"""
_IGNORED: Final = """
    additional-config all2all-backend allowed-headers allowed-local-media-path allowed-methods allowed-origins
    anthropic-disabled-thinking-effort api-server-count attention-backend attention-config aux-output-config
    block-size chat-template chat-template-content-format code-revision cohere-format compilation-config
    config-format convert cp-kv-cache-interleave-size cpu-distributed-timeout-seconds custom-histogram-buckets
    data-parallel-address data-parallel-backend data-parallel-rpc-port data-parallel-start-rank
    data-parallel-supervisor-port dbo-decode-token-threshold dbo-prefill-token-threshold dcp-comm-backend
    dcp-kv-cache-interleave-size default-chat-template-kwargs default-mm-loras device-ids diffusion-config
    disable-access-log-for-endpoints distributed-timeout-seconds download-dir
    dp-supervisor-probe-failure-threshold dp-supervisor-probe-interval-s dp-supervisor-probe-timeout-s
    dp-sync-interval ec-manager-config ec-transfer-config elastic-ep-max-dp-size engram-config eplb-config
    expert-placement-strategy fault-tolerance-config fingerprint-mode fingerprint-value gdn-prefill-backend
    generation-config grpc-port h11-max-header-count h11-max-incomplete-event-size hf-config-path host
    io-processor-plugin ir-op-priority jit-monitor-mode kda-decode-backend kda-prefill-backend kernel-config
    kv-cache-metrics-sample kv-events-config kv-offloading-backend kv-offloading-size kv-transfer-config
    limit-mm-per-prompt linear-backend load-format log-config-file log-level logging-config logprobs-mode
    long-prefill-token-threshold lora-dtype mamba-backend mamba-block-size mamba-cache-dtype mamba-cache-mode
    mamba-cache-philox-rounds mamba-ssm-cache-dtype mamba-ssu-algorithm master-addr master-port max-cpu-loras
    max-cudagraph-capture-size max-log-len max-logprobs max-lora-cls-labels max-num-active-seqs
    max-num-queued-reqs max-num-queued-tokens max-num-scheduled-tokens max-num-seqs max-parallel-loading-workers
    media-io-kwargs middleware mm-encoder-attn-backend mm-encoder-attn-dtype mm-encoder-fp8-scale-path
    mm-encoder-fp8-scale-save-margin mm-encoder-fp8-scale-save-path mm-encoder-tp-mode mm-hasher-algorithm
    mm-ipc-gpu-memory-gb mm-processor-cache-gb mm-processor-cache-type mm-processor-device mm-processor-kwargs
    mm-shm-cache-max-object-size-mb mm-tensor-ipc model-class-overrides model-impl model-loader-extra-config
    moe-backend node-rank num-gpu-blocks-override
    offload-backend offload-group-size offload-num-in-group offload-prefetch-step
    optimization-level otlp-traces-endpoint override-generation-config per-request-spec-decode-metrics
    performance-mode pooler-config port prefill-schedule-interval prefix-cache-retention-interval
    prefix-caching-hash-algo prefix-match-unit profiler-config pt-load-map-location quantization-config
    reasoning-config reasoning-parser reasoning-parser-plugin renderer-num-workers replayssm-buffer-len
    response-role revision root-path runner safetensors-load-strategy safetensors-prefetch-block-size
    safetensors-prefetch-num-threads scheduler-cls scheduling-policy seed show-hidden-metrics-for-version
    shutdown-timeout sparse-indexer-topk-backend spec-method spec-tokens sse-keep-alive-interval ssl-ca-certs
    ssl-cert-reqs ssl-certfile ssl-ciphers ssl-keyfile stream-interval structured-outputs-config tokenizer
    tokenizer-mode tokenizer-revision tool-call-parser tool-parser-plugin tool-server tool-strict-level
    ubatch-size uds uvicorn-log-level video-pruning-method video-pruning-rate watermark watermark-config
    weight-transfer-config worker-cls worker-extension-cls
"""
_IGNORED_LISTS: Final = """
    allowed-media-domains api-key collect-detailed-traces cpu-offload-params cudagraph-capture-sizes hf-token
    ignore-patterns kv-cache-dtype-skip-layers logits-processors lora-modules lora-target-modules numa-bind-cpus
    numa-bind-nodes offload-params served-model-name sleep-preserve-parameter-names
"""
IGNORED_SWITCHES: Final = frozenset(f"--{word}" for word in _IGNORED_SWITCHES.split())
IGNORED: Final = frozenset(f"--{word}" for word in _IGNORED.split())
IGNORED_LISTS: Final = frozenset(f"--{word}" for word in _IGNORED_LISTS.split())
"""Of no consequence for where a pod fits, or of one that is within the overheads: those without a value, those with
one, and those with as many as follow."""

IGNORED_ALIASES: Final[Mapping[str, str]] = {
    "-ac": "--attention-config",
    "-asc": "--api-server-count",
    "-cc": "--compilation-config",
    "-dc": "--diffusion-config",
    "-dpa": "--data-parallel-address",
    "-dpb": "--data-parallel-backend",
    "-dpe": "--data-parallel-external-lb",
    "-dph": "--data-parallel-hybrid-lb",
    "-dpm": "--data-parallel-multi-port-external-lb",
    "-dpp": "--data-parallel-rpc-port",
    "-dpr": "--data-parallel-start-rank",
    "-ep": "--enable-expert-parallel",
    "-r": "--node-rank",
    "-O": "--optimization-level",
}
_LONG: Final = sorted({*READ, *IGNORED_SWITCHES, *IGNORED, *IGNORED_LISTS})


@dataclass(slots=True)
class Options:
    """Values as written, by field of `READ`; a switch is "true" or "false"."""

    positional: str = ""
    """`vllm serve`'s model; "" where none was given."""
    values: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    """Options that neither we nor vLLM 0.32 know."""


def parse(words: Sequence[str]) -> Options:
    """Options as argparse reads them: `--a=b`, `--a b`, `--a_b`, an unambiguous beginning; the last of two wins.

    `--a.b=c` builds up the JSON of `--a`. What vLLM would refuse is passed over: it will say so itself.
    """
    options = Options()
    members: dict[str, dict[str, str]] = {}
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if not _is_option(word):
            options.positional = options.positional or word
            continue
        name, value = _split(word)
        base, _, member = name.partition(".")
        base = _full_name(base)
        plain = f"--{base[5:]}" if base.startswith("--no-") else base
        if plain in SWITCHES or plain in IGNORED_SWITCHES:
            if plain in SWITCHES:
                options.values[READ[plain]] = "true" if plain == base else "false"
            continue
        if base in IGNORED_LISTS:
            while rest and not _is_option(rest[0]):
                rest.popleft()
            continue
        if base not in READ and base not in IGNORED:
            options.unknown.append(base)
            # Most options have a value; a model's name would not come after one that is not known.
            if value is None and rest and not _is_option(rest[0]) and options.positional:
                rest.popleft()
            continue
        if value is None and rest and not _is_option(rest[0]):
            value = rest.popleft()
        if value is None or base in IGNORED:
            continue
        if member:
            members.setdefault(READ[base], {})[member] = value
        else:
            options.values[READ[base]] = value
    for target, told in members.items():
        options.values.setdefault(target, json.dumps(told))
    return options


def _is_option(word: str) -> bool:
    return word.startswith("-") and len(word) > 1 and re.fullmatch(r"-\d.*", word) is None


def _split(word: str) -> tuple[str, str | None]:
    """Name and joined value."""
    name, joined, value = word.partition("=")
    if name.startswith("--"):
        head, dot, tail = name.partition(".")
        name = head.replace("_", "-") + dot + tail
    elif re.fullmatch(r"-O\w", name):
        return "-O", name[2:]
    return name, value if joined else None


def _full_name(name: str) -> str:
    name = ALIASES.get(name) or IGNORED_ALIASES.get(name) or name
    if not name.startswith("--") or name in READ:
        return name
    at = bisect_left(_LONG, name)
    begun = [known for known in _LONG[at : at + 2] if known.startswith(name)]
    return begun[0] if len(begun) == 1 else name


_HUMAN: Final = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])", re.ASCII)
_POWERS: Final = {"k": 1, "m": 2, "g": 3, "t": 4}


def human_int(text: str) -> int | None:
    """A whole number as vLLM reads one: `32768`, `25.6k` (1,000 each), `32K` (1,024 each); None: it is none.

    Nor is one that is larger than anything.
    """
    match = _HUMAN.fullmatch(text.strip())
    try:
        number = int(text) if match is None else _scaled(*match.groups())
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < END else None


def _scaled(number: str, unit: str) -> int:
    power = _POWERS[unit.lower()]
    return int(float(number) * 1000.0**power) if unit.islower() else int(number) * int(1024**power)
