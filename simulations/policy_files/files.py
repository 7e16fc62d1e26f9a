"""From a file of Kubernetes objects to policies: an HPA, a ScaledObject or a VLLMAutoscaler a document.

An object with mistakes that can be seen from its text gives two policies: as it is written, and as it was meant.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.files import ConfigError, documents
from policies.scaling.resource_reading import InvalidResourceError, read
from simulations.peers import hpa
from simulations.policy_files.fields import FieldsError, hint
from simulations.policy_files.hpa_file import read_hpa
from simulations.policy_files.metric_names import Definitions, NoDefinitions
from simulations.policy_files.scaled_object import read_scaled_object
from simulations.replay import Policy, Preheat

AS_WRITTEN, AS_MEANT = "as written", "as meant"
KEDA_LABEL = "our re-implementation of KEDA (v2.21.0) over Kubernetes HPA (v1.36.3)"
STARTS_AT = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
"""Wall time of a trace's time 0 where nobody says another: midnight before a Monday."""
REMEDY = "write an HorizontalPodAutoscaler, a ScaledObject or a VLLMAutoscaler"
DEAF = "nothing wakes it here, where nobody sends POST /wake; name a signal in wake.query or prometheus.arrivals"
_KINDS = ("HorizontalPodAutoscaler", "ScaledObject", "VLLMAutoscaler")


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """One way to replay one object of a file."""

    name: str
    """The file's name, the object's where there are several, and the variant, as in `hpa.yaml (as written)`."""
    label: str
    """Whose law it is, at which version."""
    variant: str
    """`AS_WRITTEN`, `AS_MEANT`, or "" where both are one."""
    notes: tuple[str, ...]
    """What must be said of it, one sentence each."""
    policy: Policy[Any]
    min_replicas: int
    max_replicas: int
    """The object's own bounds, which win over any others."""


def policies_of(
    path: Path,
    *,
    max_replicas: int,
    tick_seconds: float = 15.0,
    metrics: Definitions | None = None,
    starts_at: dt.datetime = STARTS_AT,
) -> tuple[NamedPolicy, ...]:
    """Every policy of a file, or of the YAML files of a folder; a ConfigError says all that is wrong.

    `max_replicas` holds for objects that give no maximum. `metrics` says what metrics' names mean.
    """
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in (".yaml", ".yml"))
        if not files:
            raise ConfigError((f"{path}: holds no .yaml file: name a file, or put one there",))
    else:
        files = [path]
    found: list[NamedPolicy] = []
    problems: list[str] = []
    for file in files:
        try:
            stated = [each for number, each in documents(file, REMEDY) for each in items(number, each)]
        except ConfigError as error:
            problems += error.problems
            continue
        for number, document in stated:
            where = f"{file}" if len(stated) == 1 else f"{file}, document {number}"
            title = file.name if len(stated) == 1 else f"{file.name}#{name_of(document) or number}"
            try:
                found += _of(document, title, max_replicas, tick_seconds, metrics or NoDefinitions(), starts_at)
            except (FieldsError, InvalidResourceError) as error:
                problems += [f"{where}: {problem}" for problem in error.problems]
            except RecursionError:
                problems.append(f"{where}: contains itself through a YAML anchor: write it out without")
    if problems:
        raise ConfigError(tuple(dict.fromkeys(problems)))
    return tuple(found)


def items(number: int, document: Any) -> Iterator[tuple[int, Any]]:
    """A document, or those that a List holds, as kubectl prints them."""
    if isinstance(document, Mapping) and document.get("kind") == "List" and isinstance(document.get("items"), list):
        yield from ((number, item) for item in document["items"])
    else:
        yield number, document


def name_of(document: Any) -> str:
    metadata = document.get("metadata") if isinstance(document, Mapping) else None
    return str(metadata.get("name", "")) if isinstance(metadata, Mapping) else ""


def _of(
    document: Any, title: str, most: int, tick_seconds: float, metrics: Definitions, starts_at: dt.datetime
) -> Iterator[NamedPolicy]:
    if not isinstance(document, Mapping):
        raise FieldsError([f"holds no fields: {REMEDY}"])
    kind, version = str(document.get("kind", "")), str(document.get("apiVersion", ""))
    match kind:
        case "HorizontalPodAutoscaler":
            if version != "autoscaling/v2":
                raise FieldsError([f"apiVersion is '{version}': write autoscaling/v2, the one that is replayed"])
            one = read_hpa(document, metrics)
            bounds = (one.written.hpa.min_replicas, one.written.hpa.max_replicas)
            yield from _variants(title, hpa.LABEL, one.written, one.meant, one.notes, one.mistakes, bounds, bounds[0])
        case "ScaledObject":
            if version != "keda.sh/v1alpha1":
                raise FieldsError([f"apiVersion is '{version}': write keda.sh/v1alpha1"])
            other = read_scaled_object(document, metrics, starts_at, most)
            bounds = (other.min_replicas, other.max_replicas)
            yield from _variants(
                title,
                KEDA_LABEL,
                other.written,
                other.meant,
                other.notes,
                other.mistakes,
                bounds,
                other.meant_min_replicas,
            )
        case "VLLMAutoscaler":
            spec = read(document).spec
            policy = Preheat.of(spec, tick_seconds=tick_seconds, epoch_seconds=starts_at.timestamp())
            notes: tuple[str, ...] = ()
            if spec.min_replicas == 0:
                woken = "requests that wait at the gateway wake it" if policy.hears_gateway else DEAF
                notes = (f"{title} rests at zero after {spec.idle_seconds:g} s of idleness: {woken}.",)
            yield NamedPolicy(title, "Preheat", "", notes, policy, spec.min_replicas, spec.max_replicas)
        case _:
            near = hint(kind, list(_KINDS))
            raise FieldsError([f"kind is '{kind}': {near if kind else REMEDY}"])


def _variants(
    title: str,
    label: str,
    written: Policy[Any],
    meant: Policy[Any] | None,
    notes: tuple[str, ...],
    mistakes: tuple[str, ...],
    bounds: tuple[int, int],
    meant_least: int,
) -> Iterator[NamedPolicy]:
    if meant is None:
        yield NamedPolicy(title, label, "", notes, written, *bounds)
        return
    yield NamedPolicy(f"{title} ({AS_WRITTEN})", label, AS_WRITTEN, (*notes, *mistakes), written, *bounds)
    mended = ("it is the same without what is said to be wrong with it as written",)
    yield NamedPolicy(f"{title} ({AS_MEANT})", label, AS_MEANT, mended, meant, meant_least, bounds[1])
