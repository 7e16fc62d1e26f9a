"""A span for every decision, sent to an OpenTelemetry collector where the environment names one; else nothing is.

The SDK is an extra (`preheat[otel]`) and is asked for only then. What a span says has the names that it has in the
journal, below `preheat.`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from autoscaler.journal import Entry
from autoscaler.loop import Outcome

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger(__name__)

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SPOKEN: Final = "http/protobuf"
SPAN: Final = "decision"
FAILED: Final = frozenset({Outcome.BLIND, Outcome.RAISED, Outcome.REFUSED, Outcome.UNANSWERED})

Value = str | bool | int | float | tuple[str, ...]


class Tracing:
    """Hands on a span a turn; a thread of the SDK sends them, so that no decision waits for a collector."""

    def __init__(self, provider: TracerProvider, version: str = "") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("preheat", version)

    def record(self, entry: Entry, begun_at: float, ended_at: float) -> None:
        """The turn from its beginning to its end, both in unix seconds; never waits."""
        from opentelemetry.trace import Status, StatusCode

        span = self._tracer.start_span(
            SPAN, start_time=_nanoseconds(begun_at), attributes=attributes(entry), record_exception=False
        )
        if entry.outcome in FAILED:
            span.set_status(Status(StatusCode.ERROR, entry.problem))
        span.end(_nanoseconds(ended_at))

    async def close(self, seconds: float) -> None:
        """Send what is on its way, for so long at most: a collector that hangs holds nobody up."""
        sending = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, seconds)


def from_environment(version: str) -> Tracing | None:
    """As OpenTelemetry's own variables say; None where they name no collector, or the SDK is not there."""
    named = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if named is None or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        # A platform may set the variable for everybody: to stop for it would be out of proportion.
        log.warning(
            "%s is set, and no spans are sent, for '%s' is missing: pip install 'preheat[otel]'", named, error.name
        )
        return None
    spoken = next((os.environ[name] for name in PROTOCOLS if os.environ.get(name)), SPOKEN)
    if spoken != SPOKEN:
        log.warning("spans are sent by %s, not by %s: name the collector's port for it (4318)", SPOKEN, spoken)
    ours = Resource({"service.name": "preheat-autoscaler", "service.version": version})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    log.info("a span for every decision goes to %s", os.environ[named])
    return Tracing(provider, version)


def attributes(entry: Entry) -> dict[str, Value]:
    """What the journal has of the turn, but for the pods, flat; what is unknown is left out."""
    stated: dict[str, Any] = {"target": entry.target, "outcome": entry.outcome.value}
    if entry.problem:
        stated["problem"] = entry.problem
    if entry.observation:
        stated["observation"] = {"problems": entry.observation.problems}
    if entry.decision:
        stated["decision"] = asdict(entry.decision)
    return dict(_flat(stated, "preheat."))


def _flat(stated: Mapping[str, Any], above: str) -> Iterator[tuple[str, Value]]:
    for name, value in stated.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif value is not None:
            yield above + name, str(value) if isinstance(value, str) else value


def _nanoseconds(unix_seconds: float) -> int:
    return int(unix_seconds * 1e9)
