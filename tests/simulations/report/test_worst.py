"""The worst ten minutes, found by counting and told from what was recorded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulations.replay import Replay
from simulations.report.worst import events, what_booted, what_came, what_was_decided, what_was_known, worst
from tests.simulations.report.compared import compared
from tests.simulations.scenes import OBJECTIVES


def replay_of(name: str) -> Replay:
    return next(each.replay for each in compared().outcomes if each.name.startswith(name))


@given(minutes=st.lists(st.integers(0, 5), min_size=1, max_size=40), scored=st.integers(0, 20))
def test_no_other_ten_minutes_hold_more_misses(minutes: list[int], scored: int) -> None:
    arrived = np.array([60.0 * minute + 1 for minute, count in enumerate(minutes) for _ in range(count)] + [2500.0])
    attained = np.arange(len(arrived)) % 3 == 0
    base = replay_of("static:2")
    made = replace(
        base,
        arrived_at_seconds=arrived,
        attained=attained,
        ttft=np.where(attained, 1.0, 9.0),
        tpot=np.full(len(arrived), 0.01),
        score_from_seconds=60.0 * scored,
    )
    found = worst(made, OBJECTIVES)
    counted = ~attained & (arrived >= 60 * scored)
    if not counted.any():
        assert found is None
        return
    assert found is not None
    assert found.end - found.begin == 600
    in_windows = [int((counted & (arrived >= at) & (arrived < at + 600)).sum()) for at in range(0, 2520, 60)]
    assert found.missed == max(in_windows) == found.late
    assert found.requests >= found.missed


def test_the_misses_are_told_by_what_they_missed() -> None:
    replay = replay_of("keda")
    found = worst(replay, OBJECTIVES)
    assert found is not None
    assert found.missed == found.late + found.slow + found.unanswered + found.partly > 100
    said = what_came(found, OBJECTIVES)
    assert f"{found.missed:,} of {found.requests:,} requests missed" in said
    assert f"{found.late:,} waited more than 3 s" in said


def test_what_was_known_is_the_tick_at_which_they_began() -> None:
    replay = replay_of("preheat")
    found = worst(replay, OBJECTIVES)
    assert found is not None
    tick = int(found.begin // 15)
    known = list(what_was_known(replay, found))
    assert f"{replay.timeline.ready[tick]} of {replay.timeline.created[tick]} replicas were ready" in known[0]
    assert replay.decisions[tick].sentence in known[-1]
    middle = (found.begin + found.end) / 2
    forecasts = [each.forecast for each in replay.decisions if each.forecast is not None]
    near = min(forecasts, key=lambda each: abs(each.time - middle))
    then = next(each.came for each in replay.decisions if each.came is not None and each.came.time >= near.time)
    assert f"It had foreseen a load of {near.expected:.3g} requests/s" in known[1]
    assert known[1].endswith(f"; {then.load:.3g} came.")
    blind = replace(replay, decisions=tuple(replace(each, came=None) for each in replay.decisions))
    assert list(what_was_known(blind, found))[1].endswith("; it did not see what came.")


def test_boots_and_decisions_are_those_of_the_record() -> None:
    replay = replay_of("keda")
    told = events(replay, 0.0, replay.end_seconds)
    changed = [each for each in replay.decisions if each.changes]
    rises = np.diff(replay.timeline.ready)
    booted = [each for each in told if each.what.endswith("ready")]
    assert sum(int(each.what.split()[0]) for each in booted) == rises[rises > 0].sum() > 0
    assert [each.why for each in told if each not in booted] == [each.sentence for each in changed]
    assert [each.time for each in told] == sorted(each.time for each in told)


def test_a_fleet_that_stands_still_is_told_as_one() -> None:
    replay = replay_of("static:2")
    found = worst(replay, OBJECTIVES)
    assert found is not None
    still = replace(found, begin=300.0, end=900.0)
    decided = " ".join(what_was_decided(replay, still, cold_start=60.0, bound=2))
    assert "asked for no more replicas: all 2 that it may have were there" in decided
    assert what_booted(replay, still) == "No replica became ready in these minutes; none still booted at the end."


def test_nothing_is_the_worst_where_nothing_was_missed() -> None:
    replay = replay_of("static:8")
    assert worst(replace(replay, attained=np.ones_like(replay.attained)), OBJECTIVES) is None
