"""KEDA is told the number, or an error with its reason; zero only where zero was decided."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc import aio

from autoscaler.loop import Outcome, Turn
from autoscaler.publish.keda import serve_keda
from autoscaler.publish.keda_messages import MESSAGES, SERVICE
from autoscaler.publish.numbers import METRIC, PublishedNumbers
from cluster.files import ConfigError
from cluster.tls import TlsFiles
from policies.scaling.decision import Binding, Decision
from tests.autoscaler.worlds import EMPTY, START, resource


class Keda:
    """A client, and the numbers behind the server."""

    def __init__(self) -> None:
        self.now = START
        self.numbers = PublishedNumbers(clock=lambda: self.now)
        self.channel: aio.Channel

    async def decide(self, replicas: int) -> None:
        made = Decision(self.now, replicas, replicas, 1, Binding.FORECAST, "told")
        await self.numbers.add(resource(mode="Publish"), 60.0)(Turn(EMPTY, Outcome.SHADOWED, None, made))

    async def ask(self, call: str, request: Any, answer: str) -> Any:
        method: Any = self.channel.unary_unary(
            f"/{SERVICE}/{call}", lambda asked: asked.SerializeToString(), MESSAGES[answer].FromString
        )
        return await method(request, timeout=10)

    async def metrics(self, **metadata: str) -> Any:
        request = MESSAGES["GetMetricsRequest"](scaledObjectRef=ref(**metadata), metricName=METRIC)
        return await self.ask("GetMetrics", request, "GetMetricsResponse")

    async def is_active(self) -> bool:
        return bool((await self.ask("IsActive", ref(name="llama"), "IsActiveResponse")).result)


def ref(namespace: str = "inference", **metadata: str) -> Any:
    return MESSAGES["ScaledObjectRef"](name="a-scaled-object", namespace=namespace, scalerMetadata=metadata)


@asynccontextmanager
async def serving(files: TlsFiles | None = None, authority: trustme.CA | None = None) -> AsyncIterator[Keda]:
    keda = Keda()
    server, port = await serve_keda(keda.numbers, "127.0.0.1", 0, files)
    if authority is None:
        channel = aio.insecure_channel(f"127.0.0.1:{port}")
    else:
        channel = aio.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(authority.cert_pem.bytes()))
    async with channel:
        keda.channel = channel
        try:
            yield keda
        finally:
            await server.stop(None)


async def test_the_number_is_told_with_a_target_of_one_replica_each() -> None:
    async with serving() as keda:
        await keda.decide(7)
        (spec,) = (await keda.ask("GetMetricSpec", ref(name="llama"), "GetMetricSpecResponse")).metricSpecs
        assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (METRIC, 1, 1.0)
        (value,) = (await keda.metrics(name="llama")).metricValues
        assert (value.metricName, value.metricValue, value.metricValueFloat) == (METRIC, 7, 7.0)
        assert await keda.is_active()


async def test_at_rest_there_is_nothing_to_run_and_after_a_wake_there_is() -> None:
    async with serving() as keda:
        await keda.decide(0)
        assert not await keda.is_active()
        assert (await keda.metrics(name="llama")).metricValues[0].metricValueFloat == 0
        await keda.decide(1)
        assert await keda.is_active()


async def test_a_stale_number_is_an_error_in_every_call_but_the_spec() -> None:
    async with serving() as keda:
        await keda.decide(7)
        keda.now += 61
        with pytest.raises(aio.AioRpcError, match="inference/llama has had no number for 61 s") as refused:
            await keda.metrics(name="llama")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(aio.AioRpcError) as refused:
            await keda.is_active()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await keda.ask("GetMetricSpec", ref(name="llama"), "GetMetricSpecResponse")).metricSpecs


@pytest.mark.parametrize(
    ("asked", "code", "sentence"),
    [
        (ref(), grpc.StatusCode.INVALID_ARGUMENT, "the trigger names no VLLMAutoscaler"),
        (ref(name="qwen"), grpc.StatusCode.NOT_FOUND, r"no VLLMAutoscaler 'qwen' .* \(there: llama\)"),
        (ref("elsewhere", name="llama"), grpc.StatusCode.NOT_FOUND, r"in namespace 'elsewhere' .* \(there: none\)"),
    ],
)
async def test_a_trigger_that_names_none_is_told_so(asked: Any, code: grpc.StatusCode, sentence: str) -> None:
    async with serving() as keda:
        await keda.decide(7)
        with pytest.raises(aio.AioRpcError, match=sentence) as refused:
            await keda.ask("GetMetricSpec", asked, "GetMetricSpecResponse")
        assert refused.value.code() is code


async def test_another_metric_is_not_there() -> None:
    async with serving() as keda:
        await keda.decide(7)
        request = MESSAGES["GetMetricsRequest"](scaledObjectRef=ref(name="llama"), metricName="queue")
        with pytest.raises(aio.AioRpcError, match="there is no metric 'queue'"):
            await keda.ask("GetMetrics", request, "GetMetricsResponse")


async def test_the_stream_tells_at_once_at_each_change_and_ends_when_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoscaler.publish.keda.LOOK_SECONDS", 0.01)
    async with serving() as keda:
        await keda.decide(7)
        method: Any = keda.channel.unary_stream(
            f"/{SERVICE}/StreamIsActive",
            lambda asked: asked.SerializeToString(),
            MESSAGES["IsActiveResponse"].FromString,
        )
        stream = method(ref(name="llama"), timeout=20)
        assert (await stream.read()).result
        await keda.decide(0)
        assert not (await stream.read()).result
        keda.now += 61
        with pytest.raises(aio.AioRpcError) as refused:
            await stream.read()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_with_a_certificate_it_speaks_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(tmp_path / "tls.key")
    (tmp_path / "tls.crt").write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    async with serving(TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key"), authority) as keda:
        await keda.decide(2)
        assert await keda.is_active()


async def test_a_port_that_is_taken_is_told() -> None:
    numbers = PublishedNumbers()
    server, port = await serve_keda(numbers, "127.0.0.1", 0, None)
    try:
        with pytest.raises(ConfigError, match=f"--keda-port {port} on 127.0.0.1 cannot be listened on"):
            await serve_keda(numbers, "127.0.0.1", port, None)
    finally:
        await server.stop(None)
