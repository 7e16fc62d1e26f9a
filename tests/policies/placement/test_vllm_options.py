"""vLLM's options: which we read, which we ignore knowingly, and that each is taken as vLLM takes it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.placement.vllm_options import (
    ALIASES,
    IGNORED,
    IGNORED_ALIASES,
    IGNORED_LISTS,
    IGNORED_SWITCHES,
    READ,
    SWITCHES,
    human_int,
    parse,
)
from tests.checkout import ROOT

RECORDED: dict[str, dict[str, Any]] = {
    option["name"]: option for option in json.loads((ROOT / "tests/data/vllm_options.json").read_text())["options"]
}
LONG = {name: option for name, option in RECORDED.items() if name.startswith("--")}
OLDER = {"--speculative-model"}
"""Spellings of releases before the recorded one."""


def test_every_option_of_vllm_is_read_or_knowingly_ignored() -> None:
    assert set(LONG) == {*READ, *IGNORED, *IGNORED_LISTS, *IGNORED_SWITCHES}


def test_no_option_is_in_two_lists() -> None:
    lists = [*READ, *IGNORED, *IGNORED_LISTS, *IGNORED_SWITCHES]
    assert len(lists) == len(set(lists))


def test_how_many_values_an_option_takes_is_as_vllm_says() -> None:
    assert {name for name, option in LONG.items() if option["values"] == "0"} == {*SWITCHES, *IGNORED_SWITCHES}
    assert {name for name, option in LONG.items() if option["values"] in ("+", "?", "*")} == IGNORED_LISTS


def test_every_other_spelling_of_what_is_read_is_known() -> None:
    for name, option in LONG.items():
        for alias in option["aliases"]:
            if name in READ and not alias.startswith("--no-"):
                assert ALIASES[alias] == name
            elif not alias.startswith("--"):
                assert IGNORED_ALIASES[alias] == name
    assert {alias for alias in ALIASES if alias not in OLDER} <= {a for o in LONG.values() for a in o["aliases"]}


@pytest.mark.parametrize(
    "words",
    [
        ["--tensor-parallel-size", "4"],
        ["--tensor-parallel-size=4"],
        ["--tensor_parallel_size", "4"],
        ["--tensor_parallel_size=4"],
        ["-tp", "4"],
        ["-tp=4"],
        ["--tensor-par", "4"],
        ["-tp", "2", "--tensor-parallel-size", "4"],
        ["--trust-remote-code", "-tp", "4"],
        ["--served-model-name", "a", "b", "-tp", "4"],
        ["--port", "8000", "-tp", "4"],
        ["--port=8000", "-O3", "-tp", "4"],
        ["-cc", '{"level": 3}', "-tp", "4"],
    ],
)
def test_an_option_is_read_in_every_form(words: list[str]) -> None:
    options = parse(words)
    assert options.values["tensor_parallel_size"] == "4"
    assert options.unknown == []
    assert options.positional == ""


@pytest.mark.parametrize(
    "words",
    [
        ["org/model", "--port", "8000"],
        ["--port", "8000", "org/model"],
        ["--enforce-eager", "org/model", "-tp", "2"],
        ["--disable-log-stats", "org/model"],
        ["-O", "2", "org/model"],
    ],
)
def test_the_model_is_found_wherever_it_stands(words: list[str]) -> None:
    assert parse(words).positional == "org/model"


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--enforce-eager"], "true"),
        (["--no-enforce-eager"], "false"),
        (["--enforce-eager", "--no-enforce-eager"], "false"),
        ([], None),
    ],
)
def test_a_switch_has_two_forms_and_the_last_wins(words: list[str], value: str | None) -> None:
    assert parse(words).values.get("enforce_eager") == value


def test_members_of_a_json_option_may_come_one_by_one() -> None:
    options = parse(["--speculative-config.model", "org/draft", "--speculative_config.num_speculative_tokens=3"])
    assert json.loads(options.values["speculative_config"]) == {"model": "org/draft", "num_speculative_tokens": "3"}


def test_an_option_that_nobody_knows_is_told_and_does_not_swallow_the_next() -> None:
    options = parse(["org/model", "--from-the-future", "7", "--max-model-len", "4096", "--also-new"])
    assert options.unknown == ["--from-the-future", "--also-new"]
    assert options.values == {"max_model_len": "4096"}


def test_an_option_without_its_value_says_nothing() -> None:
    assert parse(["--max-model-len"]).values == {}
    assert parse(["--max-model-len", "--enforce-eager"]).values == {"enforce_eager": "true"}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("32768", 32768),
        ("32k", 32000),
        ("32K", 32768),
        ("25.6k", 25600),
        ("1M", 1048576),
        ("1m", 1_000_000),
        ("2g", 2_000_000_000),
        (" 4096 ", 4096),
        ("1.5K", None),
        ("32kb", None),
        ("", None),
        ("auto", None),
        ("$(LEN)", None),
    ],
)
def test_a_human_number_is_read_as_vllm_reads_it(text: str, number: int | None) -> None:
    assert human_int(text) == number


WORDS = st.lists(
    st.sampled_from([*READ, *ALIASES, *IGNORED, "--no-enforce-eager", "-", "--", "-x", "--=", "--a.b=c", "=", "4"])
    | st.text(max_size=8),
    max_size=8,
)


@given(WORDS)
def test_any_words_are_parsed(words: list[str]) -> None:
    options = parse(words)
    assert set(options.values) <= {*READ.values()}
