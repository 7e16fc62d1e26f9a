"""How long a replica takes from the node that has room for it until it serves.

Draws are made from the seed and the replica's number, so two policies that create their n-th replica at different
times wait for it equally long, but where cold starts change meanwhile: what differs between them is what they decided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


class ColdStartError(ValueError):
    """A cold start cannot be; the message names the setting and the remedy."""


def _checked(setting: str, seconds: float) -> None:
    if not 0 <= seconds < math.inf:
        raise ColdStartError(f"{setting} is {seconds:g}: give seconds, at least 0")


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same."""

    seconds: float

    def __post_init__(self) -> None:
        _checked("the cold start", self.seconds)

    def draw(self, rng: np.random.Generator, at_seconds: float) -> float:
        return self.seconds


@dataclass(frozen=True, slots=True)
class Jittered:
    """Evenly spread over ± `jitter_seconds` around its mean."""

    seconds: float
    jitter_seconds: float

    def __post_init__(self) -> None:
        _checked("the cold start", self.seconds)
        _checked("the cold start's jitter", self.jitter_seconds)
        if self.jitter_seconds > self.seconds:
            raise ColdStartError(
                f"the cold start's jitter ({self.jitter_seconds:g} s) must not exceed "
                f"the cold start ({self.seconds:g} s)"
            )

    def draw(self, rng: np.random.Generator, at_seconds: float) -> float:
        return self.seconds + self.jitter_seconds * (2 * rng.random() - 1)


@dataclass(frozen=True, slots=True)
class Sampled:
    """Any of the cold starts that were measured, each as likely as the others."""

    samples_seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.samples_seconds:
            raise ColdStartError("there is no measured cold start: give at least one")
        for sample in self.samples_seconds:
            _checked("a measured cold start", sample)

    def draw(self, rng: np.random.Generator, at_seconds: float) -> float:
        return self.samples_seconds[int(rng.random() * len(self.samples_seconds))]


@dataclass(frozen=True, slots=True)
class Changing:
    """One until a time, another for each replica that is given its node from then on."""

    first: OneStart
    then: OneStart
    from_seconds: float

    def __post_init__(self) -> None:
        _checked("the time from which cold starts change", self.from_seconds)

    def draw(self, rng: np.random.Generator, at_seconds: float) -> float:
        return (self.first if at_seconds < self.from_seconds else self.then).draw(rng, at_seconds)


@dataclass(frozen=True, slots=True)
class WarmAndColdNodes:
    """Short on a node that has the image and the weights, long on one that is made first.

    `warm_nodes` have them from time 0; a node on which a replica was ready has them from then on, for
    `kept_seconds` after the replica is gone. A replica takes a warm node where one is free.
    """

    warm: OneStart
    cold: OneStart
    warm_nodes: int = 0
    kept_seconds: float = math.inf

    def __post_init__(self) -> None:
        if self.warm_nodes < 0:
            raise ColdStartError(f"warm_nodes is {self.warm_nodes}: it must be at least 0")
        if not self.kept_seconds >= 0:
            raise ColdStartError(f"a node is kept for {self.kept_seconds:g} s: give seconds, at least 0")


OneStart = Constant | Jittered | Sampled | Changing
"""Whatever the node."""
ColdStart = OneStart | WarmAndColdNodes
