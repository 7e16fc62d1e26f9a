"""Who is slow to ask or to read keeps nobody else from an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from cluster.pages import listen
from scheduler_extender.service import Extender
from scheduler_extender.web import GIVE_WAY_SECONDS, Pages
from scheduler_extender.wire import Question, Reply
from tests.scheduler_extender.worlds import Json, knowing, names_question, node, nodes_question, pod
from tests.stand_ins.waiting import until


class Asked:
    """An extender, its pages on 127.0.0.1, and those who ask it."""

    def __init__(self, extender: Extender, pages: Pages, port: int, session: aiohttp.ClientSession) -> None:
        self.extender, self.pages = extender, pages
        self._port, self._session = port, session

    async def post(self, path: str, body: Json) -> Json:
        async with self._session.post(f"http://127.0.0.1:{self._port}{path}", data=orjson.dumps(body)) as answer:
            told: Json = orjson.loads(await answer.read())
            return told

    async def begin(self, body: bytes, *, length: int | None = None) -> asyncio.StreamWriter:
        """A question to filter whose answer nobody reads."""
        _, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        head = (
            f"POST /filter HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        return writer

    def questions(self) -> float:
        """To filter, heads of which have come."""
        return float(next(iter(self.extender.telemetry.questions.labels("filter").collect())).samples[0].value)

    def unanswered(self, reason: str) -> float:
        """Questions to filter."""
        counted = self.extender.telemetry.unanswered.labels("filter", reason)
        return float(next(iter(counted.collect())).samples[0].value)


@asynccontextmanager
async def asked(**how: Any) -> AsyncIterator[Asked]:
    extender = knowing(node("gpu-a"))
    pages = Pages(extender.answers, extender.telemetry, extender.explain, **how)
    running, port = await listen(pages.application(), "127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
            yield Asked(extender, pages, port, session)
    finally:
        await running.cleanup()


async def test_who_does_not_read_an_answer_keeps_nobody_from_theirs(caplog: pytest.LogCaptureFixture) -> None:
    longer_than_any_buffer = node("padded")
    longer_than_any_buffer["metadata"]["annotations"] = {str(number): "x" * 1_000_000 for number in range(16)}
    async with asked(answer_seconds=0.01) as extender:
        hanging = await extender.begin(orjson.dumps(nodes_question(pod("asking"), longer_than_any_buffer)))
        await until(extender.pages._one_large_at_a_time.locked)
        answer = await extender.post("/filter", nodes_question(pod("asking"), node("new")))
        assert answer["Nodes"]["items"] == [node("new")]
        assert extender.unanswered("not-read") == 1
        hanging.close()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_question_that_is_half_sent_slows_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    async with asked() as extender:
        half = await extender.begin(b"{", length=100)
        await until(lambda: extender.questions() == 1)
        monkeypatch.setattr("scheduler_extender.web.time.sleep", slept.append)
        answer = await extender.post("/filter", nodes_question(pod("asking"), node("new")))
        assert answer["Nodes"]["items"] == [node("new")]
        assert slept == []
        half.close()


async def test_a_question_that_never_comes_whole_is_answered_nonetheless() -> None:
    async with asked(body_seconds=0.01) as extender:
        half = await extender.begin(b"{", length=100)
        await until(lambda: extender.unanswered("too-slow") == 1)
        half.close()


async def test_whole_nodes_give_way_only_while_a_name_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the thread beside the loop, which here speaks in the midst of the other's judgement."""
    slept: list[float] = []
    monkeypatch.setattr("scheduler_extender.web.time.sleep", slept.append)
    async with asked() as extender:
        extender.pages._give_way()
        assert slept == []
        judged = extender.extender.answers.filter

        def interrupted(question: Question) -> Reply:
            extender.pages._give_way()
            return judged(question)

        monkeypatch.setattr(extender.extender.answers, "filter", interrupted)
        await extender.post("/filter", names_question(pod("asking"), "gpu-a"))
        assert slept == [GIVE_WAY_SECONDS]
        extender.pages._give_way()
        assert slept == [GIVE_WAY_SECONDS]
