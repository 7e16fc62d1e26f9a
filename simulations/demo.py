"""The demo's story: an hour of real traffic bent into a day, three policies, a table and a report.

Ours is run by whoever calls, who owns the autoscaler's loop; the other two are rules people start with.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from policies.scaling.policy import ScalingPolicy
from policies.scaling.resource import Objectives, Prometheus, ScaleTargetRef, Spec
from simulations.laboratory.result_table import seconds
from simulations.live import LiveFleet
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions
from simulations.model.engine import Engine, shipped_engine
from simulations.model.fleet import SimulatedFleet
from simulations.peers import hpa
from simulations.peers.rules import hpa_on_waiting, keda_on_waiting
from simulations.progress_bar import progress_bar
from simulations.replay import Policy, Replay, S, replay
from simulations.report.fleet_charts import Told
from simulations.report.page import page
from simulations.traces import Trace, shipped_trace

Autoscale = Callable[[LiveFleet, ScalingPolicy], Awaitable[None]]
"""Runs the autoscaler's loop over the fleet, a turn a tick, until the fleet has no next tick."""


def day_curve(share: float) -> float:
    """A day's demand as a multiple of its mean: quiet at night, a first wave before noon, the peak in the evening."""
    turn = 2 * math.pi * (share - 0.12)
    return 1 - 0.55 * math.cos(turn) + 0.16 * math.cos(2 * turn - 0.6)


@dataclass(frozen=True, slots=True)
class Scene:
    """What is replayed."""

    trace: Trace
    engine: Engine
    objectives: Objectives
    cold_start_seconds: float = 180.0
    min_replicas: int = 1
    max_replicas: int = 12
    start_replicas: int = 2
    tick_seconds: float = 15.0

    @classmethod
    def of_the_demo(cls) -> Scene:
        """Llama-2-7B on A40s: slow enough that this traffic needs two to ten replicas of it."""
        bent = shipped_trace().bent(day_curve, name="azure2023_conv, bent")
        return cls(
            bent, shipped_engine("llama2-7b_a40_tp1"), Objectives(ttft_seconds=3, tpot_seconds=0.1, attainment=0.99)
        )

    def spec(self) -> Spec:
        """The resource a user would write for it."""
        return Spec(
            scale_target_ref=ScaleTargetRef(name="vllm-llama2-7b"),
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            objectives=self.objectives,
            cold_start_seconds=self.cold_start_seconds,
            prometheus=Prometheus(url="http://prometheus.monitoring:9090"),
        )

    def lead(self) -> list[str]:
        """What the reader must know before the figures."""
        rates = np.histogram(self.trace.arrived_at_seconds, np.arange(0, self.trace.end_seconds, 120))[0] / 120
        cold = self.cold_start_seconds
        return [
            f"{self.trace.requests:,} requests of the Azure 2023 conversation trace, within "
            f"{self.trace.end_seconds / 60:.0f} minutes. The hour was bent: arrivals are moved in time, in their "
            f"order, so that the rate follows a day's curve squeezed into the hour, {rates.min():.1f} to "
            f"{rates.max():.1f} requests/s. Lengths and bursts are as recorded.",
            f"{self.engine.model} on {self.engine.name.split('_')[1].upper()} GPUs, simulated step by step as vLLM V1 "
            f"batches. Promised: first token within {self.objectives.ttft_seconds:g} s and "
            f"{self.objectives.tpot_seconds * 1000:g} ms a token, to {self.objectives.attainment:.0%} of requests.",
            f"{self.min_replicas} to {self.max_replicas} replicas, {self.start_replicas} at first; one is ready "
            f"{cold:.0f} s after it is created. Against a day squeezed into an hour that weighs like "
            f"{cold * 86400 / self.trace.end_seconds / 60:.0f} minutes in a real day: hard for every policy.",
        ]


def play(out: Path, autoscale: Autoscale, console: Console) -> Path:
    """Runs the three policies with a progress bar, prints the table, writes the report and says where it is."""
    out.mkdir(parents=True, exist_ok=True)
    scene = Scene.of_the_demo()
    for line in scene.lead():
        console.print(line, highlight=False)
    told = _run(scene, autoscale, console)
    console.print(_table(told, scene.objectives))
    report = out / "report.html"
    report.write_text(
        page("An hour of traffic under three autoscalers", scene.lead(), told, scene.objectives, _notes(scene)),
        encoding="utf-8",
    )
    return report


def _run(scene: Scene, autoscale: Autoscale, console: Console) -> list[Told]:
    told: list[Told] = []
    with progress_bar(console) as progress:
        bounds = (scene.min_replicas, scene.max_replicas)
        rules = (("KEDA rule", keda_on_waiting(*bounds)), ("HPA rule", hpa_on_waiting(*bounds)))
        # Compiling takes about as long as the three replays together, but only once.
        compiling = 0.2
        task = progress.add_task("compiling the simulation (first run only)", total=compiling + 1 + len(rules))
        _warm_up(scene)

        def bar(label: str) -> Callable[[float], None]:
            done = compiling + len(told)
            progress.update(task, completed=done, description=label)
            return lambda part: progress.update(task, completed=done + part)

        told.append(Told("Preheat", _ours(scene, autoscale, bar("Preheat"))))
        for label, rule in rules:
            told.append(Told(label, _theirs(scene, rule, bar(label))))
        progress.update(task, completed=compiling + len(told))
    return told


def _warm_up(scene: Scene) -> None:
    """A few seconds of traffic, so that compiling is not counted to any policy."""
    fleet = _fleet(scene, scene.trace.until(60))
    fleet.advance(30)
    fleet.observe()


def _fleet(scene: Scene, trace: Trace) -> SimulatedFleet:
    return SimulatedFleet(
        trace,
        scene.engine,
        objectives=scene.objectives,
        conditions=Conditions(Constant(scene.cold_start_seconds)),
        start_replicas=scene.start_replicas,
    )


def _ours(scene: Scene, autoscale: Autoscale, progress: Callable[[float], None]) -> Replay:
    fleet = LiveFleet(_fleet(scene, scene.trace), tick_seconds=scene.tick_seconds, progress=progress)

    async def run() -> None:
        await autoscale(fleet, ScalingPolicy.of(scene.spec(), tick_seconds=scene.tick_seconds))

    asyncio.run(run())
    return fleet.result(scene.objectives)


def _theirs(scene: Scene, policy: Policy[S], progress: Callable[[float], None]) -> Replay:
    return replay(
        scene.trace,
        scene.engine,
        policy,
        objectives=scene.objectives,
        conditions=Conditions(Constant(scene.cold_start_seconds)),
        tick_seconds=scene.tick_seconds,
        min_replicas=scene.min_replicas,
        max_replicas=scene.max_replicas,
        start_replicas=scene.start_replicas,
        progress=progress,
    )


def _table(told: list[Told], objectives: Objectives) -> Table:
    table = Table(title=f"Promised to {objectives.attainment:.0%} of the requests", title_justify="left")
    table.add_column("policy", no_wrap=True)
    for column in ("attained", "TTFT p50", "TTFT p99", "TPOT p99", "GPU-hours", "changes"):
        table.add_column(column, justify="right")
    for one in told:
        r = one.replay
        kept = "green" if r.attainment >= objectives.attainment else "red"
        table.add_row(
            one.label,
            f"[{kept}]{r.attainment:.2%}[/]",
            seconds(r.ttft_seconds["p50"]),
            seconds(r.ttft_seconds["p99"]),
            seconds(r.tpot_seconds["p99"]),
            f"{r.gpu_hours:.2f}",
            str(r.replica_changes),
        )
    return table


def _notes(scene: Scene) -> list[str]:
    return [
        f"Trace: {scene.trace.source}; github.com/Azure/AzurePublicDataset, arrivals bent as said above.",
        f"Engine {scene.engine.name}: {scene.engine.source}.",
        "Preheat: the autoscaler's own loop over the simulated fleet. It and the rules see the same scrapes, every "
        "15 s, and no more than vLLM's metrics show.",
        f"KEDA rule, as meant: 5 requests waiting a replica, in all pods together. HPA rule: 10 waiting a pod. Both: "
        f"{hpa.LABEL}, no `behavior` given; KEDA's own part never acts where one replica is kept.",
        "GPU-hours count each replica from its creation until it is gone; a removed one first answers what it holds, "
        "however long that takes, and holds its GPU meanwhile.",
    ]
