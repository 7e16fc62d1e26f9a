"""The names on the command line, and what holds of every peer."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.scaling.observation import Distribution, Observation, Pod, PodSample, PodStage, SampleState
from simulations.peers import _PEERS, NAMES, PeerError, label
from simulations.peers.hpa import Hpa, PodsMetric
from simulations.peers.kpa import Kpa
from tests.simulations.peers.seen import KV_TOKENS, named, seen

VARIANTS = (
    *NAMES,
    "kpa:metric=rps",
    "aibrix:algorithm=kpa",
    "aibrix-documented:algorithm=kpa",
    "aibrix:guard=yes",
    "keda:idle_at_zero=yes",
    "dynamo-load:target=sla",
    "dynamo-load:target=latency",
    "dynamo-sla:load=yes",
    "wva:analyzer=v1",
)


def test_every_name_is_a_policy_with_a_label_that_names_its_version() -> None:
    asked = "hpa keda kpa ray-serve skyserve aibrix aibrix-coded aibrix-documented"
    assert " ".join(NAMES) == f"{asked} dynamo-load dynamo-sla wva slo-keda crane"
    for name in NAMES:
        assert label(f"{name}:a=b").startswith("our re-implementation of")
        assert any(mark in label(name) for mark in (" at ", "v1.36"))


def test_parameters_reach_the_policy() -> None:
    hpa = named("hpa:target=16,metric=waiting", least=2, most=9)
    assert isinstance(hpa, Hpa)
    assert hpa.metrics == (PodsMetric(("requests_waiting",), 16.0),)
    assert (hpa.min_replicas, hpa.max_replicas, hpa.behavior) == (2, 9, None)
    kpa = named(" kpa : target = 40 , stable_window=30,panic_threshold=1.5")
    assert isinstance(kpa, Kpa)
    assert kpa.law.target == pytest.approx(28.0)
    assert (kpa.law.stable_window_seconds, kpa.panic_window_seconds, kpa.law.panic_threshold) == (30.0, 3.0, 1.5)
    windows = named("hpa:down_window=60")
    assert isinstance(windows, Hpa)
    assert windows.behavior is not None
    assert (windows.behavior.down.window_seconds, windows.behavior.up.window_seconds) == (60.0, 0.0)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("kpaa", "policy 'kpaa' is not known: did you mean kpa?"),
        ("Ray-Serve", "policy 'Ray-Serve' is not known: did you mean ray-serve?"),
        ("zzz", "policy 'zzz' is not known: choose one of hpa, keda, kpa, "),
        ("", "policy '' is not known: choose one of hpa"),
        ("hpa:", "policy 'hpa:' ends in a colon: write hpa, or hpa:PARAMETER=VALUE"),
        ("hpa:target", "policy 'hpa:target': 'target' is no parameter: write hpa:PARAMETER=VALUE"),
        ("hpa:target=", "policy 'hpa:target=': 'target=' is no parameter: write hpa:PARAMETER=VALUE"),
        ("hpa:target=1,", "policy 'hpa:target=1,': '' is no parameter: write hpa:PARAMETER=VALUE"),
        ("hpa:tragte=5", "policy hpa has no parameter 'tragte': did you mean target? it takes metric, target, "),
        ("kpa:stable-window=5", "policy kpa has no parameter 'stable-window': did you mean stable_window? it takes "),
        ("hpa:target=5,target=6", "policy 'hpa:target=5,target=6' gives target twice: keep one"),
        ("hpa:target=many", "policy hpa: target is 'many': it must be a valid number"),
        ("hpa:target=-1", "policy hpa: target is '-1': it must be greater than 0"),
        ("hpa:target=nan", "policy hpa: target is 'nan': it must be a finite number"),
        ("hpa:metric=cpu", "policy hpa: metric is 'cpu': it must be 'in-flight', 'running', 'waiting' or 'kv-cache'"),
        ("kpa:utilization=70", "policy kpa: utilization is '70': it must be less than or equal to 1"),
        ("skyserve:overprovision=0.5", "policy skyserve: overprovision is '0.5': it must be a valid integer"),
        ("dynamo-sla:predictor=arima", "policy dynamo-sla: predictor is 'arima': it must be 'kalman' or 'constant'"),
        ("aibrix-coded:documented=yes", "policy aibrix-coded has no parameter 'documented': it takes algorithm, "),
    ],
)
def test_a_wrong_name_or_parameter_is_one_sentence_that_helps(spec: str, sentence: str) -> None:
    with pytest.raises(PeerError) as told:
        named(spec)
    assert str(told.value).startswith(sentence)
    assert "\n" not in str(told.value)
    assert isinstance(told.value, ValueError)


def test_every_parameter_has_a_default_and_every_default_is_valid() -> None:
    for name, each in _PEERS.items():
        for key, parameter in list(inspect.signature(each.build).parameters.items())[1:]:
            assert parameter.default is not inspect.Parameter.empty, (name, key)
            if parameter.default is not None and key not in each.preset:
                named(f"{name}:{key}={parameter.default}")


counts = st.floats(0, 200, allow_nan=False).map(lambda number: round(number, 1))


@st.composite
def fleets(draw: st.DrawFn) -> list[Observation]:
    """Looks at pods that come and go, whose counters grow or start anew, and some of which show nothing."""
    grown: dict[str, list[float]] = {}
    told: list[Observation] = []
    for place in range(draw(st.integers(1, 12))):
        now = 15.0 * place
        pods = []
        for number in range(draw(st.integers(0, 5))):
            name = f"pod-{number}"
            stage = draw(st.sampled_from([PodStage.READY, PodStage.READY, PodStage.STARTING, PodStage.CREATED]))
            counter = grown.setdefault(name, [0.0] * 4)
            for which, most in enumerate((50.0, 40_000.0, 10_000.0, 500.0)):
                counter[which] += round(draw(st.floats(0, most)), 1)
            running, waiting, usage = draw(counts), draw(counts), draw(st.floats(0, 1))
            requests, prompt, generated, steps = counter
            latency = Distribution(requests * 0.7, requests, 2.5, requests, 2.5, requests)
            between = Distribution(generated * 0.03, generated, 0.1, generated, 0.1, generated)
            sample = PodSample(
                now,
                SampleState.FRESH,
                requests_running=running,
                requests_waiting=waiting,
                kv_cache_usage=usage,
                kv_cache_tokens=KV_TOKENS,
                prompt_tokens=prompt,
                generation_tokens=generated,
                requests_finished=requests,
                http_requests_ended=requests,
                engine_steps=steps,
                ttft=latency,
                tpot=between,
                inter_token=between,
            )
            if draw(st.integers(0, 9)) == 0:
                sample = PodSample(None, SampleState.ABSENT)
            ready = stage is PodStage.READY
            pods.append(Pod(name, stage, 0.0, 0.0, 0.0, 0.0 if ready else None, sample=sample if ready else None))
        told.append(Observation(now, draw(st.integers(1, 8)), tuple(pods)))
    return told


@given(fleets())
@settings(max_examples=25, deadline=None)
def test_bounds_are_kept_and_nothing_is_remembered_but_in_the_state(told: list[Observation]) -> None:
    for spec in VARIANTS:
        policy = named(spec, least=1, most=7)
        state = policy.begin()
        for observation in told:
            decision, following = policy.decide(observation, state)
            again, same = policy.decide(observation, state)
            assert decision == again, spec
            assert following == same, spec
            moved = decision.replicas != observation.desired
            if spec.startswith("keda:idle") and decision.replicas == 0:
                continue
            assert not moved or 1 <= decision.replicas <= 7, (spec, decision)
            assert decision.sentence
            state = following


def test_states_and_policies_are_frozen() -> None:
    for spec in VARIANTS:
        policy = named(spec)
        for frozen in (policy, policy.begin()):
            assert is_dataclass(frozen)
            with pytest.raises(AttributeError):
                setattr(frozen, fields(frozen)[0].name, None)


@pytest.mark.parametrize(
    ("spec", "after_ten_minutes", "finally_"),
    [
        ("hpa", 4, 4),  # No pod shows the metric: it holds.
        ("keda", 1, 1),  # A query that answers nothing is 0.
        ("kpa", 4, 4),  # No data, no scale.
        ("ray-serve", 1, 1),  # A replica that reports nothing has no requests; after its delay of ten minutes.
        ("skyserve", 4, 1),  # No requests are reported; after its delay of twenty.
        ("aibrix", 1, 1),  # A scrape that fails is 0.
        ("aibrix-documented", 4, 4),  # Pods that cannot be read are left out.
        ("dynamo-load", 4, 4),  # Not every engine reports.
        ("dynamo-sla", 4, 4),  # Nothing to foresee lengths from.
        ("wva", 4, 4),  # Its safety net.
        ("slo-keda", 1, 1),  # A P90 of nothing is 0; one pod in two minutes, after three.
        ("crane", 4, 4),
    ],
)
def test_without_data_a_peer_does_what_it_really_does(spec: str, after_ten_minutes: int, finally_: int) -> None:
    policy = named(spec)
    state, desired, made = policy.begin(), 4, []
    for place in range(101):
        decision, state = policy.decide(seen(15.0 * place, [], silent=desired), state)
        desired = decision.replicas
        made.append(desired)
    assert (made[41], made[-1]) == (after_ten_minutes, finally_)
