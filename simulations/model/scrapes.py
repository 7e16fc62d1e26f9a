"""What Prometheus has of each simulated pod: its metrics as of the last scrape, coarse, late, and at times missing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cluster.vllm_metrics import edges_around
from policies.scaling.observation import Distribution, PodSample, SampleState
from policies.scaling.resource import Objectives
from simulations.model import kernel, kernel_fleet
from simulations.model.conditions import Scraping
from simulations.model.kernel import Ints
from simulations.model.servers import HISTOGRAM_EDGES, Servers, picoseconds

_NOTHING = PodSample(time=None, state=SampleState.ABSENT)


class Scrapes:
    """The last scrape of a fleet's pods."""

    def __init__(self, servers: Servers, objectives: Objectives, scraping: Scraping, seed: int) -> None:
        self._servers = servers
        self._scraping = scraping
        self._seed = seed
        self._capacity = float(servers.engine.kv_blocks * servers.engine.block_size)
        self._around = [
            edges_around(objective, edges)
            for objective, edges in zip(
                (objectives.ttft_seconds, objectives.tpot_seconds, objectives.tpot_seconds, objectives.ttft_seconds),
                HISTOGRAM_EDGES,
                strict=True,
            )
        ]
        # Of each histogram the last bucket that lies below the edge, -1 where there is none.
        self._columns = np.array(
            [
                [
                    edges.index(lower) if lower > 0 else -1,
                    edges.index(upper) if upper < math.inf else kernel.HISTOGRAM - 1,
                ]
                for (lower, upper), edges in zip(self._around, HISTOGRAM_EDGES, strict=True)
            ]
        )
        self.at: float | None = None
        """When it was; None before the first."""
        self.rows: Ints = servers.numbers[:0, : kernel.PHASE].copy()
        """The counters then, a row a slot."""
        self._at_gateway = 0
        self._missed: list[bool] = []
        self._broken: list[bool] = []

    def next_by(self, now: float) -> float | None:
        """The last scrape that is due by then and was not taken."""
        interval = self._scraping.interval_seconds
        due = now
        if interval > 0:
            offset = self._scraping.offset_seconds
            due = math.floor((now - offset) / interval + 1e-9) * interval + offset
        return due if due >= 0 and (self.at is None or due > self.at) else None

    def take(self, at: float) -> None:
        """Reads all pods; the fleet stands at that time."""
        used = self._servers.slots_used
        self.at = at
        self.rows = self._servers.numbers[:used, : kernel.PHASE].copy()
        self._at_gateway = self._servers.at_gateway
        self._kv = [self._servers.kv_cache_usage(slot) for slot in range(used)]
        told = self._scraping
        self._missed = self._broken = [False] * used
        if told.missed_share or told.nan_share:
            drawn = np.random.default_rng([self._seed, picoseconds(at) // 10**6]).random((2, used))
            self._missed = (drawn[0] < told.missed_share).tolist()
            self._broken = (drawn[1] < told.nan_share).tolist()

    def is_before(self, time: int) -> bool:
        """Whether nothing was scraped since that time, in picoseconds."""
        return self.at is None or picoseconds(self.at) < time

    def at_gateway(self, now: float) -> float | None:
        """Requests that the gateway held then, for want of a ready replica; None where that is too long ago."""
        if self.at is None or now - self.at > self._scraping.stale_after_seconds:
            return None
        return float(self._at_gateway)

    def samples(self, now: float, *, histograms: bool) -> dict[int, PodSample]:
        """By slot, what is shown of the pods that were ready then."""
        rows = self.rows
        if self.at is None or not len(rows) or now - self.at > self._scraping.stale_after_seconds:
            return {}
        shown: list[list[Distribution | None]] = [[None] * 4] * len(rows)
        if histograms:
            numbers = kernel_fleet.histograms(rows, self._columns, np.empty((len(rows), 4, 4)))
            shown = [
                [
                    Distribution(total, count, lower, low, upper, high)
                    for (total, count, low, high), (lower, upper) in zip(four, self._around, strict=True)
                ]
                for four in numbers.tolist()
            ]
        samples: dict[int, PodSample] = {}
        for slot, row in enumerate(rows[:, : kernel.SUM_SECONDS].tolist()):
            if row[kernel.STATE] != kernel.READY:
                continue
            if self._missed[slot]:
                # A scrape that fails ends a pod's series until the next that does not.
                samples[slot] = _NOTHING
                continue
            ttft, tpot, inter_token, queue_time = shown[slot]
            finished = float(row[kernel.FINISHED])
            samples[slot] = PodSample(
                self.at,
                SampleState.FRESH,
                float(row[kernel.RUNNING]),
                float(row[kernel.WAITING]),
                (),
                self._kv[slot],
                self._capacity,
                float(row[kernel.PROMPT_TOKENS]),
                float(row[kernel.GENERATION_TOKENS]),
                finished,
                finished + row[kernel.HANG_UPS],
                float(row[kernel.PREEMPTIONS]),
                float(row[kernel.ENGINE_STEPS]),
                ttft,
                tpot,
                inter_token,
                queue_time,
            )
            if self._broken[slot]:
                samples[slot] = replace(
                    samples[slot],
                    state=SampleState.NOT_A_NUMBER,
                    requests_running=None,
                    requests_waiting=None,
                    kv_cache_usage=None,
                )
        return samples
