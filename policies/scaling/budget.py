"""How several targets share a number of GPUs: whoever has replicas keeps them, and what is left goes where a replica
saves most late requests for each GPU that it takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from policies.scaling.decision import Decision


@dataclass(frozen=True, slots=True)
class Claim:
    """What one target has of a budget, and what it would have more."""

    key: str
    gpus: int
    """That one replica takes."""
    kept: int
    """Replicas that it keeps whatever is wished: those asked for, and at least its fewest."""
    wanted: int = 0
    capacity: float | None = None
    """Requests/s that one replica bears within the objectives; None: not known, and its wishes come last."""
    load: float = 0.0
    """Requests/s that its wish is made for."""

    def saved(self, number: int) -> float:
        """Requests/s that its replica of this number keeps from being late; 0 for one that is not wanted."""
        if self.capacity is None or number > self.wanted:
            return 0.0
        return min(self.capacity, max(0.0, self.load - (number - 1) * self.capacity))


def claim(key: str, gpus: int, kept: int, decision: Decision | None, *, fewest: int, most: int) -> Claim:
    """Of a target that last decided so, None before its first turn; `fewest` and `most` are its bounds now."""
    if decision is None:
        return Claim(key, gpus, kept)
    wanted = min(max(decision.wanted, fewest), most)
    load = max(decision.demand or 0.0, decision.forecast.upper if decision.forecast else 0.0)
    if decision.capacity is not None and load <= (wanted - 1) * decision.capacity:
        # It is not what arrives that wants so many: requests wait or are slow already, or its owner said so.
        load = wanted * decision.capacity
    return Claim(key, gpus, kept, wanted, decision.capacity, load)


def shares(claims: Iterable[Claim], gpus: int) -> Mapping[str, int]:
    """Replicas of each, by its key: beyond what is kept no more than `gpus` in all, and for nobody more than wanted."""
    by_key = {each.key: each for each in sorted(claims, key=lambda each: each.key)}
    granted = {key: each.kept for key, each in by_key.items()}
    left = gpus - sum(each.gpus * each.kept for each in by_key.values())
    while True:
        next_ones = [
            (each.saved(granted[key] + 1) / each.gpus, key)
            for key, each in by_key.items()
            if granted[key] < each.wanted and each.gpus <= left
        ]
        if not next_ones:
            return granted
        # Of equals the first by name: whoever asks first must not matter.
        _, key = min(next_ones, key=lambda each: (-each[0], each[1]))
        granted[key] += 1
        left -= by_key[key].gpus


def most_of(key: str, claims: Iterable[Claim], gpus: int) -> int:
    """How many replicas the target of this key may have now: its share, and what nobody else wants."""
    claims = tuple(claims)
    granted = shares(claims, gpus)
    left = gpus - sum(each.gpus * granted[each.key] for each in claims)
    own = next(each for each in claims if each.key == key)
    return granted[key] + max(0, left) // own.gpus
