"""Whatever comes in, the answer is 200, JSON of the right form, and the least harm."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.pages import listen
from scheduler_extender import facts, wire
from tests.scheduler_extender.worlds import Json, Served, knowing, names_question, node, nodes_question, pod

POD = pod("asking")
HOLDER = pod("holder", 8, on="gpu-a")
META_VICTIMS = {"gpu-a": {"Pods": [{"UID": "pod/holder"}], "NumPDBViolations": 0}}
PREEMPT = {"Pod": POD, "NodeNameToVictims": None, "NodeNameToMetaVictims": META_VICTIMS}

CASES: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "not-json"),
    ("no JSON", b"<html>", "not-json"),
    ("no UTF-8", b'{"Pod":"\xff"}', "not-json"),
    ("a list", b"[]", "not-json"),
    ("a number", b"3", "not-json"),
    ("NaN", b'{"Pod":NaN}', "not-json"),
    ("truncated", orjson.dumps(names_question(POD, "gpu-a", "gpu-b"))[:-9], "not-json"),
    ("twice", orjson.dumps(names_question(POD, "gpu-a")) * 2, "not-json"),
    ("deep", b'{"Pod":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "not-json"),
    ("deep and large", b'{"Pod":' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}", "not-json"),
    ("no Pod", orjson.dumps({"NodeNames": ["gpu-a", "gpu-b"]}), "no-pod"),
    ("null Pod", orjson.dumps({"Pod": None, "NodeNames": ["gpu-a", "gpu-b"]}), "no-pod"),
    ("a text as Pod", orjson.dumps({"Pod": "p", "NodeNames": ["gpu-a", "gpu-b"]}), "no-pod"),
    ("a Pod without spec", orjson.dumps({"Pod": {}, "NodeNames": ["gpu-a", "gpu-b"]}), "pod"),
    ("a spec as text", orjson.dumps({"Pod": {"spec": "x"}, "NodeNames": ["gpu-a", "gpu-b"]}), "pod"),
    (
        "containers as a number",
        orjson.dumps({"Pod": {"spec": {"containers": 3}}, "NodeNames": ["gpu-a", "gpu-b"]}),
        "pod",
    ),
]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(knowing(node("gpu-a"), node("gpu-b", 4), HOLDER)) as running:
        yield running


def named_in(body: bytes) -> list[str]:
    try:
        return list(orjson.loads(body)["NodeNames"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return []


@pytest.mark.parametrize(("body", "kind"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_not_understood_is_said_without_harm(served: Served, body: bytes, kind: str) -> None:
    def counted(verb: str) -> float:
        series = f'preheat_extender_questions_unanswered_total{{reason="{kind}",verb="{verb}"}}'
        return served.metric(series) or 0.0

    before = {verb: counted(verb) for verb in ("filter", "prioritize", "preempt")}
    filtered = served.post("/filter", body)
    assert filtered.pop("Error")
    assert set(filtered.values()) == {None}
    assert served.post("/prioritize", body) == [{"Host": name, "Score": 0} for name in named_in(body)]
    assert served.post("/preempt", body) == {"NodeNameToMetaVictims": {}}
    assert {verb: counted(verb) for verb in before} == {verb: number + 1 for verb, number in before.items()}


def test_names_of_wrong_types_leave_the_readable_ones(served: Served) -> None:
    body = {"Pod": POD, "NodeNames": ["gpu-a", 3, None, ["gpu-b"], "gpu-b"]}
    assert "NodeNames" in served.post("/filter", body)["Error"]
    assert served.post("/prioritize", body) == [{"Host": "gpu-a", "Score": 0}, {"Host": "gpu-b", "Score": 0}]


def test_neither_names_nor_nodes_is_an_error_and_none_of_either_is_not(served: Served) -> None:
    assert "both null" in served.post("/filter", {"Pod": POD})["Error"]
    assert served.post("/filter", names_question(POD))["NodeNames"] == []
    assert served.post("/filter", nodes_question(POD))["Nodes"]["items"] == []
    assert served.post("/prioritize", nodes_question(POD)) == []


def test_a_node_that_is_none_is_refused_beside_sound_ones(served: Served) -> None:
    unsound = node("odd")
    unsound["status"] = {"allocatable": {"nvidia.com/gpu": "many"}}
    answer = served.post("/filter", nodes_question(POD, node("new"), unsound))
    assert [each["metadata"]["name"] for each in answer["Nodes"]["items"]] == ["new"]
    assert answer["FailedNodes"] == {"odd": "node is not known to the extender"}


def test_an_item_without_a_name_is_not_understood(served: Served) -> None:
    body = nodes_question(POD, node("new"), {"metadata": {}}, 3)  # type: ignore[arg-type]
    assert "no name" in served.post("/filter", body)["Error"]
    assert served.post("/prioritize", body) == [{"Host": "new", "Score": 0}]


@pytest.mark.parametrize("nodes", [[], False, 3, "text", {"items": False}, {"items": {}}, {"items": "text"}])
@pytest.mark.parametrize("padding", ["", "x" * wire.LARGEST_BUILT_BYTES], ids=["small", "large"])
def test_nodes_that_are_none_are_told_as_such_and_not_as_broken_json(served: Served, nodes: Any, padding: str) -> None:
    unanswered = "preheat_extender_questions_unanswered_total"
    before = served.metric(f'{unanswered}{{reason="nodes",verb="filter"}}') or 0
    body = {"Pod": POD, "Padding": padding, "Nodes": nodes, "NodeNames": ["gpu-a", 3]}
    assert served.post("/filter", body)["Error"] == "Nodes must be an object with a list of items"
    assert served.metric(f'{unanswered}{{reason="nodes",verb="filter"}}') == before + 1
    assert served.post("/prioritize", body) == [{"Host": "gpu-a", "Score": 0}]


def test_nodes_that_are_no_json_are_told_as_that(served: Served) -> None:
    for nodes in (b"", b"[", b'"text', b'{"items":"text'):
        body = orjson.dumps({"Pod": POD, "Padding": "x" * wire.LARGEST_BUILT_BYTES})[:-1] + b',"Nodes":' + nodes + b"}"
        assert "is not JSON from byte" in served.post("/filter", body)["Error"]


@pytest.mark.parametrize(
    "victims",
    [
        3,
        {"gpu-a": 3},
        {"gpu-a": {"Pods": 3}},
        {"gpu-a": {"Pods": [3]}},
        {"gpu-a": {"Pods": [{"UID": 3}]}},
        {"gpu-a": {"Pods": [{"metadata": 3}]}},
    ],
)
def test_victims_that_cannot_be_read_evict_nobody(served: Served, victims: Any) -> None:
    for field in ("NodeNameToVictims", "NodeNameToMetaVictims"):
        assert served.post("/preempt", {"Pod": POD, field: victims}) == {"NodeNameToMetaVictims": {}}


@pytest.mark.parametrize("violations", [1 << 63, (1 << 64) - 1, 10**30, 1.5, "1", True, None])
def test_violations_that_no_scheduler_could_read_back_are_none(served: Served, violations: Any) -> None:
    """Go reads 64 bits with a sign; one number more, and it would throw the whole answer away."""
    victims = {"gpu-a": {"Pods": [{"UID": "pod/holder"}], "NumPDBViolations": violations}}
    answer = served.post("/preempt", json.dumps({"Pod": POD, "NodeNameToMetaVictims": victims}).encode())
    assert answer == {"NodeNameToMetaVictims": META_VICTIMS}
    victims["gpu-a"]["NumPDBViolations"] = 3
    assert served.post("/preempt", {"Pod": POD, "NodeNameToMetaVictims": victims})["NodeNameToMetaVictims"] == victims


def test_a_body_over_the_limit_is_an_error_whether_its_length_is_told_or_not() -> None:
    with Served(knowing(node("gpu-a")), largest_body_bytes=1_500_000) as served:
        body = orjson.dumps(names_question(POD, *(f"node-{number}" * 10 for number in range(40_000))))
        for chunked in (False, True):
            answer = served.post("/filter", body, chunked=chunked)
            assert "larger than 1.5 MB" in answer["Error"]
        assert served.metric('preheat_extender_questions_unanswered_total{reason="too-large",verb="filter"}') == 2
        assert served.post("/filter", names_question(POD, "gpu-a"))["NodeNames"] == ["gpu-a"]


@pytest.mark.parametrize("chunked", [False, True])
def test_many_names_are_answered_like_few(served: Served, chunked: bool) -> None:
    """Longer than what is built at once, so read piece by piece."""
    unknown = [f"{number:0200}" for number in range(6_000)]
    answer = served.post("/filter", names_question(POD, "gpu-b", *unknown), chunked=chunked)
    assert answer["NodeNames"] == ["gpu-b"]
    assert list(answer["FailedNodes"]) == unknown


def test_a_large_body_of_whole_nodes_is_answered_node_by_node(served: Served) -> None:
    padding = {"images": [{"names": [f"registry.example/image-{number}}}],{{\\"]} for number in range(300)]}
    nodes = [node(f"new-{number}", 8 if number % 2 else 2) for number in range(100)]
    for each in nodes:
        each["status"] |= padding
    body = nodes_question(POD, *nodes)
    assert len(orjson.dumps(body)) > 1 << 20
    answer = served.post("/filter", body)
    assert answer["Nodes"]["items"] == nodes[1::2]
    assert answer["FailedAndUnresolvableNodes"] == {
        f"new-{number}": "node has too few GPUs" for number in range(0, 100, 2)
    }
    hosts = sorted(each["Host"] for each in served.post("/prioritize", body))
    assert hosts == sorted(each["metadata"]["name"] for each in nodes)


async def test_a_scheduler_that_is_gone_before_the_answer_is_counted_and_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    extender = knowing()
    pages, ended = extender.pages(), asyncio.Event()

    async def late(request: web.Request) -> web.StreamResponse:
        async with asyncio.timeout(30):
            while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
        response = await pages._written(wire.Verb.FILTER, request, [b"[", b"]"])
        ended.set()
        return response

    app = web.Application()
    app.router.add_get("/late", late)
    running, port = await listen(app, "127.0.0.1", 0)
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /late HTTP/1.1\r\nHost: here\r\n\r\n")
        await writer.drain()
        writer.close()
        await asyncio.wait_for(ended.wait(), 30)
    finally:
        await running.cleanup()
    assert b'preheat_extender_questions_unanswered_total{reason="hung-up",verb="filter"} 1.0' in pages._telemetry.text()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_an_object_that_we_fail_to_read_hides_no_other_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    extender = knowing()

    def failing(*_: object) -> None:
        raise OverflowError("a mistake of ours")

    with monkeypatch.context() as patched:
        patched.setattr(extender.facts.demands, "of_seen", failing)
        for _ in range(2):
            extender.facts.put_pod("inference/asking", extender.facts.read_pod(POD))
    with monkeypatch.context() as patched:
        patched.setattr(facts, "seen_node", failing)
        extender.facts.put_node("gpu-a", extender.facts.read_node(node("gpu-a")))
    extender.facts.put_pod("inference/holder", extender.facts.read_pod(HOLDER))
    assert extender.facts.unreadable == {"inference/asking", "gpu-a"}
    assert list(extender.facts.pods) == ["inference/holder"]
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == ["inference/asking", "gpu-a"]


# -- anything ---------------------------------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def distorted(draw: st.DrawFn) -> bytes:
    """A sound question in which some value, anywhere, has become anything; or its bytes are cut or changed."""
    body = json.loads(
        json.dumps(
            draw(st.sampled_from([names_question(POD, "gpu-a", "gpu-b"), nodes_question(POD, node("new")), PREEMPT]))
        )
    )
    for _ in range(draw(st.integers(1, 3))):
        place: Any = body
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or not place[key] or draw(st.integers(0, 3)) == 0:
                place[key] = draw(anything)
                break
            place = place[key]
    text = bytearray(json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    match draw(st.integers(0, 3)):
        case 0:
            del text[draw(st.integers(0, len(text))) :]
        case 1:
            text[draw(st.integers(0, len(text) - 1))] = draw(st.integers(0, 255))
        case _:
            pass
    return bytes(text)


@settings(max_examples=100)
@given(body=st.one_of(st.binary(max_size=60), anything.map(lambda value: json.dumps(value).encode()), distorted()))
def test_any_bytes_get_a_valid_answer(served: Served, body: bytes) -> None:
    filtered: Json = served.post("/filter", body)
    assert list(filtered) == ["Nodes", "NodeNames", "FailedNodes", "FailedAndUnresolvableNodes", "Error"]
    for each in served.post("/prioritize", body):
        assert isinstance(each["Host"], str)
        assert type(each["Score"]) is int
        assert 0 <= each["Score"] <= 10
    preempted = served.post("/preempt", body)
    assert set(preempted["NodeNameToMetaVictims"]) <= {"gpu-a"}
    assert served.metric('preheat_extender_questions_unanswered_total{reason="internal",verb="filter"}') is None
