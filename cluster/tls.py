"""TLS as a server, with certificates that may be replaced under way: a mounted secret is rotated in place.

And the sentence about a certificate of somebody else that cannot be trusted.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from cluster.files import ConfigError, unreadable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """As the command line names them."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.cert, self.key, self.client_ca) if path is not None)


def untrusted(error: Exception, *, authority: str, host: str) -> str:
    """What is wrong with a certificate, and what to do; the remedies that depend on who asks are given."""
    why = str(getattr(error, "verify_message", error)).rstrip(".")
    remedy = authority
    if "mismatch" in why:
        remedy = host
    elif "expired" in why or "not yet valid" in why:
        remedy = "renew it, or set the clocks right"
    return f"shows a certificate that is not trusted ({why}): {remedy}"


def files_of(cert: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    """None where none is given; a ConfigError where one is missing."""
    if cert is not None and key is not None:
        return TlsFiles(cert, key, client_ca)
    if cert is not None:
        raise ConfigError((f"--tls-cert {cert} is given without --tls-key: name the file of its private key",))
    if key is not None:
        raise ConfigError((f"--tls-key {key} is given without --tls-cert: name the file of the certificate",))
    if client_ca is not None:
        raise ConfigError((f"--client-ca {client_ca} asks clients for certificates: give --tls-cert and --tls-key",))
    return None


class Tls:
    """The context that is listened with; each new connection gets what the files held at their last sound reading."""

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._trusted = ""
        self._current = _context(files)
        self.listening = _context(files)
        # The one hook that Python has before a handshake; it is called without a name asked for, too.
        self.listening.sni_callback = self._use_current

    def reload(self) -> None:
        """Read the files anew; with a ConfigError all stays as it was."""
        self._current = self._with_trusted(_context(self.files))

    def trust(self, authorities: str) -> None:
        """Also take certificates that these issued (PEM) from clients that show one; of others, none from now on."""
        self._trusted = authorities
        self.reload()
        # Which certificates are asked for is settled before the hook; by whom they must be issued, after it.
        self.listening.verify_mode = self._current.verify_mode

    def _with_trusted(self, context: ssl.SSLContext) -> ssl.SSLContext:
        if self._trusted:
            context.load_verify_locations(cadata=self._trusted)
            if context.verify_mode is ssl.CERT_NONE:
                context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _use_current(self, connection: ssl.SSLObject, name: str | None, listening: ssl.SSLContext) -> None:
        connection.context = self._current


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in files.paths:
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError((unreadable(path, error),)) from error
    try:
        context.load_cert_chain(files.cert, files.key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            what = f"--tls-cert {files.cert} and --tls-key {files.key} do not match: give the key of this certificate"
        else:
            what = f"--tls-cert {files.cert} and --tls-key {files.key} are no pair in PEM form ({error.reason})"
            what += ": give the certificate first, its authorities after it, and a key without a password"
        raise ConfigError((what,)) from error
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError as error:
            raise ConfigError(
                (f"--client-ca {files.client_ca} holds no certificate in PEM form: name the file of the authority",)
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
