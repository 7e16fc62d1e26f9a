"""Our re-implementation of KEDA v2.21.0 for whole ScaledObjects: its scale loop, fallback, modifiers, and its HPA.

Read: pkg/scaling/executor/scale_scaledobjects.go, pkg/scaling/scale_handler.go, pkg/fallback, pkg/scaling/modifiers,
pkg/scalers/prometheus_scaler.go and cron_scaler.go. Between none (or the idle number) and some it decides itself,
at its polling interval; above that it serves each trigger to an HPA. The ScaledObject is as old as the replay.
Left out: useCachedMetrics (values are always asked for), and push scalers.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from policies.scaling.cron import Schedule, is_within
from policies.scaling.decision import Decision
from policies.scaling.observation import Observation, PodStage
from simulations.model.fleet import View
from simulations.peers import reading
from simulations.peers.hpa import Hpa, HpaState, Proposal
from simulations.policy_files.evaluation import QueryFailedError, Vector, evaluate
from simulations.policy_files.formula import Formula, FormulaError
from simulations.policy_files.hpa_file import propose_total
from simulations.policy_files.measures import Measure
from simulations.policy_files.scrapes import Needs, Scrapes

FallbackBehavior = Literal[
    "static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower", "scalingModifiers"
]


@dataclass(frozen=True, slots=True)
class PrometheusTrigger:
    """A query, and what it is held against."""

    name: str
    measure: Measure
    activation_threshold: float = 0.0
    ignores_nothing: bool = True
    """`ignoreNullValues`: no answer, NaN and infinity are 0; else an error."""


@dataclass(frozen=True, slots=True)
class CronTrigger:
    """So many replicas between two schedules."""

    name: str
    measure: Measure
    """Its target is 1."""
    start: Schedule
    end: Schedule
    zone: dt.tzinfo
    replicas: int


Trigger = PrometheusTrigger | CronTrigger


@dataclass(frozen=True, slots=True)
class Fallback:
    """What is served for a trigger that failed more than `threshold` times in a row."""

    threshold: int
    replicas: int
    behavior: FallbackBehavior = "static"


@dataclass(frozen=True, slots=True)
class Modifiers:
    """One metric made of all triggers."""

    formula: Formula
    measure: Measure
    activation_target: float = 0.0


@dataclass(frozen=True, slots=True)
class ScaledObject:
    """What a file says, with KEDA's defaults."""

    triggers: tuple[Trigger, ...]
    max_replicas: int
    min_replicas: int = 0
    idle_replicas: int | None = None
    polling_seconds: float = 30.0
    cooldown_seconds: float = 300.0
    initial_cooldown_seconds: float = 0.0
    fallback: Fallback | None = None
    modifiers: Modifiers | None = None
    pauses_in: bool = False
    pauses_out: bool = False
    forces_activation: bool = False

    @property
    def rests_at(self) -> int:
        """Where it goes when no trigger is active."""
        return self.min_replicas if self.idle_replicas is None else self.idle_replicas

    @property
    def polls(self) -> bool:
        """Whether its own loop has anything to decide."""
        return self.min_replicas == 0 or self.idle_replicas is not None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one trigger answered: a number, or None with an error."""

    value: float | None
    active: bool = False


@dataclass(frozen=True, slots=True)
class WrittenKedaState:
    hpa: HpaState
    scrapes: Scrapes
    failures: tuple[int, ...]
    """In a row, a trigger each."""
    polled_at: float | None = None
    active_at: float | None = None
    hpa_reads: bool = False
    """Whether the HPA's last pass could read its metrics."""


@dataclass(frozen=True, slots=True)
class WrittenKeda:
    """KEDA with one ScaledObject."""

    scaled_object: ScaledObject
    hpa: Hpa
    needs: Needs
    starts_at: dt.datetime
    """Wall time of the trace's time 0."""

    @property
    def reads_histograms(self) -> View:
        return "whole" if self.needs.histograms else False

    def begin(self) -> WrittenKedaState:
        return WrittenKedaState(self.hpa.begin(), Scrapes(), (0,) * len(self.scaled_object.triggers))

    def decide(self, observation: Observation, state: WrittenKedaState) -> tuple[Decision, WrittenKedaState]:
        now = observation.time
        state = replace(state, scrapes=self.needs.scraped(state.scrapes, observation))
        if reading.due(now, state.polled_at, self.scaled_object.polling_seconds):
            asked = self._asked(now, state.scrapes)
            # Where only the HPA decides and can, the loop goes by what that has asked for, and asks nothing itself.
            follows = not self.scaled_object.polls and self.scaled_object.modifiers is None and state.hpa_reads
            failures = state.failures if follows else _counted(asked, state.failures)
            state = replace(state, polled_at=now, failures=failures)
            decision, state = self._polled(observation, asked, state)
            if decision is not None:
                return decision, state
        if observation.desired == 0:
            return reading.hold(observation, "no trigger is active"), state
        failures, reads = state.failures, state.hpa_reads

        def propose(seen: Observation) -> Proposal:
            nonlocal failures, reads
            asked = self._asked(now, state.scrapes)
            failures = _counted(asked, failures)
            proposal = self.hpa.greatest(seen, self._proposals(seen, asked, failures))
            reads = proposal is not None
            return proposal

        decision, hpa = self.hpa.follow(observation, state.hpa, propose)
        return decision, replace(state, hpa=hpa, failures=failures, hpa_reads=reads)

    def _polled(
        self, observation: Observation, asked: Sequence[_Asked], state: WrittenKedaState
    ) -> tuple[Decision | None, WrittenKedaState]:
        """What the scale loop does itself; None where it leaves the number to the HPA."""
        spec, now, current = self.scaled_object, observation.time, observation.desired
        fallen = self._fallen(observation, asked, state.failures)
        failed = any(each.value is None and not fell for each, fell in zip(asked, fallen, strict=True))
        if spec.modifiers is None:
            # A trigger that its fallback stands in for counts as active.
            active = any(each.active or fell for each, fell in zip(asked, fallen, strict=True))
        else:
            total = None if failed else self._composite(observation, asked, state.failures)
            active = total is not None and total > spec.modifiers.activation_target
        active = active or spec.forces_activation
        if active:
            if current == 0 or (spec.idle_replicas is not None and current < spec.min_replicas):
                if spec.pauses_out:
                    return None, state
                wake = max(1, spec.min_replicas)
                return reading.answer(observation, wake, "a trigger is active again"), replace(state, active_at=now)
            return None, state if failed else replace(state, active_at=now)
        if failed and (spec.fallback is None or spec.fallback.replicas != 0):
            return None, state
        if current > spec.rests_at and (spec.idle_replicas is not None or spec.min_replicas == 0):
            since = state.active_at
            quiet = now - (0.0 if since is None else since)
            over = quiet > (spec.initial_cooldown_seconds if since is None else spec.cooldown_seconds)
            if over and not spec.pauses_in:
                return reading.answer(observation, spec.rests_at, "no trigger was active for the cooldown"), state
        elif spec.idle_replicas is None and current < spec.min_replicas:
            return reading.answer(observation, spec.min_replicas, "fewer run than minReplicaCount"), state
        return None, state

    def _fallen(self, seen: Observation, asked: Sequence[_Asked], failures: Sequence[int]) -> list[bool]:
        """Of each trigger, whether its fallback stands in for it."""
        fallback = self.scaled_object.fallback
        if fallback is None:
            return [False] * len(asked)
        nil = fallback.behavior == "scalingModifiers"
        return [
            each.value is None
            and count > fallback.threshold
            and (nil or self._fallen_back(trigger.measure, seen) is not None)
            for trigger, each, count in zip(self.scaled_object.triggers, asked, failures, strict=True)
        ]

    def _asked(self, now: float, scrapes: Scrapes) -> list[_Asked]:
        return [self._answer(trigger, now, scrapes) for trigger in self.scaled_object.triggers]

    def _answer(self, trigger: Trigger, now: float, scrapes: Scrapes) -> _Asked:
        if isinstance(trigger, CronTrigger):
            wall = (self.starts_at + dt.timedelta(seconds=now)).astimezone(trigger.zone)
            within = is_within(trigger.start, trigger.end, wall)
            return _Asked(float(trigger.replicas) if within else 0.0, within)
        try:
            answer = evaluate(trigger.measure.tree, scrapes)
        except QueryFailedError:
            return _Asked(None)
        vector: Vector = answer if isinstance(answer, dict) else {(): answer}
        if len(vector) > 1:  # "returned multiple elements"
            return _Asked(None)
        value = next(iter(vector.values()), math.nan)
        if not math.isfinite(value):
            return _Asked(0.0, trigger.activation_threshold < 0) if trigger.ignores_nothing else _Asked(None)
        return _Asked(value, value > trigger.activation_threshold)

    def _proposals(self, seen: Observation, asked: Sequence[_Asked], failures: Sequence[int]) -> list[Proposal]:
        """What the HPA makes of each metric that KEDA serves."""
        spec = self.scaled_object
        if spec.modifiers is not None:
            return [self._of(spec.modifiers.measure, seen, self._composite(seen, asked, failures))]
        served = []
        for trigger, answer, failed in zip(spec.triggers, asked, failures, strict=True):
            value = answer.value
            if value is None and spec.fallback is not None and failed > spec.fallback.threshold:
                value = self._fallen_back(trigger.measure, seen)
            served.append(self._of(trigger.measure, seen, value))
        return served

    def _of(self, measure: Measure, seen: Observation, value: float | None) -> Proposal:
        if value is None or not math.isfinite(value):
            return None
        # KEDA prints three decimals; what is below zero it calls 0.
        return propose_total(self.hpa, measure, seen, round(float(f"{max(0.0, value):.3f}") * 1000))

    def _composite(self, seen: Observation, asked: Sequence[_Asked], failures: Sequence[int]) -> float | None:
        spec = self.scaled_object
        assert spec.modifiers is not None
        fallback = spec.fallback
        failed = [n for each, n in zip(asked, failures, strict=True) if each.value is None]
        if failed:
            if fallback is None:
                return None
            if fallback.behavior != "scalingModifiers":
                beyond = max(failed) > fallback.threshold
                return self._fallen_back(spec.modifiers.measure, seen) if beyond else None
            if min(failed) <= fallback.threshold:
                return None
        value = self._composed(asked, failures)
        if value is None and fallback is not None:
            return fallback.replicas * spec.modifiers.measure.target
        return value

    def _composed(self, asked: Sequence[_Asked], failures: Sequence[int]) -> float | None:
        modifiers = self.scaled_object.modifiers
        assert modifiers is not None
        values = {trigger.name: each.value for trigger, each in zip(self.scaled_object.triggers, asked, strict=True)}
        try:
            value = modifiers.formula.value(values)
        except FormulaError:
            return None
        return None if value is None else math.trunc(round(value * 1000, 6)) / 1000

    def _fallen_back(self, measure: Measure, seen: Observation) -> float | None:
        """The metric that makes the HPA ask for the fallback's replicas."""
        fallback = self.scaled_object.fallback
        assert fallback is not None
        replicas = float(fallback.replicas)
        match fallback.behavior:
            case "currentReplicas":
                replicas = float(seen.desired)
            case "currentReplicasIfHigher":
                replicas = max(replicas, float(seen.desired))
            case "currentReplicasIfLower":
                replicas = min(replicas, float(seen.desired))
            case "scalingModifiers":
                return None
            case "static":
                pass
        if measure.kind == "value":
            ready = seen.count(PodStage.READY)
            if ready == 0:
                return None
            replicas /= ready
        return measure.target * replicas


def _counted(asked: Sequence[_Asked], failures: Sequence[int]) -> tuple[int, ...]:
    return tuple(n + 1 if each.value is None else 0 for each, n in zip(asked, failures, strict=True))


@dataclass(frozen=True, slots=True)
class Refused:
    """An object that KEDA does not take: no HPA is made, and the number stays what it is."""

    why: str

    @property
    def reads_histograms(self) -> View:
        return False

    def begin(self) -> None:
        return None

    def decide(self, observation: Observation, state: None) -> tuple[Decision, None]:
        return reading.hold(observation, f"KEDA refuses the object ({self.why})"), None
