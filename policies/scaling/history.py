"""All that is remembered of a target, folded and bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from policies.scaling.decision import Decision
from policies.scaling.demand import LoadBin
from policies.scaling.observation import Observation

if TYPE_CHECKING:
    from policies.scaling.policy import ScalingPolicy


@dataclass(frozen=True, slots=True)
class History:
    """Empty at first; `then` adds a turn, `refilled` a past read back from a metrics store."""

    last: Observation | None = None

    def then(self, observation: Observation, decision: Decision, policy: ScalingPolicy) -> History:
        return replace(self, last=observation)

    def refilled(self, bins: Sequence[LoadBin], policy: ScalingPolicy) -> History:
        return self
