"""Results of load generators, read as the traces of what they sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulations.traces import Trace, TraceError, read

VLLM_BENCH: dict[str, Any] = {
    "date": "20261121-120000",
    "backend": "vllm",
    "num_prompts": 3,
    "request_throughput": 1.5,
    "median_ttft_ms": float("nan"),  # as Python writes it, and JSON forbids
    "input_lens": [10, 20, 30],
    "output_lens": [1, 0, 3],
    "start_times": [1000.5, 1000.0, 1002.0],
    "errors": ["", "Service Unavailable", ""],
}
BEFORE: dict[str, Any] = {"info": {"input_tokens": 10, "output_tokens": 5, "output_token_times": [100.1]}}
SINCE: dict[str, Any] = {
    "info": {
        "request_metrics": {"text": {"input_tokens": 7}},
        "response_metrics": {"output_tokens": 9, "server_usage": {"prompt_tokens": 8, "completion_tokens": 11}},
        "input_tokens": 7,
    }
}


def given_as(folder: Path, text: str) -> Trace:
    path = folder / "run.json"
    path.write_text(text)
    return read(path)


def rows(trace: Trace) -> list[tuple[float, int, int]]:
    columns = (trace.arrived_at_seconds, trace.prompt_tokens, trace.output_tokens)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("indent", [None, 2])
def test_a_detailed_result_of_vllm_bench_is_a_trace_of_what_was_answered(tmp_path: Path, indent: int | None) -> None:
    trace = given_as(tmp_path, json.dumps(VLLM_BENCH, indent=indent))
    assert rows(trace) == [(0.0, 10, 1), (1.5, 30, 3)]
    assert trace.notes[0].startswith("trace run.json: 1 of 3 requests have a length of 0, as vllm bench serve's")


def test_results_of_vllm_bench_that_say_too_little_are_refused_with_the_option(tmp_path: Path) -> None:
    brief = {key: value for key, value in VLLM_BENCH.items() if key not in ("input_lens", "output_lens", "start_times")}
    with pytest.raises(TraceError, match="without start_times, input_lens, output_lens: run it with --save-detailed"):
        given_as(tmp_path, json.dumps(brief))
    line = json.dumps(VLLM_BENCH)
    with pytest.raises(TraceError, match="several runs of vllm bench serve"):
        given_as(tmp_path, f"{line}\n{line}\n")
    with pytest.raises(TraceError, match="2 start_times, 3 input_lens and 3 output_lens"):
        given_as(tmp_path, json.dumps({**VLLM_BENCH, "start_times": [1.0, 2.0]}))
    with pytest.raises(TraceError, match="input_lens holds something that is no number"):
        given_as(tmp_path, json.dumps({**VLLM_BENCH, "input_lens": ["a", 1, 2]}))


def test_requests_of_inference_perf_are_read_in_both_shapes_and_failed_ones_left_out(tmp_path: Path) -> None:
    requests = [
        {"start_time": 102.0, "end_time": 103.0, "request": "{}", "response": "x", "error": None, **BEFORE},
        {"start_time": 100.0, "end_time": 103.0, "request": "{}", "response": "x", "error": None, **SINCE},
        {
            "start_time": 101.0,
            "end_time": 103.0,
            "request": "{}",
            "response": "x",
            "error": {"error_type": "t"},
            **SINCE,
        },
    ]
    trace = given_as(tmp_path, json.dumps(requests, indent=2))
    assert rows(trace) == [(0.0, 8, 11), (2.0, 10, 5)]
    assert "1 of 3 requests" in trace.notes[0]


def test_another_report_of_inference_perf_is_refused_with_the_one_to_give(tmp_path: Path) -> None:
    with pytest.raises(
        TraceError, match=r"summary of inference-perf: give the run's per_request_lifecycle_metrics.json"
    ):
        given_as(tmp_path, json.dumps({"load_summary": {}, "successes": {}}))
    with pytest.raises(TraceError, match="request 2 is not as inference-perf writes them"):
        given_as(tmp_path, json.dumps([{"start_time": 1.0, "error": None, **BEFORE}, {"start_time": 2.0}]))
