"""Decisions as spans: what they say, that they arrive by OTLP, and that without a collector there are none."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from autoscaler.journal import Entry, Journal
from autoscaler.loop import Outcome
from autoscaler.program import Options, serve
from autoscaler.service import Service, target_of
from autoscaler.telemetry import Telemetry
from autoscaler.tracing import ENDPOINTS, Tracing, attributes, from_environment
from cluster.errors import NotObservedError
from policies.scaling.decision import Binding, Decision, Forecast
from policies.scaling.observation import Interval
from tests.autoscaler.test_program import api, engines, prometheus, stated
from tests.autoscaler.worlds import START, World, resource
from tests.stand_ins.kubernetes import KubernetesStandIn
from tests.stand_ins.prometheus import StandInPrometheus
from tests.stand_ins.waiting import until

__all__ = ["api", "engines", "prometheus"]

DECIDED = Decision(
    START,
    replicas=5,
    wanted=6,
    desired=3,
    binding=Binding.FORECAST,
    sentence="wants 6; goes from 3 to 5",
    forecast=Forecast(START + 60, "trend", 4.0, 5.0, 0.9),
    within_objectives=Interval(0.98, 1.0),
    needed=6,
    clips=("one step up is 2",),
)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With no variable set before, and with no thread of the SDK left behind, which would go on trying to send."""
    before = set(threading.enumerate())
    for name in (*ENDPOINTS, "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)
    yield
    for thread in set(threading.enumerate()) - before:
        if "otel" in thread.name.lower() or thread.name == "last spans":
            thread.join(60)
            assert not thread.is_alive(), thread.name


def test_a_span_says_what_the_journal_says_in_its_names() -> None:
    said = attributes(Entry("inference/llama", START, Outcome.RESCALED, decision=DECIDED))
    assert said == {
        "preheat.target": "inference/llama",
        "preheat.outcome": "rescaled",
        "preheat.decision.time": START,
        "preheat.decision.replicas": 5,
        "preheat.decision.wanted": 6,
        "preheat.decision.desired": 3,
        "preheat.decision.binding": "forecast",
        "preheat.decision.sentence": "wants 6; goes from 3 to 5",
        "preheat.decision.horizon_seconds": 0.0,
        "preheat.decision.forecast.time": START + 60,
        "preheat.decision.forecast.view": "trend",
        "preheat.decision.forecast.expected": 4.0,
        "preheat.decision.forecast.upper": 5.0,
        "preheat.decision.forecast.quantile": 0.9,
        "preheat.decision.ready": 0,
        "preheat.decision.coming": 0,
        "preheat.decision.within_objectives.low": 0.98,
        "preheat.decision.within_objectives.high": 1.0,
        "preheat.decision.needed": 6,
        "preheat.decision.clips": ("one step up is 2",),
    }


async def recorded(world: World, turns: int, folder: Path) -> tuple[list[ReadableSpan], list[dict[str, object]]]:
    """The spans of so many turns, and the journal's lines of the same."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    journal = Journal(folder)
    target = target_of(resource(), world, tick_seconds=15.0)
    service = Service([target], Telemetry("0"), tick_seconds=15.0, journal=journal, tracing=Tracing(provider))
    for _ in range(turns):
        await service.turn(target)
    journal.close()
    provider.shutdown()
    return list(exporter.get_finished_spans()), lines_of(folder)


def lines_of(folder: Path) -> list[dict[str, object]]:
    (path,) = folder.glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_every_turn_is_one_span_that_agrees_with_its_line_in_the_journal(tmp_path: Path) -> None:
    spans, lines = await recorded(World(replicas=6), 12, tmp_path)
    assert len(spans) == len(lines) == 12
    assert {span.name for span in spans} == {"decision"}
    for span, line in zip(spans, lines, strict=True):
        said, decision = span.attributes or {}, line["decision"]
        assert isinstance(decision, dict)
        for name in ("replicas", "desired", "wanted", "binding", "sentence", "demand", "capacity"):
            assert said.get(f"preheat.decision.{name}") == decision[name]
        assert said["preheat.outcome"] == line["outcome"]
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time
        assert span.parent is None
    assert "rescaled" in [line["outcome"] for line in lines]


async def test_a_turn_that_saw_nothing_is_a_span_with_an_error(tmp_path: Path) -> None:
    (span,), _ = await recorded(World(faults=[NotObservedError("the API server is away")]), 1, tmp_path)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "the API server is away")
    assert span.attributes == {
        "preheat.target": "inference/llama",
        "preheat.outcome": "blind",
        "preheat.problem": "the API server is away",
    }


class Collector:
    """Takes OTLP over HTTP, or refuses it."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Receives(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.paths.append(self.path)
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Receives)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


async def test_where_the_environment_names_a_collector_spans_arrive_there(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=here")
    tracing = from_environment("1.2.3")
    assert tracing is not None
    tracing.record(Entry("inference/llama", START, Outcome.RESCALED, decision=DECIDED), START, START + 0.5)
    await tracing.close(10.0)
    assert collector.paths == ["/v1/traces"]
    (of_resource,) = collector.requests[0].resource_spans
    named = {each.key: each.value.string_value for each in of_resource.resource.attributes}
    assert named.items() >= {
        ("service.name", "preheat-autoscaler"),
        ("service.version", "1.2.3"),
        ("k8s.cluster.name", "here"),
    }
    (span,) = of_resource.scope_spans[0].spans
    assert (span.name, span.start_time_unix_nano, span.end_time_unix_nano) == (
        *("decision", int(START * 1e9)),
        int((START + 0.5) * 1e9),
    )
    said = {each.key: each.value for each in span.attributes}
    assert said["preheat.target"].string_value == "inference/llama"
    assert said["preheat.decision.replicas"].int_value == 5


async def test_the_program_sends_a_span_for_every_turn(
    api: KubernetesStandIn,
    prometheus: StandInPrometheus,
    collector: Collector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/spans")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    options = Options(
        resources=(stated("llama", prometheus.url),),
        kubeconfig=api.kubeconfig(tmp_path / "kubeconfig"),
        port=0,
        tick_seconds=0.3,
    )
    running = asyncio.create_task(serve(options))
    await until(lambda: bool(collector.requests) or running.done(), seconds=60)
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert set(collector.paths) == {"/spans"}
    (span, *_) = collector.requests[0].resource_spans[0].scope_spans[0].spans
    said = {each.key: each.value.string_value for each in span.attributes}
    assert said["preheat.target"] == "inference/llama"
    assert said["preheat.outcome"]


async def test_a_collector_that_is_not_there_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    tracing = from_environment("0")
    assert tracing is not None
    tracing.record(Entry("inference/llama", START, Outcome.RESCALED, decision=DECIDED), START, START)
    await asyncio.wait_for(tracing.close(0.05), 10)


def test_without_a_collector_the_sdk_is_not_even_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert from_environment("0") is None


def test_a_missing_sdk_is_told_once_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with caplog.at_level(logging.WARNING):
        assert from_environment("0") is None
    assert "pip install 'preheat[otel]'" in caplog.text


def test_the_exporter_none_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert from_environment("0") is None
