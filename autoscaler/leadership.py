"""One of several replicas leads: it holds the Lease, does the work, and knows for how long it may still write.

A write is begun only while enough is left of the last renewal for it to end before anybody else may lead. The last
renewal counts from before it was sent, on a clock that goes on while the process is stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic

from cluster.errors import ClusterError, OvertakenError
from cluster.lease import Lease, Record, Sight, looked, may_take, quiet_seconds

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[None]]
"""What the leader does until it is cancelled; when that returns, nothing of it is on its way any more."""


class Leadership:
    """Of one process."""

    def __init__(self, lease: Lease, *, clock: Callable[[], float] = monotonic) -> None:
        self.leads = False
        self.problem = ""
        """Why the lease cannot be looked at; "" while it can."""
        self._lease = lease
        self._clock = clock
        self._held: Record | None = None
        self._renewed_at = float("-inf")
        self._quiet_until = float("-inf")

    def seconds_left(self) -> float:
        """How long a write that is begun now may take; 0 or less: it may not be begun."""
        terms, now = self._lease.terms, self._clock()
        if not self.leads or now < self._quiet_until:
            return 0.0
        left = self._renewed_at + terms.renew_deadline - now
        return left if left >= terms.request else 0.0

    async def run(self, work: Work) -> None:
        """Seek the lease, work while it is held, and seek it again; until cancelled."""
        while True:
            await self._seek()
            working = asyncio.ensure_future(work())
            try:
                await self._hold(working)
            finally:
                self.leads = False
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
            if not working.cancelled() and (mistake := working.exception()):
                raise mistake

    async def release(self) -> None:
        """Give the lease back, so that the next one need not wait; only when nothing is on its way."""
        held, self._held = self._held, None
        if held is None:
            return
        try:
            await self._give_back(held)
            log.info("the lease is given back")
        except ClusterError as error:
            log.warning("the lease is left to run out: %s", error)

    async def _give_back(self, held: Record) -> None:
        try:
            await self._lease.write(held, "")
        except OvertakenError:
            # Our own last renewal may be in the way: it was broken off, and had taken effect.
            record = await self._lease.read()
            if record is None or record.holder != self._lease.identity:
                raise
            await self._lease.write(record, "")

    async def _seek(self) -> None:
        sight: Sight | None = None
        while True:
            try:
                asked_at = self._clock()
                sight = looked(sight, await self._lease.read(), self._clock())
                self._tell("")
                if may_take(sight, self._lease.identity, asked_at, self._lease.terms):
                    await self._take(sight.record)
                    return
            except OvertakenError:
                pass  # another candidate was quicker
            except ClusterError as error:
                self._tell(str(error))
            await asyncio.sleep(self._lease.terms.retry)

    async def _take(self, before: Record | None) -> None:
        asked_at = self._clock()
        self._held = await self._lease.write(before, self._lease.identity)
        self._renewed_at = asked_at
        quiet = quiet_seconds(before, self._lease.identity, self._lease.terms)
        self._quiet_until = self._clock() + quiet
        self.leads = True
        after = f" after '{before.holder}'" if before and before.holder not in ("", self._lease.identity) else ""
        log.info("leads%s; writes %s", after, f"in {quiet:g} s" if quiet else "from now on")

    async def _hold(self, working: asyncio.Future[None]) -> None:
        """Renew until the work ends, or the lease is lost."""
        terms = self._lease.terms
        while True:
            await asyncio.wait([working], timeout=terms.retry)
            if working.done():
                return
            held = self._held
            asked_at = self._clock()
            try:
                self._held = await self._lease.write(held, self._lease.identity)
                self._renewed_at = asked_at
                self._tell("")
            except OvertakenError as error:
                if not await self._is_still_ours():
                    log.warning("leads no longer: %s", error)
                    self._held = None
                    return
            except ClusterError as error:
                self._tell(str(error))
            if self._clock() - self._renewed_at > terms.renew_deadline:
                log.warning("leads no longer: the lease could not be renewed for %g s", terms.renew_deadline)
                self._held = None
                return

    async def _is_still_ours(self) -> bool:
        """Whether it is our own last renewal, of which the answer was lost, that was in the way."""
        try:
            record = await self._lease.read()
        except ClusterError:
            return True  # not known: the deadline decides
        if record is None or record.holder != self._lease.identity:
            return False
        self._held = record
        return True

    def _tell(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.warning("the lease: %s", problem)
        self.problem = problem
