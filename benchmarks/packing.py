"""How much of a fleet of 4,278 GPU nodes is put to right use: our scores against five others, behind the same filter.

    python benchmarks/packing.py [--seeds 10]

A pod is rightly placed when its model fits and its GPUs are linked with each other. Baselines run twice, bare (any
node with enough free GPUs) and behind our filter. A pod that finds no node is gone. Told when 1.0, 1.15 and 1.3 times
the fleet's GPUs were asked for: GPUs of rightly placed pods as a share of the bound, which is what links and memory
would allow a packer that knows all pods and may cut them (a linear program); TP-8 and TP-4 pods rightly placed of
those asked; misplaced pods. FGD is re-implemented from Weng et al., USENIX ATC 2023; dot-product as they describe it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import mean, stdev

import numpy as np
from scipy.optimize import linprog
from scipy.stats import t

from benchmarks.parts.packing_world import MODELS, SHARES, Cluster, NodeType, Pod, State, demand_of, fleet, stream
from policies.placement.demand import PodDemand
from policies.placement.memory import memory_fit
from policies.placement.policy import DEFAULT_SETTINGS, PlacementSettings, Verdict, judge
from policies.placement.products import MIB
from policies.placement.verdict import MemoryFit

SURE = DEFAULT_SETTINGS.model_copy(update={"unknown_link": "refuse"})
"""Where nobody knows which GPUs are linked (V100's cube), tensor parallelism is refused."""
CHECKPOINTS = (1.0, 1.15, 1.3)

Scorer = Callable[[Pod, NodeType, int, "Judge"], float]
"""Of a pod on a type of node with so many free GPUs; the highest is taken, of equals the lowest-numbered node."""


class Judge:
    """Our verdicts and the truth of memory, each found once."""

    def __init__(self, settings: PlacementSettings) -> None:
        self.settings = settings
        self.demand: Callable[[int, str], PodDemand] = cache(demand_of)
        self.verdict: Callable[[int, str, NodeType, int], Verdict] = cache(self._verdict)
        self.fits: Callable[[int, str, NodeType], bool] = cache(self._fits)

    def _verdict(self, size: int, model: str, kind: NodeType, free: int) -> Verdict:
        return judge(self.demand(size, model), kind.facts(free), self.settings)

    def _fits(self, size: int, model: str, kind: NodeType) -> bool:
        fit, _, _ = memory_fit(self.demand(size, model), kind.memory_mib * MIB, self.settings)
        return fit in (MemoryFit.FITS, MemoryFit.TIGHT)


def first_fit(pod: Pod, kind: NodeType, free: int, known: Judge) -> float:
    return 0.0


def best_fit(pod: Pod, kind: NodeType, free: int, known: Judge) -> float:
    return -float(free - pod.size)


def most_allocated(pod: Pod, kind: NodeType, free: int, known: Judge) -> float:
    return 1 - (free - pod.size) / kind.gpus


def dot_product(pod: Pod, kind: NodeType, free: int, known: Judge) -> float:
    """The smallest product of what is free and what is asked, over GPUs, CPUs and memory, as shares of the largest."""
    share = free / kind.gpus
    return -pod.size * (free / 8 + share * kind.cpus / 192 + share * kind.memory_gib / 2048)


def fgd(pod: Pod, kind: NodeType, free: int, known: Judge) -> float:
    """The least growth of GPUs that a pod of the mix could not use, for want of number."""
    return -(_unusable(free - pod.size) - _unusable(free))


@cache
def _unusable(free: int) -> float:
    return sum(share * free for size, share in SHARES.items() if free < size)


def ours(pod: Pod, kind: NodeType, free: int, known: Judge) -> float:
    return known.verdict(pod.size, pod.model, kind, free).preference


BASELINES: dict[str, Scorer] = {
    "first-fit": first_fit,
    "best-fit": best_fit,
    "most-allocated": most_allocated,
    "dot-product": dot_product,
    "FGD": fgd,
}


@dataclass(slots=True)
class Tally:
    """Of one run."""

    right_gpus: int = 0
    asked: dict[int, int] = field(default_factory=lambda: dict.fromkeys(SHARES, 0))
    right: dict[int, int] = field(default_factory=lambda: dict.fromkeys(SHARES, 0))
    misplaced: int = 0
    waiting: dict[tuple[int, str], int] = field(default_factory=dict)
    """Pods that would be running if there were room for all, by size and model."""


@dataclass(frozen=True, slots=True)
class Told:
    share_of_bound: float
    tp8: float
    tp4: float
    misplaced: int


def run(pods: Sequence[Pod], scorer: Scorer, *, filtered: bool, known: Judge) -> list[Told]:
    """One stream over one empty fleet, told at each checkpoint."""
    types, nodes = fleet()
    cluster = Cluster(types, nodes)
    gpus = sum(types[kind].gpus for kind in nodes)
    tally, asked = Tally(), 0
    told: list[Told] = []
    leaving: dict[int, list[tuple[Pod, int, tuple[int, ...], bool]]] = {}
    gone: dict[int, list[Pod]] = {}
    for arrival, pod in enumerate(pods):
        for left, number, taken, right in leaving.pop(arrival, ()):
            cluster.release(number, taken)
            tally.right_gpus -= left.size if right else 0
        for left in gone.pop(arrival, ()):
            tally.waiting[left.size, left.model] -= 1
        key = pod.size, pod.model
        tally.waiting[key] = tally.waiting.get(key, 0) + 1
        if pod.leaves_at is not None:
            gone.setdefault(pod.leaves_at, []).append(pod)
        tally.asked[pod.size] += 1
        asked += pod.size
        chosen = _choose(cluster, pod, scorer, filtered=filtered, known=known)
        if chosen is not None:
            number = cluster.lowest(chosen)
            kind = types[chosen[0]]
            taken, linked = cluster.place(number, pod.size)
            right = linked and known.fits(pod.size, pod.model, kind)
            tally.right_gpus += pod.size if right else 0
            tally.right[pod.size] += right
            tally.misplaced += not right
            if pod.leaves_at is not None:
                leaving.setdefault(pod.leaves_at, []).append((pod, number, taken, right))
        while len(told) < len(CHECKPOINTS) and asked >= CHECKPOINTS[len(told)] * gpus:
            told.append(_tell(tally, types, nodes, known))
    return told


def _choose(cluster: Cluster, pod: Pod, scorer: Scorer, *, filtered: bool, known: Judge) -> tuple[int, State] | None:
    best: tuple[float, int] | None = None
    chosen = None
    for key in cluster.counts:
        kind, free = cluster.types[key[0]], sum(key[1])
        if free < pod.size:
            continue
        if filtered and not known.verdict(pod.size, pod.model, kind, free).fits:
            continue
        score = scorer(pod, kind, free, known)
        if best is not None and score < best[0]:
            continue
        candidate = (score, -cluster.lowest(key))
        if best is None or candidate > best:
            best, chosen = candidate, key
    return chosen


def _tell(tally: Tally, types: list[NodeType], nodes: list[int], known: Judge) -> Told:
    bound = bound_gpus(tally.waiting, types, nodes, known)
    return Told(
        share_of_bound=tally.right_gpus / bound,
        tp8=tally.right[8] / tally.asked[8],
        tp4=tally.right[4] / tally.asked[4],
        misplaced=tally.misplaced,
    )


_BOUNDS: dict[tuple[tuple[tuple[int, str], int], ...], float] = {}


def bound_gpus(waiting: dict[tuple[int, str], int], types: list[NodeType], nodes: list[int], known: Judge) -> float:
    """The most GPUs that pods could rightly use, were all known beforehand and could pods be cut in pieces."""
    key = tuple(sorted(waiting.items()))
    if key in _BOUNDS:
        return _BOUNDS[key]
    room = [sum(types[kind].gpus for kind in nodes if kind == i) for i in range(len(types))]
    pairs = [
        (demand, i)
        for demand in waiting
        for i, kind in enumerate(types)
        if demand[0] <= max(kind.groups) and known.fits(*demand, kind)
    ]
    rows = list(waiting)
    limits = np.zeros((len(rows) + len(types), len(pairs)))
    for column, (demand, i) in enumerate(pairs):
        limits[rows.index(demand), column] = 1
        limits[len(rows) + i, column] = 1
    most = [waiting[demand] * demand[0] for demand in rows] + room
    found = linprog(-np.ones(len(pairs)), A_ub=limits, b_ub=most, bounds=(0, None), method="highs")
    _BOUNDS[key] = -float(found.fun or 0.0)
    return _BOUNDS[key]


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval, in percent."""
    if len(values) < 2:
        return f"{100 * values[0]:.1f}"
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f"{100 * mean(values):.1f} ± {100 * half:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds
    types, nodes = fleet()
    gpus = sum(types[kind].gpus for kind in nodes)
    print(f"{len(nodes)} nodes, {gpus} GPUs, {sum(map(len, MODELS.values()))} kinds of pods, {seeds} seeds")
    sure = Judge(SURE)
    runs: dict[str, tuple[Scorer, bool, Judge]] = {}
    for name, scorer in BASELINES.items():
        runs[f"{name}, bare"] = scorer, False, sure
        runs[f"{name}, filtered"] = scorer, True, sure
    runs["Preheat"] = ours, True, sure
    runs["Preheat, unknown passes"] = ours, True, Judge(DEFAULT_SETTINGS)
    for departing in (0.0, 0.3):
        streams = [list(stream(np.random.default_rng(seed), gpus, departing=departing)) for seed in range(seeds)]
        print(f"\n{100 * departing:.0f} % of pods leave at random")
        results = {
            name: [run(pods, scorer, filtered=filtered, known=known) for pods in streams]
            for name, (scorer, filtered, known) in runs.items()
        }
        for i, asked in enumerate(CHECKPOINTS):
            print(f"\n{asked} x the GPUs asked for")
            print(f"{'':26}{'of the bound %':>16}{'TP-8 placed %':>16}{'TP-4 placed %':>16}{'misplaced':>16}")
            for name, told in results.items():
                at = [at_all[i] for at_all in told]
                columns = (
                    interval([each.share_of_bound for each in at]),
                    interval([each.tp8 for each in at]),
                    interval([each.tp4 for each in at]),
                    f"{mean(each.misplaced for each in at):.0f}",
                )
                print(f"{name:26}" + "".join(f"{column:>16}" for column in columns))
            peer = max(
                (name for name in results if name.endswith(", filtered")),
                key=lambda name: mean(told[i].tp8 for told in results[name]),
            )
            more = [own[i].tp8 - other[i].tp8 for own, other in zip(results["Preheat"], results[peer], strict=True)]
            print(f"Preheat places {interval(more)} points more of the TP-8 pods than {peer}, seed by seed")


if __name__ == "__main__":
    main()
