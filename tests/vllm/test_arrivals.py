"""Which of the real vLLM's counters see a client that hangs up, and what arrivals can be rebuilt from them.

Two servers are overloaded side by side, 30 % of the clients of each hanging up: at the one before their first
token, at the other after it. docs/arrivals.md tells users what these tests hold to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import aiohttp
import pytest

from cluster.vllm_metrics import page_series, sample_of_page
from policies.scaling.demand import PodActivity, pod_activity
from policies.scaling.observation import PodSample
from policies.scaling.resource import Objectives
from tests.parts.vllm.client import Ending, HangUp, Ledger, Load, run
from tests.vllm.conftest import Pair

pytestmark = pytest.mark.vllm

OBJECTIVES = Objectives(ttft_seconds=1.0, tpot_seconds=0.05, attainment=0.9)
SCRAPE_SECONDS = 1.0
TICK_SECONDS = 5.0
"""The shortest between two decisions that arrivals are promised for. Gauges and counters of a page are not of
one moment, so the closer two scrapes are the more of what is read between them is jitter."""
SHARE = 0.3
"""Of clients that hang up."""


def rate(seconds: float) -> float:
    """A burst that no server of 16 places takes at once, however fast, and then a load."""
    return 40.0 if seconds < 2 else 5.0


def overload(hang_up: HangUp, seed: int) -> Load:
    return Load(
        seconds=15,
        requests_per_second=rate,
        most_requests_per_second=40,
        generation_tokens=(64, 160),
        hang_ups=((hang_up, SHARE),),
        # Those who have their first token leave soon, or the rest would have reached them before they do.
        patience_seconds=2 if hang_up is HangUp.BEFORE_FIRST_TOKEN else 0.25,
        seed=seed,
    )


@dataclass(frozen=True)
class Run:
    """One server under one load: the client's own count, and every scrape."""

    ledger: Ledger
    pages: Sequence[tuple[float, str]]

    def change(self, series: str, **labels: str) -> float:
        """By how much the sum of these series has grown from the first scrape to the last."""
        first, last = (total(page, series, labels) for _, page in (self.pages[0], self.pages[-1]))
        return last - first

    @cached_property
    def samples(self) -> list[PodSample]:
        found = [sample_of_page(page, OBJECTIVES, at) for at, page in self.pages]
        return [each.sample for each in found if each is not None]

    @cached_property
    def ticks(self) -> list[PodSample]:
        """The samples as decisions see them: a tick apart, the last one included."""
        chosen = [self.samples[0]]
        for sample in self.samples:
            if seconds_between(chosen[-1], sample) >= TICK_SECONDS:
                chosen.append(sample)
        return chosen if chosen[-1] is self.samples[-1] else [*chosen, self.samples[-1]]

    @property
    def most_waiting(self) -> float:
        return max(sample.requests_waiting or 0.0 for sample in self.samples)


def total(page: str, series: str, labels: dict[str, str]) -> float:
    return sum(value for name, said, value in page_series(page) if name == series and labels.items() <= said.items())


def seconds_between(before: PodSample, after: PodSample) -> float:
    assert before.time is not None
    assert after.time is not None
    return after.time - before.time


async def watch(url: str, pages: list[tuple[float, str]], until: asyncio.Event) -> None:
    """Scrape every second, and after the event until nothing runs or waits."""
    async with aiohttp.ClientSession() as session:
        while True:
            ending = until.is_set()
            async with session.get(f"{url}/metrics") as answer:
                page = await answer.text()
            pages.append((time.time(), page))
            busy = sum(total(page, f"vllm:num_requests_{state}", {}) for state in ("running", "waiting"))
            if ending and not busy:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(until.wait() if not ending else asyncio.Event().wait(), SCRAPE_SECONDS)


async def observed(url: str, load: Load) -> Run:
    ledger, pages, ended = Ledger(), list[tuple[float, str]](), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch(url, pages, ended))
        await asyncio.sleep(SCRAPE_SECONDS)
        await run(load, [url], ledger)
        ended.set()
    return Run(ledger, pages)


@pytest.fixture(scope="module")
def runs(pair: Pair) -> dict[HangUp, Run]:
    async def both() -> list[Run]:
        loads = (overload(HangUp.BEFORE_FIRST_TOKEN, seed=1), overload(HangUp.AFTER_FIRST_TOKEN, seed=2))
        return await asyncio.gather(*map(observed, pair.urls, loads))

    before, after = asyncio.run(asyncio.wait_for(both(), 180))
    return {HangUp.BEFORE_FIRST_TOKEN: before, HangUp.AFTER_FIRST_TOKEN: after}


kinds = pytest.mark.parametrize("kind", [HangUp.BEFORE_FIRST_TOKEN, HangUp.AFTER_FIRST_TOKEN])


def estimated(samples: Sequence[PodSample]) -> list[PodActivity]:
    """What the estimator makes of each scrape, carrying on what it carries on."""
    found: list[PodActivity] = []
    for before, after in pairwise(samples):
        done = pod_activity(before, after, hang_ups=found[-1].hang_ups if found else None)
        if done is not None:
            found.append(done)
    return found


@kinds
def test_clients_do_hang_up_of_a_server_that_cannot_keep_up(runs: dict[HangUp, Run], kind: HangUp) -> None:
    """Else the others would show nothing."""
    ledger = runs[kind].ledger
    assert not ledger.ended(Ending.FAILED), ledger.ended(Ending.FAILED)[0]
    gone = ledger.sent() - len(ledger.ended(Ending.FINISHED))
    assert 0.2 < gone / ledger.sent() < 0.4
    assert runs[kind].most_waiting > 10


@kinds
def test_the_http_layer_counts_every_request_that_ends_hung_up_or_not(runs: dict[HangUp, Run], kind: HangUp) -> None:
    seen = runs[kind]
    ended = seen.change("http_requests_total", handler="/v1/completions", method="POST")
    # One that left before a busy server had read it was, to the server, never there.
    answered = sum(request.answered for request in seen.ledger.requests)
    assert answered <= ended <= seen.ledger.sent()
    assert answered > 1.1 * len(seen.ledger.ended(Ending.FINISHED)), "few of those that hung up had been answered"
    # It had answered 200 before the client left, so that is what it counts.
    assert seen.change("http_requests_total", handler="/v1/completions", status="2xx") == ended


@kinds
def test_the_engine_counts_no_abort_anywhere(runs: dict[HangUp, Run], kind: HangUp) -> None:
    seen = runs[kind]
    assert seen.change("vllm:request_success_total", finished_reason="abort") == 0
    counted = seen.change("vllm:request_success_total")
    finished = len(seen.ledger.ended(Ending.FINISHED))
    gone = seen.ledger.sent() - finished
    # The engine may be through with a request whose client leaves before the last of it has arrived.
    assert finished <= counted <= finished + 0.2 * gone
    for metric in ("request_prompt_tokens", "e2e_request_latency_seconds", "request_time_per_output_token_seconds"):
        assert seen.change(f"vllm:{metric}_count") == counted


@kinds
def test_first_tokens_and_prompt_tokens_are_of_those_who_waited_for_them(runs: dict[HangUp, Run], kind: HangUp) -> None:
    seen = runs[kind]
    heard = [request for request in seen.ledger.requests if request.first_token_at is not None]
    # A first token may be on its way to a client that has just left.
    assert 0 <= seen.change("vllm:time_to_first_token_seconds_count") - len(heard) <= 0.04 * seen.ledger.sent()
    prompt_tokens = sum(request.prompt_tokens for request in heard)
    assert seen.change("vllm:prompt_tokens_total") == pytest.approx(prompt_tokens, rel=0.05)


@kinds
def test_arrivals_rebuilt_from_scrapes_agree_with_the_clients_count(runs: dict[HangUp, Run], kind: HangUp) -> None:
    seen = runs[kind]
    done = estimated(seen.ticks)
    assert all(each.arrivals >= 0 for each in done)
    assert sum(each.arrivals for each in done) == pytest.approx(seen.ledger.sent(), rel=0.05)
    # Told in round numbers: what the engine has finished and the HTTP layer not yet ended looks like nobody's.
    cut_short = seen.ledger.sent() - seen.change("vllm:request_success_total")
    assert sum(each.hung_up for each in done) == pytest.approx(cut_short, rel=0.25, abs=3)


@kinds
def test_arrivals_are_right_at_every_tick_not_only_in_the_end(runs: dict[HangUp, Run], kind: HangUp) -> None:
    """A busy server takes seconds to show a request; it is never seen before it was sent, nor a tick too late."""
    seen = runs[kind]
    so_far = 0.0
    for done, sample in zip(estimated(seen.ticks), seen.ticks[1:], strict=True):
        so_far += done.arrivals
        assert sample.time is not None
        assert so_far <= 1.05 * seen.ledger.sent(until=sample.time) + 2
        assert so_far >= 0.95 * seen.ledger.sent(until=sample.time - TICK_SECONDS) - 2


def without_http(samples: Sequence[PodSample]) -> list[PodSample]:
    return [replace(sample, http_requests_ended=None) for sample in samples]


def test_without_the_http_count_those_who_left_after_the_first_token_are_still_found(runs: dict[HangUp, Run]) -> None:
    seen = runs[HangUp.AFTER_FIRST_TOKEN]
    done = estimated(without_http(seen.ticks))
    assert all(each.arrivals >= 0 for each in done)
    assert sum(each.arrivals for each in done) == pytest.approx(seen.ledger.sent(), rel=0.05)


def test_without_the_http_count_those_who_left_the_queue_are_lost_and_never_more(runs: dict[HangUp, Run]) -> None:
    """Nothing of vLLM's own says they were there but the queue they stood in: arrivals are then a floor."""
    seen = runs[HangUp.BEFORE_FIRST_TOKEN]
    done = estimated(without_http(seen.ticks))
    assert all(each.arrivals >= 0 for each in done)
    rebuilt = sum(each.arrivals for each in done)
    lost = len(seen.ledger.ended(Ending.HUNG_UP_BEFORE_FIRST_TOKEN))
    assert seen.ledger.sent() - lost - 3 <= rebuilt <= seen.ledger.sent() + 3


@kinds
def test_arrivals_taken_from_finished_requests_would_be_far_too_few(runs: dict[HangUp, Run], kind: HangUp) -> None:
    """Why all this: what one would write first lacks whoever hung up."""
    samples = runs[kind].samples
    naive = [sum(getattr(after, name) - getattr(before, name) for name in NAIVE) for before, after in pairwise(samples)]
    assert sum(naive) < 0.8 * runs[kind].ledger.sent()


NAIVE = ("requests_finished", "requests_running", "requests_waiting")
