"""What is amiss with a pod template, a quota, a lease or an HPA, told from its JSON alone, or with a scrape interval, a
finding each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from cluster.findings import Finding, Level
from cluster.quotas import quota_of, room
from policies.scaling.resource import VLLMAutoscaler

Json = Mapping[str, Any]

GPU: Final = "nvidia.com/gpu"
LONGEST_INITIAL_DELAY_SECONDS: Final = 60


def engine_of(template: Json) -> Json | None:
    """The container that serves: the one with GPUs, or with vLLM's image."""
    containers: Sequence[Json] = (template.get("spec") or {}).get("containers") or ()
    with_gpus = [each for each in containers if gpus_of(each)]
    named = [each for each in containers if "vllm" in str(each.get("image", ""))]
    return next(iter([*with_gpus, *named, *containers]), None)


def gpus_of(container: Json) -> int:
    resources = container.get("resources") or {}
    asked = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    text = str(asked.get(GPU, 0))
    return int(text) if text.isdecimal() else 0


def of_probes(about: str, container: Json) -> Finding:
    """Whether a pod is given the time that it takes to load, and counts as ready only after."""
    delays = [
        (container.get(probe) or {}).get("initialDelaySeconds") or 0 for probe in ("readinessProbe", "livenessProbe")
    ]
    if not container.get("readinessProbe"):
        return Finding(
            Level.FAIL,
            about,
            "it has no readinessProbe, so a pod counts as ready while it loads: add one with httpGet {path: /health}",
        )
    if max(delays) > LONGEST_INITIAL_DELAY_SECONDS:
        return Finding(
            Level.WARN,
            about,
            f"a probe waits {max(delays)} s however fast the start was: write a startupProbe in its place",
        )
    if not container.get("startupProbe"):
        return Finding(
            Level.WARN,
            about,
            "it has no startupProbe, so a slow start may be killed by its livenessProbe: add one on /health with "
            "periodSeconds × failureThreshold above the slowest start",
        )
    return Finding(Level.OK, about, "its probes let it load as long as it takes")


def of_scrapes(about: str, interval_seconds: float, *, tick_seconds: float, longest_seconds: float) -> Finding:
    """Whether pods are scraped often enough: every tick, and never so seldom that nothing counts as measured."""
    mend = f"scrape them every {tick_seconds:g} s"
    every = f"vLLM pods are scraped every {interval_seconds:.0f} s"
    if interval_seconds > longest_seconds:
        told = (
            f"{every}, and what happens in more than {longest_seconds:g} s is no measure, so nothing is scaled: {mend}"
        )
        return Finding(Level.FAIL, about, told)
    if interval_seconds > 1.5 * tick_seconds:
        return Finding(Level.WARN, about, f"{every} and decided upon every {tick_seconds:g} s: {mend}")
    return Finding(Level.OK, about, f"vLLM pods are scraped at least every {math.ceil(interval_seconds)} s")


def of_quotas(about: str, quotas: Sequence[Json], replicas: int, gpus_a_replica: int, most: int) -> Finding | None:
    """Whether the namespace's quotas leave room for all that may still be asked for; None where there is none."""
    counted = [quota for quota in map(quota_of, quotas) if quota is not None]
    found = room(counted, replicas, {GPU: gpus_a_replica})
    if found is None:
        return None
    if found.replicas < most:
        return Finding(
            Level.WARN,
            about,
            f"{found.reason}, room for {found.replicas} replicas, and maxReplicas is {most}: raise the quota, or lower "
            f"maxReplicas to {found.replicas}",
        )
    return Finding(Level.OK, about, f"{found.reason}, room for all that maxReplicas allows")


def of_lease(about: str, lease: Json | None, now: float) -> Finding:
    """Whether a replica leads, and whether its clock is ours."""
    spec = (lease or {}).get("spec") or {}
    holder = spec.get("holderIdentity")
    if lease is None or not holder:
        return Finding(
            Level.WARN, about, "nobody leads, so nothing is scaled: is the autoscaler installed, and do its pods run?"
        )
    if not spec.get("renewTime"):
        return Finding(
            Level.WARN, about, f"{holder} holds it, and never renewed it: look at the pods of the autoscaler"
        )
    age = now - datetime.fromisoformat(str(spec["renewTime"])).timestamp()
    allowed = float(spec.get("leaseDurationSeconds") or 0)
    if age > 2 * allowed:
        return Finding(
            Level.FAIL,
            about,
            f"{holder} led last, {age:.0f} s ago: look at the pods of the autoscaler, or at this machine's clock",
        )
    if age < -allowed:
        return Finding(Level.WARN, about, f"{holder} renewed it {-age:.0f} s from now: set both clocks by NTP")
    return Finding(Level.OK, about, f"{holder} leads")


def of_followers(about: str, hpas: Sequence[Json], metric: str, fewest: int = 1) -> Iterator[Finding]:
    """Whether an HPA of the target follows our number, and what its tolerance swallows."""
    following = [hpa for hpa in hpas if reads(hpa, metric) or is_of_keda(hpa)]
    if not following:
        yield Finding(
            Level.WARN,
            about,
            f"mode is Publish and nobody follows: apply an HPA on {metric} (manifests/publish/hpa) or a ScaledObject "
            "(manifests/publish/keda)",
        )
    for hpa in following:
        behavior = hpa["spec"].get("behavior") or {}
        rules = [behavior.get(direction) or {} for direction in ("scaleUp", "scaleDown")]
        name = hpa["metadata"]["name"]
        if fewest == 0 and not is_of_keda(hpa) and hpa["spec"].get("minReplicas") != 0:
            yield Finding(
                Level.WARN,
                about,
                f"minReplicas is 0, and HPA {name} goes no lower than {hpa['spec'].get('minReplicas', 1)}: to zero an "
                "HPA follows only with Kubernetes' gate HPAScaleToZero; let KEDA follow, or write mode: Active",
            )
        if all(str(each.get("tolerance", "")) == "0" for each in rules):
            yield Finding(Level.OK, about, f"HPA {name} follows each step of it")
        else:
            yield Finding(
                Level.WARN,
                about,
                f"HPA {name} tolerates 10 %, so from ten replicas up it takes no single step: write tolerance: 0 in "
                "behavior.scaleUp and scaleDown, or mode: Active where the cluster has no such field",
            )


def reads(hpa: Json, metric: str) -> bool:
    """Whether it asks for this metric by name."""
    for each in hpa["spec"].get("metrics") or ():
        source = each.get(str(each.get("type", "")).lower()) or {}
        if (source.get("metric") or {}).get("name") == metric:
            return True
    return False


def is_of_keda(hpa: Json) -> bool:
    """Made for a ScaledObject, whose triggers ask under names of KEDA's own."""
    return any(owner.get("kind") == "ScaledObject" for owner in hpa["metadata"].get("ownerReferences") or ())


def of_budgets(resources: Iterable[VLLMAutoscaler]) -> Iterator[Finding]:
    """Budgets of GPUs whose members do not say the same number."""
    said: dict[tuple[str, str], dict[str, int]] = {}
    for each in resources:
        if each.spec.budget is not None:
            budget = (each.metadata.namespace, each.spec.budget.name)
            said.setdefault(budget, {})[each.key] = each.spec.budget.max_gpus
    for (namespace, name), by_key in sorted(said.items()):
        numbers = sorted(set(by_key.values()))
        if len(numbers) > 1:
            who = ", ".join(f"{key} says {number}" for key, number in sorted(by_key.items())[:3])
            yield Finding(
                Level.WARN,
                f"{namespace}, budget '{name}'",
                f"its members do not agree on maxGpus ({who}), and the least holds: write the same in all",
            )
