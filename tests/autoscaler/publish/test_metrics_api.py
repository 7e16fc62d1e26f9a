"""The metrics API tells one number or an error, to those whom the cluster lets ask."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
import trustme

from autoscaler.loop import Outcome, Turn
from autoscaler.publish.access import ProxiedAccess
from autoscaler.publish.metrics_api import application
from autoscaler.publish.numbers import METRIC, PublishedNumbers
from autoscaler.wake import BURST, PER_SECOND, Allowance
from cluster.api import Api, StatusError
from cluster.errors import ClusterError
from cluster.pages import listen
from cluster.tls import Tls, TlsFiles
from policies.scaling.decision import Binding, Decision
from tests.autoscaler.worlds import EMPTY, START, resource

ROOT = "/apis/external.metrics.k8s.io"
PATH = f"{ROOT}/v1beta1/namespaces/inference/{METRIC}"


@dataclass
class Word:
    """The API server's word on tokens and rights."""

    proxies: trustme.CA
    tokens: dict[str, str] = field(default_factory=lambda: {"t0": "anna", "t1": "bert"})
    allowed: set[tuple[str, str, str]] = field(default_factory=lambda: {("anna", "list", METRIC)})
    """User, verb, and resource or path."""
    asked: list[Mapping[str, Any]] = field(default_factory=list)
    broken: bool = False

    async def call(self, method: str, path: str, *, body: Any = None, **_: Any) -> dict[str, Any]:
        if self.broken:
            raise StatusError(503, "HTTP 503: not now")
        if path.endswith("extension-apiserver-authentication"):
            proxies = self.proxies.cert_pem.bytes().decode()
            return {"data": {"requestheader-client-ca-file": proxies, "requestheader-allowed-names": '["front"]'}}
        self.asked.append(body["spec"])
        if path.endswith("tokenreviews"):
            name = self.tokens.get(body["spec"]["token"])
            return {"status": {"authenticated": name is not None, "user": {"username": name, "groups": ["g"]}}}
        (attributes,) = (value for key, value in body["spec"].items() if key.endswith("Attributes"))
        what = attributes.get("resource") or attributes["path"]
        return {"status": {"allowed": (body["spec"]["user"], attributes["verb"], what) in self.allowed}}


@dataclass
class Server:
    """One that listens, and the numbers that it tells."""

    numbers: PublishedNumbers
    word: Word
    url: str
    authority: trustme.CA
    now: float = START

    def trusting(self, own: trustme.LeafCert | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if own is not None:
            own.configure_cert(context)
        return context

    async def decide(self, replicas: int, name: str = "llama", age_seconds: float = 0.0) -> None:
        at = self.now - age_seconds
        turn = Turn(EMPTY, Outcome.SHADOWED, None, Decision(at, replicas, replicas, 1, Binding.FORECAST, "told"))
        await self.numbers.add(resource(name, mode="Publish"), 60.0)(turn)

    async def get(
        self,
        path: str = PATH,
        *,
        token: str = "t0",
        own: trustme.LeafCert | None = None,
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> tuple[int, dict[str, Any]]:
        told = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                self.url + path, params=query, headers={**told, **(headers or {})}, ssl=self.trusting(own)
            ) as answer,
        ):
            return answer.status, await answer.json(content_type=None) if path.startswith("/apis") else {}


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Server]:
    authority, word = trustme.CA(), Word(trustme.CA())
    made = authority.issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(folder / "tls.key")
    (folder / "tls.crt").write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    tls = Tls(TlsFiles(folder / "tls.crt", folder / "tls.key"))
    numbers = PublishedNumbers(clock=lambda: server.now)
    access = ProxiedAccess(cast("Api", word), tls, Allowance(clock=lambda: server.now))
    await access.refresh()
    web, port = await listen(application(numbers, access), "127.0.0.1", 0, tls.listening)
    server = Server(numbers, word, f"https://127.0.0.1:{port}", authority)
    try:
        yield server
    finally:
        await web.cleanup()


async def test_a_number_is_told_as_an_hpa_reads_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.decide(7)
        status, told = await server.get(labelSelector="name=llama")
        assert status == 200
        assert (told["kind"], told["apiVersion"]) == ("ExternalMetricValueList", "external.metrics.k8s.io/v1beta1")
        when = "2025-10-09T08:53:20Z"
        value = {"metricName": METRIC, "metricLabels": {"name": "llama"}, "timestamp": when, "value": "7"}
        assert told["items"] == [value]


@pytest.mark.parametrize(
    ("path", "selector", "status", "sentence"),
    [
        (PATH, "name=llama", 503, "inference/llama has had no number for 61 s"),
        (PATH, "name=other", 404, "has 'name=other' (there: llama, qwen)"),
        (PATH, "", 400, "'' finds llama, qwen, whose numbers must not be added up: name one"),
        (PATH, "name in (llama", 400, "is not a label selector"),
        (PATH.replace("inference", "elsewhere"), "", 404, "namespace 'elsewhere' has '' (there: none)"),
    ],
)
async def test_where_there_is_no_one_number_there_is_an_error(
    path: str, selector: str, status: int, sentence: str, tmp_path: Path
) -> None:
    async with serving(tmp_path) as server:
        await server.decide(7, age_seconds=61)
        await server.decide(2, "qwen")
        found, told = await server.get(path, labelSelector=selector)
        assert (found, told["kind"], told["code"]) == (status, "Status", status)
        assert sentence in told["message"]


async def test_another_metric_is_not_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        server.word.allowed.add(("anna", "list", "queue"))
        status, told = await server.get(PATH.replace(METRIC, "queue"))
        assert (status, told["message"]) == (404, f"there is no external metric 'queue': Preheat publishes {METRIC}")


async def test_discovery_names_the_group_and_the_metric(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for path in ("/apis", ROOT, f"{ROOT}/v1beta1", "/apis/apps"):
            server.word.allowed.add(("anna", "get", path))
        assert (await server.get("/apis"))[1]["groups"][0]["name"] == "external.metrics.k8s.io"
        assert (await server.get(ROOT))[1]["preferredVersion"]["version"] == "v1beta1"
        resources = (await server.get(f"{ROOT}/v1beta1"))[1]["resources"]
        assert [(each["name"], each["namespaced"]) for each in resources] == [(METRIC, True)]
        assert (await server.get("/apis/apps"))[0] == 404


async def test_without_a_token_or_with_nobodys_it_is_401_but_health_is_everybodys(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert (await server.get(token=""))[0] == 401
        assert (await server.get(token="stolen"))[0] == 401
        assert (await server.get("/healthz", token=""))[0] == 200


async def test_the_cluster_says_who_may_and_is_asked_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.decide(7)
        status, told = await server.get(token="t1", labelSelector="name=llama")
        assert (status, told["message"]) == (
            403,
            f'user "bert" cannot list {METRIC}: give it a Role that says so',
        )
        assert [(await server.get(labelSelector="name=llama"))[0] for _ in range(3)] == [200, 200, 200]
        reviews = [spec for spec in server.word.asked if spec.get("user") == "anna"]
        where = {"namespace": "inference", "resource": METRIC, "group": ROOT.split("/")[-1], "version": "v1beta1"}
        assert [spec["resourceAttributes"] for spec in reviews] == [{**where, "verb": "list"}]
        assert reviews[0]["groups"] == ["g"]


async def test_beyond_its_allowance_an_address_is_not_heard_but_who_is_handed_on_always(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for number in range(int(BURST)):
            assert (await server.get(token=f"junk {number}"))[0] == 401
        before = len(server.word.asked)
        status, told = await server.get(token="junk")
        assert (status, told["reason"]) == (429, "TooManyRequests")
        assert "ask again in a second" in told["message"]
        assert len(server.word.asked) == before
        await server.decide(7)
        own = server.word.proxies.issue_cert("front.invalid", common_name="front")
        user = {"X-Remote-User": "anna"}
        assert (await server.get(token="", own=own, headers=user, labelSelector="name=llama"))[0] == 200
        assert (await server.get("/healthz", token=""))[0] == 200
        server.now += 1.0 / PER_SECOND
        assert [(await server.get(labelSelector="name=llama"))[0] for _ in range(2)] == [200, 429]


async def test_while_the_cluster_cannot_be_asked_it_is_503(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        server.word.broken = True
        status, told = await server.get()
        assert status == 503
        assert "could not be asked whether this is allowed" in told["message"]


async def test_the_front_proxy_hands_on_whose_request_it_is(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.decide(7)
        own = server.word.proxies.issue_cert("front.invalid", common_name="front")
        user = {"X-Remote-User": "anna", "X-Remote-Group": "models", "X-Remote-Extra-Scopes": "a"}
        status, _ = await server.get(token="", own=own, headers=user, labelSelector="name=llama")
        assert status == 200
        spec = server.word.asked[-1]
        assert (spec["user"], spec["groups"], spec["extra"]) == ("anna", ["models"], {"scopes": ["a"]})
        server.word.asked.clear()
        masters = {"X-Remote-User": "system:kube-aggregator", "X-Remote-Group": "system:masters"}
        assert (await server.get(token="", own=own, headers=masters, labelSelector="name=llama"))[0] == 200
        assert server.word.asked == []


async def test_headers_alone_and_other_certificates_hand_nothing_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        user = {"X-Remote-User": "anna", "X-Remote-Group": "system:masters"}
        assert (await server.get(token="", headers=user))[0] == 401
        other = server.word.proxies.issue_cert("other.invalid", common_name="other")
        status, told = await server.get(token="", own=other, headers=user)
        assert (status, told["message"]) == (401, "a certificate for other may hand no requests on")
        own = server.word.proxies.issue_cert("front.invalid", common_name="front")
        assert (await server.get(token="", own=own))[0] == 401
        strange = trustme.CA().issue_cert("front.invalid", common_name="front")
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await server.get(token="", own=strange, headers=user)


async def test_a_new_authority_of_the_front_proxy_takes_the_old_ones_place(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        old = server.word.proxies
        server.word.proxies = trustme.CA()
        tls = Tls(TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key"))
        access = ProxiedAccess(cast("Api", server.word), tls)
        server.word.broken = True
        with pytest.raises(ClusterError, match="extension-apiserver-authentication"):
            await access.refresh()
        server.word.broken = False
        await access.refresh()
        web, port = await listen(application(server.numbers, access), "127.0.0.1", 0, tls.listening)
        server.url = f"https://127.0.0.1:{port}"
        await server.decide(7)
        user = {"X-Remote-User": "anna"}
        new = server.word.proxies.issue_cert("front.invalid", common_name="front")
        asked = {"token": "", "headers": user, "labelSelector": "name=llama"}
        assert (await server.get(own=new, **asked))[0] == 200  # type: ignore[arg-type]
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await server.get(own=old.issue_cert("front.invalid", common_name="front"), **asked)  # type: ignore[arg-type]
        await web.cleanup()
