"""What can wake a target that rests at zero, and what is wrong with it where nothing of Prometheus can."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from cluster import vllm_metrics
from policies.scaling.resource import Spec

_WORD: Final = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")


def wakes_by(spec: Spec) -> str:
    """All that can wake it, in words."""
    stated = [name for name, query in _queries(spec) if query]
    return ", ".join([*stated, "POST /wake"])


def warnings(spec: Spec) -> Iterator[str]:
    """What would let it sleep through requests, a sentence each; nothing where it never rests."""
    if spec.min_replicas > 0:
        return
    if not any(query for _, query in _queries(spec)):
        yield (
            "at zero nothing but POST /wake can wake it: name PromQL of a gateway's requests in wake.query, or a "
            "router's counter in prometheus.arrivals"
        )
    for name, query in _queries(spec):
        gone = sorted(vllm_metrics.known_names() & set(_WORD.findall(query or "")))
        if gone:
            yield (
                f"{name} reads {gone[0]}, which vLLM's pods take along when they go: unless a router shows it too, "
                "take what is counted before the pods, or it wakes nobody"
            )


def _queries(spec: Spec) -> tuple[tuple[str, str | None], ...]:
    return ("wake.query", spec.wake.query), ("prometheus.arrivals", spec.prometheus.arrivals)
