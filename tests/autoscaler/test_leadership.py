"""Who leads and for how long it may write, told on a clock of the test's own; and a leader stopped in mid-write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from autoscaler.leadership import Leadership
from cluster.errors import NotObservedError, OvertakenError, WithheldError
from cluster.kubernetes import Cluster
from cluster.lease import Lease, Record, Terms
from policies.scaling.resource import ScaleTargetRef
from tests.stand_ins.kubernetes import QUICK, Fault, KubernetesStandIn
from tests.stand_ins.waiting import until

TERMS = Terms(retry=0.001)


class Shelf:
    """Where the one record lies that all candidates see, and the time that they all have."""

    def __init__(self) -> None:
        self.record: Record | None = None
        self.now = 1_000.0
        self.writes = 0


class LeaseStandIn(Lease):
    """A Lease without a server: a write is refused where the record is no longer the one that was read."""

    def __init__(self, shelf: Shelf, identity: str) -> None:
        self.identity, self.terms, self.subject = identity, TERMS, "lease 'x'"
        self.shelf = shelf
        self.away = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def read(self) -> Record | None:
        await asyncio.sleep(0)
        if self.away:
            raise NotObservedError("the API server did not answer")
        return self.shelf.record

    async def write(self, before: Record | None, holder: str) -> Record:
        await asyncio.sleep(0)
        if self.away:
            raise NotObservedError("the API server did not answer")
        if self.shelf.record != before:
            raise OvertakenError("changed by another")
        self.shelf.writes += 1
        self.shelf.record = made = Record(holder, f"write {self.shelf.writes}", self.shelf.writes, TERMS.duration)
        await self.answers.wait()
        return made


class Replica:
    """One candidate, and whether its work goes on."""

    def __init__(self, shelf: Shelf, name: str) -> None:
        self.lease = LeaseStandIn(shelf, name)
        self.leadership = Leadership(self.lease, clock=lambda: shelf.now)
        self.terms_worked = 0
        self.works = False

    async def work(self) -> None:
        self.works = True
        self.terms_worked += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.works = False

    def may_write_now(self) -> bool:
        return self.leadership.seconds_left() > 0


@asynccontextmanager
async def running(*replicas: Replica) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(replica.leadership.run(replica.work)) for replica in replicas]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def renewed(shelf: Shelf, times: int = 3) -> None:
    seen = shelf.writes
    await until(lambda: shelf.writes >= seen + times)


async def test_one_leads_and_writes_after_a_quiet_duration_and_never_both() -> None:
    shelf = Shelf()
    one, two = Replica(shelf, "one"), Replica(shelf, "two")
    async with running(one, two):
        await until(lambda: one.works or two.works)
        leader, other = (one, two) if one.leadership.leads else (two, one)
        assert not leader.may_write_now()
        for _ in range(20):
            shelf.now += 0.5
            await renewed(shelf)
            assert not (one.may_write_now() and two.may_write_now())
        assert leader.may_write_now()
        assert not other.works

        leader.lease.away = True  # cut off: it cannot renew, and no longer believes what it remembers
        lost_at = shelf.now
        while shelf.now < lost_at + 30 and not other.may_write_now():
            shelf.now += 0.25
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not (one.may_write_now() and two.may_write_now())
            if shelf.now - lost_at > TERMS.renew_deadline - TERMS.request:
                assert not leader.may_write_now()
        assert other.may_write_now()
        assert TERMS.duration <= shelf.now - lost_at <= 20
        assert not leader.works


async def test_who_gives_it_back_is_followed_at_once() -> None:
    shelf = Shelf()
    one, two = Replica(shelf, "one"), Replica(shelf, "two")
    async with running(one):
        await until(lambda: one.works)
    await one.leadership.release()
    assert shelf.record is not None
    assert shelf.record.holder == ""
    async with running(two):
        await until(lambda: two.works)
        assert two.may_write_now()


async def test_who_is_stopped_in_the_middle_of_a_renewal_gives_it_back_all_the_same() -> None:
    shelf = Shelf()
    one = Replica(shelf, "one")
    async with running(one):
        await until(lambda: one.works)
        one.lease.answers.clear()
        await renewed(shelf, 1)
    one.lease.answers.set()
    await one.leadership.release()
    assert shelf.record is not None
    assert shelf.record.holder == ""


async def test_what_another_has_taken_meanwhile_is_not_given_back(caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf()
    one = Replica(shelf, "one")
    async with running(one):
        await until(lambda: one.works)
    shelf.record = taken = Record("two", "taken", 9, TERMS.duration)
    await one.leadership.release()
    assert shelf.record == taken
    assert "the lease is left to run out" in caplog.text


async def test_who_slept_through_its_term_may_not_write_when_it_wakes() -> None:
    shelf = Shelf()
    one = Replica(shelf, "one")
    async with running(one):
        await until(lambda: one.works)
        shelf.now += 9
        await renewed(shelf)
        assert one.may_write_now()
        shelf.now += TERMS.renew_deadline - TERMS.request + 0.01  # the process was stopped, its clock was not
        assert not one.may_write_now()


async def test_its_own_lost_answer_is_no_other_holder() -> None:
    shelf = Shelf()
    one = Replica(shelf, "one")
    async with running(one):
        await until(lambda: one.works)
        shelf.record = Record("one", "written, and the answer lost", 9, TERMS.duration)
        await renewed(shelf)
        assert one.terms_worked == 1


REF = ScaleTargetRef(name="vllm-a")


@pytest.fixture
async def api() -> AsyncIterator[KubernetesStandIn]:
    stand_in = KubernetesStandIn()
    await stand_in.start()
    stand_in.deploy("vllm-a", 2)
    yield stand_in
    await stand_in.stop()


async def connected(api: KubernetesStandIn, path: Path) -> Cluster:
    return await Cluster.connect(api.kubeconfig(path), pace=QUICK)


async def test_a_leader_stopped_between_its_check_and_its_send_overwrites_nothing(
    api: KubernetesStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await connected(api, tmp_path / "old"), await connected(api, tmp_path / "new")
    checked, resumed = asyncio.Event(), asyncio.Event()
    send = old._api._send

    async def stopped_before(*request: Any) -> Any:
        if request[0] == "PATCH":
            checked.set()
            await resumed.wait()
        return await send(*request)

    monkeypatch.setattr(old._api, "_send", stopped_before)
    try:
        late = asyncio.create_task(old.scale(REF, "inference", expected=2, replicas=5))
        await checked.wait()
        await new.scale(REF, "inference", expected=2, replicas=4)
        resumed.set()
        with pytest.raises(OvertakenError, match="set to 4 by somebody else"):
            await late
        assert api.objects["deployments", "inference", "vllm-a"]["spec"]["replicas"] == 4
    finally:
        await old.close()
        await new.close()


async def test_before_each_attempt_of_a_write_it_is_asked_whether_we_lead(
    api: KubernetesStandIn, tmp_path: Path
) -> None:
    cluster = await connected(api, tmp_path / "config")
    left = [3.0, 0.0]
    cluster.write_only_while(lambda: left.pop(0))
    api.faults.append(Fault(503, times=5, method="PATCH"))
    try:
        with pytest.raises(WithheldError):
            await cluster.scale(REF, "inference", expected=2, replicas=5)
        assert left == []
        assert api.number_of("PATCH") == 1
    finally:
        await cluster.close()
