"""What happened between two observations: arrivals, tokens, hang-ups, and who kept the objectives.

vLLM has no counter of arrivals. They are rebuilt from what it does have, pod by pod:

- the HTTP layer counts every request that ends, also those whose client hung up, so
  `Δended + Δ(running + waiting)` is what arrived;
- without it, `Δfinished + Δ(running + waiting)` lacks the requests that were aborted, which vLLM counts nowhere.
  Let D = running + finished - first tokens, since the process began. Every running request either waits for its
  first token or has had it, so D = (prefilling now) - (aborted after the first token). Prefilling is never
  negative and often zero: the aborted ones are the greatest value that -D ever had, and what D rises above
  that is prefilling. Requests aborted while they waited show as a queue that shrinks without first tokens.

A counter below its previous value is a process begun anew, and counts from zero, where Kubernetes says so or it fell to
less than half: who has just begun has counted little. Else it is an older reading under a newer time, as of two
Prometheus behind one Service, each scraping at its own time: no measure, and the next is compared with the newest by
count. A ready pod that cannot be read is taken to do what the others do, as long as those are half of the fleet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from policies.scaling.observation import (
    Distribution,
    Interval,
    Observation,
    Pod,
    PodSample,
    PodStage,
    SampleState,
    counters,
)

BEGUN_ANEW: Final = 0.5
"""Of a counter that falls below this share of what it was, the process began anew, whatever Kubernetes says."""
ROUNDING: Final = 1e-9
"""By which share a sum of seconds differs with the order in which a server adds up engines."""


@dataclass(frozen=True, slots=True)
class LoadBin:
    """The load of one stretch of time as a metrics store yields it; rates are means over the stretch."""

    start: float
    seconds: float
    arrivals_per_second: float
    prompt_tokens_per_second: float
    generation_tokens_per_second: float


@dataclass(frozen=True, slots=True)
class HangUps:
    """What is carried from scrape to scrape of one pod to tell hang-ups from arrivals."""

    aborted: float
    """Estimated aborts after the first token since the process began."""
    owed: float = 0.0
    """Arrivals counted although they may yet turn out to have been hang-ups: taken off the next ones."""


@dataclass(frozen=True, slots=True)
class PodActivity:
    """One pod between two scrapes; numbers are requests, tokens and seconds, not rates."""

    seconds: float
    arrivals: float
    hung_up: float
    first_tokens: float
    finished: float
    prompt_tokens: float
    generation_tokens: float
    running: float
    """Mean of both scrapes."""
    waiting: float
    kv_tokens_used: float | None
    engine_steps: float | None
    inter_token_seconds: float
    """Σ of times between tokens."""
    inter_tokens: float
    within_ttft: Interval
    """How many of the `first_tokens` kept the objective."""
    tpot_count: float
    within_tpot: Interval
    hang_ups: HangUps

    def is_saturated(self, tpot_objective_seconds: float) -> bool:
        """Whether less was done, or is told to have been, than came: what arrived is the better measure then."""
        slow = self.inter_token_seconds > self.inter_tokens * tpot_objective_seconds
        untold = self.first_tokens > 0 and self.prompt_tokens + self.generation_tokens == 0
        return self.waiting >= 1 or slow or untold


@dataclass(frozen=True, slots=True)
class Activity:
    """One target between two observations; of ready pods that were not seen it is taken that they did as the others."""

    start: float
    seconds: float
    """Length of the stretch that the numbers cover: the mean over the pods seen of the time between scrapes."""
    arrivals: float
    hung_up: float
    first_tokens: float
    finished: float
    prompt_tokens: float
    generation_tokens: float
    running: float
    waiting: float
    trusted: bool
    """False when it spans a gap, or more than half of the ready pods were not seen: no measure of what happened."""
    whole: bool
    """Trusted, and every ready pod was seen."""
    pods: Mapping[str, PodActivity]
    hang_ups: Mapping[str, HangUps]
    """What is known of them by pod, as of now."""
    not_newer: frozenset[str]
    """Pods whose reading is no newer than the one before, by time or count: the next is compared with that one."""

    def saturated(self, tpot_objective_seconds: float) -> float:
        """Share of the pods that did less than came: requests waited, or tokens came slower than promised."""
        full = [pod.is_saturated(tpot_objective_seconds) for pod in self.pods.values()]
        return sum(full) / len(full) if full else 1.0

    @property
    def share_within_both(self) -> Interval | None:
        """Share of requests that kept both objectives: max(0, a + b - 1)…min(a, b); None without any."""
        return _both(*self._shares())

    @property
    def within_tpot(self) -> Interval:
        """How many requests kept the objective for time per output token, of `tpot_count`."""
        kept = [pod.within_tpot for pod in self.pods.values()]
        return Interval(sum(each.low for each in kept), sum(each.high for each in kept))

    @property
    def tpot_count(self) -> float:
        return sum(pod.tpot_count for pod in self.pods.values())

    def late_share(self, slow_between: float) -> float | None:
        """Share of requests taken to be late; None without any.

        Where buckets leave it open whose tokens were slow, `slow_between` of them were; else half of who is open.
        """
        ttft, tpot = self._shares()
        if tpot is not None:
            known = tpot.high - slow_between * (tpot.high - tpot.low)
            tpot = Interval(known, known)
        within = _both(ttft, tpot)
        return None if within is None else 1.0 - (within.low + within.high) / 2

    def _shares(self) -> tuple[Interval | None, Interval | None]:
        pods = self.pods.values()
        ttft = _share([pod.within_ttft for pod in pods], sum(pod.first_tokens for pod in pods))
        return ttft, _share([pod.within_tpot for pod in pods], self.tpot_count)


def activity(
    previous: Observation | None,
    now: Observation,
    *,
    hang_ups: Mapping[str, HangUps],
    max_gap_seconds: float,
) -> Activity | None:
    """What happened since the previous observation, None without one; `hang_ups` is by pod, as of then."""
    if previous is None or now.time <= previous.time:
        return None
    before = {pod.name: pod for pod in previous.pods}
    pods: dict[str, PodActivity] = {}
    # What was known of a process says nothing of the next one under its name.
    carried = {p.name: hang_ups[p.name] for p in now.pods if p.name in hang_ups and _is_same(before.get(p.name), p)}
    not_newer: set[str] = set()
    gap, unmeasured = now.time - previous.time > max_gap_seconds, 0
    for pod in now.pods:
        shows = pod.sample is not None and pod.sample.state.is_whole
        past = before.get(pod.name)
        baseline = _baseline(past, pod, previous.time) if shows else None
        if pod.sample is None or baseline is None:
            unmeasured += pod.stage is PodStage.READY
            continue
        fallen = _fallen(baseline, pod.sample)
        older = _is_older(baseline, pod.sample, fallen, same_process=past is None or _is_same(past, pod))
        elapsed = _number(pod.sample.time) - _number(baseline.time)
        unmeasured += older and pod.stage is PodStage.READY
        if (older or elapsed <= 0) and abs(elapsed) <= max_gap_seconds:
            not_newer.add(pod.name)
        elif older:
            # What lasts is no older reading: of several engines behind the pod one began anew. It counts from here on.
            carried.pop(pod.name, None)
        if older:
            continue
        done = pod_activity(baseline, pod.sample, hang_ups=carried.get(pod.name), anew=bool(fallen))
        if done is None:
            continue
        gap |= done.seconds > max_gap_seconds
        pods[pod.name], carried[pod.name] = done, done.hang_ups
    ready = now.count(PodStage.READY)
    trusted = not gap and 2 * unmeasured <= ready
    # Who is not seen counts as the mean of those who are: a load balancer does not know whom we can read.
    serving, measured = max(1, ready), max(1, ready - unmeasured)
    fleet, shown = serving / measured, serving / max(1, ready - len(now.unseen_ready_pods))
    # What pods that drain still do is of the same stretch: their time lengthens it by nothing.
    over = [pods[pod.name].seconds for pod in now.ready_pods if pod.name in pods]
    seconds = sum(over) / measured if ready else max((done.seconds for done in pods.values()), default=0.0)
    whole = [pod.sample for pod in now.pods if pod.sample and pod.sample.state.is_whole]
    arrivals = fleet * sum(done.arrivals for done in pods.values())
    hung_up = fleet * sum(done.hung_up for done in pods.values())
    if now.arrivals_total is not None and previous.arrivals_total is not None:
        routed = now.arrivals_total - previous.arrivals_total
        # Routers' totals never fall: less is a total that somebody else has begun, and tells nothing of what came.
        if routed >= 0:
            arrivals, seconds = routed, now.time - previous.time
    return Activity(
        start=previous.time,
        seconds=seconds,
        arrivals=arrivals,
        hung_up=hung_up,
        first_tokens=fleet * sum(done.first_tokens for done in pods.values()),
        finished=fleet * sum(done.finished for done in pods.values()),
        prompt_tokens=fleet * sum(done.prompt_tokens for done in pods.values()),
        generation_tokens=fleet * sum(done.generation_tokens for done in pods.values()),
        running=shown * sum(_number(sample.requests_running) for sample in whole),
        waiting=shown * sum(_number(sample.requests_waiting) for sample in whole),
        trusted=trusted,
        whole=trusted and not unmeasured,
        pods=pods,
        hang_ups=carried,
        not_newer=frozenset(not_newer),
    )


def pod_activity(
    before: PodSample, after: PodSample, *, hang_ups: HangUps | None, anew: bool = False
) -> PodActivity | None:
    """What one pod did between two samples; None where it was not scraped anew or lacks the numbers for it.

    `hang_ups` is as of `before`; None where the pod is looked at for the first time. `anew`: its process began since.
    """
    if after.time is None or before.time is None or after.time <= before.time:
        return None
    if after.requests_running is None or after.requests_waiting is None or after.ttft is None:
        return None
    seconds = after.time - before.time
    if anew:
        before, hang_ups = _zero(before.time), None
    carried = HangUps(max(0.0, -_prefilling_less_aborted(before))) if hang_ups is None else hang_ups
    first_tokens = _latency(before.ttft, after.ttft)[1]
    finished = _difference(before.requests_finished, after.requests_finished)
    change = (
        after.requests_running
        + after.requests_waiting
        - _number(before.requests_running)
        - _number(before.requests_waiting)
    )
    # D of the module's head; an abort shows when D falls lower than it ever was.
    aborted_now = max(carried.aborted, -_prefilling_less_aborted(after))
    by_engine = finished + change + (aborted_now - carried.aborted) - carried.owed
    ended = _ended(before, after)
    arrivals = by_engine if ended is None else ended + change
    # Who hung up behind one that still prefills shows only when that one has its first token: until then
    # arrivals read too low. At most as many are owed as had a first token and as may prefill now; a queue that left
    # is nobody's debt.
    hidden = min(_number(before.requests_running) + first_tokens, after.requests_running)
    owed = min(max(0.0, -by_engine), hidden) if ended is None else 0.0
    hung_up = max(0.0, arrivals - finished - change) + max(0.0, -arrivals)
    return PodActivity(
        seconds=seconds,
        arrivals=max(0.0, arrivals),
        hung_up=hung_up,
        first_tokens=first_tokens,
        finished=finished,
        prompt_tokens=_difference(before.prompt_tokens, after.prompt_tokens),
        generation_tokens=_difference(before.generation_tokens, after.generation_tokens),
        running=(after.requests_running + _number(before.requests_running)) / 2,
        waiting=(after.requests_waiting + _number(before.requests_waiting)) / 2,
        kv_tokens_used=_kv_tokens_used(before, after),
        engine_steps=None if after.engine_steps is None else _difference(before.engine_steps, after.engine_steps),
        inter_token_seconds=_latency(before.inter_token, after.inter_token)[0],
        inter_tokens=_latency(before.inter_token, after.inter_token)[1],
        within_ttft=within(before.ttft, after.ttft),
        tpot_count=_latency(before.tpot, after.tpot)[1],
        within_tpot=within(before.tpot, after.tpot),
        hang_ups=HangUps(aborted_now, owed),
    )


def within(before: Distribution | None, after: Distribution | None) -> Interval:
    """How many of the requests between two readings kept the objective: exact only if it lies on an edge."""
    if after is None:
        return Interval(0.0, 0.0)
    if before is not None and not _has_edges_of(before, after):
        return Interval(0.0, max(0.0, after.count - before.count))  # another objective was read then
    low = after.lower_count - (before.lower_count if before else 0.0)
    high = after.upper_count - (before.upper_count if before else 0.0)
    return Interval(max(0.0, low), max(0.0, low, high))


def _is_same(past: Pod | None, pod: Pod) -> bool:
    """Whether it is the process that was there at the last look, as far as Kubernetes knows."""
    return past is not None and (past.uid, past.restarts) == (pod.uid, pod.restarts)


def _baseline(before: Pod | None, pod: Pod, previous_time: float) -> PodSample | None:
    """The sample to count from: the one before, or zeros for a process begun since the last look."""
    if before is not None and before.sample is not None and before.sample.state.is_whole:
        return before.sample
    if before is None or before.sample is None:
        # Not serving when last looked at: what its counters show, they counted since then, and the share of
        # the fleet's arrivals that it had before was none.
        begun = pod.started_at if pod.ready_at is None else pod.ready_at
        if begun is not None and begun >= previous_time:
            return _zero(previous_time)
    return None


def _prefilling_less_aborted(sample: PodSample) -> float:
    first_tokens = sample.ttft.count if sample.ttft else 0.0
    return _number(sample.requests_running) + _number(sample.requests_finished) - first_tokens


def _zero(time: float) -> PodSample:
    return PodSample(time=time, state=SampleState.FRESH, requests_running=0.0, requests_waiting=0.0)


def _is_older(before: PodSample, after: PodSample, fallen: Sequence[float], *, same_process: bool) -> bool:
    """Whether what is read later shows less of something, and did not begin anew; `fallen` is of `_fallen`."""
    if fallen:
        return same_process and max(fallen) >= BEGUN_ANEW
    # Where only these fell, the answers to one look are of two scrapes.
    return (
        _shows_less(before.ttft, after.ttft)
        or _shows_less(before.tpot, after.tpot)
        or _shows_less(before.inter_token, after.inter_token)
    )


def _fallen(before: PodSample, after: PodSample) -> list[float]:
    """What is left of each counter that fell, as a share."""
    pairs = zip(counters(before), counters(after), strict=True)
    return [a / b for b, a in pairs if b is not None and a is not None and a < b]


def _has_edges_of(one: Distribution, other: Distribution) -> bool:
    return one.lower_edge_seconds == other.lower_edge_seconds and one.upper_edge_seconds == other.upper_edge_seconds


def _shows_less(before: Distribution | None, after: Distribution | None) -> bool:
    if before is None or after is None:
        return False
    if after.count < before.count or after.sum_seconds < before.sum_seconds * (1 - ROUNDING):
        return True
    fewer = after.lower_count < before.lower_count or after.upper_count < before.upper_count
    return fewer and _has_edges_of(before, after)


def _ended(before: PodSample, after: PodSample) -> float | None:
    """Requests that the HTTP layer saw end; None where it evidently does not see them all."""
    if after.http_requests_ended is None or after.requests_finished is None:
        return None
    if after.http_requests_ended < 0.98 * after.requests_finished:
        return None
    return max(0.0, after.http_requests_ended - _number(before.http_requests_ended))


def _kv_tokens_used(before: PodSample, after: PodSample) -> float | None:
    if after.kv_cache_usage is None or after.kv_cache_tokens is None:
        return None
    usage_before = after.kv_cache_usage if before.kv_cache_usage is None else before.kv_cache_usage
    return (after.kv_cache_usage + usage_before) / 2 * after.kv_cache_tokens


def _latency(before: Distribution | None, after: Distribution | None) -> tuple[float, float]:
    if after is None:
        return 0.0, 0.0
    if before is None:
        return after.sum_seconds, after.count
    return max(0.0, after.sum_seconds - before.sum_seconds), max(0.0, after.count - before.count)


def _share(kept: Sequence[Interval], count: float) -> Interval | None:
    if count <= 0:
        return None
    return Interval(min(1.0, sum(each.low for each in kept) / count), min(1.0, sum(each.high for each in kept) / count))


def _both(ttft: Interval | None, tpot: Interval | None) -> Interval | None:
    if ttft is None or tpot is None:
        return ttft or tpot
    return Interval(max(0.0, ttft.low + tpot.low - 1.0), min(ttft.high, tpot.high))


def _difference(before: float | None, after: float | None) -> float:
    return max(0.0, _number(after) - _number(before))


def _number(value: float | None) -> float:
    return 0.0 if value is None else value
