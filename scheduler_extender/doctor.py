"""`preheat doctor extender`: is it asked, is it heeded, and does it see what it judges by."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from cluster.errors import ClusterError
from cluster.files import ConfigError
from cluster.findings import Findings
from cluster.gpu_objects import Json, UnreadableObjectError, place_of, seen_node
from cluster.placement import PlacementCluster
from policies.placement.nodes import PRODUCT
from scheduler_extender import inventory, scheduler_config
from scheduler_extender.scheduler_config import SchedulerConfiguration

IN_TREE_POINTS: Final = 1200
"""What the default in-tree scores reach together: weights of 12, 100 points each."""
OUR_POINTS: Final = 10
POINTS_A_SCORE: Final = 10
"""kube-scheduler stretches an extender's 0 to 10 to its own 0 to 100."""
NAMED_AT_MOST: Final = 5
PLACEHOLDER: Final = "192.0.2.0/24"
CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
POLICY_PATH: Final = "/apis/networking.k8s.io/v1/namespaces/preheat-system/networkpolicies/preheat-extender"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be looked at; None is not looked at."""

    url: str | None = None
    ca: Path | None = None
    minutes: float = 10.0
    scheduler_config: Path | None = None
    inventory: Path | None = None
    kubeconfig: str | None = None
    context: str | None = None


async def examine(asked: Asked) -> Findings:
    """Everything that was asked for; a ConfigError where one of the means cannot be used."""
    report = Findings()
    schedulers: set[str] | None = None
    if asked.scheduler_config is not None:
        document = scheduler_config.read(asked.scheduler_config)
        try:
            config = scheduler_config.shaped(document)
            schedulers = {profile.scheduler_name for profile in config.schedulers}
            problems = list(config_problems(config))
        except ConfigError as error:
            problems = list(error.problems)
        _tell(report, str(asked.scheduler_config), problems)
        if not problems:
            report.ok(str(asked.scheduler_config), "nothing is wrong with it")
    if asked.url is not None:
        await _look_at_extender(asked, asked.url, report)
    nodes, pods = await _objects(asked, report)
    _tell(report, "nodes", node_problems(nodes))
    _tell(report, "pods", pod_problems(pods, schedulers))
    if nodes:
        report.ok("", f"{len(nodes)} nodes and {len(pods)} pods with GPUs or claims were looked at")
    return report


def _tell(report: Findings, about: str, problems: Iterable[str]) -> None:
    for problem in problems:
        report.fail(about, problem)


# -- the scheduler's configuration ---------------------------------------------------------------------------------


def config_problems(config: SchedulerConfiguration) -> Iterator[str]:
    """What would keep the extender from being asked or heeded."""
    ours = [each for each in config.extenders if each.filter_verb == "filter"]
    if not ours:
        yield "no extender has filterVerb: filter, so none of ours is asked: add it under extenders"
        return
    for extender in ours:
        where = f"extender {extender.url_prefix}"
        points = OUR_POINTS * POINTS_A_SCORE * extender.weight
        if not extender.prioritize_verb:
            yield f"{where}: has no prioritizeVerb, so the best node is not preferred: write prioritizeVerb: prioritize"
        elif points <= IN_TREE_POINTS:
            yield (
                f"{where}: weight {extender.weight} makes its best node {points} points, and in-tree "
                f"scores reach {IN_TREE_POINTS}: write weight: 15"
            )
        if not extender.preempt_verb:
            yield f"{where}: has no preemptVerb, so pods are evicted for nothing: write preemptVerb: preempt"
        if not extender.node_cache_capable:
            yield f"{where}: is sent whole nodes, 300 times as much: write nodeCacheCapable: true"
        if not extender.managed_resources:
            yield f"{where}: is asked about every pod: write managedResources: [{{name: nvidia.com/gpu}}]"
        elif any(resource.ignored_by_scheduler for resource in extender.managed_resources):
            yield f"{where}: ignoredByScheduler leaves counting to us, and we leave it to the scheduler: take it out"
        tls = extender.tls_config
        is_https = extender.enable_https or extender.url_prefix.startswith("https:")
        if not is_https:
            yield f"{where}: is asked in plain HTTP: write enableHTTPS: true and tlsConfig with a caFile"
        elif tls.insecure or not (tls.ca_file or tls.ca_data):
            yield f"{where}: its certificate is not verified: write tlsConfig: {{caFile: …}}"
        if extender.ignorable:
            yield f"{where}: is ignorable: while it does not answer, GPU pods land anywhere"
    everywhere = config.percentage_of_nodes_to_score
    for profile in config.schedulers:
        own = profile.percentage_of_nodes_to_score
        if (everywhere if own is None else own) != 100:
            yield (
                f"profile {profile.scheduler_name}: of more than 100 nodes it looks at a sample, which may be refused "
                "as a whole: write percentageOfNodesToScore: 100"
            )


# -- the extender itself -----------------------------------------------------------------------------------------


async def _look_at_extender(asked: Asked, url: str, report: Findings) -> None:
    try:
        text = await _page(f"{url.rstrip('/')}/metrics", asked.ca)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        report.fail(f"--url {url}", f"the extender does not answer: {reason}")
        return
    problems = list(metrics_problems(text, time.time(), asked.minutes))
    _tell(report, url, problems)
    if not problems:
        report.ok(url, f"is ready, and was asked within {asked.minutes:g} minutes")


async def _page(url: str, ca: Path | None) -> str:
    tls = ssl.create_default_context(cafile=str(ca) if ca else None)
    limits = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=limits) as session, session.get(url, ssl=tls) as answer:
        answer.raise_for_status()
        return await answer.text()


def metrics_problems(text: str, now: float, minutes: float) -> Iterator[str]:
    """What an extender's own figures show."""
    values: dict[tuple[str, str], float] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = sample.name, sample.labels.get("verb", "")
                values[key] = values.get(key, 0.0) + sample.value
    except ValueError:
        values = {}  # a page that is none of Prometheus' is none of ours
    if ("preheat_extender_ready", "") not in values:
        yield "what answers there is no extender of ours: name its own address"
        return
    if not values["preheat_extender_ready", ""]:
        yield "the extender does not know all nodes and pods yet: its log says what stands in the way"
    for verb in ("filter", "prioritize"):
        at = values.get(("preheat_extender_last_question_timestamp_seconds", verb), 0.0)
        if at == 0.0:
            yield f"no scheduler has ever asked it to {verb}: is its configuration in use, and its address reachable?"
        elif now - at > minutes * 60:
            yield f"no scheduler has asked it to {verb} for {(now - at) / 60:.0f} minutes: do GPU pods wait at all?"
    for (name, verb), times in values.items():
        if name == "preheat_extender_questions_unanswered_total" and times:
            yield f"{times:g} questions to {verb} went unanswered: their reasons are in /metrics"


# -- nodes and pods ------------------------------------------------------------------------------------------------


async def _objects(asked: Asked, report: Findings) -> tuple[list[Json], list[Json]]:
    """Nodes, and the pods that hold devices or ask for claims, as Kubernetes has them."""
    if asked.inventory is not None:
        seen = inventory.read(asked.inventory, raw_nodes=True)
        return list(seen.raw_nodes.values()), list(seen.pods.values())
    if asked.kubeconfig is None and (asked.url or asked.scheduler_config):
        return [], []
    cluster = await _connected(asked)
    nodes: dict[str, Json] = {}
    pods: dict[str, Json] = {}
    try:
        watches = (
            cluster.watch_nodes(_trimmed, lambda name, node: nodes.update({name: node} if node else {})),
            cluster.watch_pods(_of_interest, lambda key, pod: pods.update({key: pod} if pod else {})),
        )
        for watch in watches:
            await watch.whole()
        policy = await cluster.read(POLICY_PATH)
        _tell(report, "network", policy_problems(policy, list(nodes.values())))
    except ClusterError as error:
        raise ConfigError((str(error),)) from error
    finally:
        await cluster.close()
    return list(nodes.values()), list(pods.values())


async def _connected(asked: Asked) -> PlacementCluster:
    try:
        return await PlacementCluster.connect(asked.kubeconfig, asked.context)
    except ClusterError as error:
        raise ConfigError((f"{error}; or give --inventory FILE",)) from error


def _trimmed(node: Json) -> Json:
    return {part: node.get(part) or {} for part in ("metadata", "spec", "status")}


def _of_interest(pod: Json) -> Json | None:
    return pod if inventory.is_of_interest(pod) else None


def node_problems(nodes: Iterable[Json]) -> Iterator[str]:
    """GPU nodes that nothing is known of, and those that other schedulers' pods may come to."""
    unlabelled, untainted = [], []
    for node in nodes:
        try:
            seen = seen_node(node)
        except UnreadableObjectError:
            continue
        if not any(seen.allocatable.values()):
            continue
        name = str(node["metadata"]["name"])
        if PRODUCT not in seen.labels:
            unlabelled.append(name)
        if not (node.get("spec") or {}).get("taints"):
            untainted.append(name)
    if unlabelled:
        yield f"{_named(unlabelled)} have GPUs and no label {PRODUCT}: run GPU Feature Discovery there"
    if untainted:
        yield f"{_named(untainted)} have GPUs and no taint, so any scheduler's pods may come: taint them"


def pod_problems(pods: Iterable[Json], schedulers: set[str] | None) -> Iterator[str]:
    """Pods that the extender is never asked about."""
    others: dict[str, list[str]] = {}
    by_claim = []
    for pod in pods:
        spec = pod.get("spec") or {}
        name = f"{pod['metadata'].get('namespace', '')}/{pod['metadata']['name']}"
        try:
            place = place_of(pod)
        except UnreadableObjectError:
            continue
        if place is None:
            continue
        scheduler = str(spec.get("schedulerName") or "default-scheduler")
        if any(place.gpus.values()):
            if schedulers is None or scheduler not in schedulers:
                others.setdefault(scheduler, []).append(name)
        elif spec.get("resourceClaims"):
            by_claim.append(name)
    if schedulers is not None:
        for scheduler, names in sorted(others.items()):
            yield f"{_named(names)} ask for GPUs by the scheduler {scheduler}, which this configuration is not of"
    if by_claim:
        yield f"{_named(by_claim)} have resource claims: managedResources never shows such pods to an extender"


def policy_problems(policy: Json | None, nodes: list[Json]) -> Iterator[str]:
    """Whether a kube-scheduler on the control plane's nodes may ask."""
    if policy is None:
        return
    blocks = [
        str(peer["ipBlock"].get("cidr"))
        for rule in (policy.get("spec") or {}).get("ingress") or ()
        for peer in rule.get("from") or ()
        if isinstance(peer.get("ipBlock"), dict)
    ]
    if PLACEHOLDER in blocks:
        yield f"NetworkPolicy preheat-extender still admits {PLACEHOLDER}, nobody's: write the control plane's nodes"
        return
    outside = []
    for node in nodes:
        if CONTROL_PLANE in (node["metadata"].get("labels") or {}):
            for told in (node.get("status") or {}).get("addresses") or ():
                if told.get("type") != "InternalIP":
                    continue  # a Hostname beside it is no address
                address = ip_address(told["address"])
                if not any(address in ip_network(block, strict=False) for block in blocks):
                    outside.append(str(node["metadata"]["name"]))
    if outside:
        named = _named(outside)
        yield f"NetworkPolicy preheat-extender does not admit {named} of the control plane: add their addresses"


def _named(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:NAMED_AT_MOST])
    return shown if len(names) <= NAMED_AT_MOST else f"{shown} and {len(names) - NAMED_AT_MOST} more"
