"""Whether a target may rest at no replicas: nothing was asked of it for so long, and nobody asks now.

Idle is what was watched being idle. It takes that every ready pod shows, scrape after scrape, that it is up, that all
its counters stand still and that nothing runs or waits; a look that lacks anything begins the count anew, as does a
new program, which has watched nothing yet. While no pod is ready the count does not begin: nobody could have asked.

At zero no pod tells of anything. What wakes it then is told beside the pods: the answer to a query, a router's
counter, or somebody who asks for it by name. Who has asked is remembered for as long as idleness is watched, so that a
wake which could not be written at once is not lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.scaling.demand import Activity
from policies.scaling.observation import Observation, SampleState
from policies.scaling.sight import blind


@dataclass(frozen=True, slots=True)
class Idleness:
    """What is remembered of being asked, in unix seconds; empty of a target that was not watched yet."""

    quiet_since: float | None = None
    """Since when all that could be asked was seen to be idle; None while it is not."""
    quiet_until: float | None = None
    """As of the oldest sample of the newest look."""
    asked_at: float | None = None
    asked_by: str = ""
    """How it was asked last, in words."""

    def then(self, now: Observation, done: Activity | None) -> Idleness:
        """With one look more."""
        asked_at, asked_by = self.asked_at, self.asked_by
        if now.asked_at is not None and now.asked_at > (asked_at or float("-inf")):
            asked_at, asked_by = now.asked_at, "POST /wake"
        if by := _asked_by(now, done):
            return Idleness(asked_at=now.time, asked_by=by)
        if asked_at != self.asked_at or not _is_idle(now, done):
            return Idleness(asked_at=asked_at, asked_by=asked_by)
        until = min(pod.sample.time or now.time for pod in now.ready_pods if pod.sample)
        since = now.time if self.quiet_since is None else self.quiet_since
        return Idleness(since, until, asked_at, asked_by)

    def rests(self, now: Observation, idle_seconds: float) -> bool:
        """Whether there need be no replica; where none is asked for already, that is so unless somebody has asked."""
        if now.desired == 0:
            return self.asked_at is None or now.time - self.asked_at >= idle_seconds
        return self.quiet_seconds >= idle_seconds

    @property
    def quiet_seconds(self) -> float:
        """For how long idleness was watched, up to the oldest sample."""
        if self.quiet_since is None or self.quiet_until is None:
            return 0.0
        return max(0.0, self.quiet_until - self.quiet_since)


def _asked_by(now: Observation, done: Activity | None) -> str:
    """What shows that something is asked of it, "" if nothing does; a doubtful sample is evidence enough."""
    if now.wake is not None and now.wake > 0:
        return "the wake query"
    samples = [pod.sample for pod in now.pods if pod.sample]
    if any((sample.requests_running or 0.0) + (sample.requests_waiting or 0.0) > 0 for sample in samples):
        return "requests in its pods"
    if done is not None and done.arrivals + done.first_tokens + done.finished > 0:
        return "requests that came"
    return ""


def _is_idle(now: Observation, done: Activity | None) -> bool:
    if blind(now, done) or not now.ready_pods:
        return False
    return all(pod.sample is not None and pod.sample.state is SampleState.IDLE for pod in now.ready_pods)
