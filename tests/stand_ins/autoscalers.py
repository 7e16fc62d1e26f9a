"""VLLMAutoscalers as an API server keeps them, and a controller that follows them: what it begins, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self, cast

from autoscaler.config import CREDENTIALS
from autoscaler.controller import Controller
from autoscaler.floor import FloorKeeper
from autoscaler.targets import Targets
from cluster.autoscalers import Autoscalers, Changed, Stated, stated
from cluster.errors import ClusterError
from cluster.kubernetes import Cluster
from policies.scaling.history import History
from policies.scaling.resource import API_VERSION, KIND, VLLMAutoscaler
from tests.stand_ins.floors import FloorsStandIn

Json = dict[str, Any]
KEY = "inference/llama"


class Following:
    """One object and its controller, which runs from `with` to its end."""

    def __init__(self, server: FloorsStandIn, credentials: Path = CREDENTIALS) -> None:
        self.begun: list[VLLMAutoscaler] = []
        self.said: list[tuple[str, str]] = []
        """Reason and sentence of each event."""
        self.refusal: ClusterError | None = None
        """What every write of finalizers is answered with."""
        self.finalizers: tuple[str, ...] = ()
        self.ready = ("", "", "")
        """Of the condition: status, reason and sentence."""
        self._thing: Json | None = None
        self._changed: Changed = lambda *_: None
        self._looks = 0
        self._began = asyncio.Event()
        targets = SimpleNamespace(begin=self._begin, end=self._end, floors=FloorKeeper(server.floors))
        self._controller = Controller(
            cast("Cluster", self), cast("Autoscalers", self), cast("Targets", targets), credentials
        )

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._controller.run())
        await self.look()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    @property
    def is_there(self) -> bool:
        return self._thing is not None

    async def apply(self, **spec: Any) -> None:
        """As `kubectl apply`, and a look of the controller at it."""
        generation = self._thing["metadata"]["generation"] + 1 if self._thing else 1
        metadata = {"name": "llama", "namespace": "inference", "uid": "u", "generation": generation}
        required = {
            "scaleTargetRef": {"name": "vllm-llama"},
            "maxReplicas": 8,
            "objectives": {"ttftSeconds": 2, "tpotSeconds": 0.1},
            "prometheus": {"url": "http://127.0.0.1:9"},
        }
        self._thing = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": {**required, **spec}}
        await self._show()

    async def delete(self) -> None:
        """As `kubectl delete`, which waits for finalizers, and a look of the controller at it."""
        assert self._thing is not None
        metadata = self._thing["metadata"]
        metadata |= {"generation": metadata["generation"] + 1, "deletionTimestamp": "2026-01-01T00:00:00Z"}
        await self._show()

    async def look(self) -> None:
        """One whole look of the controller more, begun after this."""
        for number in (self._looks + 1, self._looks + 2):
            self._changed("inference/nobody", None)  # wakes it
            while self._looks < number:
                self._began.clear()
                await self._began.wait()

    async def _show(self) -> None:
        self._tell()
        await self.look()

    def _tell(self) -> None:
        if self._thing is None:
            return
        metadata = self._thing["metadata"]
        if "deletionTimestamp" in metadata and not self.finalizers:
            self._thing = None
            self._changed(KEY, None)
            return
        seen = {**self._thing, "metadata": {**metadata, "finalizers": list(self.finalizers)}}
        self._changed(KEY, stated(seen))

    # -- as the controller knows the cluster -----------------------------------------------------------------------

    async def watch(self, changed: Changed) -> Self:
        self._changed = changed
        return self

    async def whole(self) -> None:
        self._looks += 1
        self._began.set()

    async def stop(self) -> None:
        pass

    async def set_finalizers(self, of: Stated, finalizers: Sequence[str]) -> None:
        if self.refusal:
            raise self.refusal
        self.finalizers = tuple(finalizers)
        self._tell()

    async def write_status(self, of: Stated, status: Mapping[str, Any]) -> None:
        (found,) = [each for each in status["conditions"] if each["type"] == "Ready"]
        self.ready = found["status"], found["reason"], found["message"]

    async def event(self, ref: object, namespace: str, uid: str, reason: str, message: str, type_: object) -> None:
        self.said.append((reason, message))

    def _begin(self, resource: VLLMAutoscaler, **_: Any) -> Any:
        self.begun.append(resource)
        return SimpleNamespace(resource=resource, history=History())

    async def _end(self, target: object) -> None:
        pass
