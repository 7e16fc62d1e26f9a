"""`preheat doctor`: the whole chain from the kubeconfig to the last pod, link by link, each with what to do about it.

It reads and asks what it may do; it changes nothing. A link that cannot be looked at is told, and the others are
looked at all the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from autoscaler import endings
from autoscaler.ailments import (
    engine_of,
    gpus_of,
    of_budgets,
    of_followers,
    of_lease,
    of_probes,
    of_quotas,
    of_scrapes,
    reads,
)
from autoscaler.check import objective_notes, series_problem, summed_arrivals, wrong_queries
from autoscaler.cluster_fleet import ClusterFleet, shared_pasts, shared_readings
from autoscaler.config import CREDENTIALS, forbidden_files, missing_files
from autoscaler.config import examine as examine_file
from autoscaler.nodes import fitting, remedy_of
from autoscaler.program import LEASE
from autoscaler.publish.numbers import METRIC
from autoscaler.publish.registration import obstacle
from autoscaler.servers import identity
from autoscaler.wake_signals import warnings
from cluster import vllm_metrics
from cluster.api import StatusError, meaning
from cluster.errors import ClusterError
from cluster.files import ConfigError
from cluster.findings import Findings
from cluster.kubernetes import Cluster
from cluster.objects import TargetState
from cluster.prometheus import CLOCKS_AGREE_WITHIN_SECONDS, Prometheus
from cluster.prometheus_queries import matching
from policies.scaling.observation import PodStage
from policies.scaling.resource import API_VERSION, KIND, Mode, OnConflict, VLLMAutoscaler
from policies.scaling.resource import Prometheus as PrometheusSettings
from policies.scaling.resource_reading import InvalidResourceError, read
from policies.scaling.settings import ScalingPolicy

HOME: Final = "preheat-system"
SCRAPES_OVER_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Asked:
    """Of whom: the resources of a file, or those of a cluster."""

    config: Path | None = None
    namespace: str | None = None
    home: str = HOME
    """Where the autoscaler runs, and so its Lease lies."""
    kubeconfig: str | None = None
    context: str | None = None
    tick_seconds: float = 15.0
    credentials: Path = CREDENTIALS
    """As the autoscaler has it."""


async def examine(asked: Asked) -> Findings:
    """Every link, as far as those before it allow."""
    findings = Findings()
    async with _connected(asked, findings) as cluster:
        resources = await _resources(asked, cluster, findings)
        if cluster and asked.config is None:
            # Under --namespace the Lease lies in that namespace.
            home = asked.namespace or asked.home
            path = f"/apis/coordination.k8s.io/v1/namespaces/{home}/leases/{LEASE}"
            found, lease = await _look(cluster, path, "leader", findings)
            if found:
                findings.lines.append(of_lease("leader", lease, time.time()))
        findings.lines += of_budgets(resources)
        servers: dict[PrometheusSettings, list[VLLMAutoscaler]] = {}
        for resource in resources:
            servers.setdefault(identity(resource.spec.prometheus), []).append(resource)
        for settings, sharing in servers.items():
            await _look_at_server(settings, sharing, cluster, asked, findings)
    return findings


# -- the API server ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _connected(asked: Asked, findings: Findings) -> AsyncIterator[Cluster | None]:
    try:
        cluster = await Cluster.connect(asked.kubeconfig, asked.context)
    except ClusterError as error:
        findings.fail("kubeconfig", str(error))
        yield None
        return
    try:
        try:
            version = await cluster.version()
        except ClusterError as error:
            findings.fail(
                "API server", f"{error}: is --kubeconfig that of this cluster, and can it be reached from here?"
            )
            yield None
        else:
            findings.ok("API server", f"{cluster.host} is Kubernetes {version}")
            yield cluster
    finally:
        await cluster.close()


async def _look(cluster: Cluster, path: str, about: str, findings: Findings) -> tuple[bool, dict[str, Any] | None]:
    """Whether it could be looked at, and what is there."""
    try:
        return True, await cluster.api.call("GET", path)
    except StatusError as error:
        if error.status == 404:
            return True, None
        findings.warn(about, f"could not be looked at: {meaning(error, path)}: run this as somebody who may")
    except ClusterError as error:
        findings.warn(about, f"could not be looked at: {error}")
    return False, None


async def _resources(asked: Asked, cluster: Cluster | None, findings: Findings) -> list[VLLMAutoscaler]:
    if asked.config is not None:
        found, problems = examine_file(asked.config)
        for problem in problems:
            findings.fail("resources", problem)
    else:
        found = tuple(await _resources_of(cluster, asked.namespace, findings)) if cluster else ()
    sound = []
    for resource in found:
        # Theirs may be mounted in its pod alone; what it would not read for them is not sent from here either.
        theirs = asked.config is None
        unreadable = list(forbidden_files(resource, asked.credentials) if theirs else missing_files(resource))
        for problem in unreadable:
            findings.fail(resource.key, problem)
        if not unreadable:
            sound.append(resource)
    return sound


async def _resources_of(cluster: Cluster, namespace: str | None, findings: Findings) -> list[VLLMAutoscaler]:
    group, version = API_VERSION.split("/")
    _, served = await _look(cluster, f"/apis/{group}", "CRD", findings)
    versions = [each["version"] for each in (served or {}).get("versions", ())]
    if version not in versions:
        others = f", only {', '.join(versions)}" if versions else ""
        findings.fail("CRD", f"{KIND} of {API_VERSION} is not served{others}: kubectl apply -k manifests/crds")
        return []
    findings.ok("CRD", f"{KIND} of {API_VERSION} is served")
    where = f"namespaces/{namespace}/" if namespace else ""
    looked, answer = await _look(cluster, f"/apis/{API_VERSION}/{where}vllmautoscalers", "resources", findings)
    found = []
    for item in (answer or {}).get("items", ()):
        try:
            found.append(read({**item, "apiVersion": API_VERSION, "kind": KIND}))
        except InvalidResourceError as error:
            metadata = item["metadata"]
            for problem in error.problems:
                findings.fail(f"{metadata['namespace']}/{metadata['name']}", problem)
    if looked and not (answer or {}).get("items"):
        place = f"namespace {namespace}" if namespace else "any namespace"
        findings.warn("resources", f"there is no {KIND} in {place}: apply one, as in manifests/examples")
    return found


# -- Prometheus ----------------------------------------------------------------------------------------------------


async def _look_at_server(
    settings: PrometheusSettings,
    sharing: Sequence[VLLMAutoscaler],
    cluster: Cluster | None,
    asked: Asked,
    findings: Findings,
) -> None:
    about = f"Prometheus {settings.url}"
    try:
        client = Prometheus(settings, quotes=True)
    except ConfigError as error:
        findings.fail(about, str(error))
        return
    try:
        reached = await _look_at_series(client, about, sharing, asked, findings)
        for resource in sharing:
            await _look_at_target(resource, cluster, client if reached else None, findings)
        ahead = client.clock_ahead_seconds
        if abs(ahead) > CLOCKS_AGREE_WITHIN_SECONDS:
            side = "ahead of" if ahead > 0 else "behind"
            findings.warn(about, f"its clock is {abs(ahead):.0f} s {side} ours: set both by NTP")
    finally:
        client.close()


async def _look_at_series(
    client: Prometheus, about: str, sharing: Sequence[VLLMAutoscaler], asked: Asked, findings: Findings
) -> bool:
    """Whether it answers at all."""
    try:
        names = await client.vllm_series()
        for resource in sharing:
            for warning in warnings(resource.spec):
                findings.warn(resource.key, warning)
            for problem in await wrong_queries(client, resource):
                findings.fail(resource.key, problem)
            for warning in await summed_arrivals(client, resource):
                findings.warn(resource.key, warning)
        if not names:
            # At rest nothing shows a series, and nothing is wrong with that.
            rest = all(resource.spec.min_replicas == 0 for resource in sharing)
            told = series_problem(client.connection.settings.url, await client.look_alikes())
            (findings.warn if rest else findings.fail)(about, told)
            return True
        findings.ok(about, f"is reached, and has {len(names)} names of series that are known as vLLM's")
        if client.connection.settings.insecure_skip_verify:
            findings.warn(about, "its certificate is not verified: name its authority in prometheus.caFile")
        interval = await _scrape_interval(client, names, asked.tick_seconds)
        edges = await client.edges()
        for resource in sharing:
            for note in objective_notes(resource, edges):
                findings.ok(resource.key, note)
    except ClusterError as error:
        findings.fail(about, str(error))
        return False
    if interval is not None:
        longest = ScalingPolicy.of(sharing[0].spec).max_gap_seconds  # no resource states it
        findings.lines.append(of_scrapes(about, interval, tick_seconds=asked.tick_seconds, longest_seconds=longest))
    return True


async def _scrape_interval(client: Prometheus, names: Sequence[str], tick_seconds: float) -> float | None:
    """Of the pod that is scraped most often, among those that are old enough to tell; None without any."""
    name = next((name for each in vllm_metrics.GAUGES.values() for name in each if name in names), names[0])
    series = matching((name,))
    for seconds in (math.ceil(4 * tick_seconds), SCRAPES_OVER_SECONDS):
        found = await client.query(f"max(count_over_time({series}[{seconds:.0f}s]) and {series} offset {seconds:.0f}s)")
        if found and found[0][1] > 1:
            return seconds / found[0][1]
    return None


# -- one target ----------------------------------------------------------------------------------------------------


async def _look_at_target(
    resource: VLLMAutoscaler, cluster: Cluster | None, client: Prometheus | None, findings: Findings
) -> None:
    if cluster is None:
        return
    ref, namespace, key = resource.spec.scale_target_ref, resource.metadata.namespace, resource.key
    try:
        missing = await cluster.missing_rights(ref, namespace, writes=resource.spec.mode is Mode.ACTIVE)
        for right in missing:
            rule = f"add to its Role {{{right.rule}}}"
            findings.fail(key, f"the right to {right} in namespace '{namespace}' is missing: {rule}")
        if any(right.verb in ("list", "watch") for right in missing):
            return
        if not missing:
            findings.ok(key, f"whoever runs this may scale {ref.kind} '{ref.name}'")
        state = await cluster.target(ref, namespace)
    except ClusterError as error:
        findings.fail(key, str(error))
        return
    ready = sum(pod.stage is PodStage.READY for pod in state.pods)
    findings.ok(key, f"{ref.kind} '{ref.name}' asks for {state.desired} replicas, {ready} pods are ready")
    if client is not None:
        await _look_at_samples(resource, cluster, client, findings)
    await _look_for_rivals(resource, cluster, findings)
    await _look_at_nodes(resource, cluster, state, findings)
    await _look_at_pods(resource, cluster, client, state.desired, findings)


async def _look_at_samples(resource: VLLMAutoscaler, cluster: Cluster, client: Prometheus, findings: Findings) -> None:
    """Each pod as the first turn of an autoscaler would see it."""
    fleet = ClusterFleet(resource, cluster, shared_readings(client), shared_pasts(client))
    try:
        seen = await fleet.observe(None)
    except ClusterError as error:
        findings.fail(resource.key, str(error))
        return
    finally:
        fleet.close()
    for problem in seen.problems:
        findings.warn(resource.key, problem)
    unseen, ready = seen.unseen_ready_pods, len(seen.ready_pods)
    if unseen:
        told = (
            f"of {ready} ready pods {len(unseen)} have no fresh and whole sample ({', '.join(unseen[:3])}): "
            "let Prometheus scrape them, with labels namespace and pod, or name its labels in spec.prometheus.labels"
        )
        (findings.fail if len(unseen) == ready else findings.warn)(resource.key, told)
    elif ready:
        findings.ok(resource.key, f"each of {ready} ready pods has a fresh sample")


async def _look_for_rivals(resource: VLLMAutoscaler, cluster: Cluster, findings: Findings) -> None:
    spec, key, namespace = resource.spec, resource.key, resource.metadata.namespace
    path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"
    looked, answer = await _look(cluster, path, key, findings)
    if not looked:
        return
    target = (spec.scale_target_ref.kind, spec.scale_target_ref.name)
    hpas = [
        hpa
        for hpa in (answer or {}).get("items", ())
        if (hpa["spec"]["scaleTargetRef"]["kind"], hpa["spec"]["scaleTargetRef"]["name"]) == target
    ]
    if spec.mode is Mode.PUBLISH:
        findings.lines += of_followers(key, hpas, METRIC, spec.min_replicas)
        if any(reads(hpa, METRIC) for hpa in hpas) and (problem := await obstacle(cluster.api)):
            findings.fail(key, problem)
        return
    if spec.mode is not Mode.ACTIVE:
        return
    names = ", ".join(hpa["metadata"]["name"] for hpa in hpas)
    if not names:
        findings.ok(key, "nobody else scales it")
    elif spec.on_conflict is OnConflict.OVERRIDE:
        findings.warn(key, f"HPA {names} scales it too, and onConflict is Override, so both write: delete one of them")
    else:
        findings.fail(
            key,
            f"HPA {names} scales it too, and is yielded to: delete it (or its ScaledObject), or write mode: Shadow, "
            "Publish or Floor",
        )


async def _look_at_nodes(resource: VLLMAutoscaler, cluster: Cluster, state: TargetState, findings: Findings) -> None:
    """Whether all that may still be asked for would find a node."""
    spec, key, ask = resource.spec, resource.key, state.ask
    if spec.mode is not Mode.ACTIVE or ask is None or ask.demand.gpus == 0:
        return
    try:
        if adds := await cluster.node_autoscalers.name():
            findings.ok(key, f"{adds} may add nodes for pods that wait")
            return
        await cluster.gpu_nodes.whole()
    except ClusterError as error:
        said = f"whether more of its pods fit on nodes is not seen, and limits nothing: {error}"
        findings.warn(key, said + remedy_of(said))
        return
    alive = sum(pod.stage is not PodStage.TERMINATING for pod in state.pods)
    found = fitting(ask, cluster.gpu_nodes, (spec.max_replicas - alive) * ask.pods)
    if not found.sentence:
        findings.ok(key, "nodes have GPUs for all that maxReplicas allows")
    else:
        findings.warn(
            key,
            f"of its {spec.max_replicas} maxReplicas there are {alive}, and {found.sentence}: add nodes, lower "
            "maxReplicas, or set maxUnschedulable where something unseen adds nodes",
        )


async def _look_at_pods(
    resource: VLLMAutoscaler, cluster: Cluster, client: Prometheus | None, desired: int, findings: Findings
) -> None:
    ref, namespace, key = resource.spec.scale_target_ref, resource.metadata.namespace, resource.key
    path = f"/apis/{ref.api_version}/namespaces/{namespace}/{ref.kind.lower()}s/{ref.name}"
    _, workload = await _look(cluster, path, key, findings)
    templates = _templates(workload or {})
    containers = [each for each in map(engine_of, templates) if each is not None]
    if containers:
        findings.lines.append(of_probes(key, containers[0]))
    gpus = sum(map(gpus_of, containers))
    if gpus:
        path = f"/api/v1/namespaces/{namespace}/resourcequotas"
        _, answer = await _look(cluster, path, key, findings)
        quotas = (answer or {}).get("items", ())
        found = of_quotas(key, quotas, desired, gpus, resource.spec.max_replicas)
        findings.lines += [found] if found else []
    if client is None:
        return
    try:
        cut_off = await endings.look(resource, cluster, client)
    except ClusterError as error:
        findings.warn(key, f"how its pods end could not be looked at: {error}")
        return
    for sentence in cut_off:
        findings.warn(key, sentence)
    if not cut_off:
        findings.ok(key, "its pods have time to end what they do")


def _templates(workload: dict[str, Any]) -> list[dict[str, Any]]:
    """One a pod of a replica; of a LeaderWorkerSet the one that is asked first."""
    spec = workload.get("spec") or {}
    group = spec.get("leaderWorkerTemplate")
    if not group:
        return [spec["template"]] if spec.get("template") else []
    worker = group["workerTemplate"]
    return [group.get("leaderTemplate") or worker, *[worker] * (int(group.get("size", 1)) - 1)]
