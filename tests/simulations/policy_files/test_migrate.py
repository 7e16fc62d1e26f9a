"""What people have becomes what the autoscaler takes, and every line of it and every mistake in it is spoken of."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

import preheat
from cluster.files import ConfigError
from policies.scaling.resource import Mode, VLLMAutoscaler
from policies.scaling.resource_reading import read
from simulations.policy_files.migrate import migrated
from tests.checkout import ROOT
from tests.simulations.policy_files.written import WAITING, hpa, pods_metric, scaled_object, trigger

FROM = ROOT / "manifests" / "migrate" / "from"
TPOT = "vllm:request_time_per_output_token_seconds_bucket"
TTFT = "vllm:time_to_first_token_seconds_bucket"


def migrate(text: str, *words: str) -> Result:
    return CliRunner().invoke(preheat.main, ["migrate", "-", *words], input=text)


def made(text: str, *words: str) -> tuple[VLLMAutoscaler, str]:
    """The resource, and its story in one line."""
    result = migrate(text, *words)
    assert result.exit_code == 0, result.output
    story = " ".join(line.removeprefix("#").strip() for line in result.output.splitlines() if line.startswith("#"))
    return read(yaml.safe_load(result.output)), story


def refused(text: str) -> str:
    result = migrate(text)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    return line


SAID = {
    "hpa_running": ["vllm_requests_running is not one of vLLM's names", "never scales"],
    "hpa_waiting": ["waiting_requests is not one of vLLM's names", "behavior.scaleUp.policies: left out"],
    "hpa_three_metrics": [
        "compared with 80, which it never reaches: 0.8 was meant",
        "vllm_pending_requests is not one of vLLM's names",
        "request_latency_p99, AverageValue over the pods 10: left out: the time of a whole answer grows",
    ],
    "keda_waiting": ["AverageValue divides it by their number once more", "pollingInterval: left out"],
    "keda_tpot": ["Value was meant", "objectives.tpotSeconds and objectives.attainment below", "fallback: left out"],
    "keda_to_zero": ["IdleReplicaCount=0 must be less than MinReplicaCount=0", "it can never wake from zero"],
}


@pytest.mark.parametrize("name", SAID)
def test_what_people_have_becomes_what_the_autoscaler_takes(name: str) -> None:
    text = (FROM / f"{name}.yaml").read_text()
    resource, story = made(text)
    was = yaml.safe_load(text)
    assert resource.metadata.name == was["metadata"]["name"]
    assert resource.spec.scale_target_ref.name == was["spec"]["scaleTargetRef"]["name"]
    assert resource.spec.max_replicas == was["spec"].get("maxReplicas", was["spec"].get("maxReplicaCount"))
    assert resource.spec.mode is Mode.SHADOW
    for said in SAID[name]:
        assert said in story


def test_all_of_what_people_have_is_tried() -> None:
    assert {path.stem for path in FROM.glob("*.yaml")} == set(SAID)


def test_the_command_that_compares_both_is_one_that_replay_takes(tmp_path: Path) -> None:
    path = FROM / "keda_tpot.yaml"
    told = CliRunner().invoke(preheat.main, ["migrate", str(path)]).stdout
    (line,) = [line for line in told.splitlines() if "preheat replay '" in line]
    _, command, trace, *words = shlex.split(line.lstrip("# "))
    assert command == "replay"
    assert trace.startswith("prometheus:http://prometheus:9090?target=default/vllm&from=")
    replay = preheat.main.commands["replay"]
    context = replay.make_context("replay", [trace, *words], parent=click.Context(preheat.main))
    assert context.params["more"] == (str(path), "preheat-tpot.yaml")
    assert (context.params["slo_tpot"], context.params["attainment"]) == (0.06, 0.95)


def quantile(series: str, share: float = 0.9) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({series}[2m])))"


@pytest.mark.parametrize(
    ("query", "threshold", "field", "seconds"),
    [
        (quantile(TPOT), "0.06", "tpot_seconds", 0.06),
        (quantile(TPOT), "60", "tpot_seconds", 0.06),  # seconds against milliseconds
        (f"1000 * {quantile(TPOT)}", "60", "tpot_seconds", 0.06),
        (quantile(TTFT), "2", "ttft_seconds", 2.0),
    ],
)
def test_a_quantile_with_its_target_is_the_objective(query: str, threshold: str, field: str, seconds: float) -> None:
    resource, _ = made(scaled_object(trigger(query, threshold), spec="minReplicaCount: 2"))
    assert getattr(resource.spec.objectives, field) == pytest.approx(seconds)
    assert resource.spec.objectives.attainment == 0.9
    assert resource.spec.min_replicas == 2


def test_a_query_of_several_series_is_said_to_make_keda_fail() -> None:
    _, story = made(scaled_object(trigger("vllm:num_requests_waiting", "5"), spec="minReplicaCount: 1"))
    assert "with two pods it answers two series, which KEDA takes for an error" in story
    _, story = made(scaled_object(trigger("sum(vllm:num_requests_waiting)", "5"), spec="minReplicaCount: 0"))
    assert "a service that never queues is put to rest while it serves" in story


def test_what_cannot_be_replayed_is_left_out_and_the_rest_is_migrated() -> None:
    cpu = "{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}"
    resource, story = made(hpa(f"[{cpu}, {pods_metric('vllm:num_requests_waiting')[1:]}", least=2, most=6))
    assert (resource.spec.min_replicas, resource.spec.max_replicas) == (2, 6)
    assert "metrics[0]: left out: Resource cpu: the simulated fleet knows neither CPU nor memory" in story
    assert "metrics[1] vllm:num_requests_waiting" in story
    assert "under this (the other cannot be replayed" in story
    alone, story = made(hpa(f"[{cpu}]"))
    assert alone.spec.min_replicas == 1
    assert made(hpa(""))[1].count("it names no metric, which means CPU at 80 %") == 1


def test_windows_are_kept_and_what_has_no_equal_is_named() -> None:
    behavior = (
        "{scaleDown: {stabilizationWindowSeconds: 600, tolerance: 0, selectPolicy: Disabled}, "
        "scaleUp: {policies: [{type: Pods, value: 2, periodSeconds: 60}]}}"
    )
    resource, story = made(hpa(pods_metric("vllm:num_requests_waiting"), behavior=behavior))
    assert resource.spec.behavior.scale_down.window_seconds == 600
    for said in ("scaleDown.tolerance: left out", "selectPolicy Disabled: left out", "scaleUp.policies: left out"):
        assert said in story


def test_everything_else_of_a_scaled_object_is_named() -> None:
    document: dict[str, Any] = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "all", "namespace": "chat", "annotations": {"autoscaling.keda.sh/paused": "true"}},
        "spec": {
            "scaleTargetRef": {"kind": "StatefulSet", "name": "vllm"},
            "minReplicaCount": 1,
            "cooldownPeriod": 60,
            "advanced": {"restoreToOriginalReplicaCount": True},
            "triggers": [
                {
                    "type": "prometheus",
                    "metadata": {
                        "serverAddress": f"https://prometheus-{number}",
                        "query": "sum(vllm:num_requests_running)",
                        "threshold": "5",
                        "unsafeSsl": "true",
                        "customHeaders": "X=1",
                    },
                    "authenticationRef": {"name": "token"},
                }
                for number in (1, 2)
            ]
            + [
                {
                    "type": "cron",
                    "metadata": {
                        "timezone": "UTC",
                        "start": "0 8 * * *",
                        "end": "0 18 * * *",
                        "desiredReplicas": "4",
                    },
                },
                {"type": "kafka", "metadata": {}},
            ],
        },
    }
    resource, story = made(yaml.safe_dump(document))
    assert resource.key == "chat/all"
    assert resource.spec.scale_target_ref.kind == "StatefulSet"
    assert (resource.spec.max_replicas, resource.spec.prometheus.url) == (100, "https://prometheus-1")
    (floor,) = resource.spec.schedule
    assert (floor.start, floor.end, floor.time_zone, floor.min_replicas) == ("0 8 * * *", "0 18 * * *", "UTC", 4)
    for said in (
        "triggers[2] cron, 4 replicas from 0 8 * * * to 0 18 * * *: schedule below",
        "triggers[3]: left out: type kafka cannot be replayed",
        "triggers[0].authenticationRef: mount its secret",
        "triggers[1].metadata.unsafeSsl: name the authority",
        "customHeaders: has no equal",
        "cooldownPeriod: left out",
        "restoreToOriginalReplicaCount: left out",
        "annotation autoscaling.keda.sh/paused: left out",
    ):
        assert said in story
    other, _ = made(yaml.safe_dump(document), "--prometheus", "http://thanos:9090")
    assert other.spec.prometheus.url == "http://thanos:9090"


def test_a_scaled_object_without_triggers_is_said_to_have_none() -> None:
    text = scaled_object(spec="minReplicaCount: 2")
    for none in ("", "  triggers:", "  triggers: []"):
        resource, story = made("\n".join([*text.splitlines()[:-1], none]))
        assert resource.spec.min_replicas == 2
        assert "it names no trigger, and KEDA refuses it: nothing scales the target" in story
        assert "under this (the other cannot be replayed" in story


def test_a_field_left_empty_is_migrated_as_if_it_were_left_out() -> None:
    rested, story = made(scaled_object(trigger(), spec="minReplicaCount:\ncooldownPeriod:\nmaxReplicaCount:"))
    assert (rested.spec.min_replicas, rested.spec.max_replicas) == (1, 100)
    assert "cooldownPeriod" not in story
    assert "minReplicas: 1  # rested at 0" in migrate(scaled_object(spec="minReplicaCount:")).output
    empty = "{scaleDown: {stabilizationWindowSeconds: }}"
    text = hpa(pods_metric(), behavior=empty).replace("minReplicas: 1", "minReplicas:")
    assert "minReplicas: 1  # it said nothing, which is 1" in migrate(text).output
    assert made(text)[0].spec.behavior == made(hpa(pods_metric()))[0].spec.behavior


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in parts:
        yield (*path, step)
        yield from paths(inner, (*path, step))


WHOLE = {
    "hpa": """
      apiVersion: autoscaling/v2
      kind: HorizontalPodAutoscaler
      metadata: {name: mine, namespace: chat, ownerReferences: [{kind: Fleet, name: all}]}
      spec:
        scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: vllm}
        minReplicas: 1
        maxReplicas: 5
        metrics:
          - type: Pods
            pods:
              metric: {name: "vllm:num_requests_waiting", selector: {matchLabels: {a: b}}}
              target: {type: AverageValue, averageValue: "5"}
          - {type: External, external: {metric: {name: "vllm:num_requests_running"}, target: {type: Value, value: 9}}}
        behavior:
          scaleUp: {selectPolicy: Max, policies: [{type: Pods, value: 4, periodSeconds: 15}]}
          scaleDown: {stabilizationWindowSeconds: 300, tolerance: "0.05", selectPolicy: Disabled}
    """,
    "keda": """
      apiVersion: keda.sh/v1alpha1
      kind: ScaledObject
      metadata: {name: mine, namespace: chat, annotations: {autoscaling.keda.sh/paused: "true"}}
      spec:
        scaleTargetRef: {name: vllm}
        pollingInterval: 15
        cooldownPeriod: 60
        idleReplicaCount: 0
        minReplicaCount: 0
        maxReplicaCount: 8
        fallback: {failureThreshold: 3, replicas: 2, behavior: static}
        advanced:
          restoreToOriginalReplicaCount: true
          horizontalPodAutoscalerConfig: {behavior: {scaleDown: {stabilizationWindowSeconds: 300}}}
          scalingModifiers: {formula: a + b, target: "5", activationTarget: "1", metricType: AverageValue}
        triggers:
          - type: prometheus
            name: a
            metricType: AverageValue
            metadata:
              serverAddress: http://prometheus:9090
              query: sum(vllm:num_requests_waiting)
              threshold: "5"
              activationThreshold: "1"
              ignoreNullValues: "true"
              unsafeSsl: "true"
            authenticationRef: {name: token}
          - type: cron
            name: b
            metadata: {timezone: UTC, start: 0 8 * * *, end: 0 18 * * *, desiredReplicas: "3"}
          - {type: prometheus, metadata: {query: "sum(rate(nginx_ingress_controller_requests[2m]))", threshold: "5"}}
    """,
}


@pytest.mark.parametrize(
    "other",
    [None, "", "x", "7", "\0", 0, 2.5, -1, 10**400, True, [], [None], ["x"], {}, {"a": 1}],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize("name", WHOLE)
def test_whatever_stands_in_a_field_it_is_migrated_or_refused_in_sentences(name: str, other: Any) -> None:
    whole = yaml.safe_load(WHOLE[name])
    assert migrated([(1, whole)], "-")
    for path in paths(whole):
        document = copy.deepcopy(whole)
        inner = document
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = other
        try:
            migrated([(1, document)], "-")
        except ConfigError:
            continue
        except Exception as error:
            pytest.fail(f"{path}: {error!r}")


GATEWAY = 'sum(rate(nginx_ingress_controller_requests{ingress="dev"}[2m]))'
CRON = '{type: cron, metadata: {timezone: UTC, start: "0 8 * * *", end: "0 18 * * *", desiredReplicas: "2"}}'


BUSY = trigger("sum(vllm:num_requests_running)", "1000")


def test_rest_at_zero_stays_rest_where_something_wakes_it() -> None:
    resource, story = made(scaled_object(trigger(GATEWAY, "1000"), BUSY, spec="cooldownPeriod: 600"))
    assert (resource.spec.min_replicas, resource.spec.idle_seconds) == (0, 600)
    assert resource.spec.wake.query == f"{GATEWAY} or vector(0)"
    assert "triggers[0]: wake.query below; else left out" in story
    assert "cooldownPeriod: idleSeconds below" in story
    assert "never wake from zero" not in story
    by_calendar, _ = made(scaled_object(CRON, spec="minReplicaCount: 0"))
    assert (by_calendar.spec.min_replicas, by_calendar.spec.wake.query) == (0, None)
    assert by_calendar.spec.idle_seconds == 300, "KEDA's own"
    at_once, _ = made(scaled_object(CRON, spec="cooldownPeriod: 0"))
    assert at_once.spec.idle_seconds == 1


def test_what_wakes_is_what_keda_would_call_active() -> None:
    active = trigger(GATEWAY, "1000", metadata=", activationThreshold: '0.5'")
    assert made(scaled_object(active))[0].spec.wake.query == f"({GATEWAY}) > bool 0.5 or vector(0)"
    both, story = made(scaled_object(trigger(GATEWAY), trigger("queued")))
    assert both.spec.wake.query == f"sum({GATEWAY} or vector(0)) + sum(queued or vector(0))"
    assert "triggers[1]: wake.query below" in story


@pytest.mark.parametrize("query", [f"sum({WAITING})", "sum(vllm_requests_waiting)", "vector(1)"])
def test_what_goes_with_the_pods_wakes_nobody_so_one_replica_stays(query: str) -> None:
    text = scaled_object(trigger(query), BUSY, spec="minReplicaCount: 0")
    resource, _ = made(text)
    assert (resource.spec.min_replicas, resource.spec.wake.query) == (1, None)
    assert "nothing in it could wake it: name in wake.query what does, and write 0 again" in migrate(text).output


def test_a_list_becomes_as_many_documents() -> None:
    items = [yaml.safe_load(path.read_text()) for path in sorted(FROM.glob("*.yaml"))]
    result = migrate(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}))
    assert [read(each).metadata.name for each in yaml.safe_load_all(result.stdout)] == [
        each["metadata"]["name"] for each in items
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "-: is empty: write an HorizontalPodAutoscaler or a ScaledObject"),
        ("[1]", "-: holds no fields: write an HorizontalPodAutoscaler or a ScaledObject"),
        ("kind: HorizontalPodAutoscalr", "did you mean HorizontalPodAutoscaler?"),
        ("{kind: HorizontalPodAutoscaler, apiVersion: autoscaling/v1}", "kubectl get hpa.v2.autoscaling"),
        ("{kind: ScaledObject, apiVersion: keda.sh/v2}", "write keda.sh/v1alpha1"),
        ("{kind: VLLMAutoscaler}", "is a VLLMAutoscaler already"),
        (
            hpa(pods_metric("vllm:num_requests_waiting"), least=5, most=2),
            "raise the first or lower the second",
        ),
        (
            "{kind: HorizontalPodAutoscaler, apiVersion: autoscaling/v2, "
            "metadata: {ownerReferences: [{kind: ScaledObject, name: chat}]}}",
            "KEDA made it and will make it again: migrate the ScaledObject chat",
        ),
        (hpa("[{type: Pods, pod: 1}]"), "spec.metrics[0].pod is not a field that is known here"),
        (hpa("[]").replace("name: mine", "name: Mine"), "give the autoscaler a name"),
    ],
)
def test_what_cannot_be_migrated_is_refused_in_a_sentence_with_a_remedy(text: str, said: str) -> None:
    assert said in refused(text)
