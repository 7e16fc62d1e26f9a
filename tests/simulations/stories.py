"""Stories of small fleets, told to the compiled event loop and to the plain one, and how the two are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from hypothesis import strategies as st

from simulations.model import kernel
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions, Rollout, Router
from simulations.model.engine import Engine, StepTables, StepTime
from simulations.model.servers import HISTOGRAM_EDGES, Servers, picoseconds
from simulations.traces import Trace
from simulations.traces.trace import PromptBlocks
from tests.simulations.reference import UNDISTURBED, ReferenceFleet, Replica

STATES = {kernel.BOOTING: "booting", kernel.READY: "ready", kernel.DRAINING: "draining", kernel.GONE: "gone"}
FATES = {
    kernel.UNSEEN: "to come",
    kernel.HELD: "held",
    kernel.DONE: "done",
    kernel.REFUSED: "refused",
    kernel.HUNG_UP: "hung up",
}
MICROSECOND = 10**6
ROUTERS: tuple[Router, ...] = ("least-outstanding", "round-robin", "random", "two-choices")


@dataclass(frozen=True)
class Story:
    """An engine, requests, conditions, and what is done to the fleet at which microsecond."""

    engine: Engine
    requests: list[tuple[int, int, int]]
    actions: list[tuple[int, str, int]]
    conditions: Conditions
    priorities: list[int]
    parts: list[list[int]]
    part_tokens: int


@st.composite
def stories(draw: st.DrawFn, *, plain: bool = False) -> Story:
    """With `plain`, nothing but the defaults: one router, one engine, no hang-ups, no kills, no cache."""
    # In milliseconds the buckets' edges matter; in microseconds whole steps tie with arrivals.
    unit_ms = draw(st.sampled_from([0.001, 1.0]))
    unit_us = round(unit_ms * 1000)
    engine = draw(engines(unit_ms))
    at = 0
    requests = []
    for _ in range(draw(st.integers(1, 25))):
        at += draw(st.sampled_from([0, 0, 1, 3, 12, 80])) * unit_us
        requests.append((at, draw(st.integers(1, 60)), draw(st.integers(1, 50))))
    does = ["look", "look", "start", "remove"] if plain else ["look", "start", "start", "remove", "kill"]
    actions = draw(
        st.lists(
            st.tuples(
                st.integers(0, 1500).map(lambda t: t * unit_us),
                st.sampled_from(does),
                st.integers(0, 40).map(lambda t: t * unit_us),
            ),
            max_size=12,
        )
    )
    conditions = UNDISTURBED
    if not plain:
        rollout = draw(st.none() | engines_like(engine, unit_ms).map(lambda other: Rollout(0, other)))
        impatient = draw(st.booleans())
        conditions = Conditions(
            Constant(0),
            router=draw(st.sampled_from(ROUTERS)),
            client_timeout_seconds=draw(st.integers(1, 200)) * unit_us / 1e6 if impatient else None,
            client_retries=draw(st.integers(0, 2)) if impatient else 0,
            scheduling="priority" if draw(st.booleans()) else "fcfs",
            prefix_cache=draw(st.booleans()),
            seed=draw(st.integers(0, 3)),
            rollout=rollout,
        )
    count = len(requests)
    # A name stands for its block and all before it; few are drawn, so that prompts do begin alike.
    drawn = draw(st.lists(st.lists(st.integers(1, 2), max_size=12), min_size=count, max_size=count))
    parts = [list(accumulate(blocks, lambda before, block: 3 * before + block)) for blocks in drawn]
    return Story(
        engine,
        requests,
        sorted(actions),
        conditions,
        draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)),
        parts,
        engine.block_size * draw(st.integers(1, 4)),
    )


@st.composite
def engines(draw: st.DrawFn, unit_ms: float) -> Engine:
    coefficient = st.sampled_from([0.0, 0.0, 1.0, 0.25, 3e-5, 1e-6])
    b, c, d, e = (draw(coefficient) * unit_ms for _ in range(4))
    form = draw(st.sampled_from(["linear", "linear", "roofline", "tables"]))
    step = StepTime(
        draw(st.integers(1, 12)) * unit_ms,
        b,
        c,
        d,
        e,
        w=1.5 * unit_ms if form == "roofline" else 0.0,
        k=0.37 * unit_ms if form == "roofline" else 0.0,
        q=1.5,
    )
    block_size = draw(st.sampled_from([1, 2, 4, 16]))
    sequences = draw(st.integers(1, 6))
    tokens = draw(st.integers(sequences, 40))
    rng = np.random.default_rng(7)
    tables = StepTables(
        1 + rng.random(tokens + 1), rng.random((sequences, 2)), rng.random((tokens, 2)), draw(st.sampled_from([0, 0.1]))
    )
    return Engine(
        "drawn",
        step,
        kv_tokens=draw(st.integers(block_size, 160)),
        block_size=block_size,
        max_num_seqs=sequences,
        max_num_batched_tokens=tokens,
        tables=tables if form == "tables" else None,
    )


def engines_like(engine: Engine, unit_ms: float) -> st.SearchStrategy[Engine]:
    """Any that could replace it."""
    return engines(unit_ms).map(lambda new: replace(new, kv_tokens=engine.kv_tokens, block_size=engine.block_size))


def assert_equal(servers: Servers, reference: ReferenceFleet) -> None:
    """Every counter, gauge, bucket and time, to the last picosecond."""
    assert servers.at_gateway == len(reference.gateway)
    counted = (servers.refused, servers.hang_ups, servers.requeued)
    assert counted == (reference.refused, reference.hang_ups, reference.requeued)
    for slot, replica in enumerate(reference.replicas):
        assert_row_equals(servers, slot, replica, reference)
    times = [[q.entered, q.scheduled, q.first] for q in reference.requests]
    columns = [kernel.ENTERED, kernel.SCHEDULED, kernel.FIRST]
    assert servers.requests[:, columns].tolist() == times
    fates = servers.requests[:, kernel.FATE]
    assert [FATES[fate] for fate in fates.tolist()] == [q.fate for q in reference.requests]
    last = [q.last for q in reference.requests if q.fate == "done"]
    assert servers.requests[fates == kernel.DONE, kernel.LAST].tolist() == last


def assert_row_equals(servers: Servers, slot: int, replica: Replica, reference: ReferenceFleet) -> None:
    row = servers.numbers[slot]
    assert STATES[int(row[kernel.STATE])] == replica.state
    if replica.state == "gone":
        # Of one that was killed nobody reads anything more.
        assert row[kernel.GONE_AT] == replica.gone_at
        return
    seen = [
        *(row[kernel.RUNNING], row[kernel.WAITING], row[kernel.PROMPT_TOKENS], row[kernel.GENERATION_TOKENS]),
        *(row[kernel.FINISHED], row[kernel.PREEMPTIONS], row[kernel.ENGINE_STEPS], row[kernel.HANG_UPS]),
        *(row[kernel.CACHE_QUERIES], row[kernel.CACHE_HITS]),
        round(servers.kv_cache_usage(slot) * servers.engine.kv_blocks),
    ]
    assert seen == [
        *(len(replica.running), len(replica.waiting), replica.prompt_tokens, replica.generation_tokens),
        *(replica.finished, replica.preemptions, replica.engine_steps, replica.hang_ups),
        *(replica.cache_queries, replica.cache_hits, reference.blocks_in_use(replica)),
    ]
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
    offsets = np.cumsum([0, *map(len, story.parts)])
    names = np.array([name for parts in story.parts for name in parts], dtype=np.int64)
    trace = Trace.of(
        "drawn",
        arrived / 1e6,
        prompts,
        outputs,
        prompt_blocks=PromptBlocks(story.part_tokens, offsets, names),
        priorities=np.array(story.priorities, dtype=np.int32),
    )
    servers = Servers(trace, story.engine, story.conditions, slots=1)
    reference = ReferenceFleet(
        story.engine,
        [(at * MICROSECOND, p, o) for at, p, o in story.requests],
        story.conditions,
        priorities=story.priorities,
        parts=story.parts,
        part_tokens=story.part_tokens,
    )
    return servers, reference


def play(story: Story, servers: Servers, reference: ReferenceFleet | None, *, look: bool = True) -> None:
    """Does to the fleet what the story says, comparing as it goes, and lets it work off what it has.

    Where a rollout brings another engine, every other replica runs it.
    """
    versions = 1 if story.conditions.rollout is None else 2
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
            slot = servers.start(now + detail * MICROSECOND, created % versions)
            assert slot == created
            living.append(slot)
            if reference is not None:
                reference.start(now + detail * MICROSECOND, created % versions)
            created += 1
        elif action in ("remove", "kill") and len(living) > 1:
            slot = living.pop(detail % len(living))
            getattr(servers, action)(slot, now)
            if reference is not None:
                getattr(reference, action)(reference.replicas[slot], now)
        if reference is not None:
            assert_equal(servers, reference)
    end = 10**6 * kernel.SECOND
    servers.advance(end)
    if reference is not None:
        reference.advance(end)
        assert_equal(servers, reference)
