"""The compiled event loop against the plain one, and against what must hold of any fleet."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings

from simulations.model import kernel
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions
from simulations.model.engine import StepTime, shipped_engine
from simulations.model.servers import Servers, picoseconds
from simulations.traces import Trace, shipped_trace
from tests.simulations.stories import Story, make, play, stories


@given(stories(plain=True))
@settings(max_examples=100, deadline=None)
def test_the_compiled_fleet_equals_the_plain_one_to_the_last_picosecond(story: Story) -> None:
    servers, reference = make(story)
    play(story, servers, reference)


@given(stories())
@settings(max_examples=150, deadline=None)
def test_it_does_so_under_all_conditions(story: Story) -> None:
    servers, reference = make(story)
    play(story, servers, reference)


def test_who_comes_from_a_killed_replica_as_a_step_ends_is_in_the_next_one() -> None:
    """Steps of 1 ms: at 5 ms one of the other replica's stretch has ended, and the next has not begun."""
    story = Story(
        engine=replace(shipped_engine("llama3-8b_a100_tp1"), step_ms=StepTime(1.0, 0.0, 0.0, 0.0, 0.0), tables=None),
        requests=[(0, 10, 20), (1_000, 10, 20)],
        actions=[(0, "start", 0), (5_000, "kill", 1)],
        conditions=Conditions(Constant(seconds=0)),
        priorities=[0, 0],
        parts=[[], []],
        part_tokens=1,
    )
    servers, reference = make(story)
    play(story, servers, reference)
    assert servers.requests[1, kernel.SCHEDULED] == picoseconds(0.005)


@given(stories(plain=True))
@settings(max_examples=50, deadline=None)
def test_looking_at_the_fleet_changes_nothing(story: Story) -> None:
    seen, unseen = make(story)[0], make(story)[0]
    play(story, seen, None)
    play(story, unseen, None, look=False)
    assert seen.requests.tolist() == unseen.requests.tolist()
    numbers = slice(kernel.PROMPT_TOKENS, kernel.PHASE)
    assert seen.numbers[:, numbers].tolist() == unseen.numbers[:, numbers].tolist()


@given(stories(plain=True))
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
    order = [done[:, c] for c in (kernel.ARRIVAL, kernel.ENTERED, kernel.SCHEDULED, kernel.FIRST, kernel.LAST)]
    for earlier, later in pairwise(order):
        assert (earlier <= later).all()


@given(stories())
@settings(max_examples=100, deadline=None)
def test_under_all_conditions_each_ends_once_and_every_block_is_given_back(story: Story) -> None:
    servers, _ = make(story)
    play(story, servers, None)
    fates = servers.requests[:, kernel.FATE]
    ends = [int((fates == fate).sum()) for fate in (kernel.DONE, kernel.REFUSED, kernel.HUNG_UP)]
    assert sum(ends) == len(story.requests)
    assert servers.is_idle()
    assert ends[1] == servers.refused
    # Who hung up for good did so after each attempt; one whose replica was killed may have had a token by the first.
    attempts = 1 + story.conditions.client_retries
    assert servers.hang_ups <= ends[2] * attempts + ends[0] * (attempts - 1)
    assert servers.hang_ups >= ends[2] * (1 if servers.requeued else attempts)
    rows = servers.numbers[servers.numbers[:, kernel.STATE] == kernel.READY]
    assert (rows[:, kernel.FREE_BLOCKS] == story.engine.kv_blocks).all()
    assert (rows[:, kernel.KEPT_BLOCKS] <= story.engine.kv_blocks).all()
    assert not rows[:, kernel.PHASE : kernel.PHASE + story.engine.block_size].any()


def test_the_stories_hold_what_they_are_told_for() -> None:
    """The comparison is worth what its stories hold."""
    seen: Counter[str] = Counter()

    @given(stories())
    @settings(max_examples=150, deadline=None, database=None, derandomize=True)
    def count(story: Story) -> None:
        servers, _ = make(story)
        play(story, servers, None)
        row = servers.numbers
        done = servers.requests[servers.requests[:, kernel.FATE] == kernel.DONE]
        again = row[:, kernel.PREEMPTIONS].sum() > 0
        seen["preempted"] += bool(again)
        seen["preempted by priority"] += bool(again and story.conditions.scheduling == "priority")
        seen["chunked"] += bool((done[:, kernel.PROMPT] > story.engine.max_num_batched_tokens).any())
        seen["refused"] += servers.refused > 0
        seen["several"] += servers.slots_used > 1
        seen["drained"] += bool(((row[:, kernel.STATE] == kernel.GONE) & (row[:, kernel.FINISHED] > 0)).any())
        seen["hung up"] += servers.hang_ups > 0
        seen["requeued"] += servers.requeued > 0
        seen["found in the cache"] += bool(row[:, kernel.CACHE_HITS].any())
        seen["by tables"] += story.engine.tables is not None
        seen["of two engines"] += bool((done[:, kernel.REPLICA] % 2).any() and story.conditions.rollout is not None)
        seen[story.conditions.router] += servers.slots_used > 1

    count()
    assert len(seen) == 15
    assert all(times >= 3 for times in seen.values()), seen


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
