"""One decision, and the memory it is made from: `decide` and `History.then` with eight days behind them.

The bound is one bare numpy pass over the same arrays, which is what any judgement that looks at all of them costs
at least.
"""

from __future__ import annotations

from statistics import median
from time import process_time_ns
from typing import Final

from benchmarks.parts.measuring import Row, held_bytes, high, seconds, show, show_machine, size, times, within
from benchmarks.parts.weeks import full_story
from policies.scaling.history import History
from policies.scaling.policy import decide
from tests.policies.scaling.story import policy

TICKS = 2_000
"""More than eight hours of ticks, 100 of them with a refit."""

FEW: Final = 3
"""Pods to which the target speaks; each more is counters more to look at."""


def main() -> None:
    """Print one table for a small target and one for a large one."""
    show_machine()
    for pods in (FEW, 50):
        measure(pods)


def measure(pods: int) -> None:
    """`pods` is held by the bounds, so that every tick judges as many."""
    story = full_story(pods, policy(min_replicas=pods, max_replicas=pods))
    deciding: list[float] = []
    remembering: list[float] = []
    refitting: list[float] = []
    passing: list[float] = []
    for _ in range(TICKS):
        story._flow(story.policy.tick_seconds)
        seen = story._observation()
        begun = process_time_ns()
        decision = decide(seen, story.history, story.policy)
        decided = process_time_ns()
        history = story.history.then(seen, decision, story.policy)
        done = process_time_ns()
        bare_pass(history)
        passed = process_time_ns()
        deciding.append((decided - begun) / 1e9)
        refitted = history.fitted_at != story.history.fitted_at
        (refitting if refitted else remembering).append((done - decided) / 1e9)
        passing.append((passed - done) / 1e9)
        story.history = history
    assert story.history.fine is not None
    assert story.history.coarse is not None
    bound = median(passing)
    bins = f"{len(story.history.fine.sums)} + {len(story.history.coarse.sums)} bins, {len(story.history.ticks)} ticks"
    show(
        f"decide: {pods} pods, {bins}, forecast fitted; processor time of {TICKS} ticks",
        [
            against("decide, median", median(deciding), bound, *(("<= 1 ms", 1e-3) if pods <= FEW else ())),
            against("decide, p99", high(deciding), bound),
            against("then, median", median(remembering), bound),
            against("then, p99", high(remembering), bound),
            against("then with a refit, median", median(refitting), bound),
            against("then with a refit, worst", max(refitting), bound, "<= 50 ms", 50e-3),
            state(story.history),
        ],
    )


def bare_pass(history: History) -> None:
    """Every number that is remembered, looked at once."""
    for array in (history.fine.sums if history.fine else None, history.coarse.sums if history.coarse else None):
        if array is not None:
            array.sum(axis=0)
    history.ticks.sum(axis=0)
    history.recent.sum(axis=0)


def against(what: str, took: float, bound: float, target: str = "", most: float = 0.0) -> Row:
    peer = f"numpy pass {seconds(bound)}"
    return Row(what, seconds(took), peer, times(took, bound), within(target, took <= most) if target else "")


def state(history: History) -> Row:
    """The bound on memory is its arrays alone."""
    arrays = (
        history.ticks.nbytes
        + history.recent.nbytes
        + sum(series.sums.nbytes for series in (history.fine, history.coarse) if series)
    )
    held = held_bytes(history)
    kept = within("<= 200 kB", held <= 200_000)
    return Row("history in memory", size(held), f"its arrays {size(arrays)}", times(held, arrays), kept)


if __name__ == "__main__":
    main()
