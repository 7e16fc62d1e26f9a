"""What is asked for is listened on, and what does not fit together is told before anything is."""

from __future__ import annotations

import builtins
import logging
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
import trustme

from autoscaler.publish.numbers import PublishedNumbers
from autoscaler.publish.servers import PublishOptions, serve_others
from autoscaler.service import Service
from autoscaler.telemetry import Telemetry
from autoscaler.wake import Waker
from cluster.api import Api
from cluster.files import ConfigError


class Silent:
    """An API server that is not asked yet."""

    async def call(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}


async def served(parts: AsyncExitStack, *, host: str = "127.0.0.1", **options: Any) -> None:
    waker = Waker(Service((), Telemetry("0"), tick_seconds=15.0))
    api = cast("Api", Silent())
    await serve_others(PublishOptions(**options), host, PublishedNumbers(), waker, api, parts)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"metrics_api_port": 0}, "--metrics-api-port serves HTTPS only: give --tls-cert and --tls-key"),
        ({"tls_cert": Path("a"), "tls_key": Path("b")}, "give --metrics-api-port, --keda-port or --wake-port too"),
        ({"wake_port": 0, "host": "0.0.0.0"}, "--wake-port takes bearer tokens, which HTTP would show to the network"),
        ({"wake_port": 70000}, "--wake-port 70000: there is no such port"),
        ({"keda_port": 0, "tls_cert": Path("a")}, "--tls-cert a is given without --tls-key"),
        ({"keda_port": 0, "tls_cert": Path("/no/a"), "tls_key": Path("/no/b")}, "/no/a: does not exist"),
    ],
)
async def test_what_does_not_fit_together_is_told(options: dict[str, Any], sentence: str) -> None:
    async with AsyncExitStack() as parts:
        with pytest.raises(ConfigError) as refused:
            await served(parts, **options)
        assert sentence in str(refused.value)


async def test_without_options_nothing_is_listened_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with AsyncExitStack() as parts:
        await served(parts)
    assert caplog.records == []


async def test_without_grpc_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *more: Any) -> Any:
        if name == "autoscaler.publish.keda":
            raise ModuleNotFoundError("No module named 'grpc'", name="grpc")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", missing)
    async with AsyncExitStack() as parts:
        with pytest.raises(ConfigError, match=r"needs 'grpc', which is not installed: pip install 'preheat\[keda\]'"):
            await served(parts, keda_port=0)


async def test_all_are_served_with_one_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(tmp_path / "tls.key")
    (tmp_path / "tls.crt").write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    files: dict[str, Any] = {"tls_cert": tmp_path / "tls.crt", "tls_key": tmp_path / "tls.key"}
    async with AsyncExitStack() as parts:
        await served(parts, metrics_api_port=0, keda_port=0, wake_port=0, **files)
        told = {key: value for record in caplog.records for key, value in vars(record).items()}
        assert told["keda_port"] > 0
        assert told["tls"] is True
        context = ssl.create_default_context()
        authority.configure_trust(context)
        url = f"https://127.0.0.1:{told['metrics_api_port']}/readyz"
        async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as answer:
            assert (answer.status, await answer.text()) == (200, "ok")
        url = f"https://127.0.0.1:{told['wake_port']}/wake/inference/llama"
        async with aiohttp.ClientSession() as session, session.post(url, ssl=context) as answer:
            assert answer.status == 401
