"""What kube-scheduler and its extenders say to each other: `k8s.io/kube-scheduler/extender/v1`, equal in 1.33 to 1.37.

Go writes the fields of these structs by their own names and reads them in any letter case, and so do we. An HTTP
status other than 200 makes kube-scheduler throw the body away, so whatever goes wrong is said inside a body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import orjson

from cluster.gpu_objects import UnreadableObjectError, identity, seen_node
from policies.placement.supply import SeenNode
from scheduler_extender.spans import BrokenTextError, Span, Text, end_of, is_null, parsed, read_array, read_object

Json = Mapping[str, Any]
Reply = list[bytes | memoryview]
"""The parts of a body, to be written one after the other."""
NamesByWords = Mapping[str, Sequence[str]]
"""Nodes refused, by the words of the refusal."""

LARGEST_BUILT_BYTES: Final = 1 << 20
"""A longer body is read piece by piece: 23,000 names fit into this, and not a hundred whole nodes."""


class Verb(StrEnum):
    """What is asked."""

    FILTER = "filter"
    PRIORITIZE = "prioritize"
    PREEMPT = "preempt"


class NoAnswerError(ValueError):
    """A question that gets no judgement. `kind` is what it is counted under, `names` the nodes it still names."""

    def __init__(self, kind: str, message: str, names: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.names = tuple(names)


@dataclass(frozen=True, slots=True)
class AskedNode:
    """A whole node of a question, cut down to what is read of it."""

    name: str
    uid: str
    span: Span
    """Where it lies in the body."""
    seen: SeenNode | None
    """None: it is not a node as Kubernetes writes one."""


@dataclass(frozen=True, slots=True)
class Question:
    """Of filter and prioritize: a pod, and nodes by name or whole."""

    pod: Json
    names: Sequence[str] = ()
    nodes: Sequence[AskedNode] | None = None
    """None: asked by name."""


@dataclass(frozen=True, slots=True)
class Victims:
    """Pods that would be evicted from a node."""

    uids: tuple[str, ...]
    pdb_violations: int = 0


@dataclass(frozen=True, slots=True)
class PreemptQuestion:
    """May this pod have these nodes, once these victims are gone?"""

    pod: Json
    victims: Mapping[str, Victims] = field(default_factory=dict)


def fields_of(body: Text) -> dict[str, Any]:
    """The fields of a body of no more than `LARGEST_BUILT_BYTES`, by their names in lower case."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NoAnswerError("not-json", f"the request is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise NoAnswerError("not-json", "the request is JSON, but not an object")
    return _folded(value)


def question(fields: Json) -> Question:
    """Of nodes by name. Whether all names are texts is for `expect_texts`: of known names nobody need ask."""
    names = fields.get("nodenames")
    if not isinstance(names, list | None):
        raise NoAnswerError("names", "NodeNames must be a list of texts")
    pod = fields.get("pod")
    if not isinstance(pod, dict):
        raise _no_pod(pod, _texts_of(names or ()))
    if names is None:
        raise NoAnswerError("no-nodes", "the request names no nodes: Nodes and NodeNames are both null")
    return Question(pod, names)


def expect_texts(names: Sequence[Any]) -> None:
    """Raises `NoAnswerError` with those that can be read where some name is none."""
    if set(map(type, names)) - {str}:
        raise NoAnswerError("names", "NodeNames must be a list of texts", _texts_of(names))


def question_in(body: Text, give_way: Callable[[], None] = lambda: None) -> Question:
    """The same of any body, read piece by piece; takes about a second for 5,000 whole nodes.

    `give_way` is called between two nodes.
    """
    pod: Any = None
    names: Any = None
    nodes: list[AskedNode] | None = None
    misshapen = False

    def take_pod(text: Text, start: int) -> int:
        nonlocal pod
        span = Span(start, end_of(text, start))
        pod = parsed(text, span)
        return span.end

    def take_names(text: Text, start: int) -> int:
        nonlocal names
        span = Span(start, end_of(text, start))
        names = parsed(text, span)
        return span.end

    def take_node(span: Span, value: Any) -> None:
        assert nodes is not None
        nodes.append(_asked_node(span, value))
        give_way()

    def take_other(text: Text, start: int) -> int:
        nonlocal misshapen
        misshapen = misshapen or not is_null(text, start)
        return end_of(text, start)

    def take_items(text: Text, start: int) -> int:
        return read_array(text, start, take_node) if text[start : start + 1] == b"[" else take_other(text, start)

    def take_nodes(text: Text, start: int) -> int:
        nonlocal nodes
        if text[start : start + 1] != b"{":
            return take_other(text, start)
        nodes = []
        return read_object(text, start, {"items": take_items})

    readers = {"pod": take_pod, "nodenames": take_names, "nodes": take_nodes}
    try:
        end = read_object(body, 0, readers)
    except BrokenTextError as error:
        named = [node.name for node in nodes or () if node.name]
        raise NoAnswerError("not-json", f"the request {error}", named) from error
    if body[end:].strip():
        raise NoAnswerError("not-json", f"the request goes on after its end at byte {end + 1}")
    if misshapen:
        named = _texts_of(names) if isinstance(names, list) else []
        raise NoAnswerError("nodes", "Nodes must be an object with a list of items", named)
    if nodes is None:
        return question({"pod": pod, "nodenames": names})
    named = [node.name for node in nodes if node.name]
    if not isinstance(pod, dict):
        raise _no_pod(pod, named)
    if len(named) < len(nodes):
        raise NoAnswerError("nodes", "Nodes holds an item that has no name", named)
    return Question(pod, nodes=nodes)


def preempt_question(fields: Json) -> PreemptQuestion:
    """Of victims, whole or by their uids; one of the two maps is null."""
    pod = fields.get("pod")
    if not isinstance(pod, dict):
        raise _no_pod(pod)
    candidates = fields.get("nodenametovictims") or fields.get("nodenametometavictims") or {}
    if not isinstance(candidates, dict):
        raise NoAnswerError("victims", "the victims must be an object, by the names of their nodes")
    return PreemptQuestion(pod, {name: _victims(name, victims) for name, victims in candidates.items()})


def filtered_names(passed: Sequence[str], failed: NamesByWords, unresolvable: NamesByWords) -> Reply:
    """Names that passed, and the others by the words of their refusals."""
    refused = tuple(
        b",".join(_strung(names, b"", b":" + orjson.dumps(words)) for words, names in group.items())
        for group in (failed, unresolvable)
    )
    parts = orjson.dumps(passed), *refused
    return [b'{"Nodes":null,"NodeNames":%b,"FailedNodes":{%b},"FailedAndUnresolvableNodes":{%b},"Error":""}' % parts]


def filtered_nodes(body: Text, passed: Iterable[AskedNode], failed: Json, unresolvable: Json) -> Reply:
    """Each node that passed in the very bytes that it came in."""
    before, place, after = _filter_result(_NO_NODES, None, failed, unresolvable).partition(_PLACE)
    reply: Reply = [before + place]
    whole = memoryview(body)
    for node in passed:
        if len(reply) > 1:
            reply.append(b",")
        reply.append(whole[node.span.start : node.span.end])
    reply.append(after)
    return reply


def filter_error(message: str) -> Reply:
    return [_filter_result(None, None, None, None, message)]


def prioritized(names_by_score: Mapping[int, Sequence[str]]) -> Reply:
    """In any order: kube-scheduler looks them up by their hosts."""
    parts = (_strung(names, b'{"Host":', b',"Score":%d}' % score) for score, names in names_by_score.items())
    return [b"[%b]" % b",".join(parts)]


def preempted(victims: Mapping[str, Victims]) -> Reply:
    """Always by uid: the one form that the answer has."""
    nodes = {
        name: {"Pods": [{"UID": uid} for uid in those.uids], "NumPDBViolations": those.pdb_violations}
        for name, those in victims.items()
    }
    return [orjson.dumps({"NodeNameToMetaVictims": nodes})]


# Between whose last brackets the nodes' own bytes are put.
_NO_NODES: Final[Json] = {"metadata": {}, "items": []}
_PLACE: Final = b'"items":['


def _filter_result(
    nodes: Json | None, names: Sequence[str] | None, failed: Json | None, unresolvable: Json | None, error: str = ""
) -> bytes:
    return orjson.dumps(
        {
            "Nodes": nodes,
            "NodeNames": names,
            "FailedNodes": failed,
            "FailedAndUnresolvableNodes": unresolvable,
            "Error": error,
        }
    )


def _strung(names: Sequence[str], before: bytes, after: bytes) -> bytes:
    """Each name as JSON between two texts, and commas between them."""
    if not names:
        return b""
    together = "".join(names)
    if len(orjson.dumps(together)) > len(together) + 2:  # something in them is not written as it is
        return b",".join(before + orjson.dumps(name) + after for name in names)
    # Ten times as fast as an object for each.
    first, last = f'{before.decode()}"', f'"{after.decode()}'
    return f"{first}{f'{last},{first}'.join(names)}{last}".encode()


def _folded(value: Json) -> dict[str, Any]:
    return {key.lower(): item for key, item in value.items()}


def _texts_of(names: Iterable[Any]) -> list[str]:
    return [name for name in names if isinstance(name, str)]


def _no_pod(pod: object, names: Iterable[str] = ()) -> NoAnswerError:
    what = "the request has no Pod" if pod is None else "Pod must be an object"
    return NoAnswerError("no-pod", what, names)


def _asked_node(span: Span, value: Any) -> AskedNode:
    try:
        who = identity(value)
    except (UnreadableObjectError, AttributeError):
        return AskedNode("", "", span, None)
    try:
        return AskedNode(who.name, who.uid, span, seen_node(value))
    except UnreadableObjectError:
        return AskedNode(who.name, who.uid, span, None)


def _victims(node: str, value: Any) -> Victims:
    fields = _folded(value) if isinstance(value, dict) else {}
    pods = fields.get("pods")
    if not isinstance(pods, list) or not all(isinstance(pod, dict) for pod in pods):
        raise NoAnswerError("victims", f"the victims on node {node[:253]} must have a list of Pods")
    uids = []
    for pod in pods:
        metadata = pod.get("metadata")
        uid = metadata.get("uid") if isinstance(metadata, dict) else _folded(pod).get("uid")
        if not isinstance(uid, str) or not uid:
            raise NoAnswerError("victims", f"a victim on node {node[:253]} has no uid")
        uids.append(uid)
    violations = fields.get("numpdbviolations")
    if not isinstance(violations, int) or isinstance(violations, bool) or abs(violations) >= 1 << 62:
        violations = 0
    return Victims(uids=tuple(uids), pdb_violations=violations)
