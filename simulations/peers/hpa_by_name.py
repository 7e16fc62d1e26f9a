"""`hpa` on the command line: one `Pods` metric, a mean over the pods, under the laws of `simulations.peers.hpa`.

Kubernetes has no default for such a metric. Ours is the requests that a pod runs or has waiting, 16 of them.
"""

from __future__ import annotations

from typing import Literal

from simulations.peers import reading
from simulations.peers.hpa import Behavior, Hpa, PodsMetric, Rules
from simulations.peers.parameters import NotNegative, Positive, Setting


def build(
    setting: Setting,
    *,
    metric: Literal["in-flight", "running", "waiting", "kv-cache"] = "in-flight",
    target: Positive = 16.0,
    tolerance: NotNegative = 0.1,
    sync: Positive = 15.0,
    up_window: NotNegative | None = None,
    down_window: NotNegative | None = None,
) -> Hpa:
    """With a window given `behavior` is set, with its defaults besides; without one the older rules hold."""
    behavior = None
    if up_window is not None or down_window is not None:
        up, down = Behavior().up, Behavior().down
        behavior = Behavior(
            Rules(up.policies, up.window_seconds if up_window is None else up_window),
            Rules(down.policies, down.window_seconds if down_window is None else down_window),
        )
    return Hpa(
        (PodsMetric(reading.METRICS[metric], target),),
        setting.min_replicas,
        setting.max_replicas,
        behavior,
        tolerance,
        tolerance,
        sync,
    )
