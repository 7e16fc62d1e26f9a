"""Questions of many that become one: those who ask within a moment are answered together.

A thousand targets make one set of queries a tick. While an answer is under way the next to ask gather for the
one after it, so a slow server has one question before it, never a pile, and delays only those who ask it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Final, Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

GATHER_SECONDS: Final = 0.2
"""Targets of one server have their turns at the same instant; only one that is late itself is waited for."""


class _Round(Generic[Question, Answer]):
    def __init__(self) -> None:
        self.questions: dict[str, Question] = {}
        self.full = asyncio.Event()
        self.answer: asyncio.Task[Mapping[str, Answer]] | None = None


class Together(Generic[Question, Answer]):
    """Asks `answer` once for all; every question has the key of who asks."""

    def __init__(
        self,
        answer: Callable[[Mapping[str, Question]], Awaitable[Mapping[str, Answer]]],
        *,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        self.members = 0
        """How many may ask at once: when all have, nobody is waited for."""
        self.seconds = 0.0
        """How long the last answer took."""
        self._answer = answer
        self._gather_seconds = gather_seconds
        self._gathering: _Round[Question, Answer] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._under_way: set[asyncio.Task[Mapping[str, Answer]]] = set()

    async def ask(self, key: str, question: Question) -> Answer:
        """The answer to this question, or whatever error all questions of the round met."""
        round_ = self._gathering
        if round_ is None or round_.answer is None:
            round_ = self._gathering = _Round()
            round_.answer = asyncio.create_task(self._ask_for_all(round_))
            self._under_way.add(round_.answer)
            round_.answer.add_done_callback(self._done)
        round_.questions[key] = question
        if len(round_.questions) >= self.members:
            round_.full.set()
        # Who goes away must not break off the answer of the others.
        return (await asyncio.shield(round_.answer))[key]

    def close(self) -> None:
        """Break off what is under way."""
        for task in self._under_way:
            task.cancel()

    def _done(self, task: asyncio.Task[Mapping[str, Answer]]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, also where all who asked have gone

    async def _ask_for_all(self, round_: _Round[Question, Answer]) -> Mapping[str, Answer]:
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(self._gather_seconds):
                    await round_.full.wait()
            except TimeoutError:
                pass  # somebody is late; the others are not kept waiting
            self._gathering = None
            begun = monotonic()
            try:
                return await self._answer(round_.questions)
            finally:
                self.seconds = monotonic() - begun
