"""Pieces of a JSON text are found where they lie, and what is no JSON is never taken for it."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_extender.spans import BrokenTextError, Span, end_of, parsed, read_array, read_object

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(alphabet='ab{}[]",:\\é\n ', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a"{\\', max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)
texts = st.tuples(values, st.sampled_from([None, 1, "\t"]), st.booleans()).map(
    lambda given: json.dumps(given[0], indent=given[1], ensure_ascii=given[2]).encode()
)


def items(text: bytes) -> tuple[list[Any], list[bytes], int]:
    found: list[Any] = []
    pieces: list[bytes] = []

    def take(span: Span, value: Any) -> None:
        found.append(value)
        pieces.append(text[span.start : span.end])

    return found, pieces, read_array(text, 0, take)


@settings(max_examples=60)
@given(texts)
def test_a_value_ends_where_it_ends(text: bytes) -> None:
    assert end_of(text + b",]} more", 0) == len(text)


@settings(max_examples=60)
@given(st.lists(values, max_size=6), st.sampled_from([None, 2]))
def test_the_items_of_an_array_are_all_found(things: list[Any], indent: int | None) -> None:
    text = json.dumps(things, indent=indent).encode()
    found, pieces, end = items(text)
    assert found == things
    assert [orjson.loads(piece) for piece in pieces] == things
    assert end == len(text)


@settings(max_examples=60)
@given(
    st.lists(st.dictionaries(st.sampled_from(["name", "a"]), values, min_size=1, max_size=2), min_size=2, max_size=6)
)
def test_objects_that_begin_alike_are_told_apart_whatever_is_inside(things: list[Any]) -> None:
    assert items(json.dumps(things).encode())[0] == things


def test_an_item_that_holds_the_seam_between_items_is_still_one() -> None:
    tricky = [{"name": {"x": 1}, "more": [{"y": 2}, {"name": 3}]}, {"name": '},{"name":'}, {"name": [{}, {"name": 1}]}]
    assert items(orjson.dumps(tricky))[0] == tricky


def test_keys_are_read_in_any_letter_case_and_unread_values_are_passed_over() -> None:
    text = b' { "IteMs" : [1, 2] , "other":{"items":[3]}, "n\\u0041me": "}" } '
    seen: dict[str, Any] = {}

    def reader(key: str) -> Any:
        def read(text: Any, start: int) -> int:
            span = Span(start, end_of(text, start))
            seen[key] = parsed(text, span)
            return span.end

        return read

    assert read_object(text, 0, {"items": reader("items"), "name": reader("name")}) == len(text) - 1
    assert seen == {"items": [1, 2], "name": "}"}


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,', b"{a:1}", b"[]", b'{"a":}', b'{"a" 1}']
)
def test_a_broken_object_is_refused(text: bytes) -> None:
    with pytest.raises(BrokenTextError):
        read_object(text, 0, {})


@pytest.mark.parametrize(
    "text", [b"", b"[", b"[1", b"[1,", b"[1 2]", b'["a]', b'[{"a":1},{"a":', b"[{]", b"{}", b"[nul]"]
)
def test_a_broken_array_is_refused(text: bytes) -> None:
    with pytest.raises(BrokenTextError):
        items(text)


@settings(max_examples=60)
@given(texts, st.data())
def test_cut_texts_are_refused(text: bytes, data: st.DataObject) -> None:
    whole = b"[" + text + b"]"
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(BrokenTextError):
        items(cut)
