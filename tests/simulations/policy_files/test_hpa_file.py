"""HorizontalPodAutoscalers of a file: what they ask for, how they are damped, what is refused and what is mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations.policy_files.files import AS_MEANT, AS_WRITTEN
from simulations.policy_files.hpa_file import WrittenHpa
from tests.simulations.peers.seen import in_flight, seen
from tests.simulations.policy_files.written import (
    WAITING,
    Said,
    asked,
    external,
    hpa,
    pods_metric,
    policies,
    refusals,
)


def test_a_pods_metric_is_a_mean_with_the_rules_for_pods_that_boot(tmp_path: Path) -> None:
    (one,) = policies(tmp_path, hpa(pods_metric()))
    assert (one.name, one.variant, one.notes, one.min_replicas, one.max_replicas) == ("object.yaml", "", (), 1, 50)
    assert "Kubernetes HPA" in one.label
    assert asked(one, seen(0.0, [in_flight(0, 20)] * 2)) == [4]
    # A container that runs and shows nothing counts as 0 on the way up: (40 + 0) / 2 a pod.
    assert asked(one, seen(0.0, [in_flight(0, 40)], silent=1)) == [4]
    assert asked(one, seen(0.0, [], silent=2)) == [2]


def test_an_external_metric_by_average_value_and_by_value(tmp_path: Path) -> None:
    (average,) = policies(tmp_path, hpa(external(average="5")))
    (value,) = policies(
        tmp_path, hpa(external("sum_waiting", value="10")), metrics=Said({"sum_waiting": f"avg({WAITING})"})
    )
    look = seen(0.0, [in_flight(0, 15)] * 2)
    assert asked(average, look) == [4]  # ⌈30 / 5⌉ = 6, at most four or twice as many at once
    assert asked(value, look) == [3]  # two ready pods × 15 / 10
    # Booting pods do not multiply.
    assert asked(value, seen(0.0, [in_flight(0, 15)] * 2, booting=2)) == [4]


def test_several_metrics_take_the_greatest_and_a_silent_one_holds_a_shrink(tmp_path: Path) -> None:
    text = pods_metric()[:-1] + ", " + pods_metric("vllm:kv_cache_usage_perc", "500m")[1:]
    (both,) = policies(tmp_path, hpa(text, behavior="{scaleDown: {stabilizationWindowSeconds: 0}}"))
    full = {"requests_waiting": 1.0, "kv_cache_usage": 0.9}
    assert asked(both, seen(0.0, [full] * 3)) == [6]
    idle = {"requests_waiting": 1.0, "kv_cache_usage": 0.1}
    assert asked(both, seen(0.0, [idle] * 3), seen(15.0, [idle] * 3)) == [1, 1]
    assert asked(both, seen(0.0, [in_flight(0, 1)] * 3), seen(15.0, [in_flight(0, 1)] * 3)) == [3, 3]
    assert asked(both, seen(0.0, [in_flight(0, 20)] * 3)) == [6]


def test_every_field_of_behavior_is_read(tmp_path: Path) -> None:
    behavior = (
        "{scaleUp: {tolerance: 300m, selectPolicy: Min, policies: [{type: Pods, value: 3, periodSeconds: 60}, "
        "{type: Percent, value: 50, periodSeconds: 30}]}, "
        "scaleDown: {stabilizationWindowSeconds: 45, selectPolicy: Disabled, tolerance: '0.2'}}"
    )
    (one,) = policies(tmp_path, hpa(pods_metric(), behavior=behavior))
    assert isinstance(one.policy, WrittenHpa)
    law = one.policy.hpa
    assert (law.tolerance_up, law.tolerance_down) == (0.3, 0.2)
    assert law.behavior is not None
    assert (law.behavior.up.window_seconds, law.behavior.down.window_seconds) == (0.0, 45.0)
    assert asked(one, seen(0.0, [in_flight(0, 12)] * 4)) == [4]  # 1.2 is within a tolerance of 0.3
    assert asked(one, seen(0.0, [in_flight(0, 90)] * 4)) == [6]  # half of 4 is less than 3
    assert asked(one, *(seen(15.0 * i, [in_flight(0, 0)] * 4) for i in range(6))) == [4] * 6
    (plain,) = policies(tmp_path, hpa(pods_metric(), behavior="{scaleUp: {stabilizationWindowSeconds: 30}}"))
    assert asked(plain, *(seen(15.0 * i, [in_flight(0, 90)] * 4) for i in range(4))) == [4, 4, 8, 8]


def test_a_quantile_by_name_reads_all_buckets(tmp_path: Path) -> None:
    (one,) = policies(tmp_path, hpa(pods_metric("request_latency_p99", "10")))
    assert one.policy.reads_histograms == "whole"
    assert one.notes == (
        "request_latency_p99 is not one of vLLM's names: read as that quantile of "
        "vllm:e2e_request_latency_seconds over 5 minutes",
    )
    (other,) = policies(tmp_path, hpa(pods_metric()))
    assert other.policy.reads_histograms is False


def test_a_share_compared_with_eighty_is_told_and_mended(tmp_path: Path) -> None:
    written, meant = policies(tmp_path, hpa(pods_metric("gpu_cache_usage_ratio", '"80"')))
    assert (written.name, written.variant) == ("object.yaml (as written)", AS_WRITTEN)
    assert (meant.name, meant.variant) == ("object.yaml (as meant)", AS_MEANT)
    assert meant.notes == ("it is the same without what is said to be wrong with it as written",)
    assert "is a share from 0 to 1 and is compared with 80, which it never reaches: 0.8 was meant" in written.notes[1]
    look = seen(0.0, [{"kv_cache_usage": 1.0}] * 4)
    assert asked(written, look, seen(15.0, [{"kv_cache_usage": 1.0}] * 4)) == [4, 4]
    assert asked(meant, look) == [5]


def test_a_mean_under_average_value_is_told_and_mended(tmp_path: Path) -> None:
    said = Said({"mine": f"avg({WAITING})"})
    written, meant = policies(tmp_path, hpa(external("mine", average="5")), metrics=said)
    look = [seen(15.0 * i, [in_flight(0, 10)] * 4) for i in range(22)]
    assert asked(written, *look)[-1] == 2
    assert asked(meant, look[0]) == [8]
    # A value a pod, added up by the HPA itself, is what AverageValue is for.
    assert len(policies(tmp_path, hpa(external(average="5")))) == 1


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            hpa("[{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]"),
            ["spec.metrics[0]: Resource cpu: the simulated fleet knows neither CPU nor memory of a pod, and neither "],
        ),
        (
            hpa("[{type: ContainerResource, containerResource: {name: memory, container: vllm}}]"),
            ["spec.metrics[0]: ContainerResource memory: the simulated fleet knows neither"],
        ),
        (hpa(), ["spec.metrics is missing, which means CPU at 80 %: the simulated fleet knows neither CPU"]),
        (
            hpa(pods_metric(), least=5, most=3),
            ["spec.maxReplicas (3) is less than spec.minReplicas (5): raise the first or lower the second"],
        ),
        (hpa(pods_metric(), least=0), ["spec.minReplicas is 0: that needs Kubernetes' HPAScaleToZero gate"]),
        (hpa(pods_metric(), most=0), ["spec.maxReplicas is 0: it must be greater than or equal to 1"]),
        (hpa(pods_metric(target="none")), ['averageValue is "none": it must be a quantity such as 60, "0.8" or 500m']),
        (hpa(pods_metric(target="0")), ["pods.target.averageValue is 0: give a quantity of more than 0"]),
        (hpa(pods_metric(target='"1e400"')), ['averageValue is "1e400": it must be a quantity that 64 bits hold']),
        (hpa(external(value="")), ["external.target.value is missing: give a quantity of more than 0"]),
        (
            hpa("[{type: Pods, pods: {metric: {name: a}, target: {type: Value, value: 5}}}]"),
            ["spec.metrics[0]: pods.target.type is Value: of Pods metrics it must be AverageValue"],
        ),
        (hpa("[{type: Pods}]"), ["spec.metrics[0]: type is Pods and pods is missing: write the metric and its target"]),
        (
            hpa(pods_metric("vllm:num_request_waiting")),
            ["metric vllm:num_request_waiting is none that the simulated fleet shows (is vllm:num_requests_waiting "],
        ),
        (
            hpa(pods_metric("cars")),
            ["metric cars is none that the simulated fleet shows: say what it is in a --metrics"],
        ),
        (
            hpa(pods_metric(), behavior="{scaleUp: {policies: [{type: Pods, value: 0, periodSeconds: 60}]}}"),
            ["spec.behavior.scaleUp.policies[0].value is 0: it must be greater than or equal to 1"],
        ),
        (
            hpa(pods_metric(), behavior="{scaleUp: {stabilisationWindowSeconds: 3}}"),
            ["spec.behavior.scaleUp.stabilisationWindowSeconds is not a field that is known here: did you mean "],
        ),
        (
            hpa(pods_metric(), behavior="{scaleDown: {selectPolicy: Least}}"),
            ["spec.behavior.scaleDown.selectPolicy is \"Least\": it must be 'Max', 'Min' or 'Disabled'"],
        ),
        (
            hpa(pods_metric()).replace("autoscaling/v2", "autoscaling/v1"),
            ["apiVersion is 'autoscaling/v1': write auto"],
        ),
        (hpa(pods_metric()).replace("  maxReplicas: 50\n", ""), ["spec.maxReplicas is missing: it must be given"]),
    ],
)
def test_what_cannot_be_replayed_is_one_sentence(tmp_path: Path, text: str, sentences: list[str]) -> None:
    found = refusals(tmp_path, text)
    assert len(found) == len(sentences)
    for problem, sentence in zip(found, sentences, strict=True):
        assert sentence in problem


def test_a_query_without_a_value_a_pod_is_no_pods_metric(tmp_path: Path) -> None:
    (said,) = refusals(tmp_path, hpa(pods_metric("total")), metrics=Said({"total": f"sum({WAITING})"}))
    assert "metric total has no value a pod, which type Pods needs: keep the label, as in sum by (pod) (…)" in said
    (said,) = refusals(tmp_path, hpa(pods_metric("total")), metrics=Said({"total": "topk(1, a)"}))
    assert "topk() is outside the part of PromQL that is replayed" in said
