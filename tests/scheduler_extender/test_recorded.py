"""What kube-scheduler 1.36 really sent is answered in its own form, in its letter case and in lower case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from tests.scheduler_extender.worlds import L40S, RECORDED, Json, Served, in_lower_case, knowing, node, pod

NAMES = sorted(path.stem.removeprefix("v1.36.3-") for path in RECORDED.glob("*.json"))
FILTER_FIELDS = ["Nodes", "NodeNames", "FailedNodes", "FailedAndUnresolvableNodes", "Error"]

twins = pytest.mark.parametrize("twin", [lambda body: body, in_lower_case], ids=["as sent", "in lower case"])


def victim(uid: str, name: str, on: str) -> Json:
    made = pod(name, on=on)
    made["metadata"]["uid"] = uid
    return made


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """gpu-a and gpu-b are full of the pods that the recorded questions would evict; gpu-c is not known."""
    extender = knowing(
        node("gpu-a", 4),
        node("gpu-b", 4, L40S),
        victim("37347dfb-56a4-488c-90b5-2ecb52f780f5", "one", "gpu-a"),
        victim("a47590f0-b785-4e02-bb37-673cca534007", "two", "gpu-b"),
    )
    with Served(extender) as running:
        yield running


def body_of(name: str) -> Json:
    body: Json = orjson.loads((RECORDED / f"v1.36.3-{name}.json").read_bytes())
    return body


def test_every_recorded_body_is_a_test_below() -> None:
    assert len(NAMES) == 10
    assert {name.split("-")[1] for name in NAMES} == {"filter", "prioritize", "preempt"}


@twins
@pytest.mark.parametrize("name", [name for name in NAMES if "filter" in name])
def test_filter_answers_in_the_form_that_was_asked(served: Served, name: str, twin: Callable[[Json], Json]) -> None:
    body = body_of(name)
    answer = served.post("/filter", twin(body))
    assert list(answer) == FILTER_FIELDS
    assert answer["Error"] == ""
    whole = body["Nodes"] is not None
    assert (answer["NodeNames"] is None) is whole
    assert (answer["Nodes"] is None) is not whole
    sent = [n["metadata"]["name"] for n in body["Nodes"]["items"]] if whole else body["NodeNames"]
    passed = [n["metadata"]["name"] for n in answer["Nodes"]["items"]] if whole else answer["NodeNames"]
    refused = {*answer["FailedNodes"], *answer["FailedAndUnresolvableNodes"]}
    assert sorted([*passed, *refused]) == sorted(sent)
    if whole:
        assert [n for n in body["Nodes"]["items"] if n["metadata"]["name"] in passed] == answer["Nodes"]["items"]


@twins
def test_filter_refuses_full_and_unknown_nodes_with_their_own_words(
    served: Served, twin: Callable[[Json], Json]
) -> None:
    answer = served.post("/filter", twin(body_of("names-filter-3nodes")))
    assert answer["NodeNames"] == []
    assert answer["FailedNodes"] == {
        "gpu-a": "too few free GPUs",
        "gpu-b": "too few free GPUs",
        "gpu-c": "node is not known to the extender",
    }


def test_whole_nodes_come_back_in_the_very_bytes(served: Served) -> None:
    """Also what no reader of ours knows, and numbers as they were written."""
    sent = (RECORDED / "v1.36.3-nodes-filter-2nodes.json").read_text().replace('"pods":"110"', '"pods":"110","x":1.50')
    answer = served._runner.run(served._ask("POST", "/filter", sent.encode()))[1].decode()
    items = sent[sent.index('"Nodes":{') : sent.index(']},"NodeNames"')]
    assert items in answer
    assert items.count("1.50") == 4


@twins
@pytest.mark.parametrize("name", [name for name in NAMES if "prioritize" in name])
def test_prioritize_scores_each_name_once_in_order(served: Served, name: str, twin: Callable[[Json], Json]) -> None:
    body = body_of(name)
    answer: list[dict[str, Any]] = served.post("/prioritize", twin(body))
    sent = body["NodeNames"] or [n["metadata"]["name"] for n in body["Nodes"]["items"]]
    assert [each["Host"] for each in answer] == sent
    assert all(type(each["Score"]) is int and 0 <= each["Score"] <= 10 for each in answer)


@twins
def test_preempt_answers_in_meta_form_for_victims_by_uid(served: Served, twin: Callable[[Json], Json]) -> None:
    body = body_of("names-preempt-2nodes")
    assert served.post("/preempt", twin(body)) == {"NodeNameToMetaVictims": body["NodeNameToMetaVictims"]}


@twins
def test_preempt_answers_in_meta_form_for_whole_victims(served: Served, twin: Callable[[Json], Json]) -> None:
    """These pods are not known to hold anything there: without their GPUs the nodes are as full as before."""
    body = body_of("nodes-preempt-2nodes")
    assert served.post("/preempt", twin(body)) == {"NodeNameToMetaVictims": {}}
    empty = knowing(node("gpu-a", 4), node("gpu-b", 4))
    with Served(empty) as other:
        assert other.post("/preempt", twin(body)) == {
            "NodeNameToMetaVictims": {
                "gpu-a": {"Pods": [{"UID": "fd45215f-4a15-49e1-8314-d8b182d37c80"}], "NumPDBViolations": 0},
                "gpu-b": {"Pods": [{"UID": "f08c23a6-9de4-41ba-b012-8d580b972df0"}], "NumPDBViolations": 0},
            }
        }


@pytest.mark.parametrize("prefix", ["", "/scheduler", "/a/b.c/v1"])
def test_every_path_is_there_under_any_prefix(served: Served, prefix: str) -> None:
    assert served.post(f"{prefix}/filter", body_of("names-filter-1nodes"))["Error"] == ""
    for page in ("/healthz", "/readyz", "/metrics"):
        assert served.get(prefix + page)[0] == 200
