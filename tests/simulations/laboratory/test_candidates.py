"""From what `--policy` says to policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.files import ConfigError
from simulations.laboratory.candidates import NAMES, candidates
from simulations.model.cold_start import Changing, Constant
from simulations.peers.hpa import Hpa
from simulations.replay import Preheat, Schedule
from tests.simulations.scenes import scenario

HPA = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: mine}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: vllm}
  minReplicas: 2
  maxReplicas: 5
  metrics:
  - type: Pods
    pods: {metric: {name: vllm_num_requests_waiting}, target: {type: AverageValue, averageValue: "4"}}
"""


def test_names_become_policies_with_the_flags_bounds() -> None:
    found = candidates(["preheat", "static:07", "oracle", "hpa:target=5"], scenario())
    assert [each.name for each in found] == ["preheat", "static:7", "oracle", "hpa:target=5"]
    assert isinstance(found[0].policy, Preheat)
    assert found[0].policy.policy.cold_start_seconds == 60
    assert found[1].policy == Schedule.static(7)
    assert [(each.min_replicas, each.max_replicas) for each in found] == [(1, 9), (7, 7), (1, 9), (1, 9)]
    assert isinstance(found[3].policy, Hpa)


def test_ours_is_told_the_cold_start_of_before_where_it_changes() -> None:
    found = candidates(["preheat"], scenario(cold_start=Changing(Constant(60), Constant(180), 300)))
    assert isinstance(found[0].policy, Preheat)
    assert found[0].policy.policy.cold_start_seconds == 60


def test_the_bounds_of_a_file_win_and_a_pattern_takes_several(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(HPA)
    found = candidates([f"{tmp_path}/*.yaml"], scenario())
    assert [each.name for each in found] == ["a.yaml", "b.yaml"]
    assert {(each.min_replicas, each.max_replicas) for each in found} == {(2, 5)}
    assert len(candidates([str(tmp_path)], scenario())) == 2


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("prehat", "policy 'prehat' is not known: did you mean preheat?"),
        ("statik:3", "policy 'statik:3' is not known: did you mean static:N?"),
        ("KPA", "policy 'KPA' is not known: did you mean kpa?"),
        ("zzz", f"policy 'zzz' is not known: choose one of {', '.join(NAMES)}, or a YAML file"),
        ("static", "policy 'static': write static:N with the number of replicas, 1 or more"),
        ("static:0", "policy 'static:0': write static:N with the number of replicas, 1 or more"),
        ("oracle:a=1", "policy 'oracle:a=1': oracle takes no parameters: write oracle"),
        ("hpa:tragte=1", "policy hpa has no parameter 'tragte': did you mean target?"),
        ("nowhere/*.yaml", "--policy nowhere/*.yaml: no file is called so: name one that is there"),
        ("nowhere.yaml", "nowhere.yaml: does not exist: check the path"),
    ],
)
def test_what_is_not_known_is_refused_with_the_nearest(asked: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as told:
        candidates([asked], scenario())
    assert len(told.value.problems) == 1
    assert told.value.problems[0].startswith(sentence)


def test_all_that_is_wrong_is_said_at_once_and_no_policy_comes_twice() -> None:
    with pytest.raises(ConfigError) as told:
        candidates(["hpaa", "keda", "kdea", "keda"], scenario())
    assert [problem.split(":")[0] for problem in told.value.problems] == [
        "policy 'hpaa' is not known",
        "policy 'kdea' is not known",
        "--policy",
    ]
