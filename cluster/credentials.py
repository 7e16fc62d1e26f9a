"""Where the API server is and who we are there: a kubeconfig, or the service account of the pod we run in.

In that order: the file that was named, `KUBECONFIG`, in-cluster. Nothing else is tried; above all not
`~/.kube/config`, which would let a slip of the pen scale somebody's production.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import ConfigException, load_kube_config
from kubernetes_asyncio.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_TOKEN_FILENAME,
    load_incluster_config,
)
from kubernetes_asyncio.config.kube_config import ENV_KUBECONFIG_PATH_SEPARATOR

from cluster.errors import RefusedError

RENEW_SECONDS = 60.0
"""How long a token is believed; the cluster rotates those in files, an exec plugin knows its own expiry."""

USER_AGENT = "preheat"

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

# What the client library lets through when a kubeconfig is not what it expects.
_UNREADABLE = (
    AssertionError,
    AttributeError,
    ConfigException,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    yaml.YAMLError,
)


class Renewal:
    """Asked before every request; fetches the token anew once the present one is older than it may be."""

    def __init__(self, token: Callable[[], Awaitable[str | None]], *, seconds: float = RENEW_SECONDS) -> None:
        self._token = token
        self._seconds = seconds
        self._renewed_at = time.monotonic()
        self._lock = asyncio.Lock()

    async def __call__(self, configuration: Any) -> None:
        async with self._lock:
            if time.monotonic() - self._renewed_at < self._seconds:
                return
            token = await self._token()
            if token:
                configuration.api_key["BearerToken"] = token
            self._renewed_at = time.monotonic()


async def client_for(
    kubeconfig: str | None,
    context: str | None,
    *,
    token_file: str = SERVICE_TOKEN_FILENAME,
    ca_file: str = SERVICE_CERT_FILENAME,
    renew_seconds: float = RENEW_SECONDS,
) -> ApiClient:
    """A client that knows its server and its credentials; nothing is sent yet. RefusedError says what is wrong."""
    configuration = Configuration()
    # Each watch holds a connection for as long as it lives, so a limit would starve the requests beside them.
    configuration.connection_pool_maxsize = 0
    if kubeconfig is not None:
        await _read_kubeconfig(configuration, kubeconfig, context, f"--kubeconfig {kubeconfig}", renew_seconds)
    elif files := os.environ.get("KUBECONFIG"):
        await _read_kubeconfig(configuration, files, context, f"KUBECONFIG ({files})", renew_seconds)
    elif os.environ.get("KUBERNETES_SERVICE_HOST"):
        if context is not None:
            raise RefusedError("--context chooses inside a kubeconfig, and there is none: give --kubeconfig FILE")
        _read_service_account(configuration, token_file, ca_file, renew_seconds)
    else:
        raise RefusedError(
            "no cluster is named: give --kubeconfig FILE, set KUBECONFIG, or run in a pod with a service account"
        )
    try:
        client = ApiClient(configuration)
    except (OSError, ssl.SSLError) as error:
        raise RefusedError(
            f"the certificates for {configuration.host} cannot be used: {error}; "
            "correct certificate-authority, client-certificate and client-key"
        ) from error
    client.user_agent = USER_AGENT
    return client


async def _read_kubeconfig(
    configuration: Any, files: str, context: str | None, source: str, renew_seconds: float
) -> None:
    paths = _paths_in(files)
    if not any(path.exists() for path in paths):
        raise RefusedError(f"{source} does not exist: give the path of a kubeconfig")
    try:
        loader = await load_kube_config(
            config_file=files, context=context, client_configuration=configuration, persist_config=False
        )
    except _UNREADABLE as error:
        known = _contexts_in(paths)
        if context is not None and known and context not in known:
            raise RefusedError(
                f"{source} has no context '{context}': write --context with one of {', '.join(known)}"
            ) from error
        # Of the others the words speak of Python, not of the file.
        speaks = isinstance(error, ConfigException | OSError | yaml.YAMLError) and str(error)
        reason = " ".join(str(error).split()) if speaks else "it must hold clusters, users and contexts"
        raise RefusedError(f"{source} is not a kubeconfig that can be used: {reason}") from error
    # The library's own types know the loader only as it is before it has loaded.
    loaded: Any = loader
    user: Any = loaded._user
    if user is None:
        return
    token_file = user.safe_get("tokenFile")
    if "exec" in user:

        async def token_of_plugin() -> str | None:
            # Returns at once while the plugin's own expiry is ahead.
            await loaded.load_from_exec_plugin()
            return getattr(loaded, "token", None)

        configuration.refresh_api_key_hook = Renewal(token_of_plugin, seconds=renew_seconds)
    elif loaded.provider == "gcp":
        configuration.refresh_api_key_hook = Renewal(loaded.load_gcp_token, seconds=renew_seconds)
    elif token_file and not user.safe_get("token"):
        path = next((p.parent / token_file for p in paths if (p.parent / token_file).exists()), token_file)
        configuration.refresh_api_key_hook = Renewal(_reader_of(str(path)), seconds=renew_seconds)


def _paths_in(files: str) -> list[Path]:
    return [Path(path).expanduser() for path in files.split(ENV_KUBECONFIG_PATH_SEPARATOR) if path]


def _contexts_in(paths: list[Path]) -> list[str]:
    names: list[str] = []
    for path in paths:
        try:
            content = yaml.safe_load(path.read_text())
            names += [str(context["name"]) for context in content["contexts"]]
        except _UNREADABLE:
            continue
    return names


def _read_service_account(configuration: Any, token_file: str, ca_file: str, renew_seconds: float) -> None:
    try:
        load_incluster_config(  # type: ignore[no-untyped-call]
            configuration, try_refresh_token=False, token_filename=token_file, cert_filename=ca_file
        )
    except (ConfigException, OSError) as error:
        raise RefusedError(
            f"the service account of this pod cannot be used: {error} Set automountServiceAccountToken, "
            "or give --kubeconfig FILE"
        ) from error
    configuration.api_key["BearerToken"] = configuration.api_key["BearerToken"].strip()
    configuration.refresh_api_key_hook = Renewal(_reader_of(token_file), seconds=renew_seconds)


def _reader_of(token_file: str) -> Callable[[], Awaitable[str]]:
    async def token_in_file() -> str:
        # A few hundred bytes of a mounted volume: not worth a thread.
        return "Bearer " + Path(token_file).read_text().strip()  # noqa: ASYNC240

    return token_in_file


def own_namespace() -> str | None:
    """The namespace of the pod that we run in; None outside of a cluster."""
    try:
        return _OWN_NAMESPACE.read_text("utf-8").strip() or None
    except OSError:
        return None
