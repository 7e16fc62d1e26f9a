"""What one connection bears, says and sends: every way a server can fail, and every identity it can ask for."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import trustme

from cluster.errors import NotObservedError
from cluster.prometheus_connection import MOST_AT_ONCE, Connection, QueryRefusedError, Rows
from cluster.prometheus_session import unreadable_files
from policies.scaling.resource import Prometheus as Settings
from tests.stand_ins.prometheus import StandInPod, StandInPrometheus

Connect = Callable[..., Connection]


@pytest.fixture
def server() -> Iterator[StandInPrometheus]:
    with StandInPrometheus([StandInPod("n", "a", "10.0.0.1", "x 3\n")]) as server:
        yield server


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A connection by settings as a user writes them, closed afterwards."""
    opened: list[Connection] = []

    def open_one(url: str, **settings: Any) -> Connection:
        opened.append(Connection(Settings.model_validate({"url": url, **settings})))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


def values(rows: Rows) -> list[str]:
    return [row["value"][1] for row in rows]


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prometheus"]


async def failure(connection: Connection, promql: str = "x") -> str:
    """What the connection says, after the address."""
    with pytest.raises(NotObservedError) as caught:
        await connection.instant(promql, values)
    said = str(caught.value)
    start = f"Prometheus at {connection.settings.url} "
    assert said.startswith(start)
    assert "\n" not in said
    return said.removeprefix(start)


async def test_an_answer_is_folded_and_counted(server: StandInPrometheus, connect: Connect) -> None:
    connection = connect(server.url)
    answer = await connection.instant("x", values)
    assert (answer.value, answer.remarks) == (["3"], ())
    assert connection.requests_made == 1
    assert not connection.errors_by_kind


async def test_a_long_query_goes_into_the_body(server: StandInPrometheus, connect: Connect) -> None:
    promql = 'x{pod=~"' + "|".join(f"pod-{n}" for n in range(10_000)) + '|a"}'
    assert (await connect(server.url).instant(promql, values)).value == ["3"]
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.query) == ("POST", "/api/v1/query", promql)


async def test_the_server_is_told_when_nobody_waits_any_more(server: StandInPrometheus, connect: Connect) -> None:
    await connect(server.url, timeoutSeconds=2).instant("x", values)
    (asked,) = server.asked
    assert asked.parameters["timeout"].endswith("ms")
    assert 0 < int(asked.parameters["timeout"].removesuffix("ms")) <= 2000


async def test_warnings_and_infos_are_kept(server: StandInPrometheus, connect: Connect) -> None:
    server.faults.warnings, server.faults.infos = ("half is missing",), ("not a counter",)
    answer = await connect(server.url).instant("x", values)
    assert answer.remarks == ("half is missing", "not a counter")


async def test_remarks_are_those_of_this_answer_only(server: StandInPrometheus, connect: Connect) -> None:
    connection = connect(server.url)
    server.faults.warnings = ("half is missing",)
    await connection.instant("x", values)
    server.faults.warnings = ()
    assert (await connection.instant("x", values)).remarks == ()


async def test_a_server_that_is_down_is_tried_twice_and_then_said(connect: Connect) -> None:
    with StandInPrometheus() as gone:
        url = gone.url
    connection = connect(url)
    began = monotonic()
    assert await failure(connection) == "refuses connections: is it running, and is the port of prometheus.url right?"
    assert monotonic() - began < connection.settings.timeout_seconds
    assert (connection.requests_made, connection.errors_by_kind) == (2, {"unreachable": 2})


async def test_a_host_without_an_address_is_said(connect: Connect) -> None:
    said = await failure(connect("http://prometheus.invalid:9090", timeoutSeconds=30))
    assert said == "has no address: look at the host of prometheus.url"


async def test_a_passing_failure_is_mended_by_the_second_try(server: StandInPrometheus, connect: Connect) -> None:
    server.faults.broken_connections = 1
    connection = connect(server.url)
    assert (await connection.instant("x", values)).value == ["3"]
    assert connection.errors_by_kind == {"unreachable": 1}


async def test_a_server_that_breaks_off_is_said(server: StandInPrometheus, connect: Connect) -> None:
    server.faults.broken_connections = 5
    assert await failure(connect(server.url)) == "broke the connection off"


async def test_a_slow_server_is_not_waited_for_and_not_asked_twice(server: StandInPrometheus, connect: Connect) -> None:
    server.faults.delay_seconds = 30
    connection = connect(server.url, timeoutSeconds=0.2)
    assert await failure(connection) == "did not answer within 0.2 s: is it overloaded?"
    assert (connection.requests_made, connection.errors_by_kind) == (1, {"timeout": 1})


async def test_a_trickle_is_not_waited_for(server: StandInPrometheus, connect: Connect) -> None:
    server.faults.trickle_seconds = 0.05
    server.faults.body = b" " * 4000
    said = await failure(connect(server.url, timeoutSeconds=0.3))
    assert said == "did not answer within 0.3 s: is it overloaded?"
    async with asyncio.timeout(20):  # the answer would take 50 s: the thread does not wait for its end either
        while our_threads():  # noqa: ASYNC110  # a thread's end has no event
            await asyncio.sleep(0.02)


async def test_questions_to_a_slow_server_do_not_pile_up(server: StandInPrometheus, connect: Connect) -> None:
    server.faults.delay_seconds = 30
    connection = connect(server.url, timeoutSeconds=0.3)
    said = await asyncio.gather(*(failure(connection) for _ in range(3 * MOST_AT_ONCE)))
    # One may slip in where another gives up.
    assert said.count("was not asked: earlier questions wait for answers") >= MOST_AT_ONCE
    assert connection.requests_made <= 2 * MOST_AT_ONCE
    assert len(our_threads()) <= MOST_AT_ONCE
    assert all(thread.daemon for thread in our_threads()), "none may keep the program from ending"


async def test_who_gives_up_waiting_leaves_the_connection_whole(server: StandInPrometheus, connect: Connect) -> None:
    server.faults.delay_seconds = 0.2
    connection = connect(server.url)
    tasks = [asyncio.create_task(connection.instant("x", values)) for _ in range(2 * MOST_AT_ONCE)]
    async with asyncio.timeout(10):
        while connection.requests_made < MOST_AT_ONCE:  # noqa: ASYNC110  # a count has no event
            await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    server.faults.delay_seconds = 0.0
    assert (await connection.instant("x", values)).value == ["3"]


@pytest.mark.parametrize(
    ("status", "said", "kind", "tries"),
    [
        (503, "is not able to answer (HTTP 503)", "http-503", 2),
        (500, "is not able to answer (HTTP 500)", "http-500", 2),
        (401, "does not let us in (HTTP 401): set prometheus.bearerTokenFile or basicAuth", "identity", 1),
        (403, "does not let us in (HTTP 403): set prometheus.bearerTokenFile or basicAuth", "identity", 1),
        (
            404,
            "has no /api/v1: if it is served below a path, write the path into prometheus.url",
            "not-prometheus",
            1,
        ),
        (422, "refuses the question (HTTP 422)", "refused", 1),
    ],
)
async def test_each_refusal_has_its_sentence(
    server: StandInPrometheus, connect: Connect, status: int, said: str, kind: str, tries: int
) -> None:
    server.faults.status = status
    connection = connect(server.url)
    assert await failure(connection) == said
    assert connection.errors_by_kind == {kind: tries}


async def test_a_wrong_query_is_told_apart(server: StandInPrometheus, connect: Connect) -> None:
    with pytest.raises(QueryRefusedError, match=r"refuses the question \(HTTP 400, bad_data\)$"):
        await connect(server.url).instant("sum(x", values)


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (503, b"the tenants: sesame", {}),
        (403, b"the tenants: sesame", {}),
        (200, b"the tenants: sesame", {}),
        (422, b'{"status": "error", "errorType": "sesame", "error": "sesame"}', {}),
        (302, b"", {"Location": "https://login.example/sesame"}),
    ],
)
async def test_what_a_failing_server_says_is_for_the_log_and_for_no_status(
    server: StandInPrometheus,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    status: int,
    body: bytes,
    headers: dict[str, str],
) -> None:
    """Whoever writes a resource names the server, which may be one that answers the autoscaler and not him."""
    server.faults.status, server.faults.body, server.faults.headers = status, body, headers
    connection = connect(server.url)
    assert "sesame" not in await failure(connection)
    assert "sesame" not in await failure(connection)
    (line,) = caplog.messages
    assert line.startswith(f"Prometheus at {server.url} says: ")
    assert line.endswith("sesame")


async def test_who_named_the_server_himself_is_told_what_it_says(server: StandInPrometheus) -> None:
    connection = Connection(Settings(url=server.url), quotes=True)
    assert "refuses the question (HTTP 400, bad_data); it says: parse error: " in await failure(connection, "sum(x")
    connection.close()


async def test_what_is_no_prometheus_is_said(server: StandInPrometheus, connect: Connect) -> None:
    server.faults.body = b"<html>Welcome to nginx</html>"
    said = await failure(connect(server.url))
    assert said == "answers, but not as Prometheus does"


@pytest.mark.parametrize("data", [b'{"result": [1]}', b"{}", b'{"result": [{"metric": {}}]}', b"[]"])
async def test_an_answer_in_an_unknown_form_is_said(server: StandInPrometheus, connect: Connect, data: bytes) -> None:
    server.faults.body = b'{"status": "success", "data": ' + data + b"}"
    assert await failure(connect(server.url)) == "answers, but not in the form that was asked for"


async def test_being_sent_elsewhere_is_said_and_not_followed(server: StandInPrometheus, connect: Connect) -> None:
    server.faults.status, server.faults.headers = 302, {"Location": "https://login.example/"}
    said = await failure(connect(server.url))
    assert said == "sends us on elsewhere (HTTP 302): write the address meant as prometheus.url"


async def test_a_bearer_token_is_read_again_when_its_file_changes(
    server: StandInPrometheus, connect: Connect, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    connection = connect(server.url, bearerTokenFile=str(token))
    server.faults.authorization = "Bearer first"
    await connection.instant("x", values)
    rotated = tmp_path / "new"
    rotated.write_text("later\n")
    rotated.replace(token)
    server.faults.authorization = "Bearer later"
    assert (await connection.instant("x", values)).value == ["3"]


async def test_a_password_is_read_from_its_file(server: StandInPrometheus, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("öffne dich\n")
    basic = {"username": "preheat", "passwordFile": str(tmp_path / "password")}
    server.faults.authorization = "Basic " + base64.b64encode("preheat:öffne dich".encode()).decode()
    assert (await connect(server.url, basicAuth=basic).instant("x", values)).value == ["3"]


async def test_no_secret_is_taken_from_the_users_netrc(
    server: StandInPrometheus, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    await connect(server.url).instant("x", values)
    assert "Authorization" not in server.asked[0].headers


async def test_a_secret_is_in_no_log_and_no_error(
    server: StandInPrometheus, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "token").write_text("sesame")
    server.faults.authorization = "Bearer another"
    assert "sesame" not in await failure(connect(server.url, bearerTokenFile=str(tmp_path / "token")))
    assert "sesame" not in caplog.text


async def test_a_missing_file_is_named(server: StandInPrometheus, connect: Connect, tmp_path: Path) -> None:
    said = await failure(connect(server.url, bearerTokenFile=str(tmp_path / "gone")))
    assert said == (
        f"cannot be asked: prometheus.bearerTokenFile {tmp_path / 'gone'} cannot be read "
        "(No such file or directory): mount it or mend the path"
    )
    assert not server.asked


def test_all_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    files = {"caFile": "/gone/ca", "certFile": str(tmp_path / "empty"), "keyFile": str(tmp_path)}
    basic = {"username": "u", "passwordFile": "/gone/password"}
    settings = Settings.model_validate({"url": "https://p", "basicAuth": basic, **files})
    assert [problem.split(":")[0] for problem in unreadable_files(settings)] == [
        "prometheus.basicAuth.passwordFile /gone/password cannot be read (No such file or directory)",
        "prometheus.caFile /gone/ca cannot be read (No such file or directory)",
        f"prometheus.certFile {tmp_path / 'empty'} is empty",
        f"prometheus.keyFile {tmp_path} cannot be read (Is a directory)",
    ]


class Tls:
    """A server with a certificate of our own authority, and files for the client."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca_file)
        client = self.authority.issue_cert("client@preheat")
        self.cert_file, self.key_file = folder / "cert.pem", folder / "key.pem"
        client.cert_chain_pems[0].write_to_path(self.cert_file)
        client.private_key_pem.write_to_path(self.key_file)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*(names or ("127.0.0.1",))).configure_cert(self.context)


async def test_a_server_of_our_own_authority_is_trusted(connect: Connect, tmp_path: Path) -> None:
    tls = Tls(tmp_path)
    with StandInPrometheus([StandInPod("n", "a", "", "x 3\n")], tls=tls.context) as server:
        connection = connect(server.url, caFile=str(tls.ca_file))
        assert (await connection.instant("x", values)).value == ["3"]


async def test_a_certificate_is_verified_unless_told_otherwise(connect: Connect, tmp_path: Path) -> None:
    tls = Tls(tmp_path)
    with StandInPrometheus([StandInPod("n", "a", "", "x 3\n")], tls=tls.context) as server:
        connection = connect(server.url)
        said = await failure(connection)
        assert said.startswith("shows a certificate that is not trusted (")
        assert said.endswith("): name its authority in prometheus.caFile")
        assert connection.errors_by_kind == {"tls": 1}
        trusting = connect(server.url, insecureSkipVerify=True)
        assert (await trusting.instant("x", values)).value == ["3"]


async def test_a_certificate_for_another_host_is_refused(connect: Connect, tmp_path: Path) -> None:
    tls = Tls(tmp_path, "prometheus.monitoring")
    with StandInPrometheus(tls=tls.context) as server:
        said = await failure(connect(server.url, caFile=str(tls.ca_file)))
        assert "not valid for '127.0.0.1'" in said
        assert said.endswith("write the host that the certificate names into prometheus.url")


async def test_a_client_certificate_is_shown_to_who_asks(connect: Connect, tmp_path: Path) -> None:
    tls = Tls(tmp_path)
    tls.context.verify_mode = ssl.CERT_REQUIRED
    tls.authority.configure_trust(tls.context)
    files = {"caFile": str(tls.ca_file), "certFile": str(tls.cert_file), "keyFile": str(tls.key_file)}
    with StandInPrometheus([StandInPod("n", "a", "", "x 3\n")], tls=tls.context) as server:
        assert (await connect(server.url, **files).instant("x", values)).value == ["3"]
        said = await failure(connect(server.url, caFile=str(tls.ca_file)))
        assert "TLS" in said or "broke the connection off" in said


async def test_https_to_a_server_without_tls_is_said(server: StandInPrometheus, connect: Connect) -> None:
    said = await failure(connect(server.url.replace("http", "https")))
    assert said.startswith("does not speak TLS (")
    assert said.endswith("write http:// in prometheus.url if it is meant to be plain")


async def test_http_to_a_server_with_tls_is_said(connect: Connect, tmp_path: Path) -> None:
    with StandInPrometheus(tls=Tls(tmp_path).context) as server:
        said = await failure(connect(server.url.replace("https", "http")))
        assert said == "broke the connection off"


async def test_a_file_that_holds_no_certificate_is_said(
    server: StandInPrometheus, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "ca").write_text("not a certificate\n")
    said = await failure(connect(server.url.replace("http", "https"), caFile=str(tmp_path / "ca")))
    assert said.endswith("look at prometheus.caFile, certFile and keyFile")
