"""Under what conditions a simulated fleet serves: all that is neither the trace, the engine nor the policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from simulations.model.cold_start import ColdStart
from simulations.model.engine import Engine

Router = Literal["least-outstanding", "round-robin", "random", "two-choices"]
"""To which ready replica a request goes: to that which holds the fewest; to each in turn; to any; to the one of two
drawn that holds the fewer."""
Scheduling = Literal["fcfs", "priority"]
"""vLLM's --scheduling-policy."""

LONGEST_PATIENCE_SECONDS = 50 * 86_400.0
"""Of a client, over all its attempts: 64 bits of picoseconds hold 106 days, and the trace may be as long."""
GREATEST_SEED = 2**63 - 1


class ConditionsError(ValueError):
    """A fleet cannot serve so; the message names the setting and the remedy."""


def _at_least(what: str, value: float, least: float) -> None:
    if not least <= value < math.inf:
        raise ConditionsError(f"{what} is {value:g}: it must be at least {least:g}")


def _share(what: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConditionsError(f"{what} is {value:g}: give a share from 0 to less than 1")


@dataclass(frozen=True, slots=True)
class Scraping:
    """How Prometheus reads the pods."""

    interval_seconds: float = 15.0
    """0: values are those of the very instant they are looked at."""
    offset_seconds: float = 0.0
    """When the first scrape is."""
    missed_share: float = 0.0
    """Of a pod's scrapes, those that fail: until the next one nothing is shown of it."""
    nan_share: float = 0.0
    """Of a pod's scrapes, those whose gauges are not a number."""
    stale_after_seconds: float = 300.0
    """What was scraped longer ago is not shown any more: Prometheus's lookback."""

    def __post_init__(self) -> None:
        _at_least("the scrape interval", self.interval_seconds, 0.0)
        _at_least("the scrape offset", self.offset_seconds, 0.0)
        _share("the share of missed scrapes", self.missed_share)
        _share("the share of scrapes that are not a number", self.nan_share)
        if not self.stale_after_seconds >= self.interval_seconds:
            raise ConditionsError(
                f"what was scraped is stale after {self.stale_after_seconds:g} s, which must not be less than the "
                f"scrape interval ({self.interval_seconds:g} s)"
            )


@dataclass(frozen=True, slots=True)
class Rollout:
    """Another pod template from a time on, as of a new version of the model.

    Each replica that is created from then on runs the new engine. The others are replaced as a Deployment does it with
    `maxUnavailable: 0`: `max_surge` more than are asked for are created, and an old one goes for each that is ready.
    Where no GPU is free for those, it waits, as there.
    """

    at_seconds: float
    engine: Engine
    """Its KV cache and GPUs are those of the engine that it replaces."""
    max_surge: int = 1

    def __post_init__(self) -> None:
        _at_least("the rollout's time", self.at_seconds, 0.0)
        if self.max_surge < 1:
            raise ConditionsError(f"the rollout's max_surge is {self.max_surge}: it must be at least 1")


@dataclass(frozen=True, slots=True)
class Shortage:
    """A time in which the cluster has no GPU to spare.

    Whoever is created meanwhile waits for its end, also one who would take the place of another that goes.
    """

    at_seconds: float
    seconds: float

    def __post_init__(self) -> None:
        _at_least("the shortage's time", self.at_seconds, 0.0)
        _at_least("the shortage's length", self.seconds, 0.0)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a fleet serves under; the defaults are an undisturbed cluster with room for every replica."""

    cold_start: ColdStart
    scraping: Scraping = Scraping()
    router: Router = "least-outstanding"
    replica_slots: int | None = None
    """How many replicas the cluster's free GPUs hold; None: as many as are asked for."""
    shortage: Shortage | None = None
    """None: GPUs are to be had throughout, as far as `replica_slots` goes."""
    grace_seconds: float | None = None
    """A removed replica that still answers after so long is killed, and what it held begins anew elsewhere, with
    its first token yet to come.
    None: it answers all it holds, however long that takes."""
    client_timeout_seconds: float | None = None
    """A client without its first token for so long hangs up. None: clients wait for ever."""
    client_retries: int = 0
    """How often a client that hung up asks again, at once."""
    scheduling: Scheduling = "fcfs"
    """`priority` reads the trace's priorities, the least number first."""
    prefix_cache: bool = False
    """Whether replicas keep the KV blocks of prompts they have answered; needs a trace that tells its blocks."""
    spot_losses_per_hour: float = 0.0
    """How often, on average, a replica's node is taken away in an hour of its life, without notice."""
    rollout: Rollout | None = None
    """None: every replica runs the one engine throughout."""
    seed: int = 0
    """Of all chance: cold starts, spot losses, missed scrapes, random routers."""

    def __post_init__(self) -> None:
        if self.replica_slots is not None and self.replica_slots < 1:
            raise ConditionsError(f"replica_slots is {self.replica_slots}: give at least 1, or None for no limit")
        if self.grace_seconds is not None:
            _at_least("the grace", self.grace_seconds, 0.0)
        if self.client_timeout_seconds is not None and not 0 < self.client_timeout_seconds < math.inf:
            raise ConditionsError(f"the client timeout is {self.client_timeout_seconds:g}: give seconds, more than 0")
        if self.client_retries < 0:
            raise ConditionsError(f"client_retries is {self.client_retries}: it must be at least 0")
        if self.client_retries and self.client_timeout_seconds is None:
            raise ConditionsError("client_retries needs client_timeout_seconds: without it nobody hangs up")
        patience = (self.client_timeout_seconds or 0.0) * (1 + self.client_retries)
        if patience > LONGEST_PATIENCE_SECONDS:
            raise ConditionsError(
                f"a client waits for {patience:g} s, the timeout times its attempts: give a client timeout with which "
                f"that is at most {LONGEST_PATIENCE_SECONDS:.0f} s, or none where clients wait for ever"
            )
        _at_least("the number of spot losses an hour", self.spot_losses_per_hour, 0.0)
        if self.seed < 0:
            raise ConditionsError(f"seed is {self.seed}: it must be at least 0")
        if self.seed > GREATEST_SEED:
            raise ConditionsError(f"seed is {self.seed}: it must be at most {GREATEST_SEED}")
