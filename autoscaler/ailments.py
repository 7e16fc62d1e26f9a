"""What is amiss with a pod template, a quota, a lease or an HPA, told from its JSON alone, a finding each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cluster.findings import Finding, Level

Json = Mapping[str, Any]

GPU: Final = "nvidia.com/gpu"
LONGEST_INITIAL_DELAY_SECONDS: Final = 60
EXIT_SECONDS: Final = 10.0
"""What vLLM takes to end once nothing runs any more."""
_SHUTDOWN: Final = re.compile(r"--shutdown-timeout[= ]+(\d+)")


@dataclass(frozen=True, slots=True)
class Drain:
    """How long a pod has to end, and what of it is used; None where nothing is said."""

    grace_seconds: float
    pre_stop: bool
    pre_stop_seconds: float | None
    """None also of a hook whose length nobody can tell."""
    shutdown_seconds: float | None
    """vLLM's own: for so long it finishes what runs."""


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


def drain_of(template: Json) -> Drain:
    container = engine_of(template) or {}
    words = " ".join(map(str, (*(container.get("command") or ()), *(container.get("args") or ()))))
    found = _SHUTDOWN.search(words)
    hook = (container.get("lifecycle") or {}).get("preStop")
    sleep = (hook or {}).get("sleep") or {}
    exec_ = " ".join(map(str, ((hook or {}).get("exec") or {}).get("command") or ()))
    slept = re.search(r"\bsleep (\d+)", exec_)
    seconds = sleep.get("seconds", float(slept[1]) if slept else None)
    grace = (template.get("spec") or {}).get("terminationGracePeriodSeconds")
    return Drain(
        30.0 if grace is None else float(grace),
        hook is not None,
        None if seconds is None else float(seconds),
        float(found[1]) if found else None,
    )


def of_template(about: str, template: Json, longest_request_seconds: float | None) -> Iterator[Finding]:
    """How a pod starts and ends; `longest_request_seconds`: the 99th percentile of its requests, if known."""
    container = engine_of(template)
    if container is None:
        return
    yield _probes(about, container)
    drain = drain_of(template)
    used = (drain.pre_stop_seconds or 0.0) + (drain.shutdown_seconds or 0.0)
    problems = []
    if not drain.pre_stop:
        problems.append("there is no preStop hook, so routers still send to a pod that ends: add one that sleeps 15 s")
    if drain.shutdown_seconds is None:
        problems.append(
            "vLLM runs without --shutdown-timeout, so a shrink breaks the streams of a pod: add --shutdown-timeout=120"
        )
    if drain.shutdown_seconds is not None and drain.grace_seconds < used + EXIT_SECONDS:
        problems.append(
            f"terminationGracePeriodSeconds is {drain.grace_seconds:g}, and preStop and --shutdown-timeout take "
            f"{used:g}: write {used + 2 * EXIT_SECONDS:g} or more"
        )
    if longest_request_seconds is not None and drain.grace_seconds < longest_request_seconds:
        problems.append(
            f"terminationGracePeriodSeconds is {drain.grace_seconds:g}, and one request in a hundred takes longer than "
            f"{longest_request_seconds:.0f} s: raise it and --shutdown-timeout above that"
        )
    yield from (Finding(Level.WARN, about, problem) for problem in problems)
    if not problems:
        yield Finding(Level.OK, about, f"a pod has {drain.grace_seconds:g} s to end, and drains")


def _probes(about: str, container: Json) -> Finding:
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


def of_quotas(about: str, quotas: Sequence[Json], gpus_a_replica: int, more_replicas: int) -> Iterator[Finding]:
    """Whether the namespace's quotas leave room for the replicas that may still be asked for."""
    for quota in quotas:
        status = quota.get("status") or {}
        hard, used = (status.get(key) or {} for key in ("hard", "used"))
        for key in (f"requests.{GPU}", f"limits.{GPU}"):
            if key not in hard:
                continue
            left = int(hard[key]) - int(used.get(key, 0))
            needed, name = gpus_a_replica * max(0, more_replicas), quota["metadata"]["name"]
            if left < needed:
                yield Finding(
                    Level.WARN,
                    about,
                    f"ResourceQuota {name} leaves {left} GPUs, and {needed} more belong to maxReplicas: raise the "
                    f"quota, or lower maxReplicas by {-(-(needed - left) // max(1, gpus_a_replica))}",
                )
            else:
                yield Finding(Level.OK, about, f"ResourceQuota {name} leaves {left} GPUs, {needed} may be asked for")


def of_lease(about: str, lease: Json | None, now: float) -> Finding:
    """Whether a replica leads, and whether its clock is ours."""
    spec = (lease or {}).get("spec") or {}
    holder = spec.get("holderIdentity")
    if lease is None or not holder:
        return Finding(
            Level.WARN, about, "nobody leads, so nothing is scaled: is the autoscaler installed, and do its pods run?"
        )
    age = now - datetime.fromisoformat(str(spec.get("renewTime"))).timestamp()
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


def of_followers(about: str, hpas: Sequence[Json], metric: str) -> Iterator[Finding]:
    """Whether an HPA of the target follows our number, and what its tolerance swallows."""
    following = [hpa for hpa in hpas if metric in _metrics_of(hpa)]
    if not following:
        yield Finding(
            Level.WARN,
            about,
            f"mode is Publish and no HPA of it reads {metric}: apply one (manifests/overlays/hpa), or let KEDA ask",
        )
    for hpa in following:
        behavior = hpa["spec"].get("behavior") or {}
        rules = [behavior.get(direction) or {} for direction in ("scaleUp", "scaleDown")]
        name = hpa["metadata"]["name"]
        if all(str(each.get("tolerance", "")) == "0" for each in rules):
            yield Finding(Level.OK, about, f"HPA {name} follows each step of it")
        else:
            yield Finding(
                Level.WARN,
                about,
                f"HPA {name} tolerates 10 %, so from ten replicas up it takes no single step: write tolerance: 0 in "
                "behavior.scaleUp and scaleDown, or mode: Active where the cluster has no such field",
            )


def _metrics_of(hpa: Json) -> set[str]:
    found = set()
    for metric in hpa["spec"].get("metrics") or ():
        source = metric.get(str(metric.get("type", "")).lower()) or {}
        found.add(str((source.get("metric") or {}).get("name")))
    return found
