"""The mix of tensor-parallel sizes that fragmentation is measured for, learnt from a cluster's own pods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SIZES: Final = (1, 2, 4, 8)
FEWEST_PODS: Final = 20
"""Fewer say too little: the settings' own mix holds then."""
STEP: Final = 0.05
"""Shares are rounded to this, so that a pod more does not judge every node anew."""


def learnt_mix(pods_by_size: Mapping[int, int]) -> dict[int, float] | None:
    """Shares by size, summing to about 1; None where too few pods are known."""
    counts = {size: pods_by_size.get(size, 0) for size in SIZES}
    total = sum(counts.values())
    if total < FEWEST_PODS:
        return None
    return {size: round(round(count / total / STEP) * STEP, 2) for size, count in counts.items()}
