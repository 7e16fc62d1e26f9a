"""Targets have their turns on time, each on its own; what is in flight ends before the program does."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import aiohttp
import pytest

from autoscaler.events import Announcement
from autoscaler.fleet import Fleet, MetricsNotObservedError
from autoscaler.journal import Journal, newest_entry
from autoscaler.service import Service, Target, target_of
from autoscaler.telemetry import Telemetry
from autoscaler.web import application
from cluster import logs
from cluster.errors import NotObservedError, RefusedError
from cluster.files import ConfigError
from cluster.pages import listen
from policies.scaling.demand import LoadBin
from policies.scaling.observation import Observation
from tests.autoscaler.worlds import START, World, resource
from tests.stand_ins.waiting import until

TICK_SECONDS = 0.02


class Gate(World):
    """A world whose looks and writes can be kept waiting."""

    def __init__(self, **given: object) -> None:
        super().__init__(**given)  # type: ignore[arg-type]  # the names are the fields'
        self.looks = 0
        self.open, self.writable, self.is_writing = asyncio.Event(), asyncio.Event(), False
        self.open.set()
        self.writable.set()

    async def observe(self, previous: Observation | None) -> Observation:
        self.looks += 1
        await self.open.wait()
        return await super().observe(previous)

    async def scale(self, expected: int, replicas: int) -> None:
        self.is_writing = True
        await self.writable.wait()
        await super().scale(expected, replicas)


def service_of(*fleets: Fleet, journal: Journal | None = None, **spec: object) -> Service:
    targets = [
        target_of(resource(f"llama-{number}", **spec), fleet, tick_seconds=TICK_SECONDS)
        for number, fleet in enumerate(fleets)
    ]
    return Service(targets, Telemetry("0"), tick_seconds=TICK_SECONDS, journal=journal, refill_seconds=0.05)


class Running:
    """A service for the length of a test."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __aenter__(self) -> Service:
        self.task = asyncio.create_task(self.service.run())
        return self.service

    async def __aexit__(self, *_: object) -> None:
        await self.service.stop()
        await self.task


async def test_a_target_that_hangs_delays_no_other_and_does_not_pile_up() -> None:
    stuck, well = Gate(), Gate()
    stuck.open.clear()
    async with Running(service_of(stuck, well)) as service:
        await until(lambda: well.looks >= 5)
        assert stuck.looks == 1
        assert service.waiting() == ["inference/llama-0"]
        stuck.open.set()
        await until(lambda: stuck.looks >= 3)
    skipped = service.targets[0].figures.counts["preheat_ticks_skipped_total", ""]
    assert skipped >= 3
    assert service.waiting() == []


async def test_of_two_targets_a_broken_one_leaves_the_other_at_work() -> None:
    broken, well = Gate(), Gate(replicas=6)
    broken.faults = [ZeroDivisionError("a mistake of ours")] * 1_000
    async with Running(service_of(broken, well)) as service:
        await until(lambda: well.replicas < 6)
    counts = [target.figures.counts for target in service.targets]
    assert counts[0]["preheat_errors_total", "internal"] >= 3
    assert counts[1]["preheat_errors_total", "internal"] == 0
    assert counts[1]["preheat_scale_writes_total", "rescaled"] == 1


async def test_stopping_lets_a_write_in_flight_end_and_breaks_a_look_off(tmp_path: Path) -> None:
    writing, looking = Gate(replicas=6), Gate()
    writing.writable.clear()
    looking.open.clear()
    journal = Journal(tmp_path)
    service = service_of(writing, looking, journal=journal)
    running = asyncio.create_task(service.run())
    await until(lambda: writing.is_writing)
    stopping = asyncio.create_task(service.stop())
    await until(lambda: len(asyncio.all_tasks()) <= 4)  # the look has gone: test, run, stop and the write are left
    assert not stopping.done()
    writing.writable.set()
    await asyncio.wait_for(asyncio.gather(stopping, running), 5)
    journal.close()
    assert writing.writes == [(6, writing.replicas)]
    last = newest_entry(tmp_path, "inference/llama-0")
    assert last is not None
    assert last.outcome == "rescaled"


async def told_by(target: Target) -> list[Announcement]:
    told: list[Announcement] = []

    async def tell(said: Announcement) -> None:
        told.append(said)

    target.tell = tell
    return told


async def test_changes_refusals_and_strangers_are_told_as_events_but_not_again_and_again() -> None:
    world = World(replicas=6)
    refusal = RefusedError("lacks the right", right="patch deployments/scale")
    world.write_faults = [refusal] * 3
    service = service_of(world)
    (target,) = service.targets
    told = await told_by(target)
    for _ in range(12):
        await service.turn(target)
    world.replicas += 3
    await service.turn(target)
    world.faults = [MetricsNotObservedError("Prometheus is down")] * 3
    for _ in range(3):
        await service.turn(target)
    reasons = [said.reason for said in told]
    assert reasons == ["MissingRight", "Rescaled", "ScaledByOther", "HeldMetricsIncomplete"]
    assert target.figures.counts["preheat_scaled_by_others_total", ""] == 1
    assert target.figures.counts["preheat_errors_total", "refused"] == 3


async def test_shadow_mode_writes_nothing_not_even_events() -> None:
    world = World(replicas=6)
    service = service_of(world, mode="Shadow")
    (target,) = service.targets
    told = await told_by(target)
    for _ in range(12):
        await service.turn(target)
    assert (world.writes, told) == ([], [])
    assert target.figures.counts["preheat_turns_total", "shadowed"] > 0


def past(hours: int) -> list[LoadBin]:
    return [LoadBin(START - hours * 3_600 + n * 300, 300.0, 4.0, 800.0, 400.0) for n in range(12 * hours + 3)]


async def test_the_past_is_read_back_before_the_first_turn_and_only_what_was_not_seen_since() -> None:
    world = Gate()
    service = service_of(world)
    (target,) = service.targets
    looks_at_refill: list[int] = []

    async def refill() -> Sequence[LoadBin]:
        looks_at_refill.append(world.looks)
        return past(hours=6)

    target.refill = refill
    async with Running(service):
        await until(lambda: world.looks >= 2)
    assert looks_at_refill == [0]
    assert target.history.coarse is not None
    assert len(target.history.coarse.sums) >= 6 * 12


async def test_a_past_that_cannot_be_read_is_told_once_and_taken_in_when_it_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = Gate()
    service = service_of(world)
    (target,) = service.targets
    failures = [NotObservedError("Prometheus is down")] * 3

    async def refill() -> Sequence[LoadBin]:
        if failures:
            raise failures.pop()
        return past(hours=6)

    target.refill = refill
    with caplog.at_level(logging.INFO, "autoscaler"):
        async with Running(service):
            await until(lambda: target.history.coarse is not None and len(target.history.coarse.sums) > 12)
            assert world.looks > 1
    warned = [record for record in caplog.records if "will not shrink at once" in record.getMessage()]
    assert len(warned) == 1
    assert target.figures.counts["preheat_errors_total", "refill"] == 3
    # The bins end 15 min after the first look; those are not taken in twice.
    first = target.first_seen_at
    assert first is not None
    coarse = target.history.coarse
    assert coarse is not None
    seen_later = coarse.sums[int(first // 300) + 1 - coarse.first :]
    assert seen_later[:, 0].sum() <= world.time - first


async def page(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def test_the_pages_tell_of_turns_that_lack_and_turns_that_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Gate()
    world.open.clear()
    service = service_of(world)
    monkeypatch.setattr(Target, "patience_seconds", 0.2)
    web, port = await listen(application(service), "127.0.0.1", 0)
    try:
        assert await page(port, "/readyz") == (503, "no turn yet: inference/llama-0\n")
        assert (await page(port, "/healthz"))[0] == 200
        async with Running(service):
            await until(lambda: bool(service.stuck()))
            assert await page(port, "/healthz") == (503, "no turn for too long: inference/llama-0\n")
            world.open.set()
            await until(lambda: not service.stuck() and not service.waiting())
            assert await page(port, "/healthz") == (200, "ok\n")
            assert await page(port, "/readyz") == (200, "ok\n")
        status, text = await page(port, "/metrics")
        assert status == 200
        assert 'preheat_replicas_ready{name="llama-0",namespace="inference"} 4.0' in text
    finally:
        await web.cleanup()


async def test_three_ticks_and_a_timeout_without_a_turn_are_too_long() -> None:
    (target,) = service_of(World(), prometheus={"url": "http://p", "timeoutSeconds": 7}).targets
    assert target.patience_seconds == pytest.approx(3 * TICK_SECONDS + 7)


@pytest.mark.parametrize(
    ("host", "port", "sentence"),
    [
        ("127.0.0.1", None, "--port PORT on 127.0.0.1 is in use: stop what listens there, or give another --port"),
        ("no-such-host.invalid", 0, "--host no-such-host.invalid: cannot listen there:"),
        ("127.0.0.1", 70_000, "--port 70000: there is no such port: give one from 0 to 65535"),
    ],
)
async def test_a_place_that_cannot_be_listened_on_is_told(host: str, port: int | None, sentence: str) -> None:
    first, taken = await listen(application(service_of()), "127.0.0.1", 0)
    try:
        with pytest.raises(ConfigError) as refused:
            await listen(application(service_of()), host, taken if port is None else port)
    finally:
        await first.cleanup()
    assert refused.value.problems[0].startswith(sentence.replace("PORT", str(taken)))


def test_log_lines_are_objects_with_the_sentence_as_message() -> None:
    stream = StringIO()
    loggers = [logging.getLogger(name) for name in ("", "autoscaler", "cluster", "preheat")]
    handlers, levels = loggers[0].handlers[:], [logger.level for logger in loggers]
    try:
        logs.configure(stream=stream)
        logging.getLogger("autoscaler.service").info("wants 5; goes from 3 to 5", extra={"target": "inference/llama"})
        logging.getLogger("autoscaler.service").debug("not told")
        logging.getLogger("aiohttp.access").info("not told either")
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("autoscaler").exception("failed")
    finally:
        loggers[0].handlers[:] = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert {
        "level": "info",
        "message": "wants 5; goes from 3 to 5",
        "target": "inference/llama",
    }.items() <= first.items()
    assert "ValueError: why" in second["error"]
