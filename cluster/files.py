"""Files that a user writes: read as YAML, or refused in one sentence that says what is wrong and what to do."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml


class ConfigError(Exception):
    """The user must mend something; `problems` says what, one sentence each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[str, ...]]]:
        # An exception is otherwise made anew of its text, where it comes from another process.
        return type(self), (self.problems,)


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


def documents(path: Path, remedy: str) -> list[tuple[int, Any]]:
    """The YAML documents of a file that hold anything, with their numbers; a ConfigError where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError((unreadable(path, error),)) from error
    except UnicodeDecodeError as error:
        raise ConfigError((f"{path}: is not UTF-8 text: save it as UTF-8",)) from error
    return parsed(text, str(path), remedy)


def parsed(text: str, path: str, remedy: str) -> list[tuple[int, Any]]:
    """`documents` of a text; `path` is what a mistake in it is told of."""
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
        raise ConfigError((f"{path}: is empty: {remedy}",))
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
