"""Queries that users wrote: asked together, where none can touch another's answer.

A text that the server parses as it stands cannot reach out of the parentheses that it is put between, and one that
it does not could: `a)), … or (b` answers in another's name. So each text is first asked alone, and only then with
the others, once for all targets that state it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Final

from cluster.errors import NotObservedError
from cluster.prometheus_arrivals import Process
from cluster.prometheus_connection import Connection, QueryRefusedError
from cluster.prometheus_queries import for_each
from cluster.prometheus_readings import fold_answers

ASKED_AT_ONCE: Final = 200
# One after the other, so that the pods' own queries need not wait; a thousand new texts take five sweeps.
FIRST_ASKED_A_SWEEP: Final = 200
NO_VALUE: Final = "it has no value now"
NOT_YET: Final = f"it is new, and of those no more than {FIRST_ASKED_A_SWEEP} are tried at once: it will be"
# How long a query that the server takes for wrong is left out, so that it spoils nobody else's.
REFUSED_KEPT_SECONDS: Final = 300.0
# A warning does not say whom it means. To find out takes so many requests a sweep at most; whoever it was is then
# asked apart from the others for a while.
HALVED_A_SWEEP: Final = 50
WARNED_KEPT_SECONDS: Final = 300.0
# A sweep may name a part of the targets only; what none has named for so long is nobody's any more.
FORGOTTEN_AFTER_SECONDS: Final = 3600.0

Found = Mapping[Process, float] | str
"""Each process' sum, or why there is none."""


@dataclass(slots=True)
class _Known:
    """What is known of one text; times are on the monotonic clock."""

    wanted_at: float
    sound: bool = False
    """The server has taken it as it stands."""
    refused_until: float = -math.inf
    why: str = ""
    warned_until: float = -math.inf


class UserQueries:
    """The texts that users wrote for one server."""

    def __init__(self, connection: Connection) -> None:
        self.remarks_made = 0
        self._connection = connection
        self._known: dict[str, _Known] = {}
        """In the order in which new ones are tried."""

    async def answers(self, texts: Iterable[str], labels: Sequence[str], at: float | None) -> dict[str, Found]:
        """Of each text, at an instant or now."""
        deadline = self._connection.deadline()
        found: dict[str, Found] = dict.fromkeys(texts, NO_VALUE)
        sound = self._meet(found)
        found.update(self._refused(found))
        halves_left = HALVED_A_SWEEP

        async def ask_halves(texts: Sequence[str]) -> None:
            half = len(texts) // 2
            for part in (texts[:half], texts[half:]):
                await ask(part)

        async def ask(texts: Sequence[str], *, warned: bool = False) -> None:
            nonlocal halves_left
            promql = for_each(labels, dict(enumerate(texts)))
            try:
                answer = await self._connection.instant(promql, fold_answers, at=at, deadline=deadline)
            except QueryRefusedError as error:
                if len(texts) > 1:  # one of them spoils the rest: find it
                    await ask_halves(texts)
                    return
                (text,) = texts
                found[text] = self._refuse(text, await self._why_refused(text) or str(error))
            except NotObservedError as error:
                found.update(dict.fromkeys(texts, str(error)))
            else:
                self.remarks_made += len(answer.remarks)
                if not answer.warnings:
                    self._warn(texts, until=-math.inf)
                    found.update({texts[number]: sums for number, sums in answer.value.items()})
                elif len(texts) > 1 and not warned and halves_left > 0:
                    halves_left -= 2
                    await ask_halves(texts)
                else:
                    told = f"the server remarks: {'; '.join(answer.warnings[:3])}"
                    found.update(dict.fromkeys(texts, told))
                    if len(texts) == 1:
                        self._warn(texts, until=monotonic() + WARNED_KEPT_SECONDS)

        async def ask_all(texts: Sequence[str]) -> None:
            apart = self._warned(texts)
            calm = [text for text in texts if text not in apart]
            await asyncio.gather(
                *(ask(chunk) for chunk in _chunks(calm)), *(ask(chunk, warned=True) for chunk in _chunks([*apart]))
            )

        async def ask_new() -> None:
            unsound = await self._try(found, deadline, FIRST_ASKED_A_SWEEP)
            found.update(unsound)
            await ask_all([text for text in found if text not in unsound and text not in sound])

        # What is sound does not wait for what is new.
        await asyncio.gather(ask_all([t for t, why in found.items() if t in sound and why == NO_VALUE]), ask_new())
        return found

    async def unsound(self, texts: Iterable[str]) -> dict[str, str]:
        """Those that must not be put between others, each with the reason."""
        wanted = dict.fromkeys(texts)
        self._meet(wanted)
        return await self._try(wanted, self._connection.deadline(), len(wanted))

    def _meet(self, texts: Iterable[str]) -> set[str]:
        """Keep them in mind, and of others only those named of late; those that are sound already."""
        now = monotonic()
        for text in texts:
            self._known.setdefault(text, _Known(now)).wanted_at = now
        self._known = {t: known for t, known in self._known.items() if known.wanted_at > now - FORGOTTEN_AFTER_SECONDS}
        return {text for text in texts if self._known[text].sound}

    def _refused(self, texts: Iterable[str]) -> dict[str, str]:
        """Those that are left out for now, with the reason."""
        now = monotonic()
        return {text: self._known[text].why for text in texts if now < self._known[text].refused_until}

    def _refuse(self, text: str, why: str) -> str:
        self._known[text].refused_until = monotonic() + REFUSED_KEPT_SECONDS
        self._known[text].why = why
        return why

    def _warned(self, texts: Iterable[str]) -> dict[str, None]:
        """Those that a warning was meant for of late, in their order."""
        now = monotonic()
        return dict.fromkeys(text for text in texts if now < self._known[text].warned_until)

    def _warn(self, texts: Iterable[str], until: float) -> None:
        for text in texts:
            self._known[text].warned_until = until

    async def _try(self, texts: Iterable[str], deadline: float, most: int) -> dict[str, str]:
        """Ask those that are new alone, one after the other; those that are not sound after that, with the reason."""
        wanted = {text for text in texts if not self._known[text].sound}
        why = dict.fromkeys(wanted, NOT_YET) | self._refused(wanted)
        new = (text for text in tuple(self._known) if text in wanted and why[text] == NOT_YET)
        for text in islice(new, most):
            if monotonic() >= deadline:
                break
            try:
                await self._connection.instant(text, len, deadline=deadline)
            except QueryRefusedError as error:
                why[text] = self._refuse(text, str(error))
            except NotObservedError as error:
                why[text] = str(error)
                self._known[text] = self._known.pop(
                    text
                )  # behind the others: one that is slow keeps none from its turn
            else:
                self._known[text].sound = True
                del why[text]
        return why

    async def _why_refused(self, text: str) -> str:
        """What the server finds wrong with the query as the user wrote it; "" if nothing."""
        try:
            await self._connection.instant(text, len)
        except NotObservedError as error:
            return str(error)
        return ""


def _chunks(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[n : n + ASKED_AT_ONCE] for n in range(0, len(texts), ASKED_AT_ONCE)]
