"""Who asks a Prometheus, and over what: secrets from files, certificates, and a session that sends them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests
import urllib3
from requests.auth import AuthBase, HTTPBasicAuth

from policies.scaling.resource import Prometheus as Settings


def unreadable_files(settings: Settings) -> tuple[str, ...]:
    """What is wrong with the files that the settings name, one sentence each."""
    named: Mapping[str, str | None] = {
        "bearerTokenFile": settings.bearer_token_file,
        "basicAuth.passwordFile": settings.basic_auth.password_file if settings.basic_auth else None,
        "caFile": settings.ca_file,
        "certFile": settings.cert_file,
        "keyFile": settings.key_file,
    }
    problems = []
    for field, path in named.items():
        if path is not None:
            try:
                with Path(path).open("rb") as file:
                    empty = not file.read(1)
            except OSError as error:
                why = error.strerror or type(error).__name__
                problems.append(f"prometheus.{field} {path} cannot be read ({why}): mount it or mend the path")
            else:
                if empty:
                    problems.append(f"prometheus.{field} {path} is empty: write it anew")
    return tuple(problems)


class _Identity(AuthBase):
    """Bearer token or password, read again whenever its file changes, as a cluster rotates them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._read_as: tuple[int, int, int] | None = None
        self._secret = ""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        basic, token_file = self._settings.basic_auth, self._settings.bearer_token_file
        if token_file is not None:
            request.headers["Authorization"] = f"Bearer {self._text(token_file)}"
        elif basic is not None:
            secret = self._text(basic.password_file)
            request = HTTPBasicAuth(basic.username.encode(), secret.encode())(request)
        return request

    def _text(self, path: str) -> str:
        with self._lock:
            stat = Path(path).stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if version != self._read_as:
                self._secret = Path(path).read_text("utf-8").strip("\r\n")
                self._read_as = version
            return self._secret


class _Session(requests.Session):
    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """A POST's query goes into its body, where it may be as long as it must; the hook reads the answer."""
        if method == "POST":
            kwargs["data"] = kwargs.pop("params", None)
        kwargs["stream"] = True
        return super().request(method, url, *args, **kwargs)


def session_for(settings: Settings, hook: Callable[..., requests.Response]) -> requests.Session:
    session = _Session()
    # Also without a secret: requests would look into the user's .netrc for one and send it.
    session.auth = _Identity(settings)
    session.verify = not settings.insecure_skip_verify
    if session.verify and settings.ca_file is not None:
        session.verify = settings.ca_file
    if settings.insecure_skip_verify:
        # The user said so in as many words; a line for each request would tell nobody anything.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    if settings.cert_file is not None and settings.key_file is not None:
        session.cert = (settings.cert_file, settings.key_file)
    # Inside a cluster the wire costs less than packing at one end and unpacking at the other.
    session.headers["Accept-Encoding"] = "identity"
    session.headers["User-Agent"] = "preheat"
    session.hooks["response"].append(hook)
    return session
