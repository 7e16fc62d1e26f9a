"""`decide`: from what is seen and remembered to a number of replicas with its reasons."""

from __future__ import annotations

from dataclasses import dataclass

from policies.scaling.decision import Binding, Decision
from policies.scaling.history import History
from policies.scaling.observation import Observation
from policies.scaling.resource import Spec


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """Every number that judgement uses; all times are here, so that a story told slower is judged the same."""

    min_replicas: int
    max_replicas: int

    @classmethod
    def of(cls, spec: Spec, *, tick_seconds: float = 15.0) -> ScalingPolicy:
        return cls(spec.min_replicas, spec.max_replicas)


def decide(now: Observation, history: History, policy: ScalingPolicy) -> Decision:
    """How many replicas to ask for now."""
    return Decision(now.time, now.desired, now.desired, now.desired, Binding.HOLD, "holds")
