"""Kubernetes' JSON in the terms of policies."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.objects import (
    LONGEST_START_BELIEVED_SECONDS,
    WatchedPod,
    pod_name_pattern,
    pod_of,
    scale_of,
    unix_time,
    watched_pod,
    workload_of,
)
from policies.scaling.observation import Pod, PodStage
from tests.stand_ins.kubernetes_objects import (
    START,
    Object,
    custom,
    deployment,
    pod,
    ready_pod,
    replica_set,
    stamp,
    stateful_set,
)

OWNER = replica_set(deployment())
HOUR = 3600.0


def made(**times: Any) -> Object:
    return pod(OWNER, "vllm-a-6b7c8d9f4-bbbbb", **times)


def read(thing: Object, before: WatchedPod | None = None) -> WatchedPod:
    watched = watched_pod(thing, before)
    assert watched is not None
    return watched


def through(*shown: Object) -> Pod:
    """The pod after all of these were seen, one after the other."""
    watched: WatchedPod | None = None
    for thing in shown:
        watched = read(thing, watched)
    assert watched is not None
    return watched.pod


@pytest.mark.parametrize(
    ("times", "stage"),
    [
        ({}, PodStage.CREATED),
        ({"unschedulable": "Unschedulable"}, PodStage.UNSCHEDULABLE),
        ({"unschedulable": "SchedulingGated"}, PodStage.UNSCHEDULABLE),
        ({"unschedulable": "SchedulerError"}, PodStage.CREATED),
        ({"scheduled": START + 1}, PodStage.SCHEDULED),
        ({"scheduled": START + 1, "started": START + 5}, PodStage.STARTING),
        ({"scheduled": START + 1, "started": START + 5, "ready": START + 65}, PodStage.READY),
        ({"scheduled": START + 1, "ready": START + 65, "deleted": START + 90}, PodStage.TERMINATING),
        ({"unschedulable": "Unschedulable", "deleted": START + 90}, PodStage.TERMINATING),
    ],
)
def test_each_stage_is_told_by_the_conditions(times: dict[str, Any], stage: PodStage) -> None:
    assert through(made(**times)).stage is stage


def test_the_times_of_the_stages_are_those_of_the_conditions() -> None:
    seen = through(made(scheduled=START + 1, started=START + 5, ready=START + 65, ip="10.0.0.1"))
    assert seen.created_at == START
    assert (seen.scheduled_at, seen.started_at, seen.ready_at) == (START + 1, START + 5, START + 65)
    assert (seen.terminating_at, seen.restarts, seen.template) == (None, 0, "6b7c8d9f4")


def test_a_stage_not_reached_has_no_time() -> None:
    seen = through(made(unschedulable="Unschedulable"))
    assert (seen.scheduled_at, seen.started_at, seen.ready_at) == (None, None, None)


def test_terminating_begins_when_it_was_asked_for_and_not_when_the_grace_ends() -> None:
    seen = through(made(scheduled=START, deleted=START + 100, grace=45))
    assert seen.terminating_at == START + 100


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_an_ended_pod_is_none(phase: str) -> None:
    assert pod_of(made(scheduled=START, phase=phase)) is None
    assert pod_of(made(scheduled=START, phase=phase, deleted=START + 9)) is None


def test_the_container_that_serves_is_the_first_of_the_spec_or_the_one_annotated() -> None:
    thing = made(scheduled=START + 1, started=START + 50)
    assert through(thing).started_at == START + 50
    thing["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "a-sidecar"}
    assert through(thing).started_at == START + 2


def test_restarts_are_those_of_all_containers() -> None:
    thing = made(scheduled=START + 1, started=START + 50, restarts=2)
    thing["status"]["containerStatuses"][0]["restartCount"] = 1
    assert through(thing).restarts == 3


def test_a_flap_does_not_make_a_start_of_hours() -> None:
    times = {"scheduled": START + 1, "started": START + 5}
    booting, ready = made(scheduled=START + 1), made(**times, ready=START + 65)
    unready = made(**times, ready=START + 65, flapped=START + 5 * HOUR)
    again = made(**times, ready=START + 6 * HOUR)
    assert through(booting, ready, unready).ready_at is None
    assert through(booting, ready, unready, again).ready_at == START + 65
    # Without anybody who watched the first start there is no telling, so nothing is told.
    assert through(again).ready_at is None
    assert through(unready, again).ready_at is None


def test_a_pod_that_was_ready_before_anybody_looked_tells_its_start_if_it_is_a_likely_one() -> None:
    times = {"scheduled": START + 2 * HOUR, "started": START + 2 * HOUR + 5}
    likely = START + 2 * HOUR + LONGEST_START_BELIEVED_SECONDS
    # The wait for a node is no part of it.
    assert through(made(**times, ready=likely)).ready_at == likely
    assert through(made(**times, ready=likely + 1)).ready_at is None


def test_a_slow_start_that_was_watched_is_believed() -> None:
    ready = made(scheduled=START + 1, started=START + 5, ready=START + 3 * HOUR)
    assert through(made(scheduled=START + 1), ready).ready_at == START + 3 * HOUR


def test_a_pod_that_restarted_tells_no_start_unless_its_first_was_seen() -> None:
    times = {"scheduled": START + 1, "started": START + 5 * HOUR}
    first = made(scheduled=START + 1, started=START + 5, ready=START + 65)
    booting_again = made(**times, restarts=1)
    ready_again = made(**times, restarts=1, ready=START + 5 * HOUR + 60)
    assert through(ready_again).ready_at is None
    assert through(made(), booting_again, ready_again).ready_at is None
    # While it starts again, this start is what its times are of; afterwards the first, which is the evidence.
    assert through(first, booting_again).started_at == START + 5 * HOUR
    whole = through(first, booting_again, ready_again)
    assert (whole.started_at, whole.ready_at, whole.restarts) == (START + 5, START + 65, 1)


def test_a_new_pod_of_the_same_name_remembers_nothing() -> None:
    first = made(scheduled=START + 1, started=START + 5, ready=START + 65)
    second = copy.deepcopy(made(created=START + 999, scheduled=START + 1000, started=START + 1001, ready=START + 1090))
    second["metadata"]["uid"] = "another"
    assert through(first, second).ready_at == START + 1090


@given(
    stages=st.lists(st.sampled_from(["created", "scheduled", "starting", "ready", "unready"]), max_size=8),
    gaps=st.lists(st.integers(1, 10_000), min_size=8, max_size=8),
)
def test_the_ready_time_of_a_pod_never_changes_once_told(stages: list[str], gaps: list[int]) -> None:
    watched: WatchedPod | None = None
    told: set[float] = set()
    now = START
    for stage, gap in zip(stages, gaps, strict=False):
        now += gap
        times: dict[str, float] = {}
        if stage != "created":
            times["scheduled"] = START + 1
        if stage in ("starting", "ready", "unready"):
            times["started"] = START + 2
        if stage == "ready":
            times["ready"] = now
        if stage == "unready":
            times |= {"ready": START + 3, "flapped": now}
        watched = read(made(**times), watched)
        assert (watched.pod.ready_at is None) or watched.pod.stage is PodStage.READY
        if watched.pod.ready_at is not None:
            told.add(watched.pod.ready_at)
    assert len(told) <= 1


def test_a_deployment_says_what_its_scale_would() -> None:
    seen = workload_of("Deployment", deployment(replicas=3))
    assert (seen.desired, str(seen.selector), seen.rolling) == (3, "app=vllm-a", False)


def test_a_deployment_without_replicas_has_one() -> None:
    thing = deployment()
    del thing["spec"]["replicas"]
    assert workload_of("Deployment", thing).desired == 1


@pytest.mark.parametrize(
    ("status", "rolling"),
    [
        ({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3}, False),
        ({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3}, True),
        ({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 1}, True),
        # Scaling up is no rollout: all that there is is new.
        ({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2}, False),
        ({}, True),
    ],
)
def test_a_deployment_is_rolling_while_old_pods_or_an_unseen_spec_remain(status: Object, rolling: bool) -> None:
    thing = deployment(replicas=3)
    thing["metadata"]["generation"] = 2
    thing["status"] = status
    assert workload_of("Deployment", thing).rolling is rolling


@pytest.mark.parametrize(
    ("status", "strategy", "owned", "rolling"),
    [
        ({}, {}, False, False),
        ({"updateRevision": "2", "updatedReplicas": 1}, {}, False, True),
        ({"updateRevision": "2"}, {"type": "OnDelete"}, False, False),
        # A canary of one of three: it rolls until that one is new, then it stands.
        ({"updateRevision": "2", "updatedReplicas": 0}, {"rollingUpdate": {"partition": 2}}, False, True),
        ({"updateRevision": "2", "updatedReplicas": 1}, {"rollingUpdate": {"partition": 2}}, False, False),
        # A partition that a controller moves by itself, as that of a LeaderWorkerSet does.
        ({"updateRevision": "2", "updatedReplicas": 1}, {"rollingUpdate": {"partition": 2}}, True, True),
    ],
)
def test_a_stateful_set_is_rolling_until_what_should_be_new_is(
    status: Object, strategy: Object, owned: bool, rolling: bool
) -> None:
    owner = custom("LeaderWorkerSet", "lws") if owned else None
    thing = stateful_set("s", replicas=3, owner=owner, **{"currentRevision": "1", "updateRevision": "1", **status})
    thing["spec"]["updateStrategy"] = strategy
    assert workload_of("StatefulSet", thing).rolling is rolling


def test_bare_metadata_leaves_the_number_unknown() -> None:
    thing = {"metadata": replica_set(deployment(), template="abc", revision=12)["metadata"]}
    seen = workload_of("ReplicaSet", thing)
    assert (seen.desired, seen.selector, seen.template, seen.revision) == (None, None, "abc", 12)
    assert seen.controller is not None
    assert seen.controller.kind == "Deployment"


def test_a_scale_without_replicas_asks_for_none() -> None:
    shown = {"metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}, "spec": {}, "status": {"selector": "a=b"}}
    assert scale_of(shown).desired == 0
    assert scale_of({**shown, "status": None}).selector == ""


GENERATED = st.text("bcdfghjklmnpqrstvwxz2456789", min_size=5, max_size=5)
HASH = st.text("bcdfghjklmnpqrstvwxz2456789", min_size=1, max_size=10)
WORD = st.text("abcxyz019", min_size=1, max_size=9)
NAME = st.lists(WORD, min_size=1, max_size=12).map("-".join)


@given(name=NAME, template=HASH, end=GENERATED)
def test_every_name_a_deployment_gives_its_pods_is_matched(name: str, template: str, end: str) -> None:
    # As the API server generates it from the ReplicaSet's name and a dash.
    given_name = f"{name}-{template}-"[:58] + end
    assert re.fullmatch(pod_name_pattern("apps", "Deployment", name), given_name)
    of_set = f"{name}-{template}"
    assert re.fullmatch(pod_name_pattern("apps", "ReplicaSet", of_set), f"{of_set}-"[:58] + end)


@given(name=WORD, other=WORD)
def test_the_pods_of_a_deployment_with_a_longer_name_are_not_matched(name: str, other: str) -> None:
    theirs = f"{name}-{other}-6b7c8d9f4-bbbbb"
    assert not re.fullmatch(pod_name_pattern("apps", "Deployment", name), theirs)


@pytest.mark.parametrize(
    ("kind", "name", "match"),
    [
        (("apps", "StatefulSet"), "vllm-12", True),
        (("apps", "StatefulSet"), "vllm-12-1", False),
        (("leaderworkerset.x-k8s.io", "LeaderWorkerSet"), "vllm-3", True),
        (("leaderworkerset.x-k8s.io", "LeaderWorkerSet"), "vllm-3-1", False),
    ],
)
def test_numbered_pods_are_matched_and_workers_are_not(kind: tuple[str, str], name: str, match: bool) -> None:
    assert bool(re.fullmatch(pod_name_pattern(*kind, "vllm"), name)) is match


def test_a_dot_in_a_name_matches_a_dot_alone_and_a_pattern_has_no_backslash() -> None:
    pattern = pod_name_pattern("apps", "StatefulSet", "llama-3.1")
    assert re.fullmatch(pattern, "llama-3.1-0")
    assert not re.fullmatch(pattern, "llama-3x1-0")
    assert "\\" not in pattern + pod_name_pattern("apps", "Deployment", "llama-3.1")


def test_of_an_unknown_kind_no_names_are_known() -> None:
    assert pod_name_pattern("example.dev", "ModelServer", "ms") == ""


def test_times_are_read_with_and_without_fractions() -> None:
    assert unix_time(stamp(START)) == START
    assert unix_time("2025-10-09T08:53:20.250000Z") == START + 0.25
    assert unix_time(None) is None


def test_a_ready_pod_keeps_its_address() -> None:
    assert read(ready_pod(OWNER, "p", ip="10.1.2.3")).ip == "10.1.2.3"
    assert read(made()).ip == ""
