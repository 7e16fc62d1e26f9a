"""`preheat check`: everything that is wrong, at once: the file, the files it names, Prometheus, the cluster.

Each is looked at as far as the others allow: a file with one wrong document still has its sound ones checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from math import isinf
from pathlib import Path

from autoscaler.cluster_fleet import ClusterFleet, shared_pasts, shared_readings
from autoscaler.config import examine, missing_files
from autoscaler.endings import look
from autoscaler.servers import identity
from autoscaler.wake_signals import warnings
from cluster import vllm_metrics
from cluster.errors import ClusterError
from cluster.floors import Floors
from cluster.kubernetes import Cluster
from cluster.prometheus import Prometheus
from cluster.prometheus_arrivals import is_sum
from cluster.prometheus_queries import PodIndex, TargetPods
from policies.scaling.observation import PodStage
from policies.scaling.resource import Mode, VLLMAutoscaler
from policies.scaling.resource import Prometheus as PrometheusSettings


@dataclass(slots=True)
class Report:
    """What must be mended, and what is good to know."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def check(path: Path, kubeconfig: str | None, context: str | None) -> Report:
    """Look at everything that `preheat autoscaler` with this file would need."""
    resources, problems = examine(path)
    report = Report(problems)
    sound = []
    for resource in resources:
        unreadable = [*missing_files(resource)]
        report.problems += unreadable
        if not unreadable:
            sound.append(resource)
    servers: dict[PrometheusSettings, list[VLLMAutoscaler]] = {}
    for resource in sound:
        servers.setdefault(identity(resource.spec.prometheus), []).append(resource)
    async with AsyncExitStack() as parts:
        clients = {settings: Prometheus(settings, quotes=True) for settings in servers}
        for client in clients.values():
            parts.callback(client.close)
        looks = [_check_prometheus(clients[settings], sharing) for settings, sharing in servers.items()]
        # What the file says of a target is looked at even where its Prometheus cannot be asked.
        cluster = await _connected(report, kubeconfig, context) if resources else None
        if cluster:
            parts.push_async_callback(cluster.close)
            looks.append(_check_cluster(cluster, resources))
        for found in await asyncio.gather(*looks):
            report.problems += found.problems
            report.notes += found.notes
        if cluster and not report.problems:
            for found in await asyncio.gather(
                *(_first_look(clients[identity(each.spec.prometheus)], cluster, each) for each in sound)
            ):
                report.problems += found.problems
                report.notes += found.notes
    report.problems = list(dict.fromkeys(report.problems))
    return report


async def _connected(report: Report, kubeconfig: str | None, context: str | None) -> Cluster | None:
    try:
        return await Cluster.connect(kubeconfig, context)
    except ClusterError as error:
        report.problems.append(str(error))
        return None


async def _first_look(prometheus: Prometheus, cluster: Cluster, resource: VLLMAutoscaler) -> Report:
    """The target as the autoscaler's first turn would see it."""
    report = Report()
    fleet = ClusterFleet(resource, cluster, shared_readings(prometheus), shared_pasts(prometheus))
    try:
        seen = await fleet.observe(None)
    except ClusterError as error:
        report.problems.append(f"{resource.key}: {error}")
        return report
    report.notes += [f"{resource.key}: {problem}" for problem in seen.problems]
    try:
        report.notes += [f"{resource.key}: {warning}" for warning in await look(resource, cluster, prometheus)]
    except ClusterError as error:
        report.notes.append(f"{resource.key}: how its pods end cannot be seen: {error}")
    unseen, ready = seen.unseen_ready_pods, len(seen.ready_pods)
    if unseen:
        told = (
            f"{resource.key}: of {ready} ready pods {len(unseen)} have no whole sample in Prometheus ({unseen[0]}): "
            "let it scrape them, with labels `namespace` and `pod`, or name its labels in spec.prometheus.labels"
        )
        (report.problems if len(unseen) == ready else report.notes).append(told)
    return report


async def _check_prometheus(prometheus: Prometheus, sharing: Sequence[VLLMAutoscaler]) -> Report:
    report, url = Report(), prometheus.connection.settings.url
    try:
        names = await prometheus.vllm_series()
        for resource in sharing:
            report.notes += [f"{resource.key}: {warning}" for warning in warnings(resource.spec)]
            report.problems += await wrong_queries(prometheus, resource)
            report.notes += await summed_arrivals(prometheus, resource)
        if not names:
            # At rest nothing shows a series, and nothing is wrong with that.
            rest = all(resource.spec.min_replicas == 0 for resource in sharing)
            (report.notes if rest else report.problems).append(series_problem(url, await prometheus.look_alikes()))
            return report
        report.notes.append(f"Prometheus at {url} has {len(names)} series names of vLLM")
        edges = await prometheus.edges()
        for resource in sharing:
            report.notes += [f"{resource.key}: {note}" for note in objective_notes(resource, edges)]
    except ClusterError as error:
        report.problems.append(str(error))
    return report


def series_problem(url: str, alike: Sequence[tuple[str, str]]) -> str:
    """What to say of a server without a series of vLLM."""
    shown = ", ".join(f"{name} (for {meant})" for name, meant in alike)
    reason = f"what it has that looks alike: {shown}" if alike else "nor any that looks alike"
    return f"Prometheus at {url} has no series of vLLM; {reason}: let it scrape the /metrics of the vLLM pods"


async def wrong_queries(prometheus: Prometheus, resource: VLLMAutoscaler) -> list[str]:
    """Why what the resource asks of Prometheus itself cannot be read."""
    spec, problems = resource.spec, []
    for field_name, query, remedy in (
        ("prometheus.arrivals", spec.prometheus.arrivals, "name a counter of the router that this Prometheus scrapes"),
        ("wake.query", spec.wake.query, "end it with `or vector(0)` where no series means that nobody asks"),
    ):
        where = f"{resource.key}: spec.{field_name} ({query})"
        try:
            if query is not None and not await prometheus.query(f"sum({query}\n)"):
                problems.append(f"{where} has no value now: {remedy}")
        except ClusterError as error:
            problems.append(f"{where} cannot be read: {error}")
    return problems


async def summed_arrivals(prometheus: Prometheus, resource: VLLMAutoscaler) -> list[str]:
    """What is wrong with a router's counter that can be read, and no more router by router."""
    spec = resource.spec
    if spec.prometheus.arrivals is None:
        return []
    labels = PodIndex([TargetPods((), spec.objectives, labels=spec.prometheus.labels)]).labels
    try:
        counts = await prometheus.query(f"sum by ({', '.join(labels)}) ({spec.prometheus.arrivals}\n)")
    except ClusterError:
        return []  # told by `wrong_queries`
    if not any(is_sum(frozenset(process.items())) for process, _ in counts):
        return []
    return [
        f"{resource.key}: spec.prometheus.arrivals ({spec.prometheus.arrivals}) has no label that tells routers apart, "
        "and one that is not scraped for once cannot be told from one that began anew: do not sum it"
    ]


def objective_notes(resource: VLLMAutoscaler, edges: vllm_metrics.Edges) -> Iterator[str]:
    """How exactly each objective can be measured with the buckets that vLLM has."""
    for field_name, distribution, standard in (
        ("ttftSeconds", "ttft", vllm_metrics.TTFT_EDGES),
        ("tpotSeconds", "tpot", vllm_metrics.TPOT_EDGES),
    ):
        objective = vllm_metrics.objective_of(distribution, resource.spec.objectives)
        lower, upper = vllm_metrics.edges_around(objective, _known_edges(edges, distribution) or standard)
        where = f"spec.objectives.{field_name} {objective:g}"
        if lower == upper:
            yield f"{where} is an edge of vLLM's buckets: attainment is measured exactly"
        elif isinf(upper):
            yield f"{where} lies above vLLM's last bucket edge, {lower:g}: attainment is then only known from below"
        else:
            yield (
                f"{where} lies between vLLM's bucket edges {lower:g} and {upper:g}: attainment is then an "
                "interval; name one of them for an exact share"
            )


def _known_edges(edges: vllm_metrics.Edges, distribution: str) -> list[float]:
    for name in vllm_metrics.bucket_names(distribution):
        if name in edges:
            return [edge for edge, _ in edges[name]]
    return []


async def _check_cluster(cluster: Cluster, resources: Sequence[VLLMAutoscaler]) -> Report:
    report = Report()
    try:
        report.notes.append(f"the API server at {cluster.host} is Kubernetes {await cluster.version()}")
        for found in await asyncio.gather(*(_check_target(cluster, resource) for resource in resources)):
            report.problems += found.problems
            report.notes += found.notes
    except ClusterError as error:
        report.problems.append(str(error))
    return report


async def _check_target(cluster: Cluster, resource: VLLMAutoscaler) -> Report:
    report, ref, namespace = Report(), resource.spec.scale_target_ref, resource.metadata.namespace
    try:
        writes = resource.spec.mode is Mode.ACTIVE
        missing = await cluster.missing_rights(ref, namespace, writes=writes)
        report.problems += [
            f"{resource.key}: the right to {right} in namespace '{namespace}' is missing: add to its Role "
            f"{{{right.rule}}}"
            for right in missing
        ]
        if any(right.verb in ("list", "watch") for right in missing):
            return report  # it could not be looked at
        state = await cluster.target(ref, namespace)
        if resource.spec.mode is Mode.FLOOR:
            floor = await Floors(cluster.api).of(ref, namespace)
            report.notes.append(f"{resource.key}: {floor.subject} has {floor.holder.fewest} {floor.own}")
    except ClusterError as error:
        report.problems.append(f"{resource.key}: {error}")
        return report
    ready = sum(pod.stage is PodStage.READY for pod in state.pods)
    report.notes.append(
        f"{resource.key}: {ref.kind} '{ref.name}' asks for {state.desired} replicas, {ready} pods are ready"
    )
    if state.strangers:
        report.notes.append(
            f"{resource.key}: {state.strangers} pods that its selector selects are another controller's, and left out"
        )
    return report
