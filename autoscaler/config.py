"""The file of `--config`: one VLLMAutoscaler a document, and the files that they name.

It is read once, at start. Whatever is wrong is collected and told at once, each in one sentence that says
which document of the file it speaks of.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from policies.scaling.resource import InvalidResourceError, Prometheus, VLLMAutoscaler, read


class ConfigError(Exception):
    """The user must mend something; `problems` says what, one sentence each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


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
        documents = _documents(path)
    except ConfigError as error:
        return (), list(error.problems)
    for number, document in documents:
        where = f"{path}" if len(documents) == 1 else f"{path}, document {number}"
        if not isinstance(document, dict):
            problems.append(f"{where}: holds no fields: write apiVersion, kind, metadata and spec")
            continue
        try:
            resources.append(read(document))
        except InvalidResourceError as error:
            problems += [f"{where}: {problem}" for problem in error.problems]
    return tuple(resources), problems + [f"{path}: {problem}" for problem in _repeated(resources)]


class _Loader(yaml.SafeLoader):
    """Refuses a field written twice; YAML's own rule would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen and name != "<<":
                raise yaml.MarkedYAMLError(problem=f"{name} is written twice", problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _documents(path: Path) -> list[tuple[int, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError((unreadable(path, error),)) from error
    except UnicodeDecodeError as error:
        raise ConfigError((f"{path}: is not UTF-8 text: save it as UTF-8",)) from error
    try:
        documents = list(yaml.load_all(text, _Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = " ".join(str(error.problem or error.context).split())
        raise ConfigError((f"{path}: is not valid YAML{at}: {reason}",)) from error
    except yaml.YAMLError as error:
        raise ConfigError((f"{path}: is not valid YAML: {' '.join(str(error).split())}",)) from error
    except (ValueError, RecursionError) as error:  # an impossible date, a bottomless nesting
        raise ConfigError((f"{path}: is not valid YAML: {error}",)) from error
    stated = [(number, document) for number, document in enumerate(documents, 1) if document is not None]
    if not stated:
        raise ConfigError((f"{path}: is empty: write at least one VLLMAutoscaler",))
    return stated


def unreadable(path: str | Path, error: OSError) -> str:
    """One sentence for a file that could not be opened."""
    match error:
        case FileNotFoundError():
            reason = "does not exist: check the path"
        case PermissionError():
            reason = "may not be read by this user: give it the right to"
        case IsADirectoryError():
            reason = "is a directory: name a file"
        case _:
            reason = f"cannot be read: {os.strerror(error.errno) if error.errno else error}"
    return f"{path}: {reason}"


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
