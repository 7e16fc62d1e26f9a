"""HTTPS with a certificate that may be rotated, for clients that may have to show one of their own."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from cluster.files import ConfigError
from cluster.pages import listen
from cluster.tls import Tls, TlsFiles, files_of
from tests.scheduler_extender.worlds import knowing


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def issued(folder: Path, authority: trustme.CA, name: str = "127.0.0.1") -> TlsFiles:
    made = authority.issue_cert(name)
    folder.mkdir(exist_ok=True)
    made.private_key_pem.write_to_path(folder / "tls.key")
    (folder / "tls.crt").write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    authority.cert_pem.write_to_path(folder / "ca.crt")
    return TlsFiles(folder / "tls.crt", folder / "tls.key")


def client(authority: trustme.CA, own: TlsFiles | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if own is not None:
        context.load_cert_chain(own.cert, own.key)
    return context


async def healthz(port: int, context: ssl.SSLContext) -> tuple[bytes, bytes]:
    """The status line, and the certificate that was shown."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return await reader.readline(), shown
    finally:
        writer.transport.abort()


async def test_a_rotated_certificate_is_shown_to_the_next_client(tmp_path: Path, authority: trustme.CA) -> None:
    tls = Tls(issued(tmp_path, authority))
    runner, port = await listen(knowing().pages().application(), "127.0.0.1", 0, tls.listening)
    try:
        status, first = await healthz(port, client(authority))
        assert status == b"HTTP/1.1 200 OK\r\n"
        issued(tmp_path, authority)
        tls.reload()
        _, second = await healthz(port, client(authority))
        assert second != first
        (tmp_path / "tls.crt").write_text("half written")
        with pytest.raises(ConfigError, match="are no pair in PEM form"):
            tls.reload()
        assert (await healthz(port, client(authority)))[1] == second
    finally:
        await runner.cleanup()


async def test_clients_must_show_a_certificate_of_the_authority_that_is_now_in_the_file(
    tmp_path: Path, authority: trustme.CA
) -> None:
    clients, others = trustme.CA(), trustme.CA()
    ours, theirs = issued(tmp_path / "ours", clients), issued(tmp_path / "theirs", others)
    served = issued(tmp_path / "server", authority)
    (tmp_path / "clients.crt").write_bytes(clients.cert_pem.bytes())
    tls = Tls(TlsFiles(served.cert, served.key, tmp_path / "clients.crt"))
    runner, port = await listen(knowing().pages().application(), "127.0.0.1", 0, tls.listening)

    async def is_let_in(own: TlsFiles | None) -> bool:
        try:
            return (await healthz(port, client(authority, own)))[0].startswith(b"HTTP/1.1 200")
        except (ssl.SSLError, ConnectionError):
            return False

    try:
        assert [await is_let_in(own) for own in (ours, theirs, None)] == [True, False, False]
        (tmp_path / "clients.crt").write_bytes(others.cert_pem.bytes())
        tls.reload()
        assert [await is_let_in(own) for own in (ours, theirs, None)] == [False, True, False]
    finally:
        await runner.cleanup()


def test_each_mistake_with_the_files_is_one_sentence(tmp_path: Path, authority: trustme.CA) -> None:
    one, two = issued(tmp_path / "one", authority), issued(tmp_path / "two", authority)
    text = tmp_path / "text"
    text.write_text("no certificate")
    for files, said in (
        (TlsFiles(one.cert, two.key), "do not match: give the key of this certificate"),
        (TlsFiles(text, one.key), "are no pair in PEM form"),
        (TlsFiles(tmp_path / "none", one.key), "does not exist"),
        (TlsFiles(one.cert, one.key, text), "holds no certificate in PEM form"),
    ):
        with pytest.raises(ConfigError, match=said) as refusal:
            Tls(files)
        assert len(refusal.value.problems) == 1


def test_the_options_belong_together(tmp_path: Path) -> None:
    assert files_of(None, None, None) is None
    for options, said in (
        ((tmp_path, None, None), "without --tls-key"),
        ((None, tmp_path, None), "without --tls-cert"),
        ((None, None, tmp_path), "give --tls-cert and --tls-key"),
    ):
        with pytest.raises(ConfigError, match=said):
            files_of(*options)
