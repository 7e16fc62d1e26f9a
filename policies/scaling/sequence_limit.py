"""vLLM's `--max-num-seqs`, which no metric tells: seen where requests wait although the KV cache has room.

A request also waits for a step or two while long prompts are read, however few requests run. What tells the two apart
is that a limit is met at the same number again and again, and exceeded never.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from policies.scaling.observation import PodSample

ROOMY: Final = 0.8
"""KV cache in use up to which it is not the cache that requests wait for."""
LEAST: Final = 4.0
"""Fewer running at once is no limit that anybody sets on a GPU, and often met by chance."""
FEWEST_LOOKS: Final = 8


@dataclass(frozen=True, slots=True)
class SequenceLimit:
    """Looks at pods beside whose requests others waited for something else than the cache."""

    most: float = 0.0
    """Requests that any pod ever ran, with others waiting or without."""
    at_most: int = 0
    """Looks at which requests waited beside just so many."""
    below: int = 0
    """Looks since then at which they waited beside fewer."""

    def then(self, samples: Iterable[PodSample]) -> SequenceLimit:
        """With one look at each pod more."""
        most, at_most, below = self.most, self.at_most, self.below
        for sample in samples:
            running = sample.requests_running or 0.0
            if running > most:
                most, at_most, below = running, 0, 0
            if running <= 0 or (sample.requests_waiting or 0.0) < 1 or (sample.kv_cache_usage or 0.0) >= ROOMY:
                continue
            if running == most:
                at_most += 1
            else:
                below += 1
        return SequenceLimit(most, at_most, below)

    @property
    def requests(self) -> float | None:
        """The most that a pod runs at once; None while nothing shows that there is such a limit."""
        is_met = self.most >= LEAST and self.at_most >= FEWEST_LOOKS and self.at_most >= self.below
        return self.most if is_met else None
