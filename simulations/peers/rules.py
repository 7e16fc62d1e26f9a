"""Two rules that people start with, as they are meant: scale on the requests that wait.

The KEDA one: our re-implementation of what KEDA 2.x leaves to Kubernetes, an HPA (v1.36.3) on an External metric
by AverageValue; its own part, between 0 and 1 replica, never acts where at least one replica is kept.
"""

from __future__ import annotations

from simulations.peers.hpa import ExternalAverageMetric, Hpa, PodsMetric

WAITING = ("requests_waiting",)
IN_FLIGHT = ("requests_running", "requests_waiting")


def keda_on_waiting(min_replicas: int, max_replicas: int, *, target: float = 5.0) -> Hpa:
    """Requests waiting in all pods together, `target` a replica; 1 ≤ `min_replicas`."""
    return Hpa((ExternalAverageMetric(WAITING, target, nothing_is_zero=True),), min_replicas, max_replicas)


def hpa_on_waiting(min_replicas: int, max_replicas: int, *, target: float = 10.0) -> Hpa:
    """Mean requests waiting in a pod, `target` each, with the HPA's rules for pods that are pending or silent."""
    return Hpa((PodsMetric(WAITING, target),), min_replicas, max_replicas)


def hpa_on_in_flight(min_replicas: int, max_replicas: int, *, target: float) -> Hpa:
    """Mean requests running or waiting in a pod."""
    return Hpa((PodsMetric(IN_FLIGHT, target),), min_replicas, max_replicas)
