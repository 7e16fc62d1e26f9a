"""The real HPA controller's recorded syncs, as our re-implementation is shown them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

from policies.scaling.observation import Observation, Pod, PodSample, PodStage, SampleState
from simulations.peers.hpa import (
    Behavior,
    ExternalAverageMetric,
    ExternalValueMetric,
    Hpa,
    Metric,
    PodsMetric,
    RatePolicy,
    Rules,
    Select,
)
from tests.checkout import ROOT
from tests.real.hpa.writing import reckons_with_status

RECORDINGS = ROOT / "tests" / "data" / "hpa"
Json = dict[str, Any]

READINGS = ("requests_waiting", "requests_running")
"""Where a pod's sample carries the first metric, and the second."""
STAGES = {"pending": PodStage.UNSCHEDULABLE, "running": PodStage.STARTING, "ready": PodStage.READY}
SUFFIXES = {"n": "1e-9", "u": "1e-6", "m": "1e-3", "": "1", "k": "1e3", "M": "1e6"}


@dataclass(frozen=True)
class Sync:
    """What the real controller had at one sync, and what ours has of the same."""

    real: Json
    desired: int
    wanted: int
    sentence: str

    @property
    def agrees(self) -> bool:
        real = (self.real["desired"], self.real.get("proposed", self.wanted))
        return real == (self.desired, self.wanted)


def recordings() -> list[Path]:
    return sorted(RECORDINGS.glob("*.json"))


def load(path: Path) -> Json:
    recording: Json = json.loads(path.read_text())
    return recording


def judged(recording: Json, altered: Callable[[Hpa], Hpa] = lambda law: law) -> Iterator[Sync]:
    """Ours at each sync: what it remembers is its own, the number it finds is what was really there."""
    spec: Json = dict(recording["spec"])
    window = recording["downscale_stabilization_seconds"]
    state = hpa(spec, window).begin()
    for sync in recording["syncs"]:
        spec |= sync.get("changed", {})
        law = altered(hpa(spec, window))
        decision, state = law.decide(observation(sync, spec["metrics"]), state)
        yield Sync(sync, decision.replicas, decision.wanted, decision.sentence)


def hpa(spec: Json, downscale_window_seconds: float) -> Hpa:
    """Every pass of it is a sync."""
    metrics = tuple(metric(each, reading) for each, reading in zip(spec["metrics"], READINGS, strict=False))
    law = Hpa(
        metrics,
        spec["minReplicas"],
        spec["maxReplicas"],
        sync_seconds=0.0,
        downscale_window_seconds=downscale_window_seconds,
    )
    if "behavior" not in spec:
        return law
    up, down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
    return replace(
        law,
        behavior=Behavior(rules(up, downscale_window_seconds), rules(down, downscale_window_seconds)),
        tolerance_up=float(quantity(up.get("tolerance", "0.1"))),
        tolerance_down=float(quantity(down.get("tolerance", "0.1"))),
    )


def metric(written: Json, reading: str) -> Metric:
    if written["type"] == "Pods":
        return PodsMetric((reading,), float(quantity(written["pods"]["target"]["averageValue"])))
    target = written["external"]["target"]
    if target["type"] == "Value":
        return ExternalValueMetric((reading,), float(quantity(target["value"])))
    return ExternalAverageMetric((reading,), float(quantity(target["averageValue"])))


def rules(written: Json, downscale_window_seconds: float) -> Rules:
    policies = [
        RatePolicy(each["value"], each["periodSeconds"], each["type"] == "Percent") for each in written["policies"]
    ]
    window = written.get("stabilizationWindowSeconds", downscale_window_seconds)
    return Rules(tuple(policies), window, Select(written["selectPolicy"]))


def observation(sync: Json, metrics: list[Json]) -> Observation:
    """Failed pods are none to us; External metrics are shown by a pod on its way out, which else counts nowhere.

    To us a scale's status tells of the pods that are there. The real one may lag behind them; where it alone is
    asked, the pods are those that it tells of.
    """
    there = {name: said for name, said in sync.get("pods", {}).items() if said != "failed"}
    if all(reckons_with_status(each) for each in metrics):
        there = {f"pod-{number}": "ready" for number in range(sync["status_replicas"])}
    there["external"] = "running leaving"
    readings: dict[str, dict[str, float]] = {name: {} for name in there}
    for reading, (_, served) in zip(READINGS, sync.get("metrics", {}).items(), strict=False):
        if isinstance(served, Mapping):
            for name in served.keys() & there.keys():
                readings[name][reading] = float(thousandths(served[name])) / 1000
        elif served:
            readings["external"][reading] = float(sum(map(thousandths, served))) / 1000
    pods = [pod(name, said, readings[name]) for name, said in there.items()]
    return Observation(sync["time"], sync["replicas"], tuple(pods))


def pod(name: str, said: str, readings: Mapping[str, float]) -> Pod:
    stage = STAGES[said.removesuffix(" leaving")]
    ready_at = 0.0 if stage is PodStage.READY else None
    if said.endswith("leaving"):
        stage = PodStage.TERMINATING
    first, second = (readings.get(reading) for reading in READINGS)
    sample = PodSample(0.0, SampleState.FRESH, requests_waiting=first, requests_running=second)
    return Pod(name, stage, 0.0, ready_at=ready_at, sample=sample)


def quantity(written: str) -> Decimal:
    """As Kubernetes writes numbers: "1500m" is 1.5."""
    suffix = written[-1] if written[-1] in SUFFIXES else ""
    return Decimal(written.removesuffix(suffix)) * Decimal(SUFFIXES[suffix])


def thousandths(written: str) -> int:
    return int((quantity(written) * 1000).to_integral_value(ROUND_CEILING))
