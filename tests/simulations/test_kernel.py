"""The compiled event loop against the plain one, and against what must hold of any fleet."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations import kernel
from simulations.engine import Engine, StepTime, shipped_engine
from simulations.servers import HISTOGRAM_EDGES, Servers, picoseconds
from simulations.traces import Trace, shipped_trace
from tests.simulations.reference import ReferenceFleet, Replica

STATES = {kernel.BOOTING: "booting", kernel.READY: "ready", kernel.DRAINING: "draining", kernel.GONE: "gone"}
MICROSECOND = 10**6


@dataclass(frozen=True)
class Story:
    """An engine, requests, and what is done to the fleet at which microsecond."""

    engine: Engine
    requests: list[tuple[int, int, int]]
    actions: list[tuple[int, str, int]]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    # In milliseconds the buckets' edges matter; in microseconds whole steps tie with arrivals.
    unit_ms = draw(st.sampled_from([0.001, 1.0]))
    unit_us = round(unit_ms * 1000)
    coefficient = st.sampled_from([0.0, 0.0, 1.0, 0.25, 3e-5, 1e-6])
    b, c, d, e = (draw(coefficient) * unit_ms for _ in range(4))
    roofline = draw(st.booleans())
    step = StepTime(
        draw(st.integers(1, 12)) * unit_ms,
        b,
        c,
        d,
        e,
        w=1.5 * unit_ms if roofline else 0.0,
        k=0.37 * unit_ms if roofline else 0.0,
        q=1.5,
    )
    block_size = draw(st.sampled_from([1, 2, 4, 16]))
    sequences = draw(st.integers(1, 6))
    engine = Engine(
        "drawn",
        step,
        kv_tokens=draw(st.integers(block_size, 160)),
        block_size=block_size,
        max_num_seqs=sequences,
        max_num_batched_tokens=draw(st.integers(sequences, 40)),
    )
    at = 0
    requests = []
    for _ in range(draw(st.integers(1, 25))):
        at += draw(st.sampled_from([0, 0, 1, 3, 12, 80])) * unit_us
        requests.append((at, draw(st.integers(1, 60)), draw(st.integers(1, 50))))
    actions = draw(
        st.lists(
            st.tuples(
                st.integers(0, 1500).map(lambda t: t * unit_us),
                st.sampled_from(["look", "look", "start", "remove"]),
                st.integers(0, 40).map(lambda t: t * unit_us),
            ),
            max_size=12,
        )
    )
    return Story(engine, requests, sorted(actions))


def assert_equal(servers: Servers, reference: ReferenceFleet) -> None:
    """Every counter, gauge, bucket and time, to the last picosecond."""
    assert servers.at_gateway == len(reference.gateway)
    assert servers.refused == reference.refused
    for slot, replica in enumerate(reference.replicas):
        assert_row_equals(servers, slot, replica, reference)
    times = [[q.entered, q.scheduled, q.first] for q in reference.requests]
    columns = [kernel.ENTERED, kernel.SCHEDULED, kernel.FIRST]
    assert servers.requests[:, columns].tolist() == times
    done = servers.requests[:, kernel.FATE] == kernel.DONE
    assert done.tolist() == [q.done for q in reference.requests]
    assert servers.requests[done, kernel.LAST].tolist() == [q.last for q in reference.requests if q.done]


def assert_row_equals(servers: Servers, slot: int, replica: Replica, reference: ReferenceFleet) -> None:
    row = servers.numbers[slot]
    assert STATES[int(row[kernel.STATE])] == replica.state
    seen = [
        *(row[kernel.RUNNING], row[kernel.WAITING], row[kernel.PROMPT_TOKENS], row[kernel.GENERATION_TOKENS]),
        *(row[kernel.FINISHED], row[kernel.PREEMPTIONS], row[kernel.ENGINE_STEPS]),
        round(servers.kv_cache_usage(slot) * servers.engine.kv_blocks),
    ]
    assert seen == [
        *(len(replica.running), len(replica.waiting), replica.prompt_tokens, replica.generation_tokens),
        *(replica.finished, replica.preemptions, replica.engine_steps, reference.blocks_in_use(replica)),
    ]
    if replica.state == "gone":
        assert row[kernel.GONE_AT] == replica.gone_at
    histograms = (replica.ttft, replica.tpot, replica.inter_token, replica.queue)
    for which, (values, edges) in enumerate(zip(histograms, HISTOGRAM_EDGES, strict=True)):
        whole = int(row[kernel.SUM_SECONDS + which]) * kernel.SECOND + int(row[kernel.SUM_PICOSECONDS + which])
        assert whole == sum(values)
        limits = [*(picoseconds(edge) for edge in edges), kernel.NEVER]
        counts = [
            sum(low < value <= high for value in values) for low, high in zip([-1, *limits], limits, strict=False)
        ]
        assert servers.buckets(slot, which)[: len(limits)].tolist() == counts


def make(story: Story) -> tuple[Servers, ReferenceFleet]:
    arrived, prompts, outputs = (np.array(column) for column in zip(*story.requests, strict=True))
    trace = Trace.of("drawn", arrived / 1e6, prompts, outputs)
    servers = Servers(trace, story.engine, slots=1)
    reference = ReferenceFleet(story.engine, [(at * MICROSECOND, p, o) for at, p, o in story.requests])
    return servers, reference


def play(story: Story, servers: Servers, reference: ReferenceFleet | None, *, look: bool = True) -> None:
    """Does to the fleet what the story says, comparing as it goes, and lets it work off what it has."""
    living = [0]
    servers.start(0)
    if reference is not None:
        reference.start(0)
    created = 1
    for at, action, detail in story.actions:
        now = at * MICROSECOND
        if action != "look" or look:
            servers.advance(now)
            if reference is not None:
                reference.advance(now)
        if action == "start":
            slot = servers.start(now + detail * MICROSECOND)
            assert slot == created
            living.append(slot)
            created += 1
            if reference is not None:
                reference.start(now + detail * MICROSECOND)
        elif action == "remove" and len(living) > 1:
            slot = living.pop(detail % len(living))
            servers.remove(slot, now)
            if reference is not None:
                reference.remove(reference.replicas[slot], now)
        if reference is not None:
            assert_equal(servers, reference)
    end = 10**6 * kernel.SECOND
    servers.advance(end)
    if reference is not None:
        reference.advance(end)
        assert_equal(servers, reference)


@given(stories())
@settings(max_examples=150, deadline=None)
def test_the_compiled_fleet_equals_the_plain_one_to_the_last_picosecond(story: Story) -> None:
    servers, reference = make(story)
    play(story, servers, reference)


@given(stories())
@settings(max_examples=50, deadline=None)
def test_looking_at_the_fleet_changes_nothing(story: Story) -> None:
    seen, unseen = make(story)[0], make(story)[0]
    play(story, seen, None)
    play(story, unseen, None, look=False)
    assert seen.requests.tolist() == unseen.requests.tolist()
    numbers = slice(kernel.PROMPT_TOKENS, kernel.PHASE)
    assert seen.numbers[:, numbers].tolist() == unseen.numbers[:, numbers].tolist()


@given(stories())
@settings(max_examples=50, deadline=None)
def test_every_request_arrives_once_and_ends_once(story: Story) -> None:
    servers, _ = make(story)
    play(story, servers, None)
    fates = servers.requests[:, kernel.FATE]
    assert ((fates == kernel.DONE) | (fates == kernel.REFUSED)).all()
    assert servers.is_idle()
    assert servers.numbers[:, kernel.FINISHED].sum() == (fates == kernel.DONE).sum()
    done = servers.requests[fates == kernel.DONE]
    assert servers.numbers[:, kernel.GENERATION_TOKENS].sum() == done[:, kernel.GOAL].sum()
    assert servers.numbers[:, kernel.PROMPT_TOKENS].sum() == done[:, kernel.PROMPT].sum()
    assert (servers.numbers[: servers.slots_used, kernel.FREE_BLOCKS] == story.engine.kv_blocks).all()
    assert not servers.numbers[:, kernel.PHASE : kernel.PHASE + story.engine.block_size].any()
    order = [done[:, c] for c in (kernel.ARRIVAL, kernel.ENTERED, kernel.SCHEDULED, kernel.FIRST, kernel.LAST)]
    for earlier, later in pairwise(order):
        assert (earlier <= later).all()


def test_the_stories_do_preempt_chunk_refuse_and_drain() -> None:
    """The comparison is worth what its stories hold."""
    seen = {"preempted": 0, "chunked": 0, "refused": 0, "several": 0, "drained": 0}

    @given(stories())
    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    def count(story: Story) -> None:
        servers, _ = make(story)
        play(story, servers, None)
        seen["preempted"] += int(servers.numbers[:, kernel.PREEMPTIONS].sum() > 0)
        served = servers.requests[servers.requests[:, kernel.FATE] == kernel.DONE]
        seen["chunked"] += int((served[:, kernel.PROMPT] > story.engine.max_num_batched_tokens).any())
        seen["refused"] += int(servers.refused > 0)
        seen["several"] += int(servers.slots_used > 1)
        row = servers.numbers
        seen["drained"] += int(((row[:, kernel.STATE] == kernel.GONE) & (row[:, kernel.FINISHED] > 0)).any())

    count()
    assert all(times >= 5 for times in seen.values()), seen


def test_a_request_alone_takes_the_time_that_the_coefficients_say() -> None:
    engine = shipped_engine("llama3-8b_a100_tp1")
    a, b, c, d, e = engine.coefficients_ps()
    servers = Servers(Trace.of("one", np.array([1.0]), np.array([3000]), np.array([3])), engine)
    servers.start(0)
    servers.advance(100 * kernel.SECOND)
    # Two chunks within the budget of 2,048 tokens, then two decode steps over 3,001 and 3,002 tokens.
    first = a + d * 2048 + e * 2048 * 2048 // 2 + a + d * 952 + e * 952 * (2 * 2048 + 952) // 2
    assert servers.time_to_first_token_ps().tolist() == [first]
    assert servers.time_per_output_token_ps().tolist() == [-(-(2 * (a + b) + c * 6003) // 2)]


@pytest.mark.parametrize("replicas", [4, 5])
def test_the_shipped_trace_is_answered_in_full(replicas: int) -> None:
    trace = shipped_trace()
    servers = Servers(trace, shipped_engine("llama3-8b_a100_tp1"))
    for _ in range(replicas):
        servers.start(0)
    servers.advance(picoseconds(trace.end_seconds + 3600))
    assert servers.is_idle()
    assert servers.numbers[:, kernel.FINISHED].sum() == trace.requests
