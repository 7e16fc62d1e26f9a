"""Which of the real vLLM's counters see a client that hangs up, and what arrivals can be rebuilt from them.

A server is overloaded twice: once some clients leave before their first token, once after it. docs/arrivals.md
tells users what these tests hold to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import aiohttp
import pytest

from cluster.vllm_metrics import page_series, sample_of_page
from policies.scaling.demand import PodActivity, pod_activity
from policies.scaling.observation import PodSample
from policies.scaling.resource import Objectives
from tests.parts.vllm.client import Ending, HangUp, Ledger, Load, run, steady
from tests.parts.vllm.server import MAX_RUNNING
from tests.vllm.conftest import Pair

# Two servers boot in half a minute on idle processors, in two on busy ones, and are as much slower after it.
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

OBJECTIVES = Objectives(ttft_seconds=1.0, tpot_seconds=0.05, attainment=0.9)
SCRAPE_SECONDS = 1.0
TICK_SECONDS = 5.0
"""The shortest between two decisions that arrivals are promised for. Gauges and counters of a page are not of
one moment, so the closer two scrapes are the more of what is read between them is jitter."""
STAYERS, LATER_STAYERS, LEAVERS = 160, 16, 84
HOLDERS = MAX_RUNNING
"""So many have the whole batch until a queue was seen behind them, or until others have left it."""
QUEUED = 96
"""Of those who stay, so many wait when the others come: more than are served until those have left."""


def stay(requests: int, requests_per_second: float, seed: int) -> Load:
    """Clients that wait for the whole of their answers."""
    return Load(
        seconds=2 * requests / requests_per_second,
        requests_per_second=steady(requests_per_second),
        most_requests_per_second=requests_per_second,
        generation_tokens=(64, 160),
        most_requests=requests,
        seed=seed,
    )


def leave(hang_up: HangUp, requests: int) -> Load:
    """Clients that all hang up, long before the engine could be through with what they ask for."""
    return Load(
        seconds=2 * requests / 100,
        requests_per_second=steady(100),
        most_requests_per_second=100,
        generation_tokens=(7500, 7500),
        hang_ups=((hang_up, 1.0),),
        patience_seconds=0.5,
        most_requests=requests,
        seed=2,
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


class Watch:
    """Scrapes a server every second and keeps every page."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pages: list[tuple[float, str]] = []
        self.scraped = asyncio.Condition()

    async def keep(self, ended: asyncio.Event) -> None:
        """Until a page, scraped when nobody asks any more, shows that nothing runs or waits."""
        async with aiohttp.ClientSession() as session:
            while True:
                is_last = ended.is_set()
                async with session.get(f"{self.url}/metrics") as answer:
                    page = await answer.text()
                async with self.scraped:
                    self.pages.append((time.time(), page))
                    self.scraped.notify_all()
                if is_last and self.in_flight() == 0:
                    return
                await asyncio.sleep(SCRAPE_SECONDS)

    def waiting(self) -> float:
        return total(self.pages[-1][1], "vllm:num_requests_waiting", {})

    def in_flight(self) -> float:
        return self.waiting() + total(self.pages[-1][1], "vllm:num_requests_running", {})

    async def until(self, holds: Callable[[], bool]) -> None:
        """Until it holds for a page scraped from now on."""
        async with self.scraped:
            await self.scraped.wait()
            await self.scraped.wait_for(holds)


async def observed(url: str, hang_up: HangUp) -> Run:
    """Fill the batch by some who hold it, and a queue batches long; then come those who leave, at last some who stay.

    How many a counter has to show, and how many are seen to wait, is known beforehand, be the machine slow or fast.
    Who leaves after a first token asks for more than the engine can have made; those who hold the batch do so too,
    until they are let go. Who leaves before it stands behind them until the server is seen to know that it has left.
    """
    watch, ledger, ended = Watch(url), Ledger(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch.keep(ended))
        await watch.until(lambda: True)
        freed = asyncio.Event()
        tasks.create_task(run(leave(HangUp.AFTER_FIRST_TOKEN, HOLDERS), [url], ledger, until=freed))
        queue = tasks.create_task(run(stay(STAYERS, 200, seed=1), [url], ledger))
        await watch.until(lambda: watch.waiting() >= QUEUED)
        if hang_up is HangUp.AFTER_FIRST_TOKEN:
            freed.set()
        await run(leave(hang_up, LEAVERS), [url], ledger)
        if hang_up is HangUp.BEFORE_FIRST_TOKEN:
            await watch.until(lambda: watch.in_flight() <= HOLDERS + STAYERS)
            freed.set()
        await run(stay(LATER_STAYERS, 4, seed=3), [url], ledger)
        await queue
        ended.set()
    return Run(ledger, watch.pages)


@pytest.fixture(scope="module")
def runs(pair: Pair) -> dict[HangUp, Run]:
    async def both() -> dict[HangUp, Run]:
        # One after the other: the clients' own count is late where they have no processor to themselves.
        return {kind: await observed(pair.first.url, kind) for kind in HangUp if kind is not HangUp.NEVER}

    return asyncio.run(asyncio.wait_for(both(), 300))


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
    ledger, before = runs[kind].ledger, kind is HangUp.BEFORE_FIRST_TOKEN
    assert not ledger.ended(Ending.FAILED), ledger.ended(Ending.FAILED)[0]
    assert len(ledger.ended(Ending.HUNG_UP_BEFORE_FIRST_TOKEN)) == (LEAVERS if before else 0)
    assert len(ledger.ended(Ending.HUNG_UP_AFTER_FIRST_TOKEN)) == HOLDERS + (0 if before else LEAVERS)
    assert len(ledger.ended(Ending.FINISHED)) == STAYERS + LATER_STAYERS
    assert 0.3 * ledger.sent() <= LEAVERS
    assert runs[kind].most_waiting >= QUEUED


@kinds
def test_the_http_layer_counts_every_request_that_ends_hung_up_or_not(runs: dict[HangUp, Run], kind: HangUp) -> None:
    seen = runs[kind]
    assert seen.change("http_requests_total", handler="/v1/completions", method="POST") == seen.ledger.sent()
    # It had answered 200 before the client left, so that is what it counts.
    assert seen.change("http_requests_total", handler="/v1/completions", status="2xx") == seen.ledger.sent()


@kinds
def test_the_engine_counts_no_abort_anywhere(runs: dict[HangUp, Run], kind: HangUp) -> None:
    seen = runs[kind]
    assert seen.change("vllm:request_success_total", finished_reason="abort") == 0
    finished = len(seen.ledger.ended(Ending.FINISHED))
    assert seen.change("vllm:request_success_total") == finished
    for metric in ("request_prompt_tokens", "e2e_request_latency_seconds", "request_time_per_output_token_seconds"):
        assert seen.change(f"vllm:{metric}_count") == finished


@kinds
def test_first_tokens_and_prompt_tokens_are_of_those_who_waited_for_them(runs: dict[HangUp, Run], kind: HangUp) -> None:
    seen = runs[kind]
    heard = [request for request in seen.ledger.requests if request.first_token_at is not None]
    assert seen.change("vllm:time_to_first_token_seconds_count") == len(heard)
    assert seen.change("vllm:prompt_tokens_total") == sum(request.prompt_tokens for request in heard)


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
    """None is seen before it was sent, nor later than a tick after the server is known to have read it."""
    seen = runs[kind]
    so_far = 0.0
    for done, sample in zip(estimated(seen.ticks), seen.ticks[1:], strict=True):
        so_far += done.arrivals
        assert sample.time is not None
        assert so_far <= 1.05 * seen.ledger.sent(until=sample.time) + 2
        assert so_far >= 0.95 * seen.ledger.answered(until=sample.time - TICK_SECONDS) - 2


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
    assert sum(naive) == STAYERS + LATER_STAYERS <= 0.7 * runs[kind].ledger.sent()


NAIVE = ("requests_finished", "requests_running", "requests_waiting")
