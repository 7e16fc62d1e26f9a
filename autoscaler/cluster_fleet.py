"""A target in a real cluster: Kubernetes shows its pods, Prometheus what they do, `scale` takes the number."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from time import time
from typing import Final, Protocol

from autoscaler.events import Announcement
from autoscaler.fleet import MetricsNotObservedError
from autoscaler.gpu_budgets import GpuBudgets
from autoscaler.nodes import Nodes
from autoscaler.together import Together
from cluster.errors import ClusterError, NotObservedError, WithheldError
from cluster.events import EventType
from cluster.objects import TargetState
from cluster.prometheus_history import LONGEST_SECONDS, HistoryTarget, Past
from cluster.prometheus_queries import PodAddress, TargetPods
from cluster.prometheus_readings import Reading
from policies.scaling.conflicts import ByHand, PutBacks
from policies.scaling.demand import LoadBin
from policies.scaling.observation import Kept, Observation, Pod, PodSample, PodStage, Room, SampleState
from policies.scaling.resource import Mode, OnConflict, ScaleTargetRef, VLLMAutoscaler
from policies.scaling.room import beside_waiting, narrowest
from policies.scaling.status import moment
from policies.scaling.victims import victims

log = logging.getLogger(__name__)

PASTS_GATHER_SECONDS: Final = 1.0
"""At start every target is looked up first, some of them for the first time."""

CHOOSING_SECONDS: Final = 1.0
"""How long a shrink waits until it is written who goes first."""

LONGEST_DRAIN_SECONDS: Final = 900.0
"""A pod that takes longer to end is stuck, on a node that is gone or by a finalizer, and holds no shrink up."""

Clock = Callable[[], float]
"""Unix seconds; a test's own may run faster."""


class Kubernetes(Protocol):
    """What a target needs of `cluster.kubernetes.Cluster`."""

    async def target(self, ref: ScaleTargetRef, namespace: str) -> TargetState: ...

    async def kept_available(self, namespace: str, own: Collection[str], desired: int) -> Kept | None: ...

    async def prefer_for_deletion(
        self, ref: ScaleTargetRef, namespace: str, own: Sequence[str], first: Sequence[str]
    ) -> None: ...

    async def scale(self, ref: ScaleTargetRef, namespace: str, *, expected: int, replicas: int) -> int: ...

    async def room(self, namespace: str, state: TargetState) -> Room | None: ...

    async def rivals(self, ref: ScaleTargetRef, namespace: str) -> Sequence[object]: ...

    async def event(
        self,
        ref: ScaleTargetRef,
        namespace: str,
        uid: str,
        reason: str,
        message: str,
        type_: EventType = EventType.NORMAL,
    ) -> None: ...


class Metrics(Protocol):
    """What a target needs of `cluster.prometheus.Prometheus`."""

    async def samples(
        self, targets: Mapping[str, TargetPods], now: float, *, previous: Mapping[str, Reading] | None = None
    ) -> Mapping[str, Reading]: ...

    async def load_history(
        self, targets: Mapping[str, HistoryTarget], until: float, *, seconds: float
    ) -> Mapping[str, Past]: ...


Readings = Together[tuple[TargetPods, Reading], Reading]
"""The readings of one Prometheus, asked for with what each target read before."""


def shared_readings(metrics: Metrics, *, clock: Clock = time) -> Readings:
    """One reading a tick for all targets of a Prometheus."""

    async def read(asked: Mapping[str, tuple[TargetPods, Reading]]) -> Mapping[str, Reading]:
        targets = {key: target for key, (target, _) in asked.items()}
        return await metrics.samples(targets, clock(), previous={key: past for key, (_, past) in asked.items()})

    return Together(read)


Pasts = Together[HistoryTarget, Past]
"""The pasts of the targets of one Prometheus, read back at start."""


def shared_pasts(metrics: Metrics, *, clock: Clock = time, seconds: float = LONGEST_SECONDS) -> Pasts:
    """One reading of the past for all targets of a Prometheus."""

    async def read(asked: Mapping[str, HistoryTarget]) -> Mapping[str, Past]:
        return await metrics.load_history(asked, clock(), seconds=seconds)

    return Together(read, gather_seconds=PASTS_GATHER_SECONDS)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Somebody else scales the target: in one word, and in a sentence with what to do."""

    reason: str
    sentence: str
    passing: bool = False
    """Done once, by a person: told and respected, and nothing that is yielded to."""


class ClusterFleet:
    """Satisfies `Fleet`."""

    def __init__(
        self,
        resource: VLLMAutoscaler,
        kubernetes: Kubernetes,
        readings: Readings,
        pasts: Pasts,
        *,
        nodes: Nodes | None = None,
        budgets: GpuBudgets | None = None,
        clock: Clock = time,
    ) -> None:
        """Without `nodes` nobody looks whether more pods would fit on any."""
        self._resource = resource
        self._ref = resource.spec.scale_target_ref
        self._namespace = resource.metadata.namespace
        self._kubernetes = kubernetes
        self._readings = readings
        self._pasts = pasts
        self._nodes = nodes
        self._budgets = budgets or GpuBudgets()
        self._clock = clock
        self._uid = ""
        self.conflict: Conflict | None = None
        """As of the last look; None where nobody else scales it."""
        self.by_hand: Conflict | None = None
        """What a person has set since our last write."""
        self._put_backs = PutBacks()
        self._by_hand = ByHand()
        self._seen: Observation | None = None
        self._told = ""
        """Why what must stay could last not be seen; told once."""
        readings.members += 1
        pasts.members += 1

    def close(self) -> None:
        """No longer be waited for by those that ask together with it."""
        self._readings.members -= 1
        self._pasts.members -= 1

    async def observe(self, previous: Observation | None) -> Observation:
        """The target as both servers show it now."""
        state = await self._kubernetes.target(self._ref, self._namespace)
        self._uid = state.uid
        await self._look_for_others(state)
        question = (self._asked(state), _reading_before(previous))
        unmeasured: NotObservedError | None = None
        try:
            reading = await self._readings.ask(self._resource.key, question)
        except NotObservedError as error:
            unmeasured = error
            reading = Reading({}, problems=(str(error),))
        seen = observation(self._clock(), state, reading)
        room, unseen = await self._room(state, seen)
        kept = await self._kept(state)
        # Last of all: what is left of a budget may be another's as soon as somebody else's turn goes on.
        self._budgets.saw(self._resource.key, state.desired, len(state.pods), state.gpus)
        room = narrowest(room, self._budgets.room(self._resource.key))
        self._seen = replace(seen, room=room, room_unseen=unseen, kept=kept)
        # At zero there is nothing to be measured, and who asks by name is heard all the same.
        if unmeasured and not self._rests(state):
            raise MetricsNotObservedError(str(unmeasured), self._seen) from unmeasured
        return self._seen

    async def scale(self, expected: int, replicas: int) -> None:
        """Ask for the replicas, provided that `expected` are still asked for."""
        spec = self._resource.spec
        if spec.paused:
            raise WithheldError("it is paused, until spec.paused is false again", kind="paused")
        if self.conflict and spec.on_conflict is OnConflict.YIELD:
            raise WithheldError(self.conflict.sentence, kind="conflict")
        self._budgets.asks(self._resource.key, replicas)
        if replicas < expected:
            await self._choose_victims(expected - replicas)
        try:
            await self._kubernetes.scale(self._ref, self._namespace, expected=expected, replicas=replicas)
        except NotObservedError:
            self._by_hand = ByHand()  # it may have been made all the same, and is then no stranger's
            raise
        self._put_backs = self._put_backs.wrote(expected, replicas, self._clock())
        self._by_hand = self._by_hand.wrote(replicas)

    async def _room(self, state: TargetState, seen: Observation) -> tuple[Room | None, str]:
        """What may exist, where it is we who would ask for it; and why it is not seen what fits on nodes."""
        spec = self._resource.spec
        if spec.mode is not Mode.ACTIVE:
            return None, ""
        by_nodes, unseen = None, ""
        if self._nodes is not None and spec.max_unschedulable is None:
            by_nodes, unseen = await self._nodes.room(self._namespace, state, seen, spec.max_replicas)
        by_quota = await self._kubernetes.room(self._namespace, state)
        return narrowest(by_quota, by_nodes, beside_waiting(seen, spec.max_unschedulable)), unseen

    def _rests(self, state: TargetState) -> bool:
        """Whether it is at zero as it may be."""
        return self._resource.spec.min_replicas == 0 and state.desired == 0 and not state.pods

    async def _kept(self, state: TargetState) -> Kept | None:
        """What must stay: all while pods still drain, or where what a budget keeps cannot be seen."""
        mode = self._resource.spec.mode
        if mode is Mode.FLOOR:
            return None  # what others take away is theirs to judge
        draining = sum(map(self._drains, state.pods))
        if draining:
            # What they do not end in time comes back to those that stay: whether these bear it shows only then.
            return Kept(state.desired, f"{draining} {'pod still drains' if draining == 1 else 'pods still drain'}")
        try:
            own = {pod.name for pod in state.pods}
            return await self._kubernetes.kept_available(self._namespace, own, state.desired)
        except ClusterError as error:
            if mode is Mode.SHADOW:
                return None
            if str(error) != self._told:
                self._told = str(error)
                log.warning("it will not shrink: %s", error, extra={"target": self._resource.key})
            return Kept(state.desired, str(error))

    def _drains(self, pod: Pod) -> bool:
        since = self._clock() if pod.terminating_at is None else pod.terminating_at
        return pod.stage is PodStage.TERMINATING and self._clock() - since < LONGEST_DRAIN_SECONDS

    async def _choose_victims(self, removed: int) -> None:
        """Have those go that do least; a shrink that cannot choose is a shrink all the same."""
        if self._seen is None:
            return
        own = [pod.name for pod in self._seen.pods]
        try:
            async with asyncio.timeout(CHOOSING_SECONDS):
                first = victims(self._seen, removed)
                await self._kubernetes.prefer_for_deletion(self._ref, self._namespace, own, first)
        except WithheldError:
            raise
        except (ClusterError, TimeoutError) as error:
            reason = str(error) or f"no answer within {CHOOSING_SECONDS:g} s"
            log.warning("it shrinks without saying whom: %s", reason, extra={"target": self._resource.key})

    async def _look_for_others(self, state: TargetState) -> None:
        """Who else scales it; in the modes in which another does so by design nobody is looked for."""
        spec = self._resource.spec
        if spec.mode is not Mode.ACTIVE:
            return
        try:
            rivals = await self._kubernetes.rivals(self._ref, self._namespace)
        except ClusterError:
            if spec.on_conflict is OnConflict.YIELD:
                raise
            rivals = ()
        now = self._clock()
        who = f"'{state.replicas_manager}'" if state.replicas_manager else "somebody"
        self._put_backs = self._put_backs.saw(state.desired, now)
        self._by_hand = ByHand() if rivals else self._by_hand.saw(state.desired, now)
        self.by_hand = self._told_of_hand(who, now)
        self.conflict = None
        if rivals:
            named = " and ".join(map(str, rivals))
            self.conflict = Conflict(
                "OtherAutoscaler",
                f"{named} scales it too: delete one of the two, or keep both with mode Publish or Floor",
            )
        elif self._put_backs.lasts(now):
            self.conflict = Conflict(
                "ReplicasPutBack",
                f"{who} keeps putting replicas back to {state.desired}: take `replicas` out of what it applies",
            )

    def _told_of_hand(self, who: str, now: float) -> Conflict | None:
        change = self._by_hand.change
        if change is None or change.at < now:
            return self.by_hand if change else None  # who owns the field later, as by an apply, did not scale
        told = f"{who} scaled from {change.before} to {change.after} at {moment(now)}, which is respected"
        return Conflict("ScaledByHand", f"{told}: decisions are made from it", passing=True)

    async def past(self) -> Sequence[LoadBin]:
        """The load of the last days, as far as Prometheus has it."""
        state = await self._kubernetes.target(self._ref, self._namespace)
        names = "|".join(pod.name.replace(".", "[.]") for pod in state.pods)
        pattern = state.pod_name_pattern or names
        if not pattern:
            return ()  # of a kind that fixes no names, without a pod: nothing says which series were its
        prometheus = self._resource.spec.prometheus
        asked = HistoryTarget(self._namespace, pattern, prometheus.arrivals, prometheus.labels)
        past = await self._pasts.ask(self._resource.key, asked)
        if past.problems and not past.bins:
            raise MetricsNotObservedError("; ".join(past.problems))
        for problem in past.problems:
            log.warning("its past was read in part: %s", problem, extra={"target": self._resource.key})
        return past.bins

    async def tell(self, said: Announcement) -> None:
        """Write an event on the target; one that is gone is still named."""
        type_ = EventType.WARNING if said.is_warning else EventType.NORMAL
        await self._kubernetes.event(self._ref, self._namespace, self._uid, said.reason, said.message, type_=type_)

    def _asked(self, state: TargetState) -> TargetPods:
        prometheus = self._resource.spec.prometheus
        return TargetPods(
            pods=[PodAddress(self._namespace, pod.name, state.pod_ips.get(pod.name, "")) for pod in state.pods],
            objectives=self._resource.spec.objectives,
            arrivals=prometheus.arrivals,
            labels=prometheus.labels,
            wake=self._resource.spec.wake.query if self._resource.spec.min_replicas == 0 else None,
        )


def observation(now: float, state: TargetState, reading: Reading) -> Observation:
    """Both views in one."""
    return Observation(
        time=now,
        desired=state.desired,
        pods=tuple(_with_sample(pod, reading.samples) for pod in state.pods),
        template=state.template,
        rolling=state.rolling,
        model_name=reading.model_name,
        arrivals_total=reading.arrivals_total,
        wake=reading.wake,
        problems=reading.problems,
    )


def _with_sample(pod: Pod, samples: Mapping[str, PodSample]) -> Pod:
    sample = samples.get(pod.name)
    if sample is not None and sample.state is SampleState.ABSENT and pod.stage is not PodStage.READY:
        return pod  # nothing is expected of it yet
    return replace(pod, sample=sample)


def _reading_before(previous: Observation | None) -> Reading:
    """What the last look said, from which idleness and loss are told."""
    if previous is None:
        return Reading({})
    return Reading({pod.name: pod.sample for pod in previous.pods if pod.sample})
