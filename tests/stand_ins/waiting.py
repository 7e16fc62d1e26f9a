"""Waiting for a condition, within a bound; never for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

STEP_SECONDS = 0.005


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(STEP_SECONDS)


async def answer(
    ask: Callable[[], Awaitable[T]], wished: Callable[[T], bool] = lambda _: True, seconds: float = 20.0
) -> T:
    """Ask until the answer is as wished; errors on the way are passed over."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                answered = await ask()
            except Exception:
                await asyncio.sleep(STEP_SECONDS)
                continue
            if wished(answered):
                return answered
            await asyncio.sleep(STEP_SECONDS)


async def failure(ask: Callable[[], Awaitable[object]], of: type[E], seconds: float = 20.0) -> E:
    """Ask until it fails in this way; other errors on the way are passed over."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                await ask()
            except of as error:
                return error
            except Exception:
                await asyncio.sleep(STEP_SECONDS)
                continue
            await asyncio.sleep(STEP_SECONDS)
