"""The words that start vLLM, from a container as people write them: lists, shells, scripts, `$(VAR)`.

What a shell would only know when it runs (a command's output, a variable nobody sets) is kept as it is written, and
whoever reads the value finds that it cannot be read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from policies.placement.demand import Container

SHELLS: Final = frozenset({"sh", "bash", "ash", "dash", "zsh", "busybox"})
SERVERS: Final = frozenset(
    {
        "vllm.entrypoints.openai.api_server",
        "vllm.entrypoints.api_server",
        "vllm.entrypoints.openai.run_batch",
        "vllm.entrypoints.grpc_server",
    }
)
"""Modules started by `python -m` that take vLLM's options."""
IMAGES: Final = re.compile(r"(^|[/-])vllm([-_/:@]|$)", re.IGNORECASE)
"""Images whose entry point is vLLM's server, so that bare `args` are its options."""

_TELLING: Final = (
    "--model",
    "--tensor-parallel-size",
    "--tensor_parallel_size",
    "--max-model-len",
    "--served-model-name",
)
"""Options by which a script's words are known to be vLLM's."""

# A word that only a running shell can tell.
UNREADABLE: Final = re.compile(r"\$\(|\$\{?[A-Za-z_]|`")
_REFERENCE: Final = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
_SHELL_VARIABLE: Final = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::?-([^}]*))?\}|([A-Za-z_]\w*))")
_ASSIGNMENT: Final = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)", re.DOTALL)
_ENDS: Final = frozenset(
    {";", "&&", "||", "|", "&", "(", ")", "{", "}", ";;", "then", "do", "else", "if", "while", "!"}
)


@dataclass(frozen=True, slots=True)
class Started:
    """How a container starts vLLM."""

    options: tuple[str, ...]
    """All words after what starts the server, substituted as far as can be told."""
    where: str
    """Where they were read: "args of container vllm"."""
    env: Mapping[str, str | None]
    """The container's, with what the script sets."""


def started_vllm(container: Container) -> Started | None:
    """What vLLM is started with by this container; None where it is not vLLM that it starts."""
    env = _resolved(container.env)
    command = [_expanded(word, env) for word in container.command]
    args = [_expanded(word, env) for word in container.args]
    where = f"{'args' if container.args else 'command'} of container {container.name}"
    words = command + args
    script = _script(words)
    if script is not None:
        found = _in_script(script, env)
        return None if found is None else Started(found[0], f"script of container {container.name}", found[1])
    options = _after_server(words)
    if options is not None:
        return Started(tuple(options), where, env)
    # The image's own entry point, or a script in it, gets the words.
    if IMAGES.search(container.image):
        if not command:
            return Started(tuple(args), where, env)
        first = next((i for i, word in enumerate(words) if word.startswith(_TELLING)), None)
        if first is not None:
            return Started(tuple(words[first:]), where, env)
    return None


def _resolved(env: Mapping[str, str | None]) -> dict[str, str | None]:
    """`$(VAR)` in values, as the kubelet does: only of variables that come before."""
    done: dict[str, str | None] = {}
    for name, value in env.items():
        done[name] = None if value is None else _expanded(value, done)
    return done


def _expanded(text: str, env: Mapping[str, str | None]) -> str:
    """`$(VAR)` replaced where the value is seen; else it stays, as the kubelet leaves an unknown one."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        found = env.get(match[1])
        return match[0] if found is None else found

    return _REFERENCE.sub(value, text)


def _script(words: Sequence[str]) -> str | None:
    """What a shell is told to run by `-c`."""
    for i, word in enumerate(words):
        if word.rpartition("/")[2] in SHELLS:
            for j in range(i + 1, len(words)):
                if words[j] == "-c" or re.fullmatch(r"-[a-z]*c", words[j]):
                    return words[j + 1] if j + 1 < len(words) else None
                if not words[j].startswith(("-", "+")):
                    break
        elif word not in ("env", "exec", "tini", "/usr/bin/env", "/bin/env", "--"):
            return None
    return None


def _in_script(script: str, env: Mapping[str, str | None]) -> tuple[tuple[str, ...], dict[str, str | None]] | None:
    """The options of the first server that a script starts, and the variables that it set before."""
    known: dict[str, str | None] = dict(env)
    for words in _commands(script):
        rest = list(words)
        while rest and (rest[0] in ("export", "exec", "nohup", "time", "env") or _ASSIGNMENT.fullmatch(rest[0])):
            assigned = _ASSIGNMENT.fullmatch(rest.pop(0))
            if assigned:
                known[assigned[1]] = _shell_expanded(assigned[2], known)
        options = _after_server(rest)
        if options is None:
            continue
        expanded: list[str] = []
        for word in options:
            told = _shell_expanded(word, known)
            # An unquoted variable may hold several words; one that was quoted has kept no mark of it.
            expanded += told.split() if told != word and _SHELL_VARIABLE.fullmatch(word) else [told]
        return tuple(expanded), known
    return None


def _commands(script: str) -> list[list[str]]:
    """Words by command; comments gone, continued lines joined. A line that no shell would take ends at its fault."""
    joined = re.sub(r"\\\r?\n", " ", script)
    commands: list[list[str]] = [[]]
    for line in _whole_lines(joined):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        try:
            for word in lexer:
                if word in _ENDS or (word and set(word) <= set(";&|")):
                    commands.append([])
                elif re.fullmatch(r"\d*[<>].*", word):
                    continue
                else:
                    commands[-1].append(word)
        except ValueError:
            pass  # a quote without its end
        commands.append([])
    return [words for words in commands if words]


def _whole_lines(script: str) -> list[str]:
    """Lines, those within one quotation kept together."""
    lines: list[str] = []
    begun = ""
    for line in script.splitlines():
        begun = f"{begun}\n{line}" if begun else line
        try:
            shlex.split(begun, comments=True)
        except ValueError:
            continue
        lines.append(begun)
        begun = ""
    return [*lines, begun] if begun else lines


def _shell_expanded(text: str, env: Mapping[str, str | None]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        found = env.get(name)
        if found:
            return found
        # What is set from where nobody here sees it is not the value for what is not set.
        unseen = found is None and name in env
        return match[0] if unseen or match[2] is None else match[2]

    return _SHELL_VARIABLE.sub(value, text)


def _after_server(words: Sequence[str]) -> list[str] | None:
    """What follows `vllm serve`, `python -m vllm.entrypoints…`, or a path to the server's file."""
    for i, word in enumerate(words):
        last = word.rpartition("/")[2]
        if last == "vllm" and words[i + 1 : i + 2] == ["serve"]:
            return list(words[i + 2 :])
        if word == "-m" and words[i + 1 : i + 2] and (words[i + 1] in SERVERS):
            return list(words[i + 2 :])
        if word == "-m" and words[i + 1 : i + 3] in (["vllm", "serve"], ["vllm.entrypoints.cli.main", "serve"]):
            return list(words[i + 3 :])
        if re.search(r"vllm/entrypoints/(openai/)?api_server\.py$", word):
            return list(words[i + 1 :])
    return None
