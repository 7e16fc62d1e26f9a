"""A small made-up fleet for the loop: it serves a load, obeys `scale`, and can be made to fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from policies.scaling.history import History
from policies.scaling.observation import Distribution, Observation, Pod, PodSample, PodStage, SampleState
from policies.scaling.resource import API_VERSION, KIND, VLLMAutoscaler
from policies.scaling.resource_reading import read
from policies.scaling.settings import ScalingPolicy

TICK_SECONDS = 15.0
START = 1_760_000_000.0


def resource(name: str = "llama", **spec: Any) -> VLLMAutoscaler:
    """A resource whose shrink window is short, so that a story fits into a test."""
    return read(
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": "inference"},
            "spec": {
                "scaleTargetRef": {"name": f"vllm-{name}"},
                "maxReplicas": 20,
                "objectives": {"ttftSeconds": 2.5, "tpotSeconds": 0.05},
                "coldStartSeconds": 60,
                "prometheus": {"url": "http://127.0.0.1:9"},
                "behavior": {"scaleDown": {"windowSeconds": 60}},
                **spec,
            },
        }
    )


def policy(**spec: Any) -> ScalingPolicy:
    return ScalingPolicy.of(resource(**spec).spec, tick_seconds=TICK_SECONDS)


@dataclass
class World:
    """Requests of 200 tokens in and 100 out that take 2 s each, spread evenly over the ready pods."""

    replicas: int = 4
    rate: float = 4.0
    """Requests/s in all."""
    waiting: float = 0.0
    """Requests waiting at each pod."""
    time: float = START
    faults: list[BaseException] = field(default_factory=list)
    """Raised by the next looks, one each."""
    write_faults: list[BaseException] = field(default_factory=list)
    bend: Callable[[Observation], Observation] = field(default=lambda seen: seen)
    """What becomes of an observation on its way."""
    writes: list[tuple[int, int]] = field(default_factory=list)
    served: dict[str, float] = field(default_factory=dict)

    async def observe(self, previous: Observation | None) -> Observation:
        self.time += TICK_SECONDS
        names = [f"vllm-{number}" for number in range(self.replicas)]
        for name in names:
            requests = self.rate * TICK_SECONDS / self.replicas
            self.served[name] = self.served.get(name, 1_000.0) + requests
        if self.faults:
            raise self.faults.pop(0)
        pods = tuple(self._pod(name) for name in names)
        return self.bend(Observation(self.time, self.replicas, pods))

    async def scale(self, expected: int, replicas: int) -> None:
        if self.write_faults:
            raise self.write_faults.pop(0)
        self.writes.append((expected, replicas))
        assert expected == self.replicas
        self.replicas = replicas

    def _pod(self, name: str) -> Pod:
        count = self.served[name]
        sample = PodSample(
            time=self.time - 1,
            state=SampleState.FRESH,
            requests_running=2 * self.rate / self.replicas,
            requests_waiting=self.waiting,
            kv_cache_usage=min(1.0, 0.05 * self.rate / self.replicas),
            kv_cache_tokens=100_000.0,
            prompt_tokens=200 * count,
            generation_tokens=100 * count,
            requests_finished=count,
            http_requests_ended=count,
            engine_steps=100 * count,
            ttft=Distribution(0.1 * count, count, 2.5, count, 2.5, count),
            tpot=Distribution(0.02 * count, count, 0.05, count, 0.05, count),
            inter_token=Distribution(0.02 * 100 * count, 100 * count, 0.05, 100 * count, 0.05, 100 * count),
        )
        before = START - 3_600
        return Pod(name, PodStage.READY, before, before, before + 10, before + 60, sample=sample)


def with_states(*states: SampleState | None) -> Callable[[Observation], Observation]:
    """Give the first pods these sample states; None takes the sample away."""

    def bend(seen: Observation) -> Observation:
        pods = list(seen.pods)
        for place, state in enumerate(states):
            sample = pods[place].sample
            assert sample is not None
            changed = None if state is None else replace(sample, state=state)
            pods[place] = replace(pods[place], sample=changed)
        return replace(seen, pods=tuple(pods))

    return bend


def with_problem(sentence: str) -> Callable[[Observation], Observation]:
    return lambda seen: replace(seen, problems=(*seen.problems, sentence))


EMPTY = History()
