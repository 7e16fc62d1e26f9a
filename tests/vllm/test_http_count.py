"""What the real vLLM's HTTP layer counts, request by request, and what of it the engine knows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.parts.processes import wait_until
from tests.parts.vllm.client import FIRST_WORD
from tests.parts.vllm.server import MODEL_NAME, metrics_page
from tests.vllm.conftest import Pair
from tests.vllm.test_arrivals import total

pytestmark = pytest.mark.vllm

WORDS = [FIRST_WORD] * 64

Counts = dict[str, float]


def counts(page: str) -> Counts:
    return {
        **{
            status: total(page, "http_requests_total", {"status": status, "method": "POST"})
            for status in ("2xx", "4xx")
        },
        "first tokens": total(page, "vllm:time_to_first_token_seconds_count", {}),
        "finished": total(page, "vllm:request_success_total", {}),
        "prompt tokens": total(page, "vllm:prompt_tokens_total", {}),
    }


@pytest.fixture
def changes(pair: Pair) -> Callable[[Counts], None]:
    """Assert that since the test began the counts come to have grown by exactly this."""
    before = counts(metrics_page(pair.first))

    def grown_by() -> Counts:
        now = counts(metrics_page(pair.first))
        return {name: now[name] - before[name] for name in now if now[name] != before[name]}

    def come_to(expected: Counts) -> None:
        def reached() -> bool:
            assert grown_by() == expected
            return True

        wait_until(reached, within=10, what=str(expected), every=0.2)

    return come_to


def ask(pair: Pair, timeout: float = 60.0, **question: Any) -> requests.Response:
    asked = {"model": MODEL_NAME, "prompt": WORDS, "ignore_eos": True, **question}
    return requests.post(f"{pair.first.url}/v1/completions", json=asked, timeout=timeout)


def test_one_who_leaves_without_having_got_anything_is_counted_as_answered(
    pair: Pair, changes: Callable[[Counts], None]
) -> None:
    """It does not stream, so not even the status has reached it: 200 is what it would have been."""
    began = time.monotonic()
    with pytest.raises(requests.ReadTimeout):
        ask(pair, timeout=1.0, max_tokens=1900)
    assert time.monotonic() - began < 10
    changes({"2xx": 1, "first tokens": 1, "prompt tokens": len(WORDS)})


def test_one_that_is_malformed_never_reaches_the_engine(pair: Pair, changes: Callable[[Counts], None]) -> None:
    assert ask(pair, max_tokens=-1).status_code == 400
    changes({"4xx": 1})


def test_one_that_asks_for_three_answers_is_three_to_the_engine(pair: Pair, changes: Callable[[Counts], None]) -> None:
    assert ask(pair, n=3, max_tokens=4).ok
    changes({"2xx": 1, "first tokens": 3, "finished": 3, "prompt tokens": 3 * len(WORDS)})
