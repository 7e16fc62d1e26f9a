"""The CustomResourceDefinition of `VLLMAutoscaler`, made from the models that read it.

Pydantic's JSON schema is lowered to what the API server takes: references written out, null left to "left out",
open bounds in the older spelling, and the cross-field rules as CEL, which stand beside their validators in the
models. So what a file may say and what `kubectl apply` takes are the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from policies.scaling.resource import API_VERSION, KIND, Spec, VLLMAutoscaler
from policies.scaling.status import Status

PLURAL: Final = "vllmautoscalers"
GROUP: Final = API_VERSION.partition("/")[0]
VERSION: Final = API_VERSION.partition("/")[2]

_KEPT: Final = (
    *("type", "format", "description", "default", "enum", "required", "pattern"),
    *("minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"),
    *("x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
)

_COLUMNS: Final = (
    ("Target", "string", ".spec.scaleTargetRef.name", "What is scaled"),
    ("Min", "integer", ".spec.minReplicas", "The fewest replicas that may run"),
    ("Replicas", "string", ".status.replicasSummary", "Ready/created/wanted"),
    ("Max", "integer", ".spec.maxReplicas", "The most replicas that may run"),
    ("Mode", "string", ".spec.mode", "What becomes of a decision"),
    ("Attainment", "string", ".status.attainment", "Share of the latest requests that kept both objectives"),
    ("Reason", "string", ".status.reason", "What set the number, or what keeps it from being set"),
    ("Age", "date", ".metadata.creationTimestamp", "Since when the resource is there"),
)


def definition() -> dict[str, Any]:
    """The whole object, ready for `kubectl apply`."""
    schema = {
        "type": "object",
        "description": VLLMAutoscaler.__doc__,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(Spec),
            "status": structural(Status),
        },
    }
    columns = [
        {"name": name, "type": type_, "jsonPath": path, "description": description}
        for name, type_, path, description in _COLUMNS
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": PLURAL.removesuffix("s"),
                "shortNames": ["vas"],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """The structural schema of a model."""
    schema = model.model_json_schema(by_alias=True)
    return _lowered(schema, schema.get("$defs", {}))


def _lowered(schema: Mapping[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    whole = _resolved(schema, models)
    lowered = {key: whole[key] for key in _KEPT if whole.get(key) not in (None, [])}
    if "default" in lowered:
        lowered["default"] = _without_nulls(lowered["default"])
    if "description" in lowered:
        lowered["description"] = " ".join(lowered["description"].split())
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in whole:
            lowered |= {bound.lower(): whole[f"exclusive{bound}"], f"exclusive{bound}": True}
    if lowered["type"] == "integer":
        lowered["format"] = "int32" if "maximum" in lowered else "int64"
    if "properties" in whole:
        lowered["properties"] = {name: _lowered(inner, models) for name, inner in whole["properties"].items()}
    if "items" in whole:
        lowered["items"] = _lowered(whole["items"], models)
    return lowered


def _resolved(schema: Mapping[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with what it refers to in its place; what is said at the reference wins."""
    whole = dict(schema)
    choices = [choice for choice in whole.pop("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) > 1:
        raise ValueError(f"a structural schema has no unions: {schema}")
    inner = choices[0] if choices else {}
    if "$ref" in whole:
        inner = models[whole.pop("$ref").rpartition("/")[2]]
    return {**_resolved(inner, models), **whole} if inner else whole


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
