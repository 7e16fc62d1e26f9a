"""What load generators write of a run, read as the trace of the requests they sent.

`vllm bench serve --save-result --save-detailed` (vLLM 0.32) writes one object with a list for each quantity;
inference-perf, `per_request_lifecycle_metrics.json` (before and since its multi-modal metrics), an object a request.
Times of both are a monotonic clock's. A failed request has no output there, and no load of it is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from simulations.traces.formats import Format, Gathered, Layout
from simulations.traces.trace import TraceError

VLLM_BENCH: Final = Format(
    "vllm bench serve's", "start_times", "input_lens", "output_lens", by_clock=True, failed_is_zero=True
)
INFERENCE_PERF: Final = Format(
    "inference-perf's", "start_time", "info.input_tokens", "output_tokens", by_clock=True, failed_is_zero=True
)


def is_vllm_bench(document: Any) -> bool:
    return isinstance(document, dict) and ("input_lens" in document or "request_throughput" in document)


def is_inference_perf(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("info"), dict) and "start_time" in document


def is_inference_perf_summary(document: Any) -> bool:
    return isinstance(document, dict) and "load_summary" in document


def of_vllm_bench(file: str, run: Mapping[str, Any]) -> Gathered:
    """The requests of one run, whose lists are in step."""
    gathered = Gathered(file, Layout.of(VLLM_BENCH))
    missing = [column for column in VLLM_BENCH.columns if not isinstance(run.get(column), list)]
    if missing:
        raise TraceError(
            f"trace {file} is a result of vllm bench serve without {', '.join(missing)}: run it with --save-detailed"
        )
    times, prompts, outputs = (_numbers(file, column, run[column]) for column in VLLM_BENCH.columns)
    if not len(times) == len(prompts) == len(outputs):
        raise TraceError(
            f"trace {file} has {len(times)} start_times, {len(prompts)} input_lens and {len(outputs)} output_lens: "
            "give a result as vllm bench serve wrote it"
        )
    gathered.add(times, prompts, outputs)
    return gathered


def of_inference_perf(file: str, requests: Sequence[Any]) -> Gathered:
    """Requests with the lengths that the server counted where it said them, else those that the client counted."""
    times, prompts, outputs = [], [], []
    for number, request in enumerate(requests, 1):
        try:
            info = request["info"] or {}
            answer = info.get("response_metrics") or {}
            counted = answer.get("server_usage") or {}
            prompt = counted.get("prompt_tokens", info.get("input_tokens"))
            if prompt is None:
                prompt = info["request_metrics"]["text"]["input_tokens"]
            output = counted.get("completion_tokens", answer.get("output_tokens", info.get("output_tokens", 0)))
            times.append(float(request["start_time"]))
            prompts.append(float(prompt))
            outputs.append(0.0 if request.get("error") else float(output))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TraceError(
                f"trace {file}: request {number} is not as inference-perf writes them ({error!r}): "
                "give its per_request_lifecycle_metrics.json"
            ) from error
    gathered = Gathered(file, Layout.of(INFERENCE_PERF))
    gathered.add(np.array(times), np.array(prompts), np.array(outputs))
    return gathered


def _numbers(file: str, column: str, values: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TraceError(f"trace {file}: {column} holds something that is no number ({error}): mend it") from error
