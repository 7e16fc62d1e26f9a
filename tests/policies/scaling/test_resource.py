"""What a user writes is read whole, or refused with every mistake named at once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling.resource import API_VERSION, KIND, Mode, VLLMAutoscaler
from policies.scaling.resource_reading import InvalidResourceError, read

DOCUMENT: dict[str, Any] = {
    "apiVersion": API_VERSION,
    "kind": KIND,
    "metadata": {"name": "llama3-8b", "namespace": "inference"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "vllm-llama3-8b"},
        "minReplicas": 1,
        "maxReplicas": 8,
        "objectives": {"ttftSeconds": 2, "tpotSeconds": 0.06, "attainment": 0.99},
        "coldStartSeconds": 120,
        "prometheus": {"url": "http://prometheus.monitoring:9090"},
        "mode": "Active",
    },
}


def changed(path: str, value: object) -> dict[str, Any]:
    """The document with one field set, or taken out where the value is `...`."""
    document = copy.deepcopy(DOCUMENT)
    *parents, name = path.split(".")
    block = document
    for parent in parents:
        block = block.setdefault(parent, {})
    if value is ...:
        del block[name]
    else:
        block[name] = value
    return document


def problems_of(document: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(InvalidResourceError) as refused:
        read(document)
    return refused.value.problems


def test_the_document_of_the_readme_is_read_as_written() -> None:
    resource = read(DOCUMENT)
    assert resource.key == "inference/llama3-8b"
    assert resource.spec.objectives.attainment == 0.99
    assert resource.spec.cold_start_seconds == 120
    assert resource.spec.mode is Mode.ACTIVE


def test_only_target_ceiling_objectives_and_prometheus_are_needed() -> None:
    resource = read(
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": "a"},
            "spec": {
                "scaleTargetRef": {"name": "b"},
                "maxReplicas": 2,
                "objectives": {"ttftSeconds": 1, "tpotSeconds": 1},
                "prometheus": {"url": "https://host/prefix/"},
            },
        }
    )
    assert resource.key == "default/a"
    assert resource.spec.prometheus.url == "https://host/prefix"
    assert resource.spec.min_replicas == 1


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("apiVersion", "v1", f'apiVersion is "v1": it must be {API_VERSION}'),
        ("kind", "Deployment", 'kind is "Deployment": it must be VLLMAutoscaler'),
        ("metadata.name", "Llama_3", 'metadata.name is "Llama_3": it is not written as Kubernetes writes it'),
        (
            "metadata.namspace",
            "x",
            "metadata.namspace is not a field of Kubernetes metadata: did you mean namespace?",
        ),
        (
            "spec.minReplica",
            2,
            "spec.minReplica is not a field of VLLMAutoscaler: did you mean minReplicas?",
        ),
        (
            "spec.min_replicas",
            2,
            "spec.min_replicas is not a field of VLLMAutoscaler: did you mean minReplicas?",
        ),
        (
            "spec.ttftSeconds",
            2,
            "spec.ttftSeconds is not a field of VLLMAutoscaler: it belongs to spec.objectives",
        ),
        ("spec.minReplicas", 9, "spec: minReplicas (9) must not exceed maxReplicas (8)"),
        ("spec.minReplicas", -1, "spec.minReplicas is -1: it must be at least 0"),
        ("spec.maxReplicas", 0, "spec.maxReplicas is 0: it must be at least 1"),
        ("spec.idleSeconds", 0, "spec.idleSeconds is 0: it must be greater than 0; write how long nothing"),
        (
            "spec.prometheus.labels",
            {"pod": "x) (up) or vector(1) #"},
            'spec.prometheus.labels.pod is "x) (up) or vector(1) #": it is not written as Prometheus writes it',
        ),
        ("spec.wake", "sum(x)", 'spec.wake is "sum(x)": it must hold fields, one a line'),
        ("spec.wake.query", "", 'spec.wake.query is "": it must not be empty'),
        ("spec.query", "sum(x)", "spec.query is not a field of VLLMAutoscaler: it belongs to spec.wake"),
        ("spec.maxReplicas", "8", 'spec.maxReplicas is "8": it must be a whole number'),
        ("spec.maxReplicas", 8.0, "spec.maxReplicas is 8.0: it must be a whole number"),
        ("spec.maxReplicas", True, "spec.maxReplicas is true: it must be a whole number"),
        ("spec.maxReplicas", ..., "spec.maxReplicas is missing: write the most replicas that may run"),
        ("spec.maxReplicas", None, "spec.maxReplicas is missing: write the most replicas that may run"),
        ("spec.objectives", ..., "spec.objectives is missing: write objectives: {ttftSeconds: 2"),
        ("spec.objectives", 3, "spec.objectives is 3: it must hold fields, one a line"),
        (
            "spec.objectives.ttftSeconds",
            0,
            "spec.objectives.ttftSeconds is 0: it must be greater than 0; write the time to first token",
        ),
        (
            "spec.objectives.tpotSeconds",
            -0.1,
            "spec.objectives.tpotSeconds is -0.1: it must be greater than 0",
        ),
        (
            "spec.objectives.tpotSeconds",
            float("nan"),
            "spec.objectives.tpotSeconds is NaN: it must be a finite number",
        ),
        (
            "spec.objectives.attainment",
            99,
            "spec.objectives.attainment is 99: it must be less than 1; it is a share, so write 0.99 for 99 %",
        ),
        ("spec.objectives.attainment", 1, "spec.objectives.attainment is 1: it must be less than 1"),
        ("spec.objectives.attainment", 0, "spec.objectives.attainment is 0: it must be greater than 0"),
        ("spec.prometheus.url", "prometheus:9090", "spec.prometheus.url: 'prometheus:9090' is not a URL"),
        ("spec.prometheus.url", "http://host:99999", "spec.prometheus.url: 'http://host:99999' is not a URL"),
        ("spec.prometheus.url", "http://me:secret@host", "spec.prometheus.url: credentials do not belong"),
        ("spec.prometheus.certFile", "a", "spec.prometheus: certFile and keyFile belong together"),
        ("spec.mode", "shadow", 'spec.mode is "shadow": it must be Active, Shadow, Publish or Floor'),
        ("spec.scaleTargetRef.kind", "deploy", 'spec.scaleTargetRef.kind is "deploy": it is not written as'),
    ],
)
def test_one_mistake_is_one_sentence_with_field_reason_and_remedy(path: str, value: object, sentence: str) -> None:
    (problem,) = problems_of(changed(path, value))
    assert problem.startswith(sentence)
    assert "pydantic" not in problem
    assert "Input should" not in problem


def test_all_mistakes_are_told_at_once_even_those_a_wrong_neighbour_would_hide() -> None:
    document = changed("spec.minReplicas", 9)
    document["spec"]["zeal"] = 1
    document["spec"]["objectives"]["ttftSeconds"] = 0
    document["spec"]["prometheus"] |= {"url": "x", "bearerTokenFile": "t", "basicAuth": {"username": "u"}}
    problems = problems_of(document)
    for start in (
        "spec.zeal is not a field",
        "spec.objectives.ttftSeconds is 0",
        "spec.prometheus.url",
        "spec.prometheus.basicAuth.passwordFile is missing",
        "spec: minReplicas (9)",
        "spec.prometheus: bearerTokenFile and basicAuth exclude each other",
    ):
        assert sum(problem.startswith(start) for problem in problems) == 1, start
    assert len(problems) == 6


def test_a_document_that_contains_itself_is_refused() -> None:
    document = changed("spec.mode", "Active")
    document["spec"]["behavior"] = document
    assert problems_of(document) == ("the document contains itself through a YAML anchor: write it out without",)
    circle: list[object] = []
    circle.append(circle)
    document["spec"]["behavior"] = circle
    assert "contains itself" in problems_of(document)[0]


keys = st.text(max_size=8) | st.integers(0, 9) | st.booleans()  # YAML knows keys that are no text
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(
        [
            "metadata",
            "metadata.name",
            "spec",
            "spec.scaleTargetRef",
            "spec.maxReplicas",
            "spec.objectives",
            "spec.objectives.attainment",
            "spec.prometheus",
            "spec.prometheus.url",
            "spec.prometheus.basicAuth",
            "spec.behavior",
            "spec.behavior.scaleDown",
            "spec.coldStartSeconds",
            "spec.other",
            "status",
        ]
    ),
    json_values,
)
def test_whatever_is_written_is_read_or_refused_in_plain_sentences(path: str, value: object) -> None:
    problems: tuple[str, ...] = ()
    try:
        assert isinstance(read(changed(path, value)), VLLMAutoscaler)
    except InvalidResourceError as refused:
        problems = refused.problems or ("nothing was said",)
    assert not [problem for problem in problems if "Input should" in problem or "\n" in problem]
    assert "nothing was said" not in problems
