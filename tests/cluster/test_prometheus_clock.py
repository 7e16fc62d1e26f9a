"""How old a sample may be, and what is made of a server whose clock is not ours."""

from __future__ import annotations

from time import monotonic

import pytest

from policies.scaling.observation import SampleState
from tests.cluster.prometheus_world import NOW, World, world
from tests.stand_ins.vllm_pages import page

__all__ = ["world"]


async def test_a_sample_older_than_the_limit_is_stale_and_shows_its_age(world: World) -> None:
    world.run("a", page("loaded"))
    world.server.scrape()
    world.server.scraping = False
    world.clock.now += 61
    sample = (await world.look()).samples["a"]
    assert (sample.state, sample.time) == (SampleState.STALE, NOW)
    assert sample.requests_finished == 489.0


async def test_a_server_that_scrapes_rarely_has_older_samples_and_they_are_fresh(world: World) -> None:
    world.run("a", page("loaded"))
    for _ in range(2):
        await world.look()
        world.clock.now += 90
    await world.look()
    world.server.scraping = False
    world.clock.now += 200  # more than 60 s, less than 3 × 90 s
    assert (await world.look()).samples["a"].state in (SampleState.FRESH, SampleState.IDLE)
    world.clock.now += 80
    assert (await world.look()).samples["a"].state is SampleState.STALE


async def test_a_server_whose_clock_is_ahead_is_told_of_and_its_samples_keep_their_age(world: World) -> None:
    world.run("a", page("loaded"))
    world.server.scrape()
    world.server.scraping = False
    world.clock.now += 20
    last = await world.prometheus.samples({"t": world.asked()}, NOW - 100)
    sample = last["t"].samples["a"]
    assert sample.state is SampleState.FRESH
    assert world.prometheus.clock_ahead_seconds == pytest.approx(120.0, abs=5.0)
    assert sample.time == pytest.approx(NOW - 100 - 20, abs=5.0)
    (problem,) = last["t"].problems
    assert problem.endswith(" s ahead of ours: set both by NTP")


async def test_a_server_whose_clock_is_behind_is_told_of_too(world: World) -> None:
    world.run("a", page("loaded"))
    last = await world.prometheus.samples({"t": world.asked()}, NOW + 45)
    assert last["t"].samples["a"].time == NOW + 45
    assert "45 s behind ours" in last["t"].problems[0]


async def test_no_sample_is_later_than_the_answer(world: World) -> None:
    world.run("a", page("loaded"))
    began = monotonic()
    last = await world.prometheus.samples({"t": world.asked()}, NOW - 4.0)
    time = last["t"].samples["a"].time
    assert time is not None
    assert NOW - 4.0 <= time <= NOW - 4.0 + monotonic() - began
    assert last["t"].problems == ()


async def test_a_sample_of_the_servers_own_future_is_not_believed(world: World) -> None:
    world.run("a", page("loaded"))
    world.server.scrape(NOW + 30)
    world.server.scraping = False
    future = 'max by (namespace, pod, instance) (timestamp({__name__=~"vllm:num_requests_running"}))'
    assert await world.prometheus.query(future) == []  # a server that is well does not show it
    world.server.evaluates_at = NOW + 30
    reading = await world.look()
    assert reading.samples["a"].state is SampleState.STALE
    assert reading.problems == ("a shows a sample of the future in Prometheus",)
