"""The CRD is the model: what either refuses the other refuses, and what is shipped is what the model says now."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from pydantic import BaseModel

import preheat
from policies.scaling.crd import definition, structural
from policies.scaling.resource import Spec
from policies.scaling.resource_reading import InvalidResourceError, read
from policies.scaling.status import Status
from tests.checkout import ROOT
from tests.policies.scaling.structural import DOCUMENT, Json, documents, refused

SPEC = structural(Spec)


def problems_of(document: Json) -> tuple[str, ...]:
    try:
        read(document)
    except InvalidResourceError as error:
        return error.problems
    return ()


def test_what_is_shipped_is_what_the_model_says() -> None:
    printed = CliRunner().invoke(preheat.main, ["crd"])
    shipped = (ROOT / "manifests" / "crds" / "vllmautoscalers.yaml").read_text()
    assert printed.output == shipped, "run `make crds`"
    assert yaml.safe_load(shipped) == definition()


@given(documents(SPEC))
def test_model_and_schema_refuse_the_same(document: Json) -> None:
    by_model, by_schema = problems_of(document), refused(SPEC, document["spec"])
    assert bool(by_model) == bool(by_schema), (by_model, by_schema)


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        ("", {"minReplicas": 9}),
        ("", {"schedule": [{"start": "0 8 * * *", "end": "0 9 * * *", "minReplicas": 9}]}),
        ("prometheus", {"bearerTokenFile": "f", "basicAuth": {"username": "u", "passwordFile": "f"}}),
        ("prometheus", {"certFile": "f"}),
        ("prometheus", {"url": "prometheus:9090"}),
        ("prometheus", {"url": "http://me@host"}),
    ],
)
def test_a_rule_over_fields_stands_in_both(block: str, fields: Json) -> None:
    document = copy.deepcopy(DOCUMENT)
    (document["spec"][block] if block else document["spec"]).update(fields)
    assert len(problems_of(document)) == 1
    (rule,) = refused(SPEC, document["spec"])
    assert "self." in rule


def test_the_defaults_of_the_schema_are_those_of_the_model() -> None:
    def filled(schema: Json, value: Any) -> Any:
        if schema["type"] != "object":
            return value
        held = {name: inner["default"] for name, inner in schema["properties"].items() if "default" in inner} | value
        return {name: filled(schema["properties"][name], inner) for name, inner in held.items()}

    by_model = read(DOCUMENT).spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    by_model = {name: value for name, value in by_model.items() if value != []}
    assert filled(SPEC, DOCUMENT["spec"]) == by_model


def described(schema: Json, path: str) -> Iterator[str]:
    if not schema.get("description"):
        yield path
    for name, inner in schema.get("properties", {}).items():
        yield from described(inner, f"{path}.{name}")
    if "items" in schema:
        yield from described(schema["items"], f"{path}[]")


@pytest.mark.parametrize("model", [Spec, Status])
def test_each_field_is_explained_and_structural(model: type[BaseModel]) -> None:
    schema = structural(model)
    assert list(described(schema, "")) == []
    said = json.dumps(schema)
    for word in ("$ref", "anyOf", "additionalProperties", '"const"', '"title"', "null"):
        assert word not in said
