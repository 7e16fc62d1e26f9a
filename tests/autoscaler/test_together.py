"""Those who ask within a moment are answered together, and a slow answer delays nobody but those who wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from autoscaler.together import Together
from tests.stand_ins.waiting import until


class Server:
    """Doubles numbers, when it is let."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.faults: list[Exception] = []

    async def __call__(self, questions: Mapping[str, int]) -> Mapping[str, int]:
        self.rounds.append(dict(questions))
        await self.open.wait()
        if self.faults:
            raise self.faults.pop(0)
        return {key: 2 * question for key, question in questions.items()}


async def test_all_who_ask_at_once_are_one_question() -> None:
    server = Server()
    together = Together(server, gather_seconds=60)  # nobody waits for it: all have asked
    together.members = 3
    assert await asyncio.gather(*(together.ask(str(n), n) for n in range(3))) == [0, 2, 4]
    assert server.rounds == [{"0": 0, "1": 1, "2": 2}]
    assert together.seconds >= 0


async def test_one_that_does_not_ask_is_not_waited_for_long() -> None:
    server = Server()
    together = Together(server, gather_seconds=0.01)
    together.members = 3
    assert list(await asyncio.gather(together.ask("a", 1), together.ask("b", 2))) == [2, 4]
    assert await together.ask("c", 3) == 6
    assert len(server.rounds) == 2


async def test_behind_a_slow_answer_one_round_gathers_and_no_pile() -> None:
    server = Server()
    together = Together(server, gather_seconds=0.01)
    together.members = 10
    server.open.clear()
    first = asyncio.create_task(together.ask("a", 1))
    await until(lambda: len(server.rounds) == 1)
    later = [asyncio.create_task(together.ask(str(n), n)) for n in range(5)]
    await asyncio.sleep(0)
    server.open.set()
    assert await asyncio.gather(first, *later) == [2, 0, 2, 4, 6, 8]
    assert len(server.rounds) == 2


async def test_an_error_reaches_all_who_asked_and_the_next_round_is_its_own() -> None:
    server = Server()
    together = Together(server)
    together.members = 2
    server.faults = [ConnectionError("down")]
    failed = await asyncio.gather(together.ask("a", 1), together.ask("b", 2), return_exceptions=True)
    assert [str(error) for error in failed] == ["down", "down"]
    assert list(await asyncio.gather(together.ask("a", 1), together.ask("b", 2))) == [2, 4]


async def test_who_goes_away_does_not_break_off_the_others() -> None:
    server = Server()
    together = Together(server)
    together.members = 2
    server.open.clear()
    gone, stays = asyncio.create_task(together.ask("a", 1)), asyncio.create_task(together.ask("b", 2))
    await until(lambda: len(server.rounds) == 1)
    gone.cancel()
    server.open.set()
    assert await stays == 4
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_closing_breaks_off_what_is_under_way() -> None:
    server = Server()
    together = Together(server)
    together.members = 1
    server.open.clear()
    asked = asyncio.create_task(together.ask("a", 1))
    await until(lambda: len(server.rounds) == 1)
    together.close()
    with pytest.raises(asyncio.CancelledError):
        await asked
