"""The words that start vLLM, from a container as people write them: lists, shells, scripts, `$(VAR)`.

What a shell would only know when it runs (a command's output, a variable nobody sets) is kept as it is written, and
whoever reads the value finds that it cannot be read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
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
_SHELL_VARIABLE: Final = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::?-([^}]{0,1024}))?\}|([A-Za-z_]\w*))")
_ASSIGNMENT: Final = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)", re.DOTALL)
_ENDS: Final = frozenset(
    {";", "&&", "||", "|", "&", "(", ")", "{", "}", ";;", "then", "do", "else", "if", "while", "!"}
)


LONGEST: Final = 1 << 17
"""Linux starts nothing with a longer word; variables that hold others twice, forty times over, would be longer."""


class _Room:
    """By how much all words of a container may still grow when values are put into them."""

    def __init__(self) -> None:
        self._left = LONGEST

    def fill(self, pattern: re.Pattern[str], value: Callable[[re.Match[str]], str], text: str) -> str:
        """What there is no room for stays as it is written."""

        def bounded(match: re.Match[str]) -> str:
            found = value(match)
            more = max(0, len(found) - len(match[0]))
            if more > self._left:
                return match[0]
            self._left -= more
            return found

        return pattern.sub(bounded, text)


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
    room = _Room()
    env = _resolved(container.env, room)
    command = [_expanded(word, env, room) for word in container.command]
    args = [_expanded(word, env, room) for word in container.args]
    where = f"{'args' if container.args else 'command'} of container {container.name}"
    words = command + args
    script = _script(words)
    if script is not None:
        found = _in_script(script, env, room) if len(script) <= LONGEST else None
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


def _resolved(env: Mapping[str, str | None], room: _Room) -> dict[str, str | None]:
    """`$(VAR)` in values, as the kubelet does: only of variables that come before."""
    done: dict[str, str | None] = {}
    for name, value in env.items():
        done[name] = None if value is None else _expanded(value, done, room)
    return done


def _expanded(text: str, env: Mapping[str, str | None], room: _Room) -> str:
    """`$(VAR)` replaced where the value is seen; else it stays, as the kubelet leaves an unknown one."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        found = env.get(match[1])
        return match[0] if found is None else found

    return room.fill(_REFERENCE, value, text)


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


def _in_script(
    script: str, env: Mapping[str, str | None], room: _Room
) -> tuple[tuple[str, ...], dict[str, str | None]] | None:
    """The options of the first server that a script starts, and the variables that it set before."""
    known: dict[str, str | None] = dict(env)
    for words in _commands(script):
        rest = list(words)
        while rest and (rest[0] in ("export", "exec", "nohup", "time", "env") or _ASSIGNMENT.fullmatch(rest[0])):
            assigned = _ASSIGNMENT.fullmatch(rest.pop(0))
            if assigned:
                known[assigned[1]] = _shell_expanded(assigned[2], known, room)
        options = _after_server(rest)
        if options is None:
            continue
        expanded: list[str] = []
        for word in options:
            told = _shell_expanded(word, known, room)
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
    begun: list[str] = []
    open_mark = ""
    for line in script.splitlines():
        begun.append(line)
        open_mark = _open_mark(line, open_mark)
        if not open_mark:
            lines.append("\n".join(begun))
            begun = []
    return [*lines, "\n".join(begun)] if begun else lines


def _open_mark(line: str, before: str) -> str:
    """The quotation mark, and the backslash, that are still open after a line; by shlex's rules, looking once."""
    quote, escaped = before.removesuffix("\\"), False
    for mark in line:
        if escaped:
            escaped = False
        elif mark == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if mark == quote else quote
        elif mark in "'\"":
            quote = mark
        elif mark == "#":
            break
    return quote + "\\" * escaped


def _shell_expanded(text: str, env: Mapping[str, str | None], room: _Room) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        found = env.get(name)
        if found:
            return found
        # What is set from where nobody here sees it is not the value for what is not set.
        unseen = found is None and name in env
        return match[0] if unseen or match[2] is None else match[2]

    return room.fill(_SHELL_VARIABLE, value, text)


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
