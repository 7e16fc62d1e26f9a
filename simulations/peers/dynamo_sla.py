"""Our re-implementation of the throughput scaling of NVIDIA Dynamo's planner: core/throughput_scaling.py at 4d3f672.

Every 180 s it foresees the requests and the lengths of the next 180 s, whatever a start takes, and divides their
rate by what its step model says that one aggregated engine bears within both objectives. With `load` that number is
only a floor under its load scaling (`simulations.peers.dynamo_load`, by latencies). Its frontend counts a request
when it ends, so completions are what it foresees. The step model begins with a sweep of the engine, as it demands.
An interval without data is one without requests (NaN becomes 0 there); the lengths then get no new value here.
Left out: prefill and decode apart, prefix-cache hits, the GPU budget (`max_replicas` here), its older correction
factors, and the predictors that `simulations.peers.dynamo_forecast` names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from policies.scaling.decision import Binding, Decision
from policies.scaling.observation import Observation
from simulations.peers import reading
from simulations.peers.dynamo_forecast import Forecaster, Predictor, forecaster
from simulations.peers.dynamo_load import DynamoLoad, DynamoLoadState, average
from simulations.peers.dynamo_model import best_requests_per_second
from simulations.peers.parameters import NotNegative, Positive, Setting
from simulations.peers.reading import Bounds

LABEL = (
    "our re-implementation of NVIDIA Dynamo's planner, SLA throughput scaling (core/throughput_scaling.py at 4d3f672)"
)
INTERVAL_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Counted:
    """What ended since the last turn."""

    finished: float = 0.0
    first_tokens: float = 0.0
    prompt_tokens: float = 0.0
    generation_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class DynamoSlaState:
    load: DynamoLoadState
    requests: Forecaster
    prompts: Forecaster
    answers: Forecaster
    judged_at: float | None = None
    counted: Counted = Counted()
    floor: int = 0
    previous: Observation | None = None


@dataclass(frozen=True, slots=True)
class DynamoSla:
    """The slow loop of the planner, and the fast one over it where that is on."""

    load: DynamoLoad
    """Its step model is learnt from here in any case."""
    predictor: Predictor = "kalman"
    with_load: bool = False
    interval_seconds: float = INTERVAL_SECONDS

    @property
    def reads_histograms(self) -> bool:
        return True

    def begin(self) -> DynamoSlaState:
        requests, prompts, answers = (forecaster(self.predictor) for _ in range(3))
        return DynamoSlaState(self.load.begin(), requests, prompts, answers)

    def decide(self, observation: Observation, state: DynamoSlaState) -> tuple[Decision, DynamoSlaState]:
        now = observation.time
        state = self._counted(observation, state)
        decision = None
        if state.judged_at is None:
            state = replace(state, judged_at=now)  # Nothing has been counted yet.
        elif reading.due(now, state.judged_at, self.interval_seconds):
            decision, state = self._judged(observation, state)
        if self.with_load:
            floor = max(state.floor, self.load.bounds.least)
            quick, load = self.load.decide_over(observation, state.load, floor=floor)
            return quick, replace(state, load=load)
        state = replace(state, load=self.load.learnt(observation, state.load))
        return decision or reading.hold(observation, "between two of its turns"), state

    def _counted(self, observation: Observation, state: DynamoSlaState) -> DynamoSlaState:
        done = reading.traffic(state.previous, observation)
        counted = state.counted
        if done is not None:
            counted = Counted(
                counted.finished + done.finished,
                counted.first_tokens + done.first_tokens,
                counted.prompt_tokens + done.prompt_tokens,
                counted.generation_tokens + done.generation_tokens,
            )
        return replace(state, counted=counted, previous=observation)

    def _judged(self, observation: Observation, state: DynamoSlaState) -> tuple[Decision, DynamoSlaState]:
        now, counted = observation.time, state.counted
        seconds = now - (now if state.judged_at is None else state.judged_at)
        requests = state.requests.seen(counted.finished)
        prompts, answers = state.prompts, state.answers
        if counted.first_tokens:
            prompts = prompts.seen(counted.prompt_tokens / counted.first_tokens)
        if counted.finished:
            answers = answers.seen(counted.generation_tokens / counted.finished)
        state = replace(state, requests=requests, prompts=prompts, answers=answers, judged_at=now, counted=Counted())
        fit = state.load.model.fit()
        each = 0.0
        if fit is not None:
            each = best_requests_per_second(
                fit,
                self.load.engine,
                prompt=prompts.next,
                answer=answers.next,
                mean_prompt=average(state.load.means.prompts) or prompts.next,
                ttft_objective=self.load.ttft_objective_seconds,
                itl_objective=self.load.itl_objective_seconds,
            )
        if each <= 0:
            return reading.hold(observation, "the step model or the forecast has too little data"), state
        rate = requests.next / seconds
        wish = reading.rounded_up(rate / each)
        lengths = f"{prompts.next:.0f} and {answers.next:.0f} tokens"
        said = f"{rate:.4g} requests/s foreseen, of {lengths}; an engine bears {each:.4g}"
        asked = self.load.bounds.clamp(wish)
        decision = reading.answer(observation, asked, said, wanted=wish, binding=Binding.FORECAST)
        return decision, replace(state, floor=asked)


def build(
    setting: Setting,
    *,
    predictor: Predictor = "kalman",
    load: bool = False,
    interval: Positive = INTERVAL_SECONDS,
    down_sensitivity: NotNegative = 0.8,
) -> DynamoSla:
    """`load` is `enable_load_scaling`; the objectives are the replay's."""
    quick = DynamoLoad(
        Bounds(max(1, setting.min_replicas), setting.max_replicas),
        setting.engine,
        setting.objectives.ttft_seconds,
        setting.objectives.tpot_seconds,
        "sla",
        down_sensitivity,
    )
    return DynamoSla(quick, predictor, load, interval)
