"""Every peer rules a simulated fleet through a quarter of an hour of the shipped trace."""

from __future__ import annotations

import pytest

from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions
from simulations.model.engine import shipped_engine
from simulations.peers import NAMES
from simulations.replay import Replay, replay
from simulations.traces import shipped_trace
from tests.simulations.peers.seen import OBJECTIVES, named

ENGINE = shipped_engine("llama3-70b_a100_tp4")
TRACE = shipped_trace().until(900.0)


def ruled(spec: str) -> Replay:
    return replay(
        TRACE,
        ENGINE,
        named(spec, least=1, most=8, engine=ENGINE),
        objectives=OBJECTIVES,
        conditions=Conditions(Constant(60)),
        max_replicas=8,
        start_replicas=2,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_replay_ends_within_the_bounds_and_twice_the_same(name: str) -> None:
    first, second = ruled(name), ruled(name)
    assert first.finished + first.refused == first.requests > 0
    assert all(1 <= decision.replicas <= 8 for decision in first.decisions)
    assert first.decision_hash == second.decision_hash
    assert len({decision.sentence for decision in first.decisions}) > 1
