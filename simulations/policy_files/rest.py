"""What a ScaledObject says of rest at zero: after how long, and by which of its triggers it wakes again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.vllm_metrics import known_names
from simulations.policy_files.migrate_text import Said
from simulations.policy_files.promql import PromQLError, parse, selectors
from simulations.policy_files.scrapes import REPLICAS

COOLDOWN_SECONDS = 300
"""KEDA's own."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Rest in our terms."""

    idle: Said
    query: Said | None
    """None where the calendar alone wakes it."""
    wakes: tuple[int, ...]
    """The numbers of the triggers that it is made of."""


def rest_of(spec: Mapping[str, Any]) -> Rest | None:
    """None where it never rests at zero, or nothing in it could wake it there."""
    if whole(spec, "minReplicaCount", 0) != 0:
        return None
    triggers = spec.get("triggers", [])
    queries = {number: query for number, each in enumerate(triggers) if (query := _query(each))}
    if not queries and not any(each.get("type") == "cron" for each in triggers):
        return None
    cooldown = whole(spec, "cooldownPeriod", COOLDOWN_SECONDS)
    idle = Said(max(1, cooldown), "its cooldownPeriod" if "cooldownPeriod" in spec else "KEDA's own cooldownPeriod")
    which = ", ".join(f"triggers[{number}]" for number in queries)
    parts = list(queries.values())
    text = parts[0] if len(parts) == 1 else " + ".join(f"sum({part})" for part in parts)
    wake = Said(text, f"its {which}, where no answer is 0 as KEDA takes it") if queries else None
    return Rest(idle, wake, tuple(queries))


def whole(spec: Mapping[str, Any], key: str, default: int) -> int:
    """A number of the object, also where it stands in quotes."""
    return int(float(spec.get(key, default)))


def _query(trigger: Mapping[str, Any]) -> str:
    """What of a trigger is above 0 where it is active, if it reads nothing that goes with the pods; "" otherwise."""
    metadata = trigger.get("metadata")
    if trigger.get("type") != "prometheus" or not isinstance(metadata, Mapping):
        return ""
    text = " ".join(str(metadata.get("query", "")).split())
    try:
        read = {each.series for each in selectors(parse(text))}
    except PromQLError:
        return ""
    if not read or any(each in REPLICAS or each in known_names() or each.startswith("vllm") for each in read):
        return ""
    activation = str(metadata.get("activationThreshold", "0"))
    return f"{text if activation == '0' else f'({text}) > bool {activation}'} or vector(0)"
