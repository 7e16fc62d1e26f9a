"""What pods ask, read once for all pods that say the same; the pods of a Deployment do."""

from __future__ import annotations

from typing import Final

import orjson

from cluster.gpu_objects import Json, seen_pod
from policies.placement.demand import PodDemand, SeenPod
from policies.placement.models import ModelTable
from policies.placement.reading import read_demand

REMEMBERED: Final = 2048
WHOLE_REMEMBERED: Final = 256


class Demands:
    """A table of models, and what it makes of pods."""

    def __init__(self, models: ModelTable) -> None:
        self.models = models
        self._whole: dict[bytes, PodDemand] = {}
        self._known: dict[bytes, PodDemand] = {}
        self._equal: dict[PodDemand, PodDemand] = {}

    def of(self, pod: Json) -> PodDemand:
        """What the pod asks; raises `UnreadableObjectError` where it is no pod."""
        # The same pod comes to be filtered, then to be prioritized: its bytes are found ten times as fast as read.
        whole = orjson.dumps(pod)
        demand = self._whole.get(whole)
        if demand is None:
            demand = self._whole[whole] = self.of_seen(seen_pod(pod))
            if len(self._whole) > WHOLE_REMEMBERED:
                del self._whole[next(iter(self._whole))]
        return demand

    def read(self, pod: Json) -> PodDemand:
        """The same without memory, for another thread."""
        return read_demand(seen_pod(pod), self.models)

    def of_seen(self, seen: SeenPod) -> PodDemand:
        words = orjson.dumps(seen)
        demand = self._known.get(words)
        if demand is None:
            read = read_demand(seen, self.models)
            demand = self._known[words] = self._equal.setdefault(read, read)
            if len(self._known) > REMEMBERED:
                self._known.clear()
                self._equal.clear()
        return demand
