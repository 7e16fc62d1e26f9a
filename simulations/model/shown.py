"""What a scrape of a simulated pod shows to those who ask for it whole: every bucket of every histogram.

A `PodSample` holds of a histogram the two buckets around the objective, which is all that our policy reads. Rules
that people wrote take quantiles, and for those all buckets are needed. The times of whole requests, which the event
loop does not count, are counted here from the rows that it keeps of each request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cluster.vllm_metrics import E2E_EDGES, REQUEST_TIMES
from policies.scaling.observation import PodSample
from simulations.model import kernel
from simulations.model.engine import PICOSECONDS
from simulations.model.kernel import Ints


@dataclass(frozen=True, slots=True)
class Histogram:
    """As vLLM shows it."""

    edges_seconds: tuple[float, ...]
    """Upper ones, ascending; the last bucket has none."""
    counts: tuple[float, ...]
    """Cumulative, one more than there are edges."""
    sum_seconds: float


@dataclass(frozen=True, slots=True)
class WholeSample(PodSample):
    """A sample with its histograms whole, by the names that fields of `PodSample` and `REQUEST_TIMES` have."""

    histograms: Mapping[str, Histogram] = field(default_factory=dict)


_EDGES = np.array([round(edge * PICOSECONDS) for edge in E2E_EDGES], dtype=np.int64)
_SPANS = {
    "end_to_end": (kernel.ENTERED, kernel.LAST),
    "inference": (kernel.SCHEDULED, kernel.LAST),
    "prefill": (kernel.SCHEDULED, kernel.FIRST),
    "decode": (kernel.FIRST, kernel.LAST),
}
"""Columns of a request between which each time lies, as vLLM measures them when a request is done."""
assert tuple(_SPANS) == tuple(REQUEST_TIMES)


@dataclass(slots=True)
class _Counted:
    counts: NDArray[np.int64]
    """A row a time, a column a bucket, not cumulative."""
    sums: list[int]


class RequestTimes:
    """Counts, replica by replica, the times of the requests that are done."""

    def __init__(self) -> None:
        self._seen = 0
        self._open: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        """Rows of requests that have come and were not counted."""
        self._counted: dict[int, _Counted] = {}

    def count(self, requests: Ints, arrived: int, until: int, replicas: Iterable[tuple[int, int, int]]) -> None:
        """Counts what was done by `until`, in picoseconds. `replicas`: serial, slot, and when each became ready.

        A slot's requests are its present replica's if that was ready when they came; else nobody shows them now.
        """
        rows = np.concatenate((self._open, np.arange(self._seen, arrived)))
        self._seen = arrived
        done = (requests[rows, kernel.FATE] == kernel.DONE) & (requests[rows, kernel.LAST] <= until)
        refused = requests[rows, kernel.FATE] == kernel.REFUSED
        ended = requests[rows[done]]
        self._open = rows[~(done | refused)]
        if not len(ended):
            return
        for serial, slot, ready_at in replicas:
            own = ended[(ended[:, kernel.REPLICA] == slot) & (ended[:, kernel.ENTERED] >= ready_at)]
            if len(own):
                self._add(serial, own)

    def _add(self, serial: int, own: Ints) -> None:
        width = len(_EDGES) + 1
        counted = self._counted.setdefault(
            serial, _Counted(np.zeros((len(_SPANS), width), dtype=np.int64), [0] * len(_SPANS))
        )
        for which, (start, end) in enumerate(_SPANS.values()):
            took = own[:, end] - own[:, start]
            counted.counts[which] += np.bincount(np.searchsorted(_EDGES, took, side="left"), minlength=width)
            counted.sums[which] += sum(took.tolist())

    def histograms(self, serial: int) -> dict[str, Histogram]:
        """Those of one replica."""
        counted = self._counted.get(serial)
        counts = np.zeros((len(_SPANS), len(_EDGES) + 1), dtype=np.int64) if counted is None else counted.counts
        sums = [0] * len(_SPANS) if counted is None else counted.sums
        return {
            name: Histogram(E2E_EDGES, tuple(map(float, row)), total / PICOSECONDS)
            for name, row, total in zip(_SPANS, np.cumsum(counts, axis=1).tolist(), sums, strict=True)
        }
