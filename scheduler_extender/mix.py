"""The mix of tensor-parallel sizes that fragmentation is measured for, learnt from a cluster's own pods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SIZES: Final = (1, 2, 4, 8)
FEWEST_PODS: Final = 20
"""Fewer say too little: the settings' own mix holds then."""
STEPS: Final = 20
"""Shares are told in so many parts of the whole, so that a pod more does not judge every node anew."""


def learnt_mix(pods_by_size: Mapping[int, int]) -> tuple[tuple[int, float], ...] | None:
    """Shares by size, summing to 1; None where too few pods are known."""
    counts = {size: pods_by_size.get(size, 0) for size in SIZES}
    total = sum(counts.values())
    if total < FEWEST_PODS:
        return None
    parts = {size: count * STEPS // total for size, count in counts.items()}
    # What rounding down left over goes to those that it took most from.
    by_loss = sorted(SIZES, key=lambda size: counts[size] * STEPS % total, reverse=True)
    for size in by_loss[: STEPS - sum(parts.values())]:
        parts[size] += 1
    return tuple((size, part / STEPS) for size, part in parts.items())
