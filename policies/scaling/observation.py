"""What a target shows at one instant: its pods, their stages, and what each pod's metrics read.

Counters are carried as read (cumulative), never as rates: what happened between two instants is the
difference of two observations, taken in `policies.scaling.demand`, so that a live fleet and a simulated one
are judged from the very same numbers. A number that was not shown is None; it is never zero.
Times are unix seconds, shares and usages lie in 0…1.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class SampleState(StrEnum):
    """How far a pod's sample can be believed."""

    FRESH = "fresh"
    STALE = "stale"
    """Older than the policy allows; `PodSample.time` says how old."""
    ABSENT = "absent"
    """The pod is there, its metrics are not."""
    NOT_A_NUMBER = "not-a-number"
    """A value that must be a finite number is not."""
    PARTIAL = "partial"
    """The server answered with a warning, or without some of the series it showed before."""
    IDLE = "idle"
    """Fresh, and nothing to do by evidence: `up` is 1, every counter flat, every gauge 0."""

    @property
    def is_whole(self) -> bool:
        """Whether a decision to shrink may rest on it."""
        return self in (SampleState.FRESH, SampleState.IDLE)


@dataclass(frozen=True, slots=True)
class Interval:
    """A number known only between two bounds, both included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """A latency histogram as read: its sum, its count, and the two buckets around the objective.

    `lower_edge_seconds` is the greatest bucket edge ≤ the objective (0 if there is none) and
    `upper_edge_seconds` the smallest one ≥ it (inf if there is none); they are equal when the objective
    lies on an edge. `*_count` are cumulative counts of observations ≤ that edge.
    """

    sum_seconds: float
    count: float
    lower_edge_seconds: float
    lower_count: float
    upper_edge_seconds: float
    upper_count: float


@dataclass(frozen=True, slots=True)
class PodSample:
    """One pod's vLLM metrics at one scrape; several engines of one pod are summed, KV use is the highest."""

    time: float | None
    """When the server scraped it; None when it shows nothing at all."""
    state: SampleState
    requests_running: float | None = None
    requests_waiting: float | None = None
    waiting_by_reason: tuple[tuple[str, float], ...] = ()
    kv_cache_usage: float | None = None
    kv_cache_tokens: float | None = None
    """Capacity of the KV cache, in tokens."""
    prompt_tokens: float | None = None
    generation_tokens: float | None = None
    requests_finished: float | None = None
    http_requests_ended: float | None = None
    """Requests the HTTP layer saw end in any way, clients that hung up included."""
    preemptions: float | None = None
    engine_steps: float | None = None
    ttft: Distribution | None = None
    tpot: Distribution | None = None
    """A request's mean time per output token; of releases without it, the time between tokens."""
    inter_token: Distribution | None = None
    queue_time: Distribution | None = None


class PodStage(StrEnum):
    """How far a pod has come."""

    CREATED = "created"
    UNSCHEDULABLE = "unschedulable"
    """The scheduler has said that no node takes it: it counts as nothing until it is bound."""
    SCHEDULED = "scheduled"
    STARTING = "starting"
    """Its container runs; vLLM loads."""
    READY = "ready"
    TERMINATING = "terminating"


BOOTING: Final = (PodStage.CREATED, PodStage.SCHEDULED, PodStage.STARTING)
"""On its way to ready, as far as is known."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the target with the times of its stages; a stage not reached is None."""

    name: str
    stage: PodStage
    created_at: float
    scheduled_at: float | None = None
    started_at: float | None = None
    ready_at: float | None = None
    terminating_at: float | None = None
    uid: str = ""
    template: str = ""
    """Hash of the pod template it was made from (`pod-template-hash`, `controller-revision-hash`)."""
    restarts: int = 0
    sample: PodSample | None = None
    """None while nothing is expected of it (not ready) or nothing was asked."""


class Limit(StrEnum):
    """What keeps a target from more replicas, where it is not the resource itself."""

    QUOTA = "QuotaExhausted"
    NODES = "NoNodeFits"
    BUDGET = "BudgetExhausted"
    WAITING = "Unschedulable"
    """As many wait for a node as may."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many replicas may exist in all, by a limit that is not the resource's own, and which one says so."""

    replicas: int
    reason: str
    limit: Limit = Limit.QUOTA
    takes_back: bool = False
    """What exists beyond it serves nobody, so it is taken back; else it stays."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What must stay of a target, whatever is wished."""

    replicas: int
    reason: str
    """Who says so, in a clause."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One target at one instant."""

    time: float
    desired: int
    """`spec.replicas` of the scale that the decision will be made from."""
    pods: tuple[Pod, ...]
    """Sorted by name on the way in: no judgement, and no sum of floats, depends on the order of an answer."""
    template: str = ""
    """Template of the newest revision; "" when unknown."""
    rolling: bool = False
    """A rollout is in progress: surge and old pods serve only while ready, and nothing shrinks."""
    model_name: str = ""
    arrivals_total: float | None = None
    """Cumulative requests by a router's counter, where the resource names one."""
    room: Room | None = None
    """The narrowest limit outside of the resource, such as a quota; None where none is known."""
    room_unseen: str = ""
    """Why it is not seen whether more replicas would fit on nodes, so that this limits nothing; "" where it is, or is
    no matter.
    """
    problems: tuple[str, ...] = ()
    """What could not be seen or only in part, one sentence each; with any, nothing shrinks."""
    kept: Kept | None = None
    """No shrink goes below; None where nothing says so."""
    wake: float | None = None
    """What the wake query answers, more than 0 where somebody asks; None where none is stated or it has no answer."""
    asked_at: float | None = None
    """When somebody last asked by name that it be awake, unix seconds; None if nobody has."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pods", tuple(sorted(self.pods, key=lambda pod: pod.name)))

    def count(self, *stages: PodStage) -> int:
        return sum(pod.stage in stages for pod in self.pods)

    @property
    def ready_pods(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.pods if pod.stage is PodStage.READY)

    @property
    def ready_samples(self) -> tuple[PodSample, ...]:
        """What the ready pods show that can be believed."""
        return tuple(p.sample for p in self.ready_pods if p.sample is not None and p.sample.state.is_whole)

    @property
    def requests_waiting(self) -> float:
        """Over all pods that show it, terminating ones included: the work is there whoever does it."""
        return sum(p.sample.requests_waiting or 0.0 for p in self.pods if p.sample)

    @property
    def unseen_ready_pods(self) -> tuple[str, ...]:
        """Names of ready pods without a whole sample."""
        return tuple(p.name for p in self.ready_pods if p.sample is None or not p.sample.state.is_whole)


def carried(now: Observation, before: Observation | None, longest_seconds: float) -> Observation:
    """With the newest whole sample of every ready pod that shows none now, as long as it is no older than that.

    A scrape that failed says no less than one that was never due.
    """
    if before is None or not now.unseen_ready_pods:
        return now
    shown = {pod.name: pod for pod in before.pods if pod.sample is not None and pod.sample.state.is_whole}

    def of(pod: Pod) -> Pod:
        last = shown.get(pod.name)
        if last is None or pod.stage is not PodStage.READY or (pod.sample and pod.sample.state.is_whole):
            return pod
        assert last.sample is not None
        taken_at = last.sample.time
        same = (last.uid, last.restarts) == (pod.uid, pod.restarts)
        fresh = taken_at is not None and 0 <= now.time - taken_at <= longest_seconds
        absent = pod.sample is None or pod.sample.state is SampleState.ABSENT
        return replace(pod, sample=last.sample) if same and fresh and absent else pod

    return replace(now, pods=tuple(map(of, now.pods)))


def with_samples_of(before: Observation, names: Collection[str], now: Observation) -> Observation:
    """With what these pods showed before, if they did."""
    if not names:
        return now
    shown = {pod.name: pod.sample for pod in before.pods if pod.name in names and pod.sample}
    return replace(now, pods=tuple(replace(p, sample=shown[p.name]) if p.name in shown else p for p in now.pods))


def counters(sample: PodSample) -> tuple[float | None, ...]:
    """The cumulative readings whose standing still is evidence of idleness."""
    return (
        sample.prompt_tokens,
        sample.generation_tokens,
        sample.requests_finished,
        sample.http_requests_ended,
        sample.ttft.count if sample.ttft else None,
    )


def with_idleness(sample: PodSample, previous: PodSample | None, *, up: bool) -> PodSample:
    """The sample, IDLE where the evidence says so: scraped, counters as before, nothing running or waiting."""
    if (
        sample.state is SampleState.FRESH
        and up
        and previous is not None
        and sample.requests_running == 0
        and sample.requests_waiting == 0
        and counters(sample) == counters(previous)
    ):
        return replace(sample, state=SampleState.IDLE)
    return sample
