"""Where the values of a JSON text lie in its bytes, read piece by piece and never built as a whole.

Five thousand whole nodes are 70 MB; as Python objects all at once they would be ten times that. What this module
finds is parsed, shown and forgotten, and a reply can be written from the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_STEP = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{}"]', re.DOTALL)
_SCALAR = re.compile(rb"[^][{}\",: \t\r\n]+")

Text = bytes | bytearray
Reader = Callable[[Text, int], int]
"""Reads the value that begins there and returns where it ends."""


class Span(NamedTuple):
    """`text[start:end]` is one value."""

    start: int
    end: int


class BrokenTextError(ValueError):
    """The text is not JSON from some byte on."""

    def __init__(self, position: int) -> None:
        super().__init__(f"is not JSON from byte {position + 1} on")


def read_object(text: Text, start: int, readers: Mapping[str, Reader]) -> int:
    """Give each value of the object that begins at `start` to the reader of its key; where the object ends.

    Keys are compared in lower case. A value that has no reader is passed over.
    """
    position = _past(text, start, b"{")
    if _at(text, position) == b"}":
        return position + 1
    while True:
        key = _STRING.match(text, position)
        if key is None:
            raise BrokenTextError(position)
        value = _past(text, key.end(), b":")
        reader = readers.get(str(parsed(text, Span(*key.span()))).lower(), end_of)
        position = _spaces(text, reader(text, value))
        if _at(text, position) == b"}":
            return position + 1
        position = _past(text, position, b",")


def read_array(text: Text, start: int, take: Callable[[Span, Any], None]) -> int:
    """Show each value of the array that begins at `start`, with where it lies; where the array ends.

    Whoever writes thousands of objects writes the same between each two of them. So the end of each is first
    guessed from how the first one ended, and believed where the bytes up to there are a whole value, since no
    sound object is the beginning of another. Counting braces takes ten times as long.
    """
    position = _past(text, start, b"[")
    if _at(text, position) == b"]":
        return position + 1
    seam = b""
    while True:
        span, value = _guessed(text, position, seam) or _found(text, position)
        take(span, value)
        after = _spaces(text, span.end)
        if _at(text, after) == b"]":
            return after + 1
        position = _past(text, after, b",")
        if not seam and _at(text, position) == b"{":
            key = _STRING.match(text, _spaces(text, position + 1))
            seam = bytes(text[span.end - 1 : key.end()]) if key else b""


def end_of(text: Text, start: int) -> int:
    """One past the value that begins at `start`, by counting braces outside strings; it may still be unsound."""
    first = _at(text, start)
    if first not in (b"{", b"["):
        scalar = (_STRING if first == b'"' else _SCALAR).match(text, start)
        if scalar is None:
            raise BrokenTextError(start)
        return scalar.end()
    depth = 0
    for step in _STEP.finditer(text, start):
        token = step[0]
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return step.end()
        elif token == b'"':  # a string that nothing ends
            raise BrokenTextError(step.start())
    raise BrokenTextError(len(text))


def parsed(text: Text, span: Span) -> Any:
    """The value that lies there."""
    try:
        return orjson.loads(memoryview(text)[span.start : span.end])
    except orjson.JSONDecodeError as error:
        raise BrokenTextError(span.start + error.pos) from error


def is_null(text: Text, start: int) -> bool:
    return text[start : start + 4] == b"null"


def _guessed(text: Text, start: int, seam: bytes) -> tuple[Span, Any] | None:
    found = text.find(seam, start) if seam else -1
    if found < 0:
        return None
    span = Span(start, found + 1)
    try:
        return span, parsed(text, span)
    except BrokenTextError:
        return None


def _found(text: Text, start: int) -> tuple[Span, Any]:
    span = Span(start, end_of(text, start))
    return span, parsed(text, span)


def _at(text: Text, position: int) -> bytes:
    return bytes(text[position : position + 1])


def _spaces(text: Text, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _past(text: Text, position: int, sign: bytes) -> int:
    """Past one sign and the spaces around it."""
    position = _spaces(text, position)
    if _at(text, position) != sign:
        raise BrokenTextError(position)
    return _spaces(text, position + 1)
