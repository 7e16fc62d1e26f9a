"""Observations made by hand, and a story told to a peer: exact, without chance, without a simulated fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from policies.scaling.decision import Decision
from policies.scaling.observation import Distribution, Observation, Pod, PodSample, PodStage, SampleState
from policies.scaling.resource import Objectives
from simulations.model.engine import Engine, StepTime
from simulations.peers import peer
from simulations.replay import Policy
from tests.policies.scaling.story import FIXED_SECONDS, SECONDS_PER_SEQUENCE, Story, policy

OBJECTIVES = Objectives(ttft_seconds=2.5, tpot_seconds=0.1)
ENGINE = Engine(
    "made by hand",
    StepTime(a=25.0, b=0.0, c=1.5 / 1100, d=0.001, e=0.0),
    kv_tokens=100_000,
    max_num_seqs=60,
    max_num_batched_tokens=2048,
)
KV_TOKENS = float(ENGINE.kv_tokens)


def named(spec: str, *, least: int = 1, most: int = 100, engine: Engine = ENGINE) -> Policy[Any]:
    return peer(spec, objectives=OBJECTIVES, min_replicas=least, max_replicas=most, tick_seconds=15.0, engine=engine)


def pod(name: str, time: float, **readings: Any) -> Pod:
    """A ready one with fresh readings."""
    sample = PodSample(time, SampleState.FRESH, **{"kv_cache_tokens": KV_TOKENS, **readings})
    return Pod(name, PodStage.READY, 0.0, 0.0, 0.0, 0.0, uid=name, sample=sample)


def seen(
    time: float,
    shown: Iterable[Mapping[str, Any]],
    *,
    desired: int | None = None,
    silent: int = 0,
    booting: int = 0,
    arrivals_total: float | None = None,
) -> Observation:
    """Ready pods with these readings, ready ones that show nothing, and some that boot."""
    pods = [pod(f"pod-{place:03d}", time, **readings) for place, readings in enumerate(shown)]
    absent = PodSample(None, SampleState.ABSENT)
    pods += [Pod(f"silent-{i}", PodStage.READY, 0.0, 0.0, 0.0, 0.0, sample=absent) for i in range(silent)]
    pods += [Pod(f"young-{i}", PodStage.STARTING, time) for i in range(booting)]
    count = len(pods) if desired is None else desired
    return Observation(time, count, tuple(pods), arrivals_total=arrivals_total)


def in_flight(running: float, waiting: float = 0.0) -> dict[str, float]:
    return {"requests_running": running, "requests_waiting": waiting}


def decisions(peer_: Policy[Any], observations: Iterable[Observation]) -> list[Decision]:
    """One after the other, the state handed on."""
    state = peer_.begin()
    made = []
    for observation in observations:
        decision, state = peer_.decide(observation, state)
        made.append(decision)
    return made


def replicas(peer_: Policy[Any], observations: Iterable[Observation]) -> list[int]:
    return [decision.replicas for decision in decisions(peer_, observations)]


def held(
    peer_: Policy[Any], shown: Callable[[float], Mapping[str, Any]], *, start: int, seconds: float, tick: float = 15.0
) -> list[int]:
    """A fleet whose every pod shows the same and whose new pods are ready at once, told tick by tick."""
    state, desired, made = peer_.begin(), start, []
    for place in range(round(seconds / tick) + 1):
        now = place * tick
        decision, state = peer_.decide(seen(now, [shown(now)] * desired), state)
        desired = decision.replicas
        made.append(desired)
    return made


@dataclass
class Told(Story):
    """A story of flowing requests ruled by a peer; histograms get sums, which the peers read and our policy not."""

    peer: Any = None
    state: Any = None
    waited: dict[str, float] = field(default_factory=dict)
    """Summed seconds: of waiting for a first token by a server's name, of a token by its name and "/tpot"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.state = self.peer.begin()

    def _flow(self, tick: float) -> None:
        before = {server.name: server.finished for server in self.servers}
        super()._flow(tick)
        for server in self.servers:
            step = FIXED_SECONDS + SECONDS_PER_SEQUENCE * server.running
            done = server.finished - before.get(server.name, 0.0)
            self.waited[server.name] = self.waited.get(server.name, 0.0) + server.waiting * tick
            self.waited[f"{server.name}/tpot"] = self.waited.get(f"{server.name}/tpot", 0.0) + done * step

    def _turn(self) -> None:
        shown = self._observation()
        shown = replace(shown, pods=tuple(self._with_sums(each) for each in shown.pods))
        decision, self.state = self.peer.decide(shown, self.state)
        self.observations.append(shown)
        self.decisions.append(decision)
        self._scale(max(1, min(40, decision.replicas)))

    def _with_sums(self, each: Pod) -> Pod:
        if each.sample is None or each.sample.ttft is None or each.sample.tpot is None:
            return each
        ttft, tpot = each.sample.ttft, each.sample.tpot
        waited = self.waited.get(each.name, 0.0) + 0.1 * ttft.count
        sample = replace(
            each.sample,
            ttft=Distribution(waited, ttft.count, 2.5, ttft.count, 2.5, ttft.count),
            tpot=Distribution(self.waited.get(f"{each.name}/tpot", 0.0), tpot.count, 0.1, tpot.count, 0.1, tpot.count),
        )
        return replace(each, sample=sample)


def ramp(time: float) -> float:
    """Requests/s: 3 for ten minutes, up to 12 in five, there for ten, and back to 3."""
    if time < 600:
        return 3.0
    if time < 900:
        return 3.0 + 9.0 * (time - 600) / 300
    return 12.0 if time < 1500 else 3.0


def told(spec: str, *, seconds: float = 3000.0, cold_start: float = 120.0) -> str:
    """What was asked of the ramp at each change, as "tick:replicas tick:replicas …"."""
    story = Told(ramp, policy(), cold_start, start=2, peer=named(spec, most=40))
    story.tell(seconds)
    numbers = story.replicas
    changes = [tick for tick, number in enumerate(numbers) if not tick or number != numbers[tick - 1]]
    return " ".join(f"{tick}:{numbers[tick]}" for tick in changes)
