"""The messages of KEDA's external scalers, made from a table: no generated code is kept.

Field names, numbers and types are those of `externalscaler.proto`, KEDA 2.21.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "externalscaler"
SERVICE: Final = f"{PACKAGE}.ExternalScaler"

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES: Final = {
    "string": _Field.TYPE_STRING,
    "bool": _Field.TYPE_BOOL,
    "int64": _Field.TYPE_INT64,
    "double": _Field.TYPE_DOUBLE,
}
_MESSAGES: Final = {
    # A map is a repeated entry of key and value on the wire.
    "ScaledObjectRef": (
        "string name",
        "string namespace",
        "repeated ScaledObjectRef.ScalerMetadataEntry scalerMetadata",
    ),
    "IsActiveResponse": ("bool result",),
    "MetricSpec": ("string metricName", "int64 targetSize", "double targetSizeFloat"),
    "GetMetricSpecResponse": ("repeated MetricSpec metricSpecs",),
    "GetMetricsRequest": ("ScaledObjectRef scaledObjectRef", "string metricName"),
    "MetricValue": ("string metricName", "int64 metricValue", "double metricValueFloat"),
    "GetMetricsResponse": ("repeated MetricValue metricValues",),
}


def _add_fields(message: descriptor_pb2.DescriptorProto, fields: tuple[str, ...]) -> None:
    for number, stated in enumerate(fields, 1):
        *repeated, kind, name = stated.split()
        field = message.field.add(name=name, number=number)
        field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
        if kind in _TYPES:
            field.type = _TYPES[kind]
        else:
            field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name=f"{PACKAGE}.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        _add_fields(message, fields)
        if name == "ScaledObjectRef":
            entry = message.nested_type.add(name="ScalerMetadataEntry")
            entry.options.map_entry = True
            _add_fields(entry, ("string key", "string value"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"{PACKAGE}.{name}") for name in _MESSAGES)
    return {descriptor.name: message_factory.GetMessageClass(descriptor) for descriptor in found}


MESSAGES: Final = _classes()
"""Message classes by their names."""
