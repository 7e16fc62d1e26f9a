"""The worst ten minutes of a replay: what came, what the policy knew, what it decided, and what booted when.

Nothing here is more than was recorded: the requests' own fates, each decision with its sentence, and the replicas
created and ready at each tick.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from policies.scaling.decision import Decision
from policies.scaling.resource import Objectives
from simulations.replay import Replay
from simulations.report.coverage import load_at
from simulations.report.document import clock, counted

WINDOW_SECONDS = 600.0
STEP_SECONDS = 60.0
BEFORE_SECONDS = 120.0
"""Shown before the earliest decision whose replicas could have helped."""
AFTER_SECONDS = 300.0
FEW = 4
"""Boots that one sentence can hold."""


@dataclass(frozen=True, slots=True)
class Worst:
    """The ten minutes whose arrivals held the most misses; counts of scored requests."""

    begin: float
    end: float
    requests: int
    missed: int
    late: int
    """First token after its objective."""
    slow: int
    """First token in time, the others too slow."""
    unanswered: int
    partly: int
    """Answered in time, but only as far as the KV cache reaches."""
    rate: float
    """Requests/s arriving."""
    rate_before: float | None
    """In the ten minutes before; None at the begin of the trace."""


@dataclass(frozen=True, slots=True)
class Event:
    """A decision that changed the fleet, or replicas that became ready."""

    time: float
    what: str
    why: str


def worst(replay: Replay, objectives: Objectives) -> Worst | None:
    """None where no scored request missed."""
    arrived = replay.arrived_at_seconds
    missed = ~replay.attained & (arrived >= replay.score_from_seconds)
    if not missed.any():
        return None
    minutes = (arrived // STEP_SECONDS).astype(np.int64)
    by_minute = np.bincount(minutes, missed, minlength=int(minutes[-1]) + 1)
    wide = int(WINDOW_SECONDS / STEP_SECONDS)
    total = np.convolve(by_minute, np.ones(wide))[wide - 1 :] if len(by_minute) > wide else by_minute[:0]
    last = (int(minutes[-1]) + 1) * STEP_SECONDS
    # Convolved from each minute on; those that reach beyond the end hold no more than the last whole one.
    begin = float(np.argmax(total)) * STEP_SECONDS if len(total) else 0.0
    begin = max(0.0, min(begin, last - WINDOW_SECONDS))
    end = min(last, begin + WINDOW_SECONDS)
    here = (arrived >= max(begin, replay.score_from_seconds)) & (arrived < end)
    gone = missed & here
    unanswered = gone & (np.isnan(replay.ttft) | np.isnan(replay.tpot))
    late = gone & ~unanswered & (replay.ttft > objectives.ttft_seconds)
    slow = gone & ~unanswered & ~late & (replay.tpot > objectives.tpot_seconds)
    before = (arrived >= begin - WINDOW_SECONDS) & (arrived < begin)
    return Worst(
        begin,
        end,
        requests=int(here.sum()),
        missed=int(gone.sum()),
        late=int(late.sum()),
        slow=int(slow.sum()),
        unanswered=int(unanswered.sum()),
        partly=int((gone & ~unanswered & ~late & ~slow).sum()),
        rate=float(((arrived >= begin) & (arrived < end)).sum()) / (end - begin),
        rate_before=float(before.sum()) / WINDOW_SECONDS if begin >= WINDOW_SECONDS else None,
    )


def what_came(found: Worst, objectives: Objectives) -> str:
    """The misses, by what they missed, and the load."""
    parts = [
        f"{count:,} {said}"
        for count, said in (
            (found.late, f"waited more than {objectives.ttft_seconds:g} s for the first token"),
            (found.slow, f"got their tokens slower than {objectives.tpot_seconds * 1000:g} ms each"),
            (found.unanswered, "were not answered"),
            (found.partly, "were answered only in part"),
        )
        if count
    ]
    share = found.missed / found.requests
    load = f"{found.rate:.3g} requests/s arrived"
    if found.rate_before:
        load += f", {found.rate / found.rate_before:.2f} times those of the ten minutes before"
    return f"{found.missed:,} of {found.requests:,} requests missed ({share:.1%}): {', '.join(parts)}. {load}."


def what_was_known(replay: Replay, found: Worst) -> Iterator[str]:
    """The fleet at the begin, what had been foreseen of these minutes, and the policy's own words."""
    timeline, at = replay.timeline, _tick(replay, found.begin)
    yield (
        f"At {clock(timeline.time[at])} {timeline.ready[at]} of {timeline.created[at]} replicas were ready; of the "
        f"requests {timeline.waiting[at]:,} waited and {timeline.running[at]:,} ran."
    )
    middle = (found.begin + found.end) / 2
    forecasts = [each.forecast for each in replay.decisions if each.forecast is not None]
    near = min(forecasts, key=lambda each: abs(each.time - middle), default=None)
    if near is not None and found.begin <= near.time <= found.end:
        came = float(load_at(replay, np.array([near.time]))[0])
        yield (
            f"It had foreseen a load of {near.expected:.3g} requests/s for {clock(near.time)}, and planned for "
            f"{near.upper:.3g} (view: {near.view}); {'it did not see what' if np.isnan(came) else f'{came:.3g}'} came."
        )
    yield f"In its own words, at {clock(timeline.time[at])}: {replay.decisions[at].sentence}"


def what_was_decided(replay: Replay, found: Worst, *, cold_start: float, bound: int) -> Iterator[str]:
    """What it gave up, when it first asked for more, and how far its wish went."""
    judged = _between(replay, found.begin - cold_start, found.end)
    grown = [each for each in judged if each.replicas > each.desired]
    shrunk = [each for each in judged if each.replicas < each.desired]
    since = clock(max(0.0, found.begin - cold_start))
    if shrunk:
        first, last = shrunk[0], shrunk[-1]
        when = f"at {clock(first.time)}" if first is last else f"from {clock(first.time)} to {clock(last.time)}"
        gone = sum(each.desired - each.replicas for each in shrunk)
        yield f"It gave up {counted(gone, 'replica')} {when}, the last step {last.desired} → {last.replicas}."
    if not grown:
        created = int(replay.timeline.created[_tick(replay, found.begin)])
        full = f": all {bound} that it may have were there" if created >= bound else ""
        yield f"From {since} to {clock(found.end)} it asked for no more replicas{full}."
    else:
        first = grown[0]
        apart = first.time - found.begin
        when = "as they began" if apart == 0 else f"{_span(abs(apart))} {'after' if apart > 0 else 'before'} they began"
        yield f"It first asked for more at {clock(first.time)}, {when}: {first.desired} → {first.replicas}."
    wish = max((each.wanted for each in _between(replay, found.begin, found.end)), default=0)
    if wish > bound:
        yield f"It wished for up to {wish}, of the {bound} that it may have."


def what_booted(replay: Replay, found: Worst) -> str:
    """Replicas that became ready in these minutes, and those that still booted at their end."""
    timeline = replay.timeline
    more = [(time, count) for time, count in _boots(replay) if found.begin <= time <= found.end]
    last = _tick(replay, found.end)
    coming = int(timeline.created[last] - timeline.ready[last])
    still = f"{coming} still booted at the end" if coming else "none still booted at the end"
    if not more:
        return f"No replica became ready in these minutes; {still}."
    named = ", ".join(f"{count} at {clock(time)}" for time, count in more[:FEW])
    rest = f" and {sum(count for _, count in more[FEW:])} later" if len(more) > FEW else ""
    return f"Became ready: {named}{rest}; {still}."


def events(replay: Replay, begin: float, end: float) -> list[Event]:
    """All that changed the fleet, by time."""
    timeline = replay.timeline
    found = [
        Event(each.time, f"{each.desired} → {each.replicas}", each.sentence)
        for each in _between(replay, begin, end)
        if each.changes
    ]
    for time, count in _boots(replay):
        if begin <= time <= end:
            at = _tick(replay, time)
            said = f"{timeline.ready[at]} of {timeline.created[at]} are ready now."
            found.append(Event(time, f"+{count} ready", said))
    return sorted(found, key=lambda each: each.time)


def shown_from(found: Worst, cold_start: float) -> float:
    """Where a picture of these minutes begins: before the last moment at which replicas could still be asked for."""
    return max(0.0, found.begin - cold_start - BEFORE_SECONDS)


def _boots(replay: Replay) -> list[tuple[float, int]]:
    """(time, replicas) at each tick at which more were ready than before."""
    timeline = replay.timeline
    more = np.diff(timeline.ready, prepend=timeline.ready[:1])
    return [(float(timeline.time[at]), int(more[at])) for at in np.flatnonzero(more > 0)]


def _between(replay: Replay, begin: float, end: float) -> list[Decision]:
    return [each for each in replay.decisions if begin <= each.time <= end]


def _tick(replay: Replay, time: float) -> int:
    return max(0, int(np.searchsorted(replay.timeline.time, time, side="right")) - 1)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
