"""From files to policies: every kind, several documents, folders; and the shipped examples over the shipped trace."""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.files import ConfigError
from policies.scaling.resource import Objectives
from simulations.model.cold_start import Constant
from simulations.model.conditions import Conditions
from simulations.model.engine import shipped_engine
from simulations.policy_files.adapter import read_metrics
from simulations.policy_files.files import AS_MEANT, AS_WRITTEN, NamedPolicy, policies_of
from simulations.replay import Preheat, Replay, replay
from simulations.traces import Trace, shipped_trace
from tests.checkout import ROOT
from tests.simulations.policy_files.written import hpa, pods_metric, policies, refusals, scaled_object, trigger

EXAMPLES = ROOT / "manifests" / "migrate" / "from"
OBJECTIVES = Objectives(ttft_seconds=2.5, tpot_seconds=0.1)
TRACE, ENGINE = shipped_trace().until(600.0), shipped_engine("llama3-70b_a100_tp4")
OURS = """
apiVersion: autoscaling.preheat.dev/v1alpha1
kind: VLLMAutoscaler
metadata: {name: ours}
spec:
  scaleTargetRef: {name: vllm}
  minReplicas: 2
  maxReplicas: 6
  coldStartSeconds: 60
  objectives: {ttftSeconds: 2.5, tpotSeconds: 0.1}
  prometheus: {url: "http://prometheus:9090"}
"""


def ruled(named: NamedPolicy) -> Replay:
    return replay(
        TRACE,
        ENGINE,
        named.policy,
        objectives=OBJECTIVES,
        conditions=Conditions(Constant(60.0)),
        min_replicas=named.min_replicas,
        max_replicas=named.max_replicas,
        start_replicas=2,
    )


def examples() -> dict[str, NamedPolicy]:
    rules = read_metrics(EXAMPLES / "metrics" / "adapter_rules.yaml")
    return {each.name: each for each in policies_of(EXAMPLES, max_replicas=8, metrics=rules)}


NAMES = (
    "hpa_running.yaml",
    "hpa_three_metrics.yaml (as written)",
    "hpa_three_metrics.yaml (as meant)",
    "hpa_waiting.yaml",
    "keda_to_zero.yaml (as written)",
    "keda_to_zero.yaml (as meant)",
    "keda_tpot.yaml (as written)",
    "keda_tpot.yaml (as meant)",
    "keda_waiting.yaml (as written)",
    "keda_waiting.yaml (as meant)",
)


def test_every_example_is_read_in_the_ways_that_it_can_be_meant() -> None:
    assert tuple(examples()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_example_rules_a_fleet_within_its_bounds_and_twice_the_same(name: str) -> None:
    named = examples()[name]
    first, second = ruled(named), ruled(named)
    assert first.finished + first.refused == first.requests > 0
    assert all(named.min_replicas <= each.replicas <= named.max_replicas for each in first.decisions)
    assert first.decision_hash == second.decision_hash
    if "to_zero.yaml (as written)" not in name:
        assert len({each.replicas for each in first.decisions}) > 1


def test_a_quantile_that_is_not_divided_keeps_more_objectives() -> None:
    told = examples()
    written, meant = (ruled(told[f"keda_tpot.yaml ({variant})"]) for variant in (AS_WRITTEN, AS_MEANT))
    assert meant.attainment > written.attainment


def test_a_quantile_sees_the_latencies_of_the_fleet() -> None:
    sentences = [each.sentence for each in ruled(examples()["hpa_three_metrics.yaml (as meant)"]).decisions]
    assert any("request_latency_p99" in sentence for sentence in sentences)


def test_our_own_resource_is_read_as_it_is_written(tmp_path: Path) -> None:
    (ours,) = policies(tmp_path, OURS)
    assert isinstance(ours.policy, Preheat)
    assert (ours.name, ours.variant, ours.min_replicas, ours.max_replicas) == ("object.yaml", "", 2, 6)
    assert ruled(ours).finished == TRACE.requests
    (said,) = refusals(tmp_path, OURS.replace("maxReplicas: 6", "maxReplicas: 1"))
    assert "minReplicas (2) must not exceed maxReplicas (1)" in said


def test_time_0_is_the_same_moment_to_our_schedule_as_to_a_cron_trigger(tmp_path: Path) -> None:
    ours = f'{OURS}  schedule: [{{start: "0 8 * * *", end: "0 18 * * *", minReplicas: 6}}]'
    cron = '{type: cron, metadata: {timezone: UTC, start: "0 8 * * *", end: "0 18 * * *", desiredReplicas: "6"}}'
    both = f"{scaled_object(cron, spec='minReplicaCount: 2')}\n---\n{ours}"

    def reach_six(**told: Any) -> list[bool]:
        return [
            any(each.replicas == 6 for each in ruled(named).decisions) for named in policies(tmp_path, both, **told)
        ]

    berlin = dt.timezone(dt.timedelta(hours=1))
    assert reach_six(starts_at=dt.datetime(2026, 3, 2, 8, tzinfo=dt.UTC)) == [True, True]
    assert reach_six(starts_at=dt.datetime(2026, 3, 2, 9, tzinfo=berlin)) == [True, True]
    assert reach_six(starts_at=dt.datetime(2026, 3, 2, 18, tzinfo=dt.UTC)) == [False, False]
    assert reach_six() == [False, False], "midnight, where nobody says"


def test_several_documents_and_lists_are_named_apart(tmp_path: Path) -> None:
    both = f"{hpa(pods_metric())}\n---\n{OURS}"
    assert [each.name for each in policies(tmp_path, both)] == ["object.yaml#mine", "object.yaml#ours"]
    items = "\n".join(f"    {line}" for line in hpa(pods_metric()).splitlines())
    listed = f"apiVersion: v1\nkind: List\nitems:\n  -\n{items}\n"
    assert [each.name for each in policies(tmp_path, listed)] == ["object.yaml"]
    found = refusals(tmp_path, f"{hpa()}\n---\nkind: Deployment")
    assert [problem.partition(": ")[0][-10:] for problem in found] == ["document 1", "document 2"]


def test_a_folder_gives_all_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(scaled_object(spec="minReplicaCount: 1"))
    (tmp_path / "a.yml").write_text(hpa(pods_metric("gpu_cache_usage_ratio", "80")))
    (tmp_path / "notes.txt").write_text("not yaml")
    found = policies_of(tmp_path, max_replicas=9)
    assert [each.name for each in found] == [f"a.yml ({AS_WRITTEN})", f"a.yml ({AS_MEANT})", "b.yaml"]
    (tmp_path / "c.yaml").write_text("kind: Pod")
    (tmp_path / "d.yaml").write_text("{")
    with pytest.raises(ConfigError) as told:
        policies_of(tmp_path, max_replicas=9)
    assert [Path(problem.partition(": ")[0]).name for problem in told.value.problems] == ["c.yaml", "d.yaml"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty: write an HorizontalPodAutoscaler, a ScaledObject or a VLLMAutoscaler"),
        ("- a", "holds no fields: write an HorizontalPodAutoscaler"),
        ("a: b", "kind is '': write an HorizontalPodAutoscaler"),
        ("kind: ScaledJob", "kind is 'ScaledJob': did you mean ScaledObject?"),
        ("kind: Pod", "kind is 'Pod': choose one of HorizontalPodAutoscaler, ScaledObject, VLLMAutoscaler"),
        ("a: [", "is not valid YAML at line 1"),
        (
            "kind: ScaledObject\napiVersion: keda.sh/v1alpha1\nspec: &a {advanced: *a}",
            "contains itself through a YAML anchor: write it out without",
        ),
        ("kind: HorizontalPodAutoscaler\napiVersion: autoscaling/v2\nspec: 5", "spec is 5: it must be a valid "),
        ("kind: ScaledObject\napiVersion: keda.sh/v1alpha1", "spec.scaleTargetRef is missing: it must be given"),
    ],
)
def test_what_is_no_autoscaler_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in refusals(tmp_path, text)[0]


def test_an_empty_folder_and_a_missing_file_are_said(tmp_path: Path) -> None:
    for path, sentence in ((tmp_path, "holds no .yaml file"), (tmp_path / "none.yaml", "does not exist")):
        with pytest.raises(ConfigError, match=sentence):
            policies_of(path, max_replicas=9)


def test_a_fleet_at_zero_is_never_woken_by_what_it_answered(tmp_path: Path) -> None:
    """Half an hour without a request: as written, nobody is there for those that come then."""
    rate = trigger("sum(rate(vllm:request_success_total[2m]))", "2")
    written, meant = policies(tmp_path, scaled_object(rate, spec="minReplicaCount: 0\nmaxReplicaCount: 4"))
    arrived = np.concatenate((np.arange(0.0, 300.0, 3.0), np.arange(2100.0, 2400.0, 3.0)))
    tokens = np.full(arrived.size, 100)
    twice = Trace.of("morning and noon", arrived, tokens, tokens)
    finished = []
    for named in (written, meant):
        made = replay(
            twice,
            ENGINE,
            named.policy,
            objectives=OBJECTIVES,
            conditions=Conditions(Constant(60.0)),
            min_replicas=named.min_replicas,
            max_replicas=named.max_replicas,
            start_replicas=1,
        )
        finished.append(made.finished)
    assert finished == [100, 200]


def test_policies_travel_to_other_processes_and_say_the_same_of_themselves(tmp_path: Path) -> None:
    formula = "minReplicaCount: 1\nadvanced: {scalingModifiers: {formula: 'q > 2 ? q : 0', target: '2'}}"
    (composed,) = policies(tmp_path, scaled_object(trigger(more=", name: q"), spec=formula))
    for named in (composed, *examples().values()):
        again = pickle.loads(pickle.dumps(named.policy))
        assert again == named.policy
        assert repr(again) == repr(named.policy)
        assert " at 0x" not in repr(named.policy)
        assert _is_pure(again)


def test_states_are_remembered_in_the_state_alone() -> None:
    for named in examples().values():
        assert _is_pure(named.policy)


def _is_pure(policy: Any) -> bool:
    from tests.simulations.peers.seen import in_flight, seen

    state = policy.begin()
    for place in range(12):
        shown: Mapping[str, float] = {**in_flight(8, 3.0 * place), "kv_cache_usage": 0.5, "requests_finished": place}
        look = seen(15.0 * place, [shown] * 3)
        first, following = policy.decide(look, state)
        again, same = policy.decide(look, state)
        if (first, following) != (again, same):
            return False
        state = following
    return True
