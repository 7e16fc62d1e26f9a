"""ScaledObjects of a file: KEDA's own loop, the HPA behind it, fallback, modifiers, cron, and its refusals."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from policies.scaling.observation import Observation
from simulations.policy_files.files import NamedPolicy
from tests.simulations.peers.seen import held, in_flight, seen
from tests.simulations.policy_files.written import WAITING, asked, policies, refusals, scaled_object, trigger

LEAST_ONE = "minReplicaCount: 1"


def one(folder: Path, *triggers: str, spec: str = LEAST_ONE, annotations: str = "{}", **settings: Any) -> NamedPolicy:
    """The only policy, or the one as written."""
    return policies(folder, scaled_object(*triggers, spec=spec, annotations=annotations), **settings)[0]


def looks(*waiting: float, pods: int = 4, every: float = 15.0) -> list[Observation]:
    """So many waiting in each pod, tick by tick."""
    return [seen(every * place, [in_flight(4, each)] * pods) for place, each in enumerate(waiting)]


def test_the_sum_is_served_by_average_value_or_by_value(tmp_path: Path) -> None:
    assert asked(one(tmp_path, trigger()), *looks(10.0)) == [8]
    value = trigger(f"avg({WAITING})", "5", more=", metricType: Value")
    assert asked(one(tmp_path, value), *looks(7.5)) == [6]
    assert asked(one(tmp_path, trigger(threshold="12.5")), *looks(20.0)) == [7]


def test_four_pods_with_ten_waiting_go_down_to_two_where_the_query_divides(tmp_path: Path) -> None:
    divided = trigger(f"sum({WAITING}) / count({WAITING})")
    written, meant = policies(tmp_path, scaled_object(divided, spec=LEAST_ONE))
    shown = in_flight(4, 10.0)
    assert held(written.policy, lambda now: shown, start=4, seconds=330)[-1] == 2
    assert asked(meant, *looks(10.0)) == [8]
    assert (
        "trigger 1 does not grow with the pods, and AverageValue divides it by their number once more"
        in (written.notes[0])
    )


def test_an_unaggregated_query_fails_with_two_pods_and_its_sum_was_meant(tmp_path: Path) -> None:
    spec = "minReplicaCount: 1\nfallback: {failureThreshold: 3, replicas: 6}"
    written, meant = policies(tmp_path, scaled_object(trigger(WAITING), spec=spec))
    # While the HPA reads nothing KEDA's loop asks as well: two failures at 0 s, one at 15 s, the fourth at 30 s.
    assert asked(written, *looks(10.0, 10.0, 10.0, 10.0, 10.0)) == [4, 4, 6, 6, 6]
    assert asked(meant, *looks(10.0)) == [8]
    assert "with two pods it answers two series, which KEDA takes for an error" in written.notes[0]


@pytest.mark.parametrize(
    ("behavior", "replicas"),
    [("static", 6), ("currentReplicas", 4), ("currentReplicasIfHigher", 6), ("currentReplicasIfLower", 4)],
)
def test_the_fallback_has_every_behavior(tmp_path: Path, behavior: str, replicas: int) -> None:
    spec = f"minReplicaCount: 1\nfallback: {{failureThreshold: 1, replicas: 6, behavior: {behavior}}}"
    written = one(tmp_path, trigger(WAITING), spec=spec)
    assert asked(written, *looks(10.0, 10.0, 10.0))[-1] == replicas
    by_value = one(tmp_path, trigger(WAITING, more=", metricType: Value"), spec=spec)
    assert asked(by_value, *looks(10.0, 10.0, 10.0))[-1] == replicas


def test_a_trigger_in_its_fallback_counts_as_active(tmp_path: Path) -> None:
    spec = "cooldownPeriod: 30\nfallback: {failureThreshold: 2, replicas: 5}"
    failing = one(tmp_path, trigger(WAITING), spec=spec)
    # Both KEDA's loop and the HPA count the failures: the third is the HPA's second.
    assert asked(failing, *looks(*[10.0] * 8)) == [4, 5, 5, 5, 5, 5, 5, 5]
    assert 0 not in asked(failing, *looks(*[0.0] * 20))
    nothing = one(tmp_path, trigger(WAITING), spec=spec.replace("replicas: 5", "replicas: 0"))
    assert asked(nothing, *looks(*[0.0] * 3))[-1] == 4


def test_without_fallback_an_error_holds_and_an_empty_answer_is_zero_unless_told(tmp_path: Path) -> None:
    quiet = [seen(15.0 * place, [], silent=4) for place in range(23)]
    assert asked(one(tmp_path, trigger()), *quiet)[-1] == 1
    strict = trigger(metadata=", ignoreNullValues: 'false'")
    assert asked(one(tmp_path, strict), *quiet)[-1] == 4
    assert asked(one(tmp_path, trigger(f"sum({WAITING}) / 0")), *quiet)[-1] == 1


def test_it_rests_after_its_cooldown_at_a_poll_and_wakes_when_active(tmp_path: Path) -> None:
    spec = "idleReplicaCount: 0\nminReplicaCount: 2\npollingInterval: 30\ncooldownPeriod: 60"
    written = one(tmp_path, trigger(f"sum({WAITING}) or vector(0)"), spec=spec)
    made = asked(written, *looks(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert made == [4, 4, 4, 4, 4, 4, 0, 4]  # The last look of 4 is told again after the rest.
    assert (written.min_replicas, written.max_replicas) == (0, 50)
    awake = one(tmp_path, trigger("sum(kube_deployment_spec_replicas) + 1"), spec=spec)
    assert asked(awake, seen(0.0, [], desired=0)) == [2]
    high = one(tmp_path, trigger(metadata=", activationThreshold: '40'"), spec=spec)
    assert asked(high, *looks(10.0, 10.0, 10.0, 10.0, 10.0))[-1] == 0
    assert asked(one(tmp_path, trigger(), spec=f"{spec}\ninitialCooldownPeriod: 600"), *looks(*[0.0] * 20))[-1] == 4


def test_it_goes_to_zero_by_default_and_never_wakes_by_a_metric_of_its_pods(tmp_path: Path) -> None:
    rate = trigger("sum(rate(vllm:request_success_total[2m]))", "2")
    written, meant = policies(tmp_path, scaled_object(rate, spec="maxReplicaCount: 4"))
    idle = [seen(15.0 * place, [{"requests_finished": 5.0}], desired=1) for place in range(12)]
    gone = [seen(180.0 + 15.0 * place, [], desired=0) for place in range(40)]
    made = asked(written, *idle, *gone)
    assert 0 in made[:12]
    assert set(made[12:]) == {0}
    assert set(asked(meant, *idle)) == {1}
    assert (written.min_replicas, meant.min_replicas) == (0, 1)
    assert "so it can never wake from zero: a least of 1 is the only way" in written.notes[-1]


def test_an_idle_number_that_is_not_below_the_least_is_refused_as_keda_refuses(tmp_path: Path) -> None:
    written, meant = policies(tmp_path, scaled_object(trigger(), spec="idleReplicaCount: 0"))
    assert asked(written, *looks(90.0, 90.0)) == [4, 4]
    assert (written.min_replicas, meant.min_replicas) == (1, 1)  # A Deployment that nobody scales has one.
    assert "KEDA refuses it: IdleReplicaCount=0 must be less than MinReplicaCount=0" in " ".join(written.notes)
    assert asked(meant, *looks(10.0)) == [8]
    # A least that is written as 0 counts as 1: KEDA takes that.
    (taken, _) = policies(tmp_path, scaled_object(trigger(), spec="idleReplicaCount: 0\nminReplicaCount: 0"))
    assert asked(taken, *looks(10.0)) == [8]


def test_a_service_that_never_queues_rests_while_it_serves_and_that_is_said(tmp_path: Path) -> None:
    written = one(tmp_path, trigger(), spec="idleReplicaCount: 0\nminReplicaCount: 1")
    assert "its triggers look at waiting requests only: a service that never queues is put to rest" in written.notes[0]
    assert asked(written, *looks(0.0, 0.0, 0.0))[-1] == 0


def test_the_formula_makes_one_metric_of_all_triggers(tmp_path: Path) -> None:
    two = (trigger(more=", name: queue"), trigger("avg(vllm:num_requests_running)", more=", name: busy"))
    spec = (
        "minReplicaCount: 1\nadvanced: {scalingModifiers: {formula: 'busy > 3 ? queue + 8 : 0', target: '4', "
        "activationTarget: '1'}}"
    )
    assert asked(one(tmp_path, *two, spec=spec), *looks(5.0)) == [7]
    value = spec.replace("activationTarget", "metricType: Value, activationTarget")
    assert asked(one(tmp_path, *two, spec=value), seen(0.0, [in_flight(4, 0)] * 2)) == [4]
    falling = spec + "\nfallback: {failureThreshold: 0, replicas: 3}"
    broken = (trigger(WAITING, more=", name: queue"), two[1])
    assert asked(one(tmp_path, *broken, spec=falling), *looks(*[5.0] * 23))[-1] == 3
    nil = falling.replace("busy > 3 ? queue + 8 : 0", "(queue ?? 20) + busy").replace(
        "replicas: 3", "replicas: 3, behavior: scalingModifiers"
    )
    assert asked(one(tmp_path, *broken, spec=nil), *looks(5.0)) == [6]


def test_a_cron_trigger_counts_by_the_wall_clock_of_the_trace(tmp_path: Path) -> None:
    cron = (
        "{type: cron, metadata: {timezone: Europe/Berlin, start: '0 8 * * 1-5', end: '30 17 * * *', "
        "desiredReplicas: '6'}}"
    )
    at_once = "{behavior: {scaleDown: {stabilizationWindowSeconds: 0}}}"
    spec = f"minReplicaCount: 1\nadvanced: {{horizontalPodAutoscalerConfig: {at_once}}}"
    monday = dt.datetime(2024, 1, 8, 6, 59, tzinfo=dt.UTC)  # 7:59 in Berlin
    written = one(tmp_path, cron, spec=spec, starts_at=monday)
    assert asked(written, *[seen(30.0 * place, [in_flight(0)] * 2, desired=2) for place in range(4)]) == [1, 1, 6, 6]
    evening = one(tmp_path, cron, spec=spec, starts_at=dt.datetime(2024, 1, 8, 16, 30, tzinfo=dt.UTC))
    assert asked(evening, seen(0.0, [in_flight(0)] * 2)) == [1]
    # KEDA goes by what comes next: on a Sunday, an end before a start is within.
    sunday = dt.datetime(2024, 1, 7, 10, 0, tzinfo=dt.UTC)
    assert asked(one(tmp_path, cron, spec=spec, starts_at=sunday), seen(0.0, [in_flight(0)] * 2)) == [6]
    weekdays = cron.replace("30 17 * * *", "30 17 * * MON-FRI")
    assert asked(one(tmp_path, weekdays, spec=spec, starts_at=sunday), seen(0.0, [in_flight(0)] * 2)) == [1]


def test_annotations_pause_and_force(tmp_path: Path) -> None:
    def annotated(flag: str, value: str = "'true'") -> NamedPolicy:
        return one(tmp_path, trigger(), annotations=f"{{autoscaling.keda.sh/{flag}: {value}}}")

    busy, idle = looks(30.0), looks(*[0.0] * 23)
    assert asked(annotated("paused"), *busy) == [4]
    assert asked(annotated("paused-replicas", "'7'"), *busy) == [7]
    assert annotated("paused-replicas", "'7'").min_replicas == annotated("paused-replicas", "'7'").max_replicas == 7
    assert asked(annotated("paused-scale-out"), *busy) == [4]
    assert asked(annotated("paused-scale-in"), *idle)[-1] == 4
    assert asked(annotated("paused", "'false'"), *busy) == [8]
    spec = "idleReplicaCount: 0\nminReplicaCount: 1"
    forced = one(tmp_path, trigger(), spec=spec, annotations="{autoscaling.keda.sh/force-activation: 'true'}")
    assert asked(forced, seen(0.0, [], desired=0)) == [1]


def test_bounds_are_kedas_own_and_the_maximum_left_out_is_the_replays(tmp_path: Path) -> None:
    assert (one(tmp_path).min_replicas, one(tmp_path).max_replicas) == (1, 50)
    assert one(tmp_path, spec="minReplicaCount: 2\nmaxReplicaCount: 7").max_replicas == 7


CRON = "{type: cron, metadata: {timezone: UTC, start: '0 8 * * *', end: '0 9 * * *', desiredReplicas: '2'}}"


def test_the_target_of_a_formula_may_be_less_than_a_thousandth(tmp_path: Path) -> None:
    spec = f"{LEAST_ONE}\nadvanced: {{scalingModifiers: {{formula: q, target: '0.0001'}}}}"
    assert asked(one(tmp_path, trigger(more=", name: q"), spec=spec), *looks(0.0, 1.0)) == [4, 8]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            scaled_object(spec="minReplicaCount: 9\nmaxReplicaCount: 3"),
            "spec: MinReplicaCount=9 must be less than MaxReplicaCount=3, as KEDA says: lower minReplicaCount or raise",
        ),
        (scaled_object("{type: kafka}"), "spec.triggers[0]: type kafka cannot be replayed: prometheus and cron"),
        (scaled_object("{type: cpu}"), "spec.triggers[0]: type cpu: the simulated fleet knows neither CPU nor memory"),
        (scaled_object("{type: prometheus}"), "spec.triggers[0]: metadata.query is missing: write the query in PromQL"),
        (
            scaled_object("{type: prometheus, metadata: {query: a}}"),
            "spec.triggers[0]: metadata.threshold is missing: write the share of a replica",
        ),
        (
            scaled_object("{type: prometheus, metadata: {query: a, threshold: 5}}"),
            "spec.triggers[0]: metadata.threshold is 5: KEDA takes text only, put it in quotes",
        ),
        (scaled_object(trigger(threshold="x")), "metadata.threshold is 'x': write a number"),
        (scaled_object(trigger(threshold="-1")), "metadata.threshold is -1: it must be more than 0"),
        (scaled_object(trigger(threshold="9" * 400)), f"metadata.threshold is '{'9' * 400}': write a number"),
        (scaled_object(trigger(threshold="nan")), "metadata.threshold is 'nan': write a number"),
        (
            scaled_object(spec="advanced: {scalingModifiers: {formula: a, target: 'inf'}}"),
            "spec.advanced.scalingModifiers: target is 'inf': write a number",
        ),
        (scaled_object(trigger(metadata=", ignoreNullValues: 'maybe'")), 'is \'maybe\': write "true" or "false"'),
        (scaled_object(trigger("topk(1, a)")), "topk() is outside the part of PromQL that is replayed"),
        (scaled_object(trigger("sum(vllm:cars)")), "character 5: vllm:cars is none of the series that the simulated"),
        (scaled_object(trigger(more=", metricType: Utilization")), 'metricType is "Utilization": it must be \'Avera'),
        (
            scaled_object(trigger(more=", name: a"), trigger(more=", name: a")),
            'triggerName "a" is defined multiple times in the ScaledObject/ScaledJob, but it must be unique, as KEDA',
        ),
        (scaled_object(spec="pollingInterval: 0"), "spec.pollingInterval is 0: it must be greater than or equal to 1"),
        (
            scaled_object(spec="coolDownPeriod: 5"),
            "spec.coolDownPeriod is not a field that is known here: did you mean c",
        ),
        (scaled_object(spec="advanced: {hpa: {}}"), "spec.advanced.hpa is not a field that is known here: choose one"),
        (scaled_object(spec="fallback: {failureThreshold: -1, replicas: 2}"), "spec.fallback.failureThreshold is -1"),
        (scaled_object(spec="fallback: {failureThreshold: 1, replicas: 2, behavior: x}"), "spec.fallback.behavior is"),
        (
            scaled_object(spec="fallback: {failureThreshold: 1, replicas: 2, behavior: scalingModifiers}"),
            "scalingModifiers fallback behavior requires scalingModifiers.formula to be defined, as KEDA says",
        ),
        (
            scaled_object(spec="advanced: {scalingModifiers: {target: '2'}}"),
            "spec.advanced.scalingModifiers: error ScalingModifiers.Formula is mandatory, as KEDA says",
        ),
        (
            scaled_object(spec="advanced: {scalingModifiers: {formula: a}}"),
            "formula is given but target is empty, as KEDA says: write target",
        ),
        (
            scaled_object(spec="advanced: {scalingModifiers: {formula: a, target: '2'}}"),
            "formula names 'a', which is no trigger: give a trigger that name",
        ),
        (
            scaled_object(spec="advanced: {scalingModifiers: {formula: 1 +, target: '2'}}"),
            "formula '1 +', character 4: it ends too early: complete it",
        ),
        (scaled_object(CRON.replace("UTC", "Mars/Base")), "time zone 'Mars/Base' is not known: write one such as"),
        (scaled_object(CRON.replace("0 8 * * *", "0 8 * *")), "schedule '0 8 * *' has 4 fields: write minute hour"),
        (scaled_object(CRON.replace("0 8 * * *", "0 25 * * *")), "schedule '0 25 * * *': hour '25' is not within 0-23"),
        (scaled_object(CRON.replace("0 8", "0 9")), "start and end can not have exactly same time input, as KEDA says"),
        (scaled_object(CRON.replace("timezone: UTC, ", "")), "metadata.timezone is missing: a cron trigger needs it"),
        (scaled_object(CRON.replace("'2'", "'0'")), "no desiredReplicas specified, as KEDA says: write 1 or more"),
        (
            scaled_object(annotations="{autoscaling.keda.sh/paused-replicas: many}"),
            "metadata.annotations: paused-replicas is 'many': write a whole number",
        ),
        (scaled_object().replace("v1alpha1", "v1"), "apiVersion is 'keda.sh/v1': write keda.sh/v1alpha1"),
    ],
)
def test_what_cannot_be_replayed_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (found,) = refusals(tmp_path, text)
    assert sentence in found


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = scaled_object("{type: kafka}", trigger("topk(1, a)"), spec="minReplicaCount: 9\nmaxReplicaCount: 3")
    assert len(refusals(tmp_path, text)) == 3
