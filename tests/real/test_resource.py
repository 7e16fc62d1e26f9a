"""The real API server judges a `VLLMAutoscaler` as our model does, explains it, and keeps its status apart."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings

from policies.scaling.crd import structural
from policies.scaling.resource import Spec
from policies.scaling.resource_reading import InvalidResourceError, read
from policies.scaling.status import Condition, ConditionType, Replicas, Status, written
from tests.parts.control_plane import ControlPlane
from tests.policies.scaling.structural import DOCUMENT, Json, documents
from tests.real.custom_resource import collection, install, refusal

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def served(control_plane: ControlPlane) -> ControlPlane:
    install(control_plane)
    return control_plane


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(document=documents(structural(Spec)))
def test_the_api_server_refuses_what_the_model_refuses(served: ControlPlane, document: Json) -> None:
    try:
        read(document)
        problems: tuple[str, ...] = ()
    except InvalidResourceError as error:
        problems = error.problems
    said = refusal(served.api, document)
    assert bool(said) == bool(problems), (said, problems)


@pytest.mark.parametrize(
    ("block", "fields", "sentence"),
    [
        ("", {"minReplicas": 9}, "minReplicas must not exceed maxReplicas: lower minReplicas or raise maxReplicas"),
        ("", {"maxReplica": 9}, 'unknown field \\"spec.maxReplica\\"'),
        ("objectives", {"attainment": 99}, "spec.objectives.attainment in body should be less than 1"),
        ("prometheus", {"certFile": "f"}, "certFile and keyFile belong together: give both or neither"),
        ("prometheus", {"url": "http://me@host"}, "credentials do not belong into a URL: use basicAuth or"),
        ("prometheus", {"url": "host:9090"}, "is not a URL of a server: write http://HOST:PORT or"),
    ],
)
def test_a_bad_one_is_refused_in_a_sentence(served: ControlPlane, block: str, fields: Json, sentence: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    (document["spec"][block] if block else document["spec"]).update(fields)
    assert sentence in refusal(served.api, document)


@pytest.mark.parametrize(("validation", "warns"), [("Warn", True), ("Ignore", False)])
def test_without_strict_validation_what_is_unknown_is_pruned(
    served: ControlPlane, namespace: str, validation: str, warns: bool
) -> None:
    """Strict is kubectl's default and refuses it; so a tool that does not validate meets this."""
    document = copy.deepcopy(DOCUMENT)
    document["metadata"] = {"name": "llama", "namespace": namespace}
    document["spec"] |= {"maxReplica": 9, "maxReplicas": 8}
    document["spec"]["prometheus"]["timeout"] = 3
    answer = served.api.session.post(
        f"{served.api.url}{collection(namespace)}", json=document, params={"fieldValidation": validation}, timeout=10
    )
    assert answer.status_code == 201, answer.text
    warnings = answer.headers.get("Warning", "")
    for field in ("spec.maxReplica", "spec.prometheus.timeout"):
        assert (f'unknown field \\"{field}\\"' in warnings) is warns, warnings
    kept = served.api.get(f"{collection(namespace)}/llama")["spec"]
    assert "maxReplica" not in kept
    assert "timeout" not in kept["prometheus"]
    assert kept["maxReplicas"] == 8


def test_kubectl_explains_lists_and_shows_it(served: ControlPlane, namespace: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["metadata"] = {"name": "llama", "namespace": namespace}
    made = served.api.create(collection(namespace), document)
    assert made["spec"]["behavior"]["scaleDown"]["windowSeconds"] == 900
    at = "2026-11-21T10:00:00Z"
    ready = Condition(type=ConditionType.READY, status="True", reason="Scaling", message="x", last_transition_time=at)
    status = Status(
        replicas_summary="2/3/4",
        replicas=Replicas(desired=3, ready=2, created=3, wanted=4),
        attainment="99.1 %",
        reason="forecast",
        conditions=(ready,),
    )
    path = f"{collection(namespace)}/llama"
    served.api.patch(f"{path}/status", {"status": written(status), "spec": {"maxReplicas": 99}})
    kept = served.api.get(path)
    assert kept["spec"]["maxReplicas"] == 8, "the status subresource must not change the spec"
    assert kept["metadata"]["generation"] == made["metadata"]["generation"]
    assert kept["status"] == json.loads(json.dumps(written(status)))
    header, row = served.kubectl("get", "vas", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "TARGET", "MIN", "REPLICAS", "MAX", "MODE", "ATTAINMENT", "REASON", "AGE"]
    assert row.split()[:9] == ["llama", "vllm-llama3-8b", "1", "2/3/4", "8", "Active", "99.1", "%", "forecast"]
    assert "llama" in served.kubectl("get", "all", "-n", namespace)
    explained = served.kubectl("explain", "vas.spec.objectives.ttftSeconds")
    assert "Time to first token." in explained
