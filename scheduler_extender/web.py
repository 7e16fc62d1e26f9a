"""What the extender answers over HTTP: three verbs of kube-scheduler, an explanation, and the usual pages.

A body of a question is read here, not by the framework: names are answered on the event loop, whole nodes in one
thread beside it, one question at a time, so that neither memory nor the other questions' time is theirs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, Final

from aiohttp import web

from scheduler_extender import wire
from scheduler_extender.answers import Answers
from scheduler_extender.spans import Text
from scheduler_extender.telemetry import CONTENT_TYPE, Telemetry
from scheduler_extender.wire import NoAnswerError, Reply, Verb

LARGEST_BODY_BYTES: Final = 200_000_000
BODY_SECONDS: Final = 30.0
"""A body that takes longer to come than any scheduler waits keeps the others from being read."""
ANSWER_SECONDS: Final = 10.0
"""For whole nodes to be read by who asked; longer than kube-scheduler waits for all of a question by default, 5 s."""
WRITTEN_AT_ONCE_BYTES: Final = 1 << 18
GIVE_WAY_SECONDS: Final = 0.0005
"""About as long as the answer to a question by name takes."""

log = logging.getLogger(__name__)

Explain = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Pages:
    """The handlers of one extender."""

    def __init__(
        self,
        answers: Answers,
        telemetry: Telemetry,
        explain: Explain,
        *,
        largest_body_bytes: int = LARGEST_BODY_BYTES,
        body_seconds: float = BODY_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._answers = answers
        self._telemetry = telemetry
        self._explain = explain
        self._largest_body_bytes = largest_body_bytes
        self._body_seconds = body_seconds
        self._answer_seconds = answer_seconds
        self._one_large_at_a_time = asyncio.Lock()
        self._at_work = False
        """Whether the loop is judging: not while it waits for anything, a body that never comes among them."""
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="whole-nodes")

    def application(self) -> web.Application:
        """Each path also under any prefix: `urlPrefix` of a scheduler's configuration may hold one."""
        app = web.Application(client_max_size=wire.LARGEST_BUILT_BYTES + 1)
        for verb in Verb:
            self._add(app, "POST", verb, self._question(verb))
        for path, handler in (("healthz", _healthz), ("readyz", self._readyz), ("metrics", self._metrics)):
            self._add(app, "GET", path, handler)
        self._add(app, "GET", "explain", self._explain)
        self._add(app, "POST", "explain", self._explain)
        app.on_cleanup.append(self._close)
        return app

    def _add(self, app: web.Application, method: str, path: str, handler: Explain) -> None:
        app.router.add_route(method, f"/{path}", handler)
        app.router.add_route(method, f"/{{prefix:.+}}/{path}", handler)

    async def _close(self, app: web.Application) -> None:
        self._beside.shutdown(wait=False, cancel_futures=True)

    def _give_way(self) -> None:
        """Called in the thread between two nodes: only one of the two can run, and the loop has people waiting."""
        if self._at_work:
            time.sleep(GIVE_WAY_SECONDS)

    # -- questions ------------------------------------------------------------------------------------------

    def _question(self, verb: Verb) -> Explain:
        questions = self._telemetry.questions.labels(verb)
        asked_at, seconds = self._telemetry.asked_at.labels(verb), self._telemetry.seconds.labels(verb)
        asked_at.set(0)

        async def answer(request: web.Request) -> web.StreamResponse:
            began = time.perf_counter()
            questions.inc()
            asked_at.set(time.time())
            length = request.content_length
            if length is not None and length <= wire.LARGEST_BUILT_BYTES:
                response = await self._small(verb, request)
            else:
                response = await self._large(verb, request)
            seconds.observe(time.perf_counter() - began)
            return response

        return answer

    async def _small(self, verb: Verb, request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(self._body_seconds):
                body = await request.read()
            reply = self._on_the_loop(verb, body)
            if reply is not None:
                return _response(reply)
        except Exception as error:
            return _response(self._said(verb, error))
        async with self._one_large_at_a_time:
            return await self._written(verb, request, await self._beside_the_loop(verb, body))

    async def _large(self, verb: Verb, request: web.Request) -> web.StreamResponse:
        async with AsyncExitStack() as until_written:
            try:
                async with asyncio.timeout(self._body_seconds):
                    body = await self._body(request, until_written)
                if len(body) <= wire.LARGEST_BUILT_BYTES:
                    answered = self._on_the_loop(verb, body)
                    if answered is not None:
                        return _response(answered)
                    await until_written.enter_async_context(self._one_large_at_a_time)
                reply = await self._beside_the_loop(verb, body)
            except Exception as error:
                reply = self._said(verb, error)
            return await self._written(verb, request, reply)

    async def _body(self, request: web.Request, until_written: AsyncExitStack) -> bytearray:
        """The whole body; one that turns out to be large is read only when no other is in memory."""
        if (request.content_length or 0) > self._largest_body_bytes:
            raise self._too_large()
        body = bytearray()
        waited = False
        async for part in request.content.iter_any():
            body += part
            if len(body) > self._largest_body_bytes:
                raise self._too_large()
            if len(body) > wire.LARGEST_BUILT_BYTES and not waited:
                await until_written.enter_async_context(self._one_large_at_a_time)
                waited = True
        return body

    def _too_large(self) -> NoAnswerError:
        return NoAnswerError(
            "too-large",
            f"the request is larger than {self._largest_body_bytes / 1e6:g} MB: set nodeCacheCapable to true",
        )

    def _on_the_loop(self, verb: Verb, body: Text) -> Reply | None:
        """The answer to a small question; None where whole nodes are to be judged, which is done beside the loop."""
        self._at_work = True
        try:
            fields = wire.fields_of(body)
            return self._of_fields(verb, fields) if fields.get("nodes") is None or verb is Verb.PREEMPT else None
        finally:
            self._at_work = False

    def _of_fields(self, verb: Verb, fields: dict[str, Any]) -> Reply:
        match verb:
            case Verb.FILTER:
                return self._answers.filter(wire.question(fields))
            case Verb.PRIORITIZE:
                return self._answers.prioritize(wire.question(fields))
            case Verb.PREEMPT:
                return self._answers.preempt(wire.preempt_question(fields))

    async def _beside_the_loop(self, verb: Verb, body: Text) -> Reply:
        try:
            loop = asyncio.get_running_loop()
            if verb is Verb.PREEMPT:
                fields = await loop.run_in_executor(self._beside, wire.fields_of, body)
                return self._of_fields(verb, fields)
            question = await loop.run_in_executor(self._beside, wire.question_in, body, self._give_way)
            if question.nodes is None:
                of_names = self._answers.filter if verb is Verb.FILTER else self._answers.prioritize
                return of_names(question)
            self._answers.settle()
            if verb is Verb.FILTER:
                return await loop.run_in_executor(
                    self._beside, self._answers.filter_nodes, body, question, self._give_way
                )
            return await loop.run_in_executor(self._beside, self._answers.prioritize_nodes, question, self._give_way)
        except Exception as error:
            return self._said(verb, error)

    def _said(self, verb: Verb, error: Exception) -> Reply:
        """Whatever went wrong, in the form that makes the scheduler do the least harm."""
        if isinstance(error, NoAnswerError):
            known = error
        elif isinstance(error, TimeoutError):
            known = NoAnswerError("too-slow", f"the request did not come whole within {self._body_seconds:g} s")
        elif isinstance(error, web.HTTPRequestEntityTooLarge | web.RequestPayloadError | ConnectionError):
            known = NoAnswerError("not-whole", "the request did not come whole")
        else:
            log.exception("a mistake of ours: a question could not be judged", exc_info=error, extra={"verb": verb})
            known = NoAnswerError("internal", f"the extender failed: {type(error).__name__}")
        self._telemetry.unanswered.labels(verb, known.kind).inc()
        match verb:
            case Verb.FILTER:
                return wire.filter_error(str(known))
            case Verb.PRIORITIZE:
                return wire.prioritized({0: known.names})
            case Verb.PREEMPT:
                return wire.preempted({})

    async def _written(self, verb: Verb, request: web.Request, reply: Reply) -> web.StreamResponse:
        """The reply; a scheduler that no longer waits for it, having asked for too long, is no failure of ours.

        One that reads it too slowly is cut off, since the next question for whole nodes waits until this is written.
        """
        if len(reply) == 1:
            return _response(reply)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = sum(map(len, reply))
        try:
            async with asyncio.timeout(self._answer_seconds):
                await response.prepare(request)
                await self._in_pieces(response, reply)
        except TimeoutError:
            self._telemetry.unanswered.labels(verb, "not-read").inc()
            if request.transport is not None:
                request.transport.abort()  # to close it would keep in memory what is written until it is read
        except ConnectionError:
            self._telemetry.unanswered.labels(verb, "hung-up").inc()
        return response

    async def _in_pieces(self, response: web.StreamResponse, reply: Reply) -> None:
        """In pieces that wait for the reader, so that a large reply is never in memory twice."""
        pieces: list[bytes | memoryview] = []
        held = 0
        for part in reply:
            pieces.append(part)
            held += len(part)
            if held >= WRITTEN_AT_ONCE_BYTES:
                await response.write(b"".join(pieces))
                pieces, held = [], 0
        await response.write(b"".join(pieces))
        await response.write_eof()

    # -- pages ----------------------------------------------------------------------------------------------

    async def _readyz(self, request: web.Request) -> web.Response:
        if self._answers.whole:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="not all nodes and pods are known yet\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._telemetry.text(), headers={"Content-Type": CONTENT_TYPE})


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def _response(reply: Reply) -> web.Response:
    return web.Response(body=reply[0], content_type="application/json")
