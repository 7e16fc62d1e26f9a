"""The file of `--config`: one VLLMAutoscaler a document, and the files that they name.

It is read once, at start. Whatever is wrong is collected and told at once, each in one sentence that says
which document of the file it speaks of. Resources of the cluster are others' than the operator's: what they may have
read of his files, and sent to a server of their choice, is here, too.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cluster.files import ConfigError, documents, unreadable
from policies.scaling.resource import Prometheus, VLLMAutoscaler
from policies.scaling.resource_reading import InvalidResourceError, read

CREDENTIALS: Final = Path("/etc/preheat/credentials")
OWN_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts the token with which we ask the API server."""


def load(path: Path) -> tuple[VLLMAutoscaler, ...]:
    """The targets that the file states, all of them sound, or a ConfigError with all that is wrong."""
    resources, problems = examine(path)
    problems += [problem for resource in resources for problem in missing_files(resource)]
    if problems:
        raise ConfigError(tuple(dict.fromkeys(problems)))
    return resources


def examine(path: Path) -> tuple[tuple[VLLMAutoscaler, ...], list[str]]:
    """Every sound resource of the file, and what is wrong with the rest."""
    resources: list[VLLMAutoscaler] = []
    problems: list[str] = []
    try:
        stated = documents(path, "write at least one VLLMAutoscaler")
    except ConfigError as error:
        return (), list(error.problems)
    for number, document in stated:
        where = f"{path}" if len(stated) == 1 else f"{path}, document {number}"
        if not isinstance(document, dict):
            problems.append(f"{where}: holds no fields: write apiVersion, kind, metadata and spec")
            continue
        try:
            resources.append(read(document))
        except InvalidResourceError as error:
            problems += [f"{where}: {problem}" for problem in error.problems]
    return tuple(resources), problems + [f"{path}: {problem}" for problem in _repeated(resources)]


def _repeated(resources: list[VLLMAutoscaler]) -> Iterator[str]:
    names: set[str] = set()
    targets: dict[tuple[str, str, str, str], str] = {}
    for resource in resources:
        if resource.key in names:
            yield f"two documents are named {resource.key}: rename one"
        names.add(resource.key)
        ref = resource.spec.scale_target_ref
        # Whatever its version, it is one object: apps/v1 and apps/v1beta1 scale the same Deployment.
        target = (resource.metadata.namespace, ref.api_version.rpartition("/")[0], ref.kind, ref.name)
        if target in targets:
            yield (
                f"{targets[target]} and {resource.key} both scale {ref.kind} "
                f"{resource.metadata.namespace}/{ref.name}: keep one, or they would fight over it"
            )
        targets.setdefault(target, resource.key)


def forbidden_files(resource: VLLMAutoscaler, below: Path) -> Iterator[str]:
    """The files that are not read for a resource of the cluster: whoever writes it names the server, too."""
    for field, path in _named_files(resource.spec.prometheus):
        where = f"{resource.key}: spec.prometheus.{field}: {path}"
        leads_to = Path(os.path.realpath(path))
        if leads_to.is_relative_to(os.path.realpath(OWN_ACCOUNT)):
            yield f"{where}: is the autoscaler's own account's, which nobody is sent: {_remedy(below)}"
        # Both as it is written, since where a link of /proc leads changes, and as it leads, since `..data` is a link.
        elif not (
            Path(os.path.abspath(path)).is_relative_to(os.path.abspath(below))
            and leads_to.is_relative_to(os.path.realpath(below))
        ):
            yield f"{where}: is not below {below}, and no other file is read for a resource: {_remedy(below)}"


def _remedy(below: Path) -> str:
    return f"mount what this Prometheus asks for below {below}"


def missing_files(resource: VLLMAutoscaler) -> Iterator[str]:
    """What is wrong with the files that the resource names."""
    prometheus = resource.spec.prometheus
    for field, path in _named_files(prometheus):
        where = f"{resource.key}: spec.prometheus.{field}"
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            yield f"{where}: {unreadable(path, error)}"
            continue
        if not content.strip():
            yield f"{where}: {path}: is empty: write what it should hold into it"
        elif field == "caFile":
            try:
                ssl.create_default_context(cadata=content.decode("ascii", "replace"))
            except ssl.SSLError:
                yield f"{where}: {path}: holds no certificate in PEM form: name the file of the authority"


def _named_files(prometheus: Prometheus) -> Iterator[tuple[str, str]]:
    named = {
        "bearerTokenFile": prometheus.bearer_token_file,
        "basicAuth.passwordFile": prometheus.basic_auth.password_file if prometheus.basic_auth else None,
        "caFile": prometheus.ca_file,
        "certFile": prometheus.cert_file,
        "keyFile": prometheus.key_file,
    }
    yield from ((field, path) for field, path in named.items() if path is not None)
