"""What an object says of itself, also before it says anything."""

from __future__ import annotations

import pytest

from tests.parts.kubernetes_api import Json, condition, is_true

READY = {"type": "Ready", "status": "True"}


@pytest.mark.parametrize("written", [{}, {"status": {}}, {"status": {"conditions": None}}])
def test_an_object_that_says_nothing_yet_is_not_ready(written: Json) -> None:
    assert condition(written, "Ready") == {}
    assert not is_true(written, "Ready")


def test_a_condition_is_found_by_its_type() -> None:
    written = {"status": {"conditions": [{"type": "Available", "status": "False"}, READY]}}
    assert condition(written, "Ready") == READY
    assert is_true(written, "Ready")
    assert not is_true(written, "Available")
