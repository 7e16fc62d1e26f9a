"""Other autoscalers' laws, re-implemented by us from their source at the version named in each module.

`peer("kpa:target=40", …)` builds one by its name on the command line. Facts were learnt from their files, no line
copied; what they would read of a cluster and the replay does not show is named at the head of each module, with
what stands in for it. A peer whose own loop is slower than the replay's tick judges at the first tick after each of
its own; one whose loop is quicker judges once a tick. Windows and delays are kept in seconds either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulations.peers import (
    aibrix,
    crane,
    dynamo_load,
    dynamo_sla,
    hpa,
    hpa_by_name,
    keda,
    kpa,
    ray_serve,
    skyserve,
    slo_keda,
    wva,
)
from simulations.peers.parameters import Builder, PeerError, Setting, named

if TYPE_CHECKING:
    from policies.scaling.resource import Objectives
    from simulations.model.engine import Engine
    from simulations.replay import Policy

__all__ = ["NAMES", "PeerError", "label", "peer"]


@dataclass(frozen=True, slots=True)
class _Peer:
    build: Builder
    label: str
    preset: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that the name itself settles."""


_PEERS: Mapping[str, _Peer] = {
    "hpa": _Peer(hpa_by_name.build, hpa.LABEL),
    "keda": _Peer(keda.build, keda.LABEL),
    "kpa": _Peer(kpa.build, kpa.LABEL),
    "ray-serve": _Peer(ray_serve.build, ray_serve.LABEL),
    "skyserve": _Peer(skyserve.build, skyserve.LABEL),
    "aibrix": _Peer(aibrix.build, aibrix.LABEL, {"documented": False}),
    "aibrix-coded": _Peer(aibrix.build, aibrix.LABEL, {"documented": False}),
    "aibrix-documented": _Peer(aibrix.build, aibrix.LABEL_DOCUMENTED, {"documented": True}),
    "dynamo-load": _Peer(dynamo_load.build, dynamo_load.LABEL),
    "dynamo-sla": _Peer(dynamo_sla.build, dynamo_sla.LABEL),
    "wva": _Peer(wva.build, wva.LABEL),
    "slo-keda": _Peer(slo_keda.build, slo_keda.LABEL),
    "crane": _Peer(crane.build, crane.LABEL),
}

NAMES = tuple(_PEERS)


def label(spec: str) -> str:
    """Whose law it is, at which version, in our re-implementation; the name alone counts."""
    return _PEERS[spec.partition(":")[0].strip()].label


def peer(
    spec: str,
    *,
    objectives: Objectives,
    min_replicas: int,
    max_replicas: int,
    tick_seconds: float,
    engine: Engine,
) -> Policy[Any]:
    """The policy that `name` or `name:parameter=value,…` names; a `PeerError` says what is wrong with it."""
    name, parameters = named(spec, {key: (each.build, each.preset) for key, each in _PEERS.items()})
    setting = Setting(objectives, min_replicas, max_replicas, tick_seconds, engine)
    policy: Policy[Any] = _PEERS[name].build(setting, **parameters)
    return policy
