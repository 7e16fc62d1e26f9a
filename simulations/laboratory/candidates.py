"""From what `--policy` says to policies: a name, a name with parameters, or files as their users wrote them."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from cluster.files import ConfigError
from policies.scaling.resource import Prometheus, ScaleTargetRef, Spec, Wake
from simulations import peers
from simulations.laboratory.scenario import Scenario
from simulations.policy_files.files import STARTS_AT, policies_of
from simulations.policy_files.metric_names import Definitions
from simulations.replay import Policy, Preheat, Schedule

Clairvoyant = Literal["oracle", "foreseeable"]
NAMES = ("preheat", "static:N", "oracle", "foreseeable", *peers.NAMES)

_CLAIRVOYANT: dict[str, Clairvoyant] = {"oracle": "oracle", "foreseeable": "foreseeable"}
_LABELS: dict[str, str] = {
    "preheat": "Preheat with the objectives and bounds given",
    "oracle": "the fewest GPU-hours found by one who knows every arrival",
    "foreseeable": "one who knows the ten-minute mean load to come, but no single arrival",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy to be replayed, or the search for one."""

    name: str
    label: str
    policy: Policy[Any] | Schedule | Clairvoyant
    min_replicas: int
    max_replicas: int
    notes: tuple[str, ...] = ()


def candidates(
    asked: Sequence[str],
    scenario: Scenario,
    *,
    metrics: Definitions | None = None,
    starts_at: datetime = STARTS_AT,
) -> tuple[Candidate, ...]:
    """All that were asked for, in their order, each once; a ConfigError says what is wrong with any of them.

    Time 0 of the trace is `starts_at` to a trigger or a schedule that goes by the clock.
    """
    found: list[Candidate] = []
    problems: list[str] = []
    for spec in asked:
        try:
            found += _candidates_of(spec.strip(), scenario, metrics, starts_at)
        except ConfigError as error:
            problems += error.problems
        except peers.PeerError as error:
            problems.append(str(error))
    names = [each.name for each in found]
    problems += [
        f"--policy: {name} comes twice: results are told apart by name, so ask for it once, or rename the file"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    if problems:
        raise ConfigError(tuple(dict.fromkeys(problems)))
    return tuple(found)


def _candidates_of(spec: str, scenario: Scenario, metrics: Definitions | None, starts_at: datetime) -> list[Candidate]:
    if _is_file(spec):
        return [each for path in _paths(spec) for each in _of_file(path, scenario, metrics, starts_at)]
    name, colon, rest = spec.partition(":")
    bounds = (scenario.min_replicas, scenario.max_replicas)
    if name == "static":
        return [_static(spec, rest)]
    if name in _LABELS and colon:
        raise ConfigError((f"policy '{spec}': {name} takes no parameters: write {name}",))
    if name == "preheat":
        return [_preheat(scenario)]
    if name in _CLAIRVOYANT:
        return [Candidate(name, _LABELS[name], _CLAIRVOYANT[name], *bounds)]
    if name not in peers.NAMES:
        raise ConfigError((f"policy '{spec}' is not known: {_nearest(name)}",))
    policy = peers.peer(
        spec,
        objectives=scenario.objectives,
        min_replicas=scenario.min_replicas,
        max_replicas=scenario.max_replicas,
        tick_seconds=scenario.tick_seconds,
        engine=scenario.engine,
    )
    return [Candidate(spec, peers.label(spec), policy, *bounds)]


def _is_file(spec: str) -> bool:
    return "/" in spec or spec.endswith((".yaml", ".yml", ".json")) or Path(spec).exists()


def _paths(spec: str) -> list[Path]:
    if not glob.has_magic(spec) or Path(spec).exists():
        return [Path(spec)]
    paths = [Path(name) for name in sorted(glob.glob(spec))]
    if not paths:
        raise ConfigError((f"--policy {spec}: no file is called so: name one that is there",))
    return paths


def _of_file(path: Path, scenario: Scenario, metrics: Definitions | None, starts_at: datetime) -> list[Candidate]:
    most, tick = scenario.max_replicas, scenario.tick_seconds
    named = policies_of(path, max_replicas=most, tick_seconds=tick, metrics=metrics, starts_at=starts_at)
    return [
        Candidate(each.name, each.label, each.policy, each.min_replicas, each.max_replicas, each.notes)
        for each in named
    ]


def _static(spec: str, number: str) -> Candidate:
    if not number.strip().isdecimal() or int(number) < 1:
        raise ConfigError((f"policy '{spec}': write static:N with the number of replicas, 1 or more",))
    replicas = int(number)
    return Candidate(f"static:{replicas}", "a fixed number of replicas", Schedule.static(replicas), replicas, replicas)


def _preheat(scenario: Scenario) -> Candidate:
    """The default resource, with the objectives and bounds of the replay."""
    spec = Spec(
        scale_target_ref=ScaleTargetRef(name="replayed"),
        min_replicas=scenario.min_replicas,
        max_replicas=scenario.max_replicas,
        objectives=scenario.objectives,
        cold_start_seconds=scenario.cold_start_seconds or None,
        prometheus=Prometheus(url="http://prometheus:9090"),
        wake=Wake(query="the requests that wait at the gateway"),
    )
    idle = f"Preheat rests at zero after {spec.idle_seconds:g} s of idleness, and requests at the gateway wake it."
    notes = () if scenario.min_replicas else (idle,)
    policy = Preheat.of(spec, tick_seconds=scenario.tick_seconds)
    return Candidate("preheat", _LABELS["preheat"], policy, scenario.min_replicas, scenario.max_replicas, notes)


def _nearest(name: str) -> str:
    known = [each.partition(":")[0] for each in NAMES]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    if not near:
        return f"choose one of {', '.join(NAMES)}, or a YAML file"
    return f"did you mean {'static:N' if near[0] == 'static' else near[0]}?"
