"""Formulas of scaling modifiers, against the same arithmetic in Python, and each refusal."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations.policy_files.formula import FormulaError, read_formula

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(numbers, numbers)
def test_arithmetic_is_pythons_own(a: float, b: float) -> None:
    for text, expected in (
        ("a + b * 2 - 3", a + b * 2 - 3),
        ("(a + b) / 2", (a + b) / 2),
        ("a - b - 1", a - b - 1),
        ("-a + 2 ** 3 ** 2", -a + 2 ** (3**2)),
        ("-2 ^ 2 + a", -4 + a),
        ("a > b ? a : b", max(a, b)),
        ("max(a, b) - min([a, b, 0])", max(a, b) - min(a, b, 0.0)),
        ("a > 0 && b > 0 ? 1 : a < 0 or not (b >= 0) ? 2 : 3", 1 if a > 0 and b > 0 else 2 if a < 0 or b < 0 else 3),
        ("abs(a) >= 1 || a == b ? float(1) : int(2.7)", 1 if abs(a) >= 1 or a == b else 2),
        ("sum([a, b]) != a + b ? 1 : 0", 0),
        ("ceil(2.1) * 100 + floor(2.9) * 10 + round(2.5)", 323),
    ):
        assert read_formula(text).value({"a": a, "b": b}) == pytest.approx(expected), text


def test_a_trigger_that_failed_is_nil_for_the_question_marks() -> None:
    assert read_formula("(a ?? b) + 1").value({"a": None, "b": 2.0}) == 3
    assert read_formula("a ?? b").value({"a": None, "b": None}) is None
    assert read_formula("a == nil ? 5 : a").value({"a": None}) == 5
    with pytest.raises(FormulaError, match="a trigger that failed has no value"):
        read_formula("a + 1").value({"a": None})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "formula '', character 1: it ends too early: complete it"),
        ("a b", "formula 'a b', character 3: 'b' follows a whole expression: remove it or join it"),
        ("(a", "character 3: 'the end' stands where ')' belongs: mend the formula"),
        ("a ? 1", "character 6: 'the end' stands where ':' belongs"),
        ("count([a], {# > 1})", "character 12: '{#' is outside the arithmetic that is replayed: write it with"),
        ("count([a])", "character 1: count() is outside the arithmetic that is replayed: it knows min, max, sum"),
        ("a + 'x'", "character 5: ''x'' is outside the arithmetic"),
        ("a + )", "character 5: ')' begins no expression"),
    ],
)
def test_what_is_not_read_is_named_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(FormulaError) as told:
        read_formula(text)
    assert sentence in str(told.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a > 1", "formula 'a > 1' answers true or false: write a number, as in … ? 1 : 0"),
        ("1 / a", "formula '1 / a' cannot be computed: float division by zero"),
        ("a ? 1 : 2", "a number stands where a condition belongs"),
        ("(a > 1) + 1", "a condition stands where a number belongs"),
        ("10 ** 400", "cannot be computed"),
    ],
)
def test_what_cannot_be_computed_is_said(text: str, sentence: str) -> None:
    with pytest.raises(FormulaError) as told:
        read_formula(text).value({"a": 0.0})
    assert sentence in str(told.value)


@given(st.text("ab(){}[]57+-*/^<>=!?:&|., ", max_size=30) | st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(FormulaError):
        assert read_formula(text).text == text


def test_a_bottomless_nesting_is_refused() -> None:
    with pytest.raises(FormulaError, match="nested too deeply"):
        read_formula("(" * 100_000 + "a")
