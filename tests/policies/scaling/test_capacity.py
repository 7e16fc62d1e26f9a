from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from policies.scaling.capacity import (
    Mix,
    ReplicaCapacity,
    StepTime,
    StepTimeFit,
    non_negative_least_squares,
    replica_capacity,
)
from policies.scaling.decision import Binding
from policies.scaling.demand import HangUps, PodActivity
from policies.scaling.observation import Interval

A40_7B = StepTime(0.02452, 0.0001203, 8.12e-7, 9.74e-5)
"""Llama-2-7B on an A40: one of the published engines (a, b, c, d in seconds)."""
CHAT = Mix(prompt_tokens=1155.0, output_tokens=211.0, resident_tokens=1260.0)


def shown(step_time: StepTime, sequences: float, mix: Mix, *, error: float = 0.0) -> PodActivity:
    """What a pod with so many sequences in flight shows over 15 s."""
    prefill = sequences * mix.prompt_tokens / mix.output_tokens
    step = step_time.seconds(sequences, sequences * mix.resident_tokens, prefill)
    steps = 15.0 / step
    tokens = sequences * steps
    first = tokens / mix.output_tokens
    return PodActivity(
        seconds=15.0,
        arrivals=first,
        hung_up=0.0,
        first_tokens=first,
        finished=first,
        prompt_tokens=first * mix.prompt_tokens,
        generation_tokens=tokens,
        running=sequences,
        waiting=0.0,
        kv_tokens_used=sequences * mix.resident_tokens,
        engine_steps=steps,
        inter_token_seconds=step * tokens * (1 + error),
        inter_tokens=tokens,
        within_ttft=Interval(first, first),
        tpot_count=first,
        within_tpot=Interval(first, first),
        hang_ups=HangUps(0.0),
    )


def learnt(pods: list[PodActivity], *, objective: float = 0.1) -> StepTime:
    fit = StepTimeFit.empty("t", StepTime.prior(objective))
    for pod in pods:
        fit = fit.then([pod], seconds=15.0, half_life_seconds=21_600.0, evidence_seconds=15.0)
    return fit.fitted().step_time


def bears(step_time: StepTime, mix: Mix = CHAT, **changes: object) -> ReplicaCapacity:
    settings: dict[str, object] = {
        "ttft_objective_seconds": 3.0,
        "tpot_objective_seconds": 0.1,
        "kv_cache_tokens": None,
        "most_in_flight": None,
        "tpot_margin": 0.7,
        "kv_cache_margin": 0.85,
        "greatest_utilisation": 0.85,
    }
    return replica_capacity(step_time, mix, **{**settings, **changes})  # type: ignore[arg-type]


def test_an_hour_of_counters_teaches_the_step_time_to_a_few_per_cent() -> None:
    rng = np.random.default_rng(1)
    pods = [shown(A40_7B, 2 + 30 * rng.random(), CHAT, error=0.05 * rng.standard_normal()) for _ in range(240)]
    step_time = learnt(pods)
    for sequences in (5.0, 20.0, 40.0):
        context, prefill = sequences * CHAT.resident_tokens, sequences * CHAT.prompt_tokens / CHAT.output_tokens
        assert step_time.seconds(sequences, context, prefill) == pytest.approx(
            A40_7B.seconds(sequences, context, prefill), rel=0.04
        )
    assert bears(step_time).requests_per_second == pytest.approx(bears(A40_7B).requests_per_second, rel=0.06)


def test_a_quiet_hour_leaves_the_slope_to_the_prior_and_is_still_within_a_factor() -> None:
    step_time = learnt([shown(A40_7B, 1.0 + 0.2 * (i % 5), CHAT) for i in range(240)])
    assert step_time.fixed == pytest.approx(A40_7B.fixed, rel=0.1)
    ratio = bears(step_time).requests_per_second / bears(A40_7B).requests_per_second
    assert 0.5 < ratio < 2.0


def test_an_idle_pod_teaches_nothing() -> None:
    prior = StepTime.prior(0.1)
    idle = shown(A40_7B, 0.01, CHAT)
    fit = StepTimeFit.empty("t", prior).then([idle], seconds=15.0, half_life_seconds=3600.0, evidence_seconds=15.0)
    assert fit.fitted().step_time == prior


def test_old_evidence_fades() -> None:
    fit = StepTimeFit.empty("t", StepTime.prior(0.1))
    slow = StepTime(*(2 * value for value in (A40_7B.fixed, A40_7B.decode, A40_7B.context, A40_7B.prefill)))
    for engine in (A40_7B, slow):
        for n in range(960):
            fit = fit.then(
                [shown(engine, 5.0 + n % 30, CHAT)], seconds=15.0, half_life_seconds=1800.0, evidence_seconds=15.0
            )
    assert fit.fitted().step_time.seconds(20, 25_000, 100) == pytest.approx(slow.seconds(20, 25_000, 100), rel=0.05)


def test_the_load_a_replica_bears_makes_just_the_step_time_that_was_planned() -> None:
    capacity = bears(A40_7B)
    assert capacity.binding is Binding.TPOT
    assert capacity.step_seconds == pytest.approx(0.07)
    n = capacity.in_flight
    # Little's law and the step time agree with each other.
    step = A40_7B.seconds(n, n * CHAT.resident_tokens, n * CHAT.prompt_tokens / CHAT.output_tokens)
    assert step == pytest.approx(0.07, rel=1e-6)
    assert capacity.requests_per_second == pytest.approx(n / (CHAT.output_tokens * step), rel=1e-6)


def test_each_limit_binds_in_its_turn() -> None:
    assert bears(A40_7B, kv_cache_tokens=20_000.0).binding is Binding.KV_CACHE
    assert bears(A40_7B, kv_cache_tokens=20_000.0).in_flight == pytest.approx(0.85 * 20_000 / 1260)
    assert bears(A40_7B, most_in_flight=4.0).in_flight == pytest.approx(4.0)
    long_prompts = Mix(20_000.0, 20.0, 20_000.0)
    assert bears(A40_7B, long_prompts).binding is Binding.QUEUE


def test_an_engine_that_cannot_keep_the_objective_still_bears_something() -> None:
    assert bears(A40_7B, tpot_objective_seconds=0.01).requests_per_second > 0


@given(
    st.floats(0.2, 5.0),
    st.floats(10, 8_000),
    st.floats(1, 2_000),
    st.floats(1.01, 3.0),
    st.sampled_from(["prompt", "output", "slower", "tighter"]),
)
def test_more_work_or_less_time_never_means_more_capacity(
    speed: float, prompt: float, output: float, factor: float, what: str
) -> None:
    engine = StepTime(*(speed * v for v in (A40_7B.fixed, A40_7B.decode, A40_7B.context, A40_7B.prefill)))
    mix = Mix(prompt, output, prompt + output / 2)
    before = bears(engine, mix, kv_cache_tokens=53_360.0).requests_per_second
    objective = 0.1
    if what == "prompt":
        mix = Mix(prompt * factor, output, prompt * factor + output / 2)
    elif what == "output":
        mix = Mix(prompt, output * factor, prompt + output * factor / 2)
    elif what == "slower":
        engine = StepTime(*(factor * v for v in (engine.fixed, engine.decode, engine.context, engine.prefill)))
    else:
        objective /= factor
    after = bears(engine, mix, kv_cache_tokens=53_360.0, tpot_objective_seconds=objective).requests_per_second
    assert after <= before * (1 + 1e-9)


@given(
    rows=st.lists(st.tuples(*[st.floats(-3, 3)] * 4, st.floats(-3, 3)), min_size=1, max_size=8),
    size=st.integers(1, 4),
)
def test_the_fit_is_that_of_the_usual_solver(rows: list[tuple[float, ...]], size: int) -> None:
    # Rows of a small ridge below the data make every such problem a definite one.
    matrix = np.vstack([np.array([row[:size] for row in rows]), 0.1 * np.eye(size)])
    target = np.array([row[4] for row in rows] + [0.0] * size)
    found = np.array(non_negative_least_squares((matrix.T @ matrix).tolist(), (matrix.T @ target).tolist()))
    usual, residual = nnls(matrix, target)
    assert found == pytest.approx(usual, abs=1e-6)
    assert np.linalg.norm(matrix @ found - target) == pytest.approx(residual, abs=1e-9)
