"""The API server's judgement of a custom resource, as far as our schema uses it, and documents to judge.

Small on purpose: what it says is held against the real API server in tests/real/test_resource.py.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]

DOCUMENT: Json = {
    "apiVersion": "autoscaling.preheat.dev/v1alpha1",
    "kind": "VLLMAutoscaler",
    "metadata": {"name": "judged", "namespace": "default"},
    "spec": {
        "scaleTargetRef": {"name": "vllm-llama3-8b"},
        "maxReplicas": 8,
        "objectives": {"ttftSeconds": 2, "tpotSeconds": 0.06},
        "prometheus": {"url": "http://prometheus.monitoring:9090"},
    },
}

URLS = (
    *("https://host", "http://[::1]:80/prefix/", "http://h:65535", "http://h:65536", "http://h:0", "http://h:08"),
    *("host:9090", "ftp://host", "http://", "http:///x", "http://a b", "http://h/?x=1", "http://h/a'\"b", "HTTP://h"),
    *("http://me:secret@host", "http://h/@x", "http://h/é", "http://hé", "http://h\n", "https://h:1:2", "http://h#"),
)
NAMES = ("a", "a.b", "a..b", "-a", "A", "a-", "a_b", "apps/v1", "v1", "v1beta1", "apps/V1", "Deployment", "deployment")
FLOOR = {"start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "timeZone": "Europe/Berlin", "minReplicas": 4}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2, 9, 2**31 - 1, 2**31, 2**40]),
    st.sampled_from([-0.5, 0.0, 1e-9, 0.5, 0.999, 1.0, 1.5, 1e300]),
    st.sampled_from(["", "8", "true", "x" * 254, *URLS, *NAMES]),
    st.sampled_from(["Active", "Shadow", "active", "Publish", "Floor", "Yield", "Override"]),
    st.sampled_from(
        [[FLOOR], [{**FLOOR, "minReplicas": 9}], [{**FLOOR, "end": None}], [{**FLOOR, "x": 1}], [FLOOR] * 51]
    ),
    st.sampled_from([{}, [], ["a"], {"other": 1}, {"username": "u", "passwordFile": "f"}, {"maxStep": 1}]),
)


def paths_of(schema: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in schema.get("properties", {}).items():
        yield (*prefix, name)
        yield from paths_of(inner, (*prefix, name))


def documents(spec: Mapping[str, Any]) -> st.SearchStrategy[Json]:
    """The document with up to three fields set to whatever, taken away, or made up."""
    known = [*paths_of(spec), ("other",), ("prometheus", "other")]
    change = st.tuples(st.sampled_from(known), VALUES | st.just(...))
    return st.lists(change, min_size=1, max_size=3).map(_changed)


def _changed(changes: list[tuple[tuple[str, ...], Any]]) -> Json:
    document = copy.deepcopy(DOCUMENT)
    for (*parents, name), value in changes:
        block = document["spec"]
        for parent in parents:
            inner = block.setdefault(parent, {})
            if not isinstance(inner, dict):
                break
            block = inner
        else:
            if value is ...:
                block.pop(name, None)
            else:
                block[name] = copy.deepcopy(value)
    return document


def refused(schema: Mapping[str, Any], value: Any, path: str = "spec") -> list[str]:
    """What is wrong with a value, under strict field validation; empty if nothing is."""
    if not _is_of_type(schema["type"], value):
        return [f"{path}: not {schema['type']}"]
    found = [f"{path}: {wrong}" for wrong in _wrong(schema, value)]
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        held = {key: item for key, item in value.items() if item is not None}
        for name, inner in properties.items():
            if name not in held and "default" in inner:
                held[name] = copy.deepcopy(inner["default"])
        found += [f"{path}.{key}: unknown" for key in value if key not in properties]
        found += [f"{path}.{key}: missing" for key in schema.get("required", ()) if key not in held]
        for key in held.keys() & properties.keys():
            found += refused(properties[key], held[key], f"{path}.{key}")
        value = held
    if isinstance(value, list):
        for number, item in enumerate(value):
            found += refused(schema["items"], item, f"{path}[{number}]")
    if not found:
        rules = schema.get("x-kubernetes-validations", ())
        found += [f"{path}: {each['rule']}" for each in rules if not _holds(each["rule"], value)]
    return found


def _is_of_type(name: str, value: Any) -> bool:
    match name:
        case "integer":
            # 8.0 passes a schema, but not a rule; and each of our whole numbers has one.
            return type(value) is int
        case "number":
            return not isinstance(value, bool) and isinstance(value, int | float)
        case _:
            return isinstance(value, {"object": dict, "array": list, "string": str, "boolean": bool}[name])


def _wrong(schema: Mapping[str, Any], value: Any) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield "not one of them"
    if "minimum" in schema and (value < schema["minimum"] or (schema.get("exclusiveMinimum") and value == 0)):
        yield "too small"
    if "maximum" in schema and (value > schema["maximum"] or (schema.get("exclusiveMaximum") and value == 1)):
        yield "too great"
    if isinstance(value, list) and len(value) > schema.get("maxItems", 10_000):
        yield "too many"
    if len(value) < schema.get("minLength", 0) if isinstance(value, str) else False:
        yield "too short"
    if len(value) > schema.get("maxLength", 10_000) if isinstance(value, str) else False:
        yield "too long"
    if "pattern" in schema and not re.search(schema["pattern"].replace("$", r"\Z"), value):
        yield "written otherwise"


def _holds(rule: str, self: Any) -> bool:
    """The few words of CEL that our rules are made of, said in Python."""
    for pattern, python in (
        (r"self\.(\w+)\.all\((\w+), (.*)\)$", r"all(\3 for \2 in self['\1'])"),
        (r"each\.(\w+)", r"each['\1']"),
        (r"has\(self\.(\w+)\)", r"('\1' in self)"),
        (r"self\.matches\(r'", "matches(self, r'"),
        (r"self\.(\w+)", r"self['\1']"),
        (r"!(?=\(|matches)", "not "),
        ("&&", "and"),
        (r"\|\|", "or"),
    ):
        rule = re.sub(pattern, python, rule)

    def matches(text: str, pattern: str) -> bool:
        return re.search(re.sub(r"\$$", r"\\Z", pattern), text) is not None

    return bool(eval(rule, {"matches": matches, "self": self}))
