"""A recording: what the controller read and decided at each sync, put together from all who saw a part of it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.parts import build
from tests.parts.kubernetes_api import Json, is_true
from tests.parts.metrics_api import Answer
from tests.real.hpa.scenarios import DOWNSCALE_WINDOW_SECONDS, Scenario
from tests.real.simulated_pods import is_terminating

SECONDS_SURE = 0.01
"""How near to the end of a window an earlier decision may be, for us to know on which side it was."""
SECONDS_TO_BE_KNOWN = 0.1
"""Within which the controller has heard of a change."""


class UnsteadyError(Exception):
    """Something moved while the controller looked: what it saw is not known. Playing again helps."""


@dataclass(frozen=True)
class Told:
    """A metric as it was answered."""

    time: float
    metric: str
    served: Answer
    pods: Mapping[str, str]
    """How each was, by the name that the recording gives it."""


@dataclass(frozen=True)
class Heard:
    """All that was seen of a play, each part in order of time; times are unix seconds."""

    audited: Sequence[Json]
    """What the controller asked of the API server."""
    proposed: Sequence[tuple[float, int]]
    """When it would have had how many replicas by the metrics alone."""
    rescaled: Sequence[tuple[float, int]]
    """When it noted that it had set the scale to how many."""
    told: Sequence[Told]
    changed: Sequence[tuple[float, Json]]
    """When somebody changed what of the HPA's spec."""


def stage(pod: Json) -> str:
    """As far as the controller tells pods apart: pending, running, ready or failed, and whether it is leaving."""
    phase: str = pod["status"]["phase"]
    said = "ready" if phase == "Running" and is_true(pod, "Ready") else phase.lower()
    return f"{said} leaving" if is_terminating(pod) else said


def horizons(spec: Json) -> set[float]:
    """Seconds after which the controller forgets a decision, one way or another."""
    behavior = spec.get("behavior")
    if behavior is None:
        return {float(DOWNSCALE_WINDOW_SECONDS)}
    found: set[float] = set()
    for rules in behavior.values():
        found.add(rules.get("stabilizationWindowSeconds", DOWNSCALE_WINDOW_SECONDS))
        found |= {policy["periodSeconds"] for policy in rules["policies"]}
    return found - {0}


def recording(scenario: Scenario, spec: Json, heard: Heard) -> Json:
    """The scenario as it went, its first decision at time 0."""
    befores = [None, *heard.audited[:-1]]
    starts = [at(event) for before, event in zip(befores, heard.audited, strict=True) if _begins(before, event)]
    if starts[-1] < heard.told[-1].time:
        starts.append(math.inf)
    syncs = [_sync(heard, *span) for span in itertools.pairwise(starts) if span[0] < heard.told[-1].time]
    kinds = {reckons_with_status(metric) for metric in scenario.metrics}
    if len(kinds) > 1 and any(_living(sync) != sync["status_replicas"] for sync in syncs if "pods" in sync):
        raise UnsteadyError("the scale's status lagged behind the pods, and one metric asks the one, one the others")
    for when, change in heard.changed:
        after = next(place for place, start in enumerate(starts) if start > when)
        if starts[after] - when < SECONDS_TO_BE_KNOWN:
            raise UnsteadyError("the HPA was changed a moment before it was looked at")
        syncs[after]["changed"] = change
    _check_sides(syncs, starts[0], horizons(spec))
    zero = syncs[0]["time"]
    for sync in syncs:
        sync["time"] = round(sync["time"] - zero, 3)
        del sync["rescaled_at"]
    return {
        "scenario": scenario.name,
        "kubernetes": build.version(build.KUBERNETES),
        "downscale_stabilization_seconds": DOWNSCALE_WINDOW_SECONDS,
        "spec": {name: part for name, part in spec.items() if name != "scaleTargetRef"},
        "syncs": syncs,
    }


def reckons_with_status(metric: Json) -> bool:
    """Whether the controller multiplies by the replicas that the scale's status tells of; else it looks at the pods."""
    target = metric.get("external", {}).get("target", {})
    return "averageValue" in target


def _living(sync: Json) -> int:
    return sum(not said.endswith("leaving") and said != "failed" for said in sync["pods"].values())


def _begins(before: Json | None, event: Json) -> bool:
    """Whether a sync does: it reads the scale first, and again only after its update was refused."""
    if before is not None and before["verb"] == "update" and before["responseStatus"]["code"] >= 300:
        return bool(event["verb"] == "get" and before["objectRef"]["resource"] != "deployments")
    return bool(event["verb"] == "get")


def at(event: Json) -> float:
    return datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()


def _sync(heard: Heard, start: float, end: float) -> Json:
    """One, from its reading of the scale to the next one's."""
    audited = [event for event in heard.audited if start <= at(event) < end]
    told = [each for each in heard.told if start <= each.time < end]
    proposed = [each for each in heard.proposed if start <= each[0] < end]
    scale = audited[0]["responseObject"]
    found = scale["spec"].get("replicas", 0)
    sync: Json = {"time": start, "replicas": found, "desired": found, "rescaled_at": None}
    sync["status_replicas"] = scale["status"]["replicas"]
    if told:
        sync["time"] = told[-1].time
        sync["pods"] = dict(told[-1].pods)
        sync["metrics"] = {each.metric: each.served for each in told}
        if any(each.pods != told[-1].pods for each in told):
            raise UnsteadyError("pods came or went between two metrics of one sync")
    if proposed:
        sync["time"], sync["proposed"] = proposed[-1]
    for when, number in heard.rescaled:
        if start <= when < end:
            sync["desired"], sync["rescaled_at"] = number, when
            if not told:
                sync["time"] = when
    for event in audited:
        # One that is refused, the target having changed meanwhile, is tried again.
        if event["verb"] == "update" and event["responseStatus"]["code"] < 300:
            written = event["requestObject"]
            if event["objectRef"]["resource"] == "deployments":
                sync["desired"] = written["spec"].get("replicas", 0)
            else:
                said = {each["type"]: each["reason"] for each in written["status"]["conditions"]}
                sync["status"] = {"desired": written["status"]["desiredReplicas"], **said}
    if (sync["desired"] != sync["replicas"]) != (sync["rescaled_at"] is not None):
        raise UnsteadyError("the scale was set, and the controller does not know of it")
    return sync


def _check_sides(syncs: Iterable[Json], begun: float, windows: Iterable[float]) -> None:
    """That it is known at each sync which earlier decisions had left which window."""
    earlier = [(begun, begun)]
    for sync in syncs:
        now = sync["time"]
        for window in windows:
            for first, last in earlier:
                if first - SECONDS_SURE < now - window < last + SECONDS_SURE:
                    raise UnsteadyError(f"{now - first:.3f} s ago is too near to {window} s ago")
        earlier.append((now, sync["rescaled_at"] or now))


def save(recorded: Json, folder: Path) -> Path:
    """A sync a line: a new recording is then read as a change of the old one."""
    path = folder / f"{recorded['scenario']}.json"
    head = json.dumps({name: part for name, part in recorded.items() if name != "syncs"}, indent=1)
    syncs = ",\n".join(f"  {json.dumps(sync)}" for sync in recorded["syncs"])
    path.write_text(f'{head.removesuffix("}").rstrip()},\n "syncs": [\n{syncs}\n ]\n}}\n')
    return path
