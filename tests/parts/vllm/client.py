"""A load generator that streams completions from real servers and keeps its own count of what happened.

Its count is what the tests hold the autoscaler's readings against, so it is made where a user would make it: at
the client. Tokens are counted from the answer's `usage`; the chunks of a stream merge several tokens at will.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

import aiohttp

from tests.parts.vllm.server import MODEL_NAME

FIRST_WORD, LAST_WORD = 259, 511
"""Tokens of the tiny model's vocabulary that are neither special nor single bytes."""


class Ending(StrEnum):
    FINISHED = "finished"
    HUNG_UP_BEFORE_FIRST_TOKEN = "hung up before the first token"
    HUNG_UP_AFTER_FIRST_TOKEN = "hung up after the first token"
    FAILED = "failed"


class HangUp(StrEnum):
    """When a client loses its patience."""

    NEVER = "never"
    BEFORE_FIRST_TOKEN = "before the first token"
    AFTER_FIRST_TOKEN = "after the first token"


@dataclass(slots=True)
class Request:
    """One request as its client saw it; times are unix seconds."""

    sent_at: float
    prompt_tokens: int
    answered_at: float | None = None
    """When the server said 200, so that it had read the request."""
    first_token_at: float | None = None
    last_token_at: float | None = None
    ended_at: float | None = None
    first_tokens: int | None = None
    """How many came in the first chunk: more than one where the server was slow to hand on what its engine made."""
    generation_tokens: int | None = None
    """As the answer's last `usage` says; None of an answer that was not heard to its end."""
    ending: Ending | None = None
    failure: str = ""

    @property
    def ttft_seconds(self) -> float | None:
        return None if self.first_token_at is None else self.first_token_at - self.sent_at

    @property
    def tpot_seconds(self) -> float | None:
        """Mean time between its tokens."""
        if self.generation_tokens is None or self.first_tokens is None or self.generation_tokens <= self.first_tokens:
            return None
        if self.first_token_at is None or self.last_token_at is None:
            return None
        return (self.last_token_at - self.first_token_at) / (self.generation_tokens - self.first_tokens)


@dataclass(frozen=True, slots=True)
class Load:
    """What clients do: an open loop, for users do not wait for each other. Bounded in time and in number."""

    seconds: float
    requests_per_second: Callable[[float], float]
    """Of the seconds since the start; arrivals are Poisson."""
    most_requests_per_second: float
    prompt_tokens: tuple[int, int] = (32, 192)
    generation_tokens: tuple[int, int] = (16, 96)
    hang_ups: tuple[tuple[HangUp, float], ...] = ()
    """Shares of the clients that hang up; the rest never does."""
    patience_seconds: float = 0.3
    """The longest that a client which hangs up waits: once it is answered, or has its first token."""
    most_requests: int = 3000
    seed: int = 0


@dataclass(slots=True)
class Ledger:
    """All requests of one run, in the order they were sent."""

    requests: list[Request] = field(default_factory=list)

    def sent(self, since: float = 0.0, until: float = float("inf")) -> int:
        return sum(since <= request.sent_at < until for request in self.requests)

    def answered(self, until: float = float("inf")) -> int:
        return sum(r.answered_at is not None and r.answered_at < until for r in self.requests)

    def ended(self, ending: Ending) -> list[Request]:
        return [request for request in self.requests if request.ending is ending]

    def in_flight(self, at: float) -> int:
        return sum(r.sent_at <= at and (r.ended_at is None or r.ended_at > at) for r in self.requests)


def steady(requests_per_second: float) -> Callable[[float], float]:
    return lambda _: requests_per_second


async def arrivals(load: Load, chance: random.Random) -> AsyncIterator[float]:
    """Yield at each arrival; late when the machine is, for a client that is late does send later."""
    started_at = time.monotonic()
    due = 0.0
    sent = 0
    while sent < load.most_requests:
        # Thinning: candidates at the highest rate, each kept with the share that the rate of its moment has.
        due += chance.expovariate(load.most_requests_per_second)
        if due >= load.seconds:
            return
        if chance.random() * load.most_requests_per_second > load.requests_per_second(due):
            continue
        await asyncio.sleep(max(0.0, started_at + due - time.monotonic()))
        yield due
        sent += 1


async def run(load: Load, urls: Sequence[str], ledger: Ledger, *, until: asyncio.Event | None = None) -> None:
    """Send the load to the servers and return once every request has ended.

    Where `until` is given, those who hang up after their first token do so when it is set, whatever their patience.
    """
    in_flight = Counter[str]()
    chance = random.Random(load.seed)
    kinds, shares = [HangUp.NEVER], [1.0 - sum(share for _, share in load.hang_ups)]
    for kind, share in load.hang_ups:
        kinds.append(kind)
        shares.append(share)
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session, asyncio.TaskGroup() as tasks:
        async for _ in arrivals(load, chance):
            # To the least busy, as a router would; the list may have grown meanwhile.
            url = min(urls, key=lambda url: in_flight[url])
            request = Request(time.time(), chance.randint(*load.prompt_tokens))
            ledger.requests.append(request)
            question = {
                "model": MODEL_NAME,
                "prompt": [chance.randint(FIRST_WORD, LAST_WORD) for _ in range(request.prompt_tokens)],
                "max_tokens": chance.randint(*load.generation_tokens),
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            }
            (kind,) = chance.choices(kinds, shares)
            patience = chance.uniform(0.1, 1.0) * load.patience_seconds
            in_flight[url] += 1
            asked = tasks.create_task(ask(session, url, question, request, kind, patience, until))
            asked.add_done_callback(partial(forget, in_flight, url))


def forget(in_flight: Counter[str], url: str, _: asyncio.Task[None]) -> None:
    in_flight[url] -= 1


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    question: dict[str, object],
    request: Request,
    hang_up: HangUp,
    patience: float,
    until: asyncio.Event | None,
) -> None:
    try:
        async with asyncio.timeout(None) as limit:
            async with session.post(f"{url}/v1/completions", json=question) as answer:
                if answer.status != 200:
                    request.failure = f"HTTP {answer.status}: {(await answer.text())[:200]}"
                    request.ending = Ending.FAILED
                    return
                request.answered_at = time.time()
                # Not sooner: one that leaves before its request has even been read was never there.
                if hang_up is HangUp.BEFORE_FIRST_TOKEN:
                    limit.reschedule(asyncio.get_running_loop().time() + patience)
                async for chunk in events(answer):
                    now = time.time()
                    if "error" in chunk:
                        request.failure, request.ending = str(chunk["error"])[:200], Ending.FAILED
                        return
                    if chunk["choices"]:
                        request.last_token_at = now
                        if request.first_token_at is None:
                            request.first_token_at = now
                            request.first_tokens = chunk["usage"]["completion_tokens"]
                            if hang_up is HangUp.AFTER_FIRST_TOKEN:
                                # Reads no further: whoever parses what is not used leaves late.
                                await (until.wait() if until else asyncio.sleep(patience))
                                raise TimeoutError
                    else:
                        request.generation_tokens = chunk["usage"]["completion_tokens"]
        request.ending = Ending.FINISHED
    except TimeoutError:
        # Leaving the answer unread closes its connection: that is how a client hangs up.
        heard = request.first_token_at is not None
        request.ending = Ending.HUNG_UP_AFTER_FIRST_TOKEN if heard else Ending.HUNG_UP_BEFORE_FIRST_TOKEN
    except aiohttp.ClientError as error:
        request.failure, request.ending = f"{type(error).__name__}: {error}", Ending.FAILED
    finally:
        request.ended_at = time.time()


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON of each server-sent event up to `[DONE]`."""
    async for line in answer.content:
        text = line.decode().strip()
        if text.startswith("data: ") and text != "data: [DONE]":
            yield json.loads(text.removeprefix("data: "))
