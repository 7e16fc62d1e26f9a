"""KEDA's external scaler: the published number as a trigger of a ScaledObject, over gRPC.

The trigger's metadata name the VLLMAutoscaler; it lives in the ScaledObject's namespace. What has no number is
answered with an error, so that KEDA holds, or does what the ScaledObject's `fallback` says: never with zero.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from grpc import aio

from autoscaler.publish.keda_messages import MESSAGES, SERVICE
from autoscaler.publish.numbers import LABEL, METRIC, Number, PublishedNumbers, StaleNumberError, UnknownNumberError
from cluster.files import ConfigError
from cluster.tls import TlsFiles

LOOK_SECONDS: Final = 1.0
"""How often a stream looks whether its number has turned to or from zero, or gone stale."""
Context = aio.ServicerContext[Any, Any]


class Scaler:
    """The four calls; `context.abort` ends each of them that has no number to tell."""

    def __init__(self, numbers: PublishedNumbers) -> None:
        self._numbers = numbers

    async def is_active(self, ref: Any, context: Context) -> Any:
        """Whether there is anything to run."""
        number = await self._number(ref, context)
        return MESSAGES["IsActiveResponse"](result=number.replicas > 0)

    async def stream_is_active(self, ref: Any, context: Context) -> AsyncIterator[Any]:
        """The same at once and at each change, until it is stale."""
        told: bool | None = None
        while True:
            active = (await self._number(ref, context)).replicas > 0
            if active != told:
                told = active
                yield MESSAGES["IsActiveResponse"](result=active)
            await asyncio.sleep(LOOK_SECONDS)

    async def get_metric_spec(self, ref: Any, context: Context) -> Any:
        """One replica for each of the number; told also while it is stale, or KEDA could make no HPA."""
        await self._name(ref, context)
        spec = MESSAGES["MetricSpec"](metricName=METRIC, targetSize=1, targetSizeFloat=1.0)
        return MESSAGES["GetMetricSpecResponse"](metricSpecs=[spec])

    async def get_metrics(self, request: Any, context: Context) -> Any:
        """The number."""
        if request.metricName != METRIC:
            message = f"there is no metric '{request.metricName}': Preheat publishes {METRIC}"
            await context.abort(grpc.StatusCode.NOT_FOUND, message)
        number = await self._number(request.scaledObjectRef, context)
        value = MESSAGES["MetricValue"](
            metricName=METRIC, metricValue=number.replicas, metricValueFloat=float(number.replicas)
        )
        return MESSAGES["GetMetricsResponse"](metricValues=[value])

    async def _name(self, ref: Any, context: Context) -> str:
        name = str(ref.scalerMetadata.get(LABEL, ""))
        if not name:
            message = f"the trigger names no VLLMAutoscaler: write {LABEL}: … into its metadata"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        known = self._numbers.names(ref.namespace)
        if name not in known:
            there = ", ".join(known) or "none"
            message = f"no VLLMAutoscaler '{name}' in namespace '{ref.namespace}' has mode Publish (there: {there})"
            await context.abort(grpc.StatusCode.NOT_FOUND, message)
        return name

    async def _number(self, ref: Any, context: Context) -> Number:
        name = await self._name(ref, context)
        try:
            return self._numbers.number(ref.namespace, name)
        except StaleNumberError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except UnknownNumberError as error:  # it has gone since
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        raise AssertionError("abort raises")


async def serve_keda(numbers: PublishedNumbers, host: str, port: int, files: TlsFiles | None) -> tuple[aio.Server, int]:
    """Begin to answer; the port is the one that was taken, where 0 asked for any."""
    # gRPC would else share a port with whoever listens there already.
    server = aio.server(options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers((_handlers(Scaler(numbers)),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if files is None:
            taken = server.add_insecure_port(address)
        else:
            taken = server.add_secure_port(address, _credentials(files))
    except RuntimeError as error:
        raise ConfigError((f"--keda-port {port} on {host} cannot be listened on: give another --keda-port",)) from error
    await server.start()
    return server, taken


def _handlers(scaler: Scaler) -> grpc.GenericRpcHandler:
    ref, request = MESSAGES["ScaledObjectRef"], MESSAGES["GetMetricsRequest"]

    def told(answer: Any) -> bytes:
        return bytes(answer.SerializeToString())

    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "IsActive": unary(scaler.is_active, ref.FromString, told),
            "StreamIsActive": stream(scaler.stream_is_active, ref.FromString, told),
            "GetMetricSpec": unary(scaler.get_metric_spec, ref.FromString, told),
            "GetMetrics": unary(scaler.get_metrics, request.FromString, told),
        },
    )


def _credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """With the certificate as it now is in the files, for each new connection."""

    def current() -> grpc.ServerCertificateConfiguration:
        pair = files.key.read_bytes(), files.cert.read_bytes()
        return grpc.ssl_server_certificate_configuration([pair])

    def fetched() -> grpc.ServerCertificateConfiguration | None:
        try:
            return current()
        except OSError:
            return None  # in the middle of a rotation: the one before stands

    return grpc.dynamic_ssl_server_credentials(current(), fetched)  # type: ignore[arg-type]  # None: as before
