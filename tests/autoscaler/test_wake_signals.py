"""What could let a target sleep through requests is told before it does, and at rest it is said what wakes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoscaler.loop import Outcome, Turn
from autoscaler.wake_signals import wakes_by, warnings
from policies.scaling.decision import Binding, Decision
from policies.scaling.observation import Observation
from policies.scaling.resource import VLLMAutoscaler
from tests.autoscaler.test_conditions import after
from tests.autoscaler.test_program import checked, kubeconfig
from tests.autoscaler.worlds import EMPTY, START, resource
from tests.cluster.conftest import api
from tests.stand_ins.kubernetes import KubernetesStandIn
from tests.stand_ins.prometheus import StandInPod, StandInPrometheus

__all__ = ["api", "kubeconfig"]

QUEUED = 'sum(gateway_queued{model="llama"}) or vector(0)'


def stated(*, arrivals: str | None = None, url: str = "http://127.0.0.1:9", **spec: Any) -> VLLMAutoscaler:
    prometheus = {"url": url, **({"arrivals": arrivals} if arrivals else {})}
    return resource(**{"minReplicas": 0, "prometheus": prometheus, **spec})


def test_a_gateway_or_a_router_is_signal_enough() -> None:
    assert list(warnings(stated(wake={"query": QUEUED}).spec)) == []
    assert list(warnings(stated(arrivals="router_requests_total").spec)) == []
    assert list(warnings(stated(minReplicas=1).spec)) == []
    assert wakes_by(stated(wake={"query": QUEUED}, arrivals="x").spec) == "wake.query, prometheus.arrivals, POST /wake"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, "nothing but POST /wake can wake it: name PromQL of a gateway's requests in wake.query"),
        ({"wake": {"query": "sum(vllm:num_requests_waiting)"}}, "wake.query reads vllm:num_requests_waiting, which"),
        ({"arrivals": "vllm:request_success_total"}, "prometheus.arrivals reads vllm:request_success_total, which"),
    ],
    ids=("none", "the pods' queue", "the pods' counter"),
)
def test_a_signal_that_goes_with_the_pods_is_none(spec: dict[str, Any], said: str) -> None:
    (warning,) = warnings(stated(**spec).spec)
    assert said in warning


def at_rest(*problems: str) -> Turn:
    decision = Decision(START, 0, 0, 0, Binding.IDLE, "wants 0: nobody asks for it; 0 ready; stays at 0")
    return Turn(EMPTY, Outcome.UNCHANGED, Observation(START, 0, (), problems=problems), decision)


def test_at_rest_it_is_said_what_wakes_it() -> None:
    status = after(at_rest(), of=stated(wake={"query": QUEUED}))
    found = {each.type: each for each in status.conditions}["MetricsAvailable"]
    assert (found.status, found.reason) == ("Unknown", "AtRest")
    assert found.message == "no pod is there to be measured; what wakes it: wake.query, POST /wake"
    assert (status.replicas_summary, status.reason) == ("0/0/0", "idle")
    deaf = {each.type: each for each in after(at_rest(), of=stated()).conditions}["MetricsAvailable"]
    assert "nothing but POST /wake can wake it" in deaf.message


def test_a_wake_query_that_fails_is_said_at_rest_too() -> None:
    problem = "wake.query (sum() could not be read: refuses the question (HTTP 400, bad_data)"
    ready = {each.type: each for each in after(at_rest(problem), of=stated()).conditions}["Ready"]
    assert (ready.status, ready.reason, ready.message) == ("False", "InvalidSpec", f"spec.{problem}")
    problem = "wake.query (x) could not be read: it has no value now"
    found = {each.type: each for each in after(at_rest(problem), of=stated()).conditions}
    assert (found["Ready"].status, found["MetricsAvailable"].reason) == ("True", "Incomplete")


async def test_check_asks_for_the_wake_query_and_minds_no_rest(
    tmp_path: Path, kubeconfig: str, api: KubernetesStandIn
) -> None:
    api.deploy("vllm-llama", 0)
    with StandInPrometheus([StandInPod("edge", "gateway", "10.1.0.1", "queued 0\n")]) as server:
        server.scrape()
        report = await checked(tmp_path, kubeconfig, stated(url=server.url, wake={"query": "queued # at the gateway"}))
        assert report.problems == []
        assert any("has no series of vLLM" in note for note in report.notes)
        deaf = await checked(tmp_path, kubeconfig, stated(url=server.url))
        assert deaf.problems == []
        assert any("nothing but POST /wake can wake it" in note for note in deaf.notes)
        gone = await checked(tmp_path, kubeconfig, stated(url=server.url, wake={"query": "queue"}))
        assert gone.problems == [
            "inference/llama: spec.wake.query (queue) has no value now: end it with `or vector(0)` where no series "
            "means that nobody asks"
        ]
