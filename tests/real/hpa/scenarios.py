"""What the real HPA controller is shown: metrics sync by sync, pods that come, wait and go, hands on the scale."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.parts.kubernetes_api import Json

DOWNSCALE_WINDOW_SECONDS = 5
"""Told to the controller in place of its 300."""


@dataclass(frozen=True)
class Shown:
    """A Pods metric at one sync: what the oldest pods show, then what every other one does; None is silence."""

    oldest: tuple[str | None, ...] = ()
    others: str | None = None
    of: Literal["running", "ready", "all"] = "running"
    """Which pods can show it: those whose container runs, those that are ready, or pending and draining ones too."""


Served = Shown | tuple[str, ...] | None
"""At one sync: a Pods metric, the series of an External one, or that there is no such metric (404)."""


@dataclass(frozen=True)
class Hand:
    """Somebody interferes, so many seconds after the n-th sync that read metrics."""

    after: int
    seconds: float
    replicas: int | None = None
    spec: Json | None = None
    """A merge patch of the HPA's spec."""
    fails: str = ""
    """A pod whose containers end for good, counted as they come: "pod-1"."""


@dataclass(frozen=True)
class Scenario:
    """One HPA, from its creation until its metrics' series are used up."""

    name: str
    """A file's name, too."""
    metrics: tuple[Json, ...]
    series: Mapping[str, Sequence[Served]]
    """By metric, each as long as the others."""
    start: int = 2
    least: int = 1
    most: int = 12
    behavior: Json | None = None
    room: int = 40
    """How many pods the node takes; the others stay pending."""
    cold_start: str = "0s"
    drain: str = "0s"
    hands: tuple[Hand, ...] = field(default=())

    @property
    def syncs(self) -> int:
        """Those that read metrics."""
        return len(next(iter(self.series.values())))


def pods(name: str, target: str) -> Json:
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": _target("AverageValue", target)}}


def average(name: str, target: str) -> Json:
    return {"type": "External", "external": {"metric": {"name": name}, "target": _target("AverageValue", target)}}


def value(name: str, target: str) -> Json:
    return {"type": "External", "external": {"metric": {"name": name}, "target": _target("Value", target)}}


def _target(kind: str, quantity: str) -> Json:
    return {"type": kind, kind[0].lower() + kind[1:]: quantity}


def rules(*policies: tuple[str, int, int], select: str = "Max", window: int = 0, tolerance: str | None = None) -> Json:
    """One direction: (Pods or Percent, how many, within how many seconds) each."""
    written: Json = {
        "stabilizationWindowSeconds": window,
        "selectPolicy": select,
        "policies": [{"type": kind, "value": many, "periodSeconds": period} for kind, many, period in policies],
    }
    return written if tolerance is None else {**written, "tolerance": tolerance}


FREELY = rules(("Pods", 1000, 60))
"""No limit that any scenario meets, over longer than any of them lasts."""
AT_ONCE = {"scaleUp": FREELY, "scaleDown": rules(("Percent", 100, 60))}


def totals(*numbers: float | None) -> tuple[Served, ...]:
    """An External metric of one series."""
    return tuple(None if number is None else (f"{number:g}",) for number in numbers)


def each(*numbers: float) -> tuple[Served, ...]:
    """A Pods metric that every running pod shows alike."""
    return tuple(Shown(others=f"{number:g}") for number in numbers)


def ready(*numbers: float) -> tuple[Served, ...]:
    """A Pods metric that every ready pod shows alike: those that start are silent."""
    return tuple(Shown(others=f"{number:g}", of="ready") for number in numbers)


WAITING, QUEUE, RUNNING = "requests_waiting", "queue", "requests_running"

BY_HAND = (
    Scenario(
        "external-average-up-and-down",
        (average(QUEUE, "5"),),
        {QUEUE: totals(10, 30, 30, 16, 16, 4, 4, 4, 4, 4, 4, 4, 4)},
    ),
    Scenario(
        "jumps-at-most-double",
        (average(QUEUE, "5"),),
        {QUEUE: totals(500, 500, 500, 500, 500, 500, 3, 3, 3, 3, 3, 3, 3, 3)},
        start=1,
        least=3,
        most=20,
    ),
    Scenario(
        "default-behavior",
        (average(QUEUE, "5"),),
        {QUEUE: totals(*(500 for _ in range(18)))},
        start=1,
        most=30,
        behavior={},
    ),
    Scenario(
        "rates-the-greatest",
        (average(QUEUE, "5"),),
        {QUEUE: totals(*(200 for _ in range(9)), *(5 for _ in range(9)))},
        most=20,
        behavior={
            "scaleUp": rules(("Pods", 3, 3), ("Percent", 50, 2)),
            "scaleDown": rules(("Pods", 2, 2), ("Percent", 40, 4)),
        },
    ),
    Scenario(
        "rates-the-least",
        (average(QUEUE, "5"),),
        {QUEUE: totals(*(200 for _ in range(9)), *(5 for _ in range(9)))},
        start=4,
        most=20,
        behavior={
            "scaleUp": rules(("Pods", 3, 3), ("Percent", 50, 2), select="Min"),
            "scaleDown": rules(("Pods", 2, 2), ("Percent", 40, 4), select="Min"),
        },
    ),
    Scenario(
        "shrinking-disabled",
        (average(QUEUE, "5"),),
        {QUEUE: totals(25, 5, 5, 5, 40, 5, 5)},
        behavior={"scaleUp": FREELY, "scaleDown": rules(("Percent", 100, 60), select="Disabled")},
    ),
    Scenario(
        "growing-disabled",
        (average(QUEUE, "5"),),
        {QUEUE: totals(40, 40, 30, 10, 40, 40)},
        start=5,
        behavior={"scaleUp": {**FREELY, "selectPolicy": "Disabled"}, "scaleDown": AT_ONCE["scaleDown"]},
    ),
    Scenario(
        "window-up",
        (average(QUEUE, "5"),),
        {QUEUE: totals(10, 40, 10, 40, 40, 35, 40, 40, 10, 45, 45, 45, 45, 45)},
        behavior={"scaleUp": {**FREELY, "stabilizationWindowSeconds": 3}, "scaleDown": AT_ONCE["scaleDown"]},
    ),
    Scenario(
        "window-down",
        (average(QUEUE, "5"),),
        {QUEUE: totals(40, 10, 10, 20, 10, 10, 10, 10, 10, 30, 5, 5, 15, 5, 5, 5, 5)},
        behavior={"scaleUp": FREELY, "scaleDown": rules(("Percent", 100, 60), window=4)},
    ),
    Scenario(
        "window-down-left-out",
        (average(QUEUE, "5"),),
        {QUEUE: totals(40, 10, 10, 10, 10, 10, 10, 10, 10)},
        behavior={"scaleUp": FREELY, "scaleDown": {"policies": [{"type": "Pods", "value": 3, "periodSeconds": 2}]}},
    ),
    Scenario(
        "windows-and-rates",
        (average(QUEUE, "5"),),
        {QUEUE: totals(60, 10, 60, 60, 60, 5, 60, 5, 5, 5, 5, 60, 60, 5, 5, 5, 5, 5)},
        behavior={
            "scaleUp": rules(("Pods", 4, 4), window=2),
            "scaleDown": rules(("Percent", 30, 2), window=3),
        },
    ),
    Scenario(
        "scale-downs-older-than-their-period",
        (average(QUEUE, "5"),),
        {QUEUE: totals(40, 30, 30, 30, 20, 20, 20, 60, 60, 60, 60, 60, 60)},
        start=10,
        most=20,
        behavior={"scaleUp": rules(("Pods", 2, 9)), "scaleDown": rules(("Percent", 100, 2))},
    ),
    Scenario(
        "tolerance",
        (average(QUEUE, "10"),),
        {QUEUE: totals(110, 110.001, 99, 98.9, 90, 89.99, 88, 80, 88, 89)},
        start=10,
        most=20,
        behavior=AT_ONCE,
    ),
    Scenario(
        "tolerance-of-each-way",
        (average(QUEUE, "10"),),
        {QUEUE: totals(105, 105.1, 110, 77, 76.9, 80, 85, 60, 40, 41)},
        start=10,
        most=20,
        behavior={
            "scaleUp": {**FREELY, "tolerance": "0.05"},
            "scaleDown": {**AT_ONCE["scaleDown"], "tolerance": "0.3"},
        },
    ),
    Scenario(
        "external-average-of-several-series",
        (average(QUEUE, "5"),),
        {QUEUE: (("10", "7", "4"), ("500m", "10.5"), ("12000100u", "1"), ("0",), (), ("1e1", "0.02k"), ("9", "-30"))},
        behavior=AT_ONCE,
    ),
    Scenario(
        "external-average-while-pods-start",
        (average(QUEUE, "5"),),
        {QUEUE: totals(30, 30, 30, 40, 40, 40, 15, 15, 15, 15)},
        room=6,
        cold_start="2500ms",
        drain="2500ms",
        behavior=AT_ONCE,
    ),
    Scenario(
        "external-value-of-ready-pods",
        (value(QUEUE, "10"),),
        {QUEUE: totals(10, 20, 20, 20, 20, 20, 30, 5, 5, 8, 8, 8, 12, 11, 9, 9)},
        most=9,
        room=7,
        cold_start="1500ms",
        drain="2500ms",
        behavior=AT_ONCE,
    ),
    Scenario(
        "pods-all-shown",
        (pods(WAITING, "10"),),
        {WAITING: each(20, 11, 11.001, 10, 9, 8.999, 3, 3, 30, 0, 0)},
        behavior=AT_ONCE,
    ),
    Scenario(
        "pods-silent-on-the-way-up",
        (pods(WAITING, "10"),),
        {
            WAITING: (
                Shown(("40", None)),
                Shown(("19", "19", None, None)),
                Shown(("15", "15", "15", None)),
                Shown(("12",), None),
                Shown(("50", "50"), None),
                Shown(("50", "50", "50"), None),
                Shown((), None),
                Shown(("10", "10"), None),
            )
        },
        behavior=AT_ONCE,
    ),
    Scenario(
        "pods-silent-on-the-way-down",
        (pods(WAITING, "10"),),
        {
            WAITING: (
                Shown(("2", "2", "2"), None),
                Shown(("2", "2", "2", "2", "2"), None),
                Shown(("0",), None),
                Shown(("0", "0", "0"), None),
                Shown(("9", "8.5"), None),
                Shown((), None),
                Shown(("0", "0"), "1"),
                Shown(("5",), None),
            )
        },
        start=6,
        behavior=AT_ONCE,
    ),
    Scenario(
        "pods-pending",
        (pods(WAITING, "10"),),
        {WAITING: each(20, 20, 20, 14, 14, 14, 12, 30, 9.5, 5, 5, 2, 2, 15, 15)},
        room=3,
        behavior=AT_ONCE,
    ),
    Scenario(
        "pods-pending-by-the-older-rules",
        (pods(WAITING, "10"),),
        {WAITING: each(20, 20, 20, 20, 30, 30, 12, 5, 5, 5, 5, 5, 5, 5, 5)},
        room=4,
    ),
    Scenario(
        "pods-silent-until-ready",
        (pods(WAITING, "10"),),
        {WAITING: ready(25, 25, 25, 25, 25, 14, 14, 14, 14, 4, 4, 4)},
        cold_start="2500ms",
        behavior=AT_ONCE,
    ),
    Scenario(
        "pods-pending-and-silent",
        (pods(WAITING, "10"),),
        {
            WAITING: (
                Shown(others="30"),
                Shown(others="30"),
                Shown(("30", "30", "30", None)),
                Shown(("60", None), "11"),
                Shown(("5", None), "5"),
                Shown(("30", None), "30"),
                Shown(("9", None), "0"),
                Shown(("11", None), "12"),
                Shown(("90", None), None),
            )
        },
        room=4,
        behavior=AT_ONCE,
    ),
    Scenario(
        "pods-that-should-not-count-show-values",
        (pods(WAITING, "10"),),
        {WAITING: tuple(Shown(others=f"{number}", of="all") for number in (30, 30, 30, 4, 4, 4, 14, 14, 2, 2))},
        room=4,
        drain="2500ms",
        behavior=AT_ONCE,
    ),
    Scenario(
        "pods-fail",
        (pods(WAITING, "10"),),
        {WAITING: each(15, 15, 15, 15, 9.5, 9.5, 3, 3)},
        start=3,
        most=8,
        behavior=AT_ONCE,
        hands=(Hand(1, 0.3, fails="pod-1"), Hand(4, 0.3, fails="pod-2")),
    ),
    Scenario(
        "two-metrics-the-greater",
        (pods(WAITING, "10"), average(QUEUE, "5")),
        {WAITING: each(10, 20, 2, 2, 2, 12, 2), QUEUE: totals(10, 10, 30, 15, 5, 5, 5)},
        behavior=AT_ONCE,
    ),
    Scenario(
        "two-metrics-one-fails",
        (average(QUEUE, "5"), value(RUNNING, "10")),
        {
            QUEUE: totals(20, None, None, None, 5, 5, None, 30, None, 15, 5, None, 20),
            RUNNING: totals(10, 20, 5, 10, 10, None, None, None, 10, 2, 2, 2, None),
        },
        behavior=AT_ONCE,
    ),
    Scenario(
        "two-metrics-one-fails-by-the-older-rules",
        (average(QUEUE, "5"), pods(WAITING, "10")),
        {
            QUEUE: totals(30, None, None, None, 5, 5, None, 30, None, 5, 5, 5, 5, 5, 5),
            WAITING: (*each(10, 15, 5, 10, 5), Shown(), *each(5), None, *each(9.5, 5, 5, 5, 5, 5, 5)),
        },
    ),
    Scenario(
        "no-metric-at-all",
        (average(QUEUE, "5"),),
        {QUEUE: (("30",), None, None, (), (), ("5",), None, ("5",), ("20",), None)},
        behavior=AT_ONCE,
    ),
    Scenario(
        "no-pod-shows-it-within-a-window",
        (pods(WAITING, "10"),),
        {WAITING: (*each(20, 5), None, Shown(), None, Shown(), None, *each(5, 5, 5, 5))},
    ),
    Scenario(
        "somebody-else-scales",
        (average(QUEUE, "5"),),
        {QUEUE: totals(*(20 for _ in range(12)))},
        start=4,
        least=2,
        most=8,
        hands=(Hand(2, 0.3, replicas=11), Hand(4, 0.3, replicas=1), Hand(7, 0.3, replicas=0), Hand(7, 2.4, replicas=3)),
    ),
    Scenario(
        "somebody-else-scales-under-rates",
        (average(QUEUE, "5"),),
        {QUEUE: totals(*(20 for _ in range(8)), *(5 for _ in range(8)))},
        start=4,
        least=2,
        most=8,
        behavior={"scaleUp": rules(("Pods", 1, 2)), "scaleDown": rules(("Pods", 1, 3), window=2)},
        hands=(Hand(2, 0.3, replicas=11), Hand(5, 0.3, replicas=1), Hand(10, 0.3, replicas=10)),
    ),
    Scenario(
        "bounds-move",
        (average(QUEUE, "5"),),
        {QUEUE: totals(*(30 for _ in range(12)))},
        most=4,
        behavior=AT_ONCE,
        hands=(
            Hand(2, 0.3, spec={"maxReplicas": 9}),
            Hand(4, 0.3, spec={"maxReplicas": 3}),
            Hand(6, 0.3, spec={"maxReplicas": 12, "minReplicas": 8}),
            Hand(8, 0.3, spec={"minReplicas": 1}),
        ),
    ),
)


def drawn(seed: int) -> Scenario:
    """Whatever chance makes of it; the same for the same seed."""
    chance = random.Random(seed)

    def direction() -> Json:
        kinds = chance.sample(("Pods", "Percent"), chance.choice((1, 1, 2)))
        policies = [
            (kind, chance.choice((1, 2, 3) if kind == "Pods" else (20, 50, 100)), chance.choice((1, 2, 4, 7)))
            for kind in kinds
        ]
        return rules(*policies, select=chance.choice(("Max", "Min")), window=chance.choice((0, 0, 2, 3, 6)))

    behavior = chance.choice((None, {"scaleUp": direction(), "scaleDown": direction()}))
    metric, syncs = chance.choice((average(QUEUE, "5"), pods(WAITING, "10"), value(QUEUE, "20"))), 16
    if metric["type"] == "Pods":
        levels = [chance.choice((0, 3, 9, 14, 30)) for _ in range(syncs)]
        served: list[Served] = [
            Shown(tuple(chance.choice((None, f"{level}", f"{level + 4}")) for _ in range(4)), f"{level}")
            for level in levels
        ]
    else:
        served = [(f"{chance.choice((0, 5, 17, 21, 28, 60))}",) for _ in range(syncs)]
    return Scenario(
        f"drawn-{seed}",
        (metric,),
        {WAITING if metric["type"] == "Pods" else QUEUE: served},
        start=chance.choice((1, 3, 6)),
        most=chance.choice((6, 10)),
        behavior=behavior,
        room=chance.choice((4, 40)),
        cold_start=chance.choice(("0s", "1500ms")),
        drain=chance.choice(("0s", "1500ms")),
    )


SCENARIOS = (*BY_HAND, *(drawn(seed) for seed in range(1, 9)))
