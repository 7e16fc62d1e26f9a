"""HPAs and ScaledObjects as an API server keeps them: listed, and patched where nobody was there before."""

from __future__ import annotations

import copy
import itertools
from typing import Any, cast

from cluster.api import Api, StatusError
from cluster.floors import Floors

Json = dict[str, Any]
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "vllm-llama"}


class FloorsStandIn:
    """By plural and name, in namespace `inference`."""

    def __init__(self, *, keda: bool = True) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.keda = keda
        self.refused: StatusError | None = None
        """What every request is answered with."""
        self.between: Json | None = None
        """Merged into the spec of every object between a list and the write that follows it."""
        self.calls: list[tuple[str, str]] = []
        self._versions = itertools.count(1)

    @property
    def floors(self) -> Floors:
        return Floors(cast("Api", self))

    def hpa(self, name: str = "theirs", fewest: int = 2, most: int = 10, **more: Any) -> Json:
        spec = {"scaleTargetRef": dict(TARGET), "minReplicas": fewest, "maxReplicas": most}
        return self._put("horizontalpodautoscalers", name, spec, **more)

    def scaled_object(self, name: str = "theirs", **spec: Any) -> Json:
        return self._put("scaledobjects", name, {"scaleTargetRef": {"name": TARGET["name"]}, **spec})

    def _put(self, plural: str, name: str, spec: Json, **metadata: Any) -> Json:
        version = str(next(self._versions))
        thing = {"metadata": {"name": name, "namespace": "inference", "resourceVersion": version, **metadata}}
        self.objects[plural, name] = thing | {"spec": spec}
        return self.objects[plural, name]

    async def call(self, method: str, path: str, *, body: Any = None, **_: Any) -> Json:
        self.calls.append((method, path))
        if self.refused:
            raise self.refused
        parts = path.split("/")
        if "keda.sh" in parts and not self.keda:
            raise StatusError(404, "HTTP 404: the server could not find the requested resource")
        if method == "GET":
            return {"items": [copy.deepcopy(each) for (plural, _), each in self.objects.items() if plural in parts]}
        thing = self.objects[parts[-2], parts[-1]]
        if self.between:
            thing["spec"] |= self.between
            thing["metadata"]["resourceVersion"], self.between = str(next(self._versions)), None
        if body["metadata"].pop("resourceVersion") != thing["metadata"]["resourceVersion"]:
            raise StatusError(409, "HTTP 409: the object has been modified")
        _merge(thing, body)
        thing["metadata"]["resourceVersion"] = str(next(self._versions))
        return copy.deepcopy(thing)


def _merge(into: Json, patch: Json) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        elif value is None:
            into.pop(key, None)
        else:
            into[key] = value
