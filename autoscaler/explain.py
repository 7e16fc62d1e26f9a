"""The story of a decision, told from the journal: what was seen and how old it was, what followed, and why."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from math import inf, isfinite
from pathlib import Path

from autoscaler.journal import Entry, newest_entry, targets
from autoscaler.loop import Outcome
from cluster.files import ConfigError, unreadable
from policies.scaling.decision import Decision
from policies.scaling.observation import Observation, Pod, PodStage

PODS_SHOWN = 40


def explain(folder: Path, name: str, at: str | None) -> str:
    """The last decision on the target at or before the time; a ConfigError says what to ask instead."""
    if not folder.is_dir():
        raise ConfigError((f"--journal {folder}: there is no such folder: name the one the autoscaler writes",))
    time = inf if at is None else _time(at)
    try:
        known = (name,) if "/" in name else ()
        entry = newest_entry(folder, name, time) if known else None
        if entry is None:
            entry = newest_entry(folder, _one_target(folder, name), time)
    except OSError as error:
        raise ConfigError((unreadable(error.filename or folder, error),)) from error
    except ValueError as error:
        raise ConfigError(
            (f"--journal {folder}: the decision is not as this release writes it: ask the release that wrote it",)
        ) from error
    if entry is None:
        raise ConfigError((f"{name}: the journal in {folder} has no decision at or before {at}",))
    return "\n".join(_story(entry))


def _time(text: str) -> float:
    """Unix seconds, or ISO 8601; without a zone it is UTC, as the logs are."""
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if isfinite(seconds):
            return seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError((f"--at {text}: is no time: write 2026-11-21T10:55:00Z or unix seconds",)) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _one_target(folder: Path, name: str) -> str:
    known = targets(folder)
    if not known:
        raise ConfigError((f"--journal {folder}: holds no decision: was the autoscaler run with it?",))
    fitting = [target for target in known if name in (target, target.partition("/")[2])]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ConfigError((f"{name}: is in several namespaces: write one of {', '.join(fitting)}",))
    raise ConfigError((f"{name}: the journal knows no such target; it knows {', '.join(known[:20])}",))


_ENDINGS = {
    Outcome.UNCHANGED: "nothing to change",
    Outcome.RESCALED: "written to scale",
    Outcome.SHADOWED: "not written: its mode leaves that to others",
    Outcome.BLIND: "the target could not be seen, so nothing was decided",
    Outcome.RAISED: "nothing is measured, so what was wanted before was written to scale",
    Outcome.OVERTAKEN: "not written: somebody else had changed the number",
    Outcome.WITHHELD: "not written, for a reason of our own",
    Outcome.REFUSED: "refused by the API server",
    Outcome.UNANSWERED: "written, without an answer",
}


def _story(entry: Entry) -> Iterator[str]:
    yield f"{entry.target} at {_moment(entry.time)}: {_ENDINGS[entry.outcome]}"
    if entry.problem:
        yield f"  {entry.problem}"
    if entry.decision:
        yield f"  {entry.decision.sentence}"
        yield ""
        yield from _decided(entry.decision)
    if entry.observation:
        yield ""
        yield from _seen(entry.observation)


def _decided(decision: Decision) -> Iterator[str]:
    yield f"decided   {decision.desired} → {decision.replicas} replicas; wanted {decision.wanted}"
    yield f"bound by  {decision.binding}"
    for clip in decision.clips:
        yield f"clipped   {clip}"
    yield f"supply    {decision.ready} ready, {decision.coming} coming"
    yield f"demand    {_rate(decision.demand)}; one replica bears {_rate(decision.capacity)}"
    yield f"horizon   {decision.horizon_seconds:.0f} s"
    forecast = decision.forecast
    if forecast:
        yield (
            f"forecast  {_rate(forecast.expected)} expected, {_rate(forecast.upper)} at the "
            f"{forecast.quantile:.0%} quantile, for {_moment(forecast.time)}, by {forecast.view}"
        )
    else:
        yield "forecast  none"


def _seen(seen: Observation) -> Iterator[str]:
    stages = [f"{seen.count(stage)} {stage}" for stage in PodStage if seen.count(stage)]
    rollout = "; a rollout is in progress" if seen.rolling else ""
    yield f"seen      at {_moment(seen.time)}: desired {seen.desired}; {', '.join(stages) or 'no pods'}{rollout}"
    for problem in seen.problems:
        yield f"unseen    {problem}"
    for pod in seen.pods[:PODS_SHOWN]:
        yield f"  {pod.name}  {_pod(pod, seen.time)}"
    if len(seen.pods) > PODS_SHOWN:
        yield f"  and {len(seen.pods) - PODS_SHOWN} more"


def _pod(pod: Pod, now: float) -> str:
    sample = pod.sample
    if sample is None:
        return pod.stage.value
    age = "" if sample.time is None else f", {now - sample.time:.0f} s old"
    readings = [
        f"{label} {value:g}"
        for label, value in (
            ("running", sample.requests_running),
            ("waiting", sample.requests_waiting),
            ("KV cache", sample.kv_cache_usage),
        )
        if value is not None
    ]
    return "  ".join([pod.stage.value, f"{sample.state}{age}", ", ".join(readings)]).rstrip()


def _rate(rate: float | None) -> str:
    return "unknown" if rate is None else f"{rate:.3g} requests/s"


def _moment(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
