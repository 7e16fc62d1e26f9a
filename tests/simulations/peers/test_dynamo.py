"""Dynamo's planner: its step model, its two loops, and the figures of its own tests."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.observation import Distribution
from simulations.model.engine import Engine, StepTime, shipped_engine
from simulations.peers.dynamo_forecast import Constant, Kalman
from simulations.peers.dynamo_load import EngineLoad, Means, by_latency, by_use
from simulations.peers.dynamo_model import (
    MOST_SAMPLES,
    Fit,
    Sample,
    StepModel,
    best_requests_per_second,
    profiled,
    ttft_seconds,
)
from tests.simulations.peers.seen import ENGINE, KV_TOKENS, named, replicas, seen, told


def modelled(fixed: float, per_prefill: float, per_kv: float) -> StepModel:
    model = StepModel()
    for prefill in (0.0, 500.0, 2000.0):
        for kv in (0.0, 30_000.0, 90_000.0):
            wall = fixed + per_prefill * prefill + per_kv * kv
            model = model.with_sample(Sample(prefill, kv, wall))
    return model


coefficient = st.floats(1e-7, 1e-3)


@given(st.floats(0.001, 0.1), coefficient, coefficient)
def test_the_fit_finds_the_line_it_was_given(fixed: float, per_prefill: float, per_kv: float) -> None:
    fit = modelled(fixed, per_prefill, per_kv).fit()
    assert fit is not None
    assert fit.fixed == pytest.approx(fixed, rel=1e-6, abs=1e-6)
    assert fit.per_prefill_token == pytest.approx(per_prefill, rel=1e-6)
    assert fit.per_kv_token == pytest.approx(per_kv, rel=1e-6)


def test_a_negative_slope_is_refused_and_so_are_too_few_samples() -> None:
    assert modelled(0.1, 1e-5, -1e-7).fit() is None
    few = StepModel()
    for prefill in range(4):
        few = few.with_sample(Sample(prefill, 0.0, 1.0 + prefill))
    assert few.fit() is None
    assert few.with_sample(Sample(4, 0.0, 5.0)).fit() == Fit(1.0, 1.0, 0.0)


def test_many_samples_of_one_load_do_not_push_out_the_others() -> None:
    model = modelled(0.02, 1e-5, 1e-7)
    for _ in range(500):
        model = model.with_sample(Sample(500.0, 30_000.0, 0.028))
    assert len(model.samples) == MOST_SAMPLES
    assert len(set(model.samples)) >= 9
    assert model.with_sample(Sample(1.0, 1.0, 0.0)) is model


def test_a_profile_is_the_engines_own_step() -> None:
    fit = profiled(ENGINE).fit()
    assert fit is not None
    # e = 0 and every sequence of one length: the plane is exact.
    assert fit.fixed == pytest.approx(0.025, rel=1e-3)
    assert fit.per_kv_token == pytest.approx(1.5e-3 / 1100, rel=1e-3)
    for name in ("llama3-8b_a100_tp1", "llama3-70b_a100_tp4"):
        assert profiled(shipped_engine(name)).fit() is not None


def test_ttft_takes_the_budget_step_by_step() -> None:
    fit = Fit(0.01, 1e-5, 1e-6)
    found = ttft_seconds(fit, queued_prefill_tokens=3000, mean_prompt=1000, budget=2048, kv_tokens=10_000)
    assert found == pytest.approx(2 * (0.01 + 0.01) + 4000 * 1e-5)
    assert ttft_seconds(fit, queued_prefill_tokens=0, mean_prompt=0, budget=2048, kv_tokens=0) == 0


def test_an_engines_rate_is_its_best_batch_over_the_time_of_an_answer() -> None:
    engine = Engine("e", StepTime(10, 0, 0, 0, 0), 1_000_000, max_num_seqs=64, max_num_batched_tokens=2048)
    fit = Fit(0.01, 0.0, 1e-6)

    def rate(itl: float, prompt: float = 1000.0) -> float:
        return best_requests_per_second(
            fit,
            engine,
            prompt=prompt,
            answer=200.0,
            mean_prompt=prompt,
            ttft_objective=2.0,
            itl_objective=itl,
        )

    assert rate(0.0211) == pytest.approx(10 / (200 * 0.021))  # Ten sequences of 1,100 tokens: 21 ms.
    assert rate(1.0) == pytest.approx(64 / (200 * (0.01 + 64 * 1.1e-3)))
    assert rate(0.001) == pytest.approx(1 / (200 * 0.0111))  # None keeps it: of one sequence.
    # Long prompts: TTFT of 15 steps of budget is kept with four sequences, not with five.
    assert rate(1.0, prompt=30_000.0) == pytest.approx(4 / (200 * (0.01 + 4 * 30_100e-6)))


@pytest.mark.parametrize(
    ("uses", "replicas_", "throughput", "latency"),
    [
        ([1.01, 0.1], 2, 3, 3),  # Any above.
        ([1.0, 1.0], 2, 2, 3),
        ([0.59, 0.59], 2, 1, 3),
        ([0.59, 0.60], 2, 2, 3),
        ([0.3, 0.05], 2, 1, 2),
        ([0.09, 0.05], 2, 1, 1),
        ([0.0], 1, 1, 1),
    ],
)
def test_thresholds_move_it_by_one(uses: list[float], replicas_: int, throughput: int, latency: int) -> None:
    assert by_use(uses, replicas_, "throughput") == throughput
    assert by_use(uses, replicas_, "latency") == latency


def by_sla(loads: list[EngineLoad], model: StepModel, *, prompt: float = 100.0) -> int | None:
    return by_latency(
        loads,
        len(loads),
        model=model,
        means=Means((prompt,), (0.0,), (0.0,)),
        engine=ENGINE,
        ttft_objective=0.5,
        itl_objective=0.8,
        sensitivity=0.8,
    )


def test_a_consolidation_that_would_break_ttft_is_refused() -> None:
    """TestAggConsolidationAwareScaleDown: 1e-5 s a KV token, 30K in use; 0.31 s now, 0.62 s after, 0.5 s promised."""
    model = modelled(0.01, 1e-6, 1e-5)
    assert by_sla([EngineLoad(30_000, 0)] * 2, model) == 2
    assert by_sla([EngineLoad(10_000, 0)] * 2, model) == 1


def test_it_grows_where_every_engine_breaks_an_objective() -> None:
    model = modelled(0.01, 1e-6, 1e-5)
    assert by_sla([EngineLoad(60_000, 0)] * 2, model) == 3
    assert by_sla([EngineLoad(60_000, 0), EngineLoad(10_000, 0)], model) == 2
    assert by_sla([EngineLoad(90_000, 0), EngineLoad(89_000, 0)], modelled(0.01, 1e-7, 9e-6), prompt=0.0) == 3


def test_kv_that_would_not_fit_refuses_it_too() -> None:
    model = modelled(0.01, 1e-8, 1e-8)
    assert by_sla([EngineLoad(40_000, 0)] * 2, model) == 1
    assert by_sla([EngineLoad(50_000, 0)] * 2, model) == 2
    assert by_sla([EngineLoad(40_000, 10_000)] * 2, model) == 2


def test_without_a_model_nothing_is_decided() -> None:
    assert by_sla([EngineLoad(1, 1)], StepModel()) is None


def full(usage: float, waiting: float = 0.0) -> dict[str, float]:
    return {"kv_cache_usage": usage, "requests_waiting": waiting}


def test_it_waits_while_a_scaling_is_in_progress_or_a_pod_is_silent() -> None:
    looks = [seen(0.0, [full(0.1)] * 3, booting=1), seen(15.0, [full(0.1)] * 3, silent=1), seen(30.0, [full(0.1)] * 3)]
    assert replicas(named("dynamo-load"), looks) == [4, 4, 2]


def test_prompts_in_the_queue_are_those_waiting_times_the_mean() -> None:
    def look(place: int, waiting: float) -> dict[str, object]:
        requests, steps = 10.0 * place, 100.0 * place
        between = Distribution(steps * 0.03, steps, 0.1, steps, 0.1, steps)
        return {
            **full(0.7, waiting),
            "requests_running": 10.0,
            "requests_finished": requests,
            "prompt_tokens": 1000.0 * requests,
            "generation_tokens": 1000.0 * place,
            "engine_steps": steps,
            "ttft": Distribution(requests, requests, 2.5, requests, 2.5, requests),
            "tpot": between,
            "inter_token": between,
        }

    queue = [0.0, 0.0, 29.0, 31.0]
    looks = [seen(15.0 * place, [look(place, waiting)]) for place, waiting in enumerate(queue)]
    # 0.7 of 100,000 tokens and 31 prompts of 1,000 are more than all of it.
    assert replicas(named("dynamo-load"), looks) == [1, 1, 1, 2]
    assert KV_TOKENS == 100_000


def test_a_kalman_filter_follows_a_trend_and_forgets_its_start() -> None:
    kalman = Kalman()
    assert kalman.seen(0.0) is kalman
    assert kalman.seen(50.0).next == 50.0
    for number in range(200):
        kalman = kalman.seen(10.0 + 3.0 * number)
    assert kalman.next == pytest.approx(10.0 + 3.0 * 200, abs=0.1)
    steady = Kalman()
    for _ in range(50):
        steady = steady.seen(7.0)
    assert steady.next == pytest.approx(7.0)
    surprised = steady.seen(107.0).next
    assert 7.0 < surprised < 107.0
    a, b, c, d = steady.covariance
    assert b == pytest.approx(c)
    assert a * d - b * c > 0


def test_the_constant_predictor_repeats_what_it_saw_after_the_first_traffic() -> None:
    assert Constant().seen(0.0).next == 0.0
    assert Constant().seen(0.0).seen(5.0).seen(math.nan).next == 0.0
    assert Constant().seen(5.0).next == 5.0


def test_the_slow_loop_acts_every_three_minutes_and_foresees_completions() -> None:
    def look(place: int) -> dict[str, object]:
        requests = 60.0 * place
        steps = 500.0 * place
        between = Distribution(steps * 0.03, steps, 0.1, steps, 0.1, steps)
        return {
            **full(0.3),
            "requests_running": 10.0,
            "requests_finished": requests,
            "prompt_tokens": 1000.0 * requests,
            "generation_tokens": 200.0 * requests,
            "engine_steps": steps,
            "ttft": Distribution(requests, requests, 2.5, requests, 2.5, requests),
            "tpot": between,
            "inter_token": between,
        }

    looks = [seen(15.0 * place, [look(place)], desired=1) for place in range(26)]
    made = replicas(named("dynamo-sla:predictor=constant"), looks)
    acted = [place for place, number in enumerate(made) if number != 1]
    assert acted == [12, 24]
    # 4 requests/s; an engine of 50 sequences at 0.1 s bears 2.5.
    assert made[24] == 2


def test_golden_decisions_of_a_ramp() -> None:
    for spec, golden in GOLDEN.items():
        assert told(spec) == golden, spec


def test_replicas_move_by_one_whatever_the_load() -> None:
    for spec in ("dynamo-load", "dynamo-load:target=latency", "dynamo-load:target=sla"):
        numbers = [int(change.split(":")[1]) for change in GOLDEN[spec].split()]
        assert all(abs(b - a) == 1 for a, b in pairwise(numbers))


GOLDEN = {
    "dynamo-load": (
        "0:1 11:2 19:3 27:2 28:1 38:2 46:3 54:4 62:5 70:6 78:7 86:8 94:9 102:10 110:9 111:8 112:7 "
        "113:6 114:5 115:4 116:3 117:2 118:1 129:2 137:3 145:2 146:1 156:2 164:3 172:2 173:1 183:2 "
        "191:3 199:2"
    ),
    "dynamo-load:target=latency": "0:2 45:3 53:4 61:5 69:6 77:7 85:8 93:9 101:8 102:7 103:6 104:5 105:4 106:3 107:2",
    "dynamo-load:target=sla": (
        "0:1 3:2 18:1 21:2 36:1 39:2 49:3 59:4 70:5 124:4 125:3 126:2 127:1 130:2 145:1 148:2 163:1 "
        "166:2 181:1 184:2 199:1"
    ),
    "dynamo-sla": "0:2 59:3 83:4 107:5 131:4 155:3 167:2",
    "dynamo-sla:load=yes": "0:1 3:2 18:1 21:2 47:3 57:4 69:5 95:6 119:5 131:4 132:3 143:2 179:1 182:2 197:1",
}
