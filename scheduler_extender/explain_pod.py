"""`preheat explain-pod`: what every node would be told about a pod, before anybody schedules it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import ClusterError
from cluster.files import ConfigError, unreadable
from cluster.gpu_objects import Json, UnreadableObjectError
from cluster.placement import PlacementCluster, pod_named
from cluster.watch import Watch
from policies.gpu_memory import GIB
from policies.placement.demand import PodDemand
from policies.placement.policy import judge, scores
from policies.placement.supply import Links, NodeFacts
from policies.placement.verdict import Verdict
from scheduler_extender import inventory
from scheduler_extender.board import Board
from scheduler_extender.config import load
from scheduler_extender.demands import Demands
from scheduler_extender.explain import said_of
from scheduler_extender.facts import Facts, KnownNode, KnownPod, Unreadable

NODES_NAMED = 3


async def explain_pod(
    pod: str, *, inventory_file: Path | None, config: Path | None, kubeconfig: str | None, context: str | None
) -> str:
    """The story; a ConfigError says what to ask instead."""
    configuration = load(config)
    facts = Facts(Board(configuration.settings.placement), Demands(configuration.models), configuration.products)
    cluster: PlacementCluster | None = None
    try:
        if inventory_file is None:
            cluster = await PlacementCluster.connect(kubeconfig, context)
            watches: tuple[Watch[KnownNode | Unreadable], Watch[KnownPod | Unreadable]] = (
                cluster.watch_nodes(facts.read_node, facts.put_node),
                cluster.watch_pods(facts.read_pod, facts.put_pod),
            )
            for watch in watches:
                await watch.whole()
            found = await _pod_in(pod, cluster)
        else:
            seen = inventory.read(inventory_file)
            inventory.show(seen, facts)
            found = await _pod_in(pod, seen.pods)
        return _story(found, facts)
    except ClusterError as error:
        hint = "" if inventory_file is not None else "; or give --inventory FILE"
        raise ConfigError((f"{error}{hint}",)) from error
    except UnreadableObjectError as error:
        raise ConfigError((f"{pod}: the pod cannot be read: {error}",)) from error
    finally:
        if cluster is not None:
            await cluster.close()


async def _pod_in(pod: str, where: PlacementCluster | Mapping[str, Json]) -> Json:
    """Of a file, of the cluster, or of the inventory."""
    if _is_file(pod):
        return _pod_of(Path(pod))
    named = pod_named(pod)
    if named is None:
        raise ConfigError((f"{pod}: name a file with a pod, or one of the cluster as NAMESPACE/NAME",))
    if isinstance(where, PlacementCluster):
        return await where.pod(*named)
    if pod not in where:
        raise ConfigError((f"{pod}: no pod with GPUs of this name is in the inventory: check the name",))
    return where[pod]


def _is_file(pod: str) -> bool:
    path = Path(pod)
    return path.suffix in (".yaml", ".yml", ".json") or path.is_file()


def _pod_of(path: Path) -> Json:
    """The first pod of a file, or what the first workload would make its pods of."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError((unreadable(path, error),)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError((f"{path}: is neither YAML nor JSON: {' '.join(str(error).split())}",)) from error
    for document in documents:
        for candidate in _candidates(document):
            spec = candidate.get("spec")
            if isinstance(spec, dict) and "containers" in spec:
                return candidate
    raise ConfigError((f"{path}: holds neither a pod nor a workload with a template of one",))


def _candidates(document: Any) -> Iterable[dict[str, Any]]:
    if not isinstance(document, dict):
        return
    yield document
    spec = document.get("spec")
    if isinstance(spec, dict):
        # Of a LeaderWorkerSet the workers: there are more of them than leaders.
        group = spec.get("leaderWorkerTemplate")
        for template in (spec.get("template"), group.get("workerTemplate") if isinstance(group, dict) else None):
            if isinstance(template, dict):
                yield template


def _story(pod: Json, facts: Facts) -> str:
    facts.settle()
    demand = facts.demands.of(pod)
    lines = [_asks(demand), *(f"  {remark}" for remark in demand.remarks)]
    if demand.gpus == 0:
        return "\n".join(lines)
    by_facts: dict[NodeFacts, list[str]] = {}
    for name in sorted(facts.nodes):
        known = facts.known(name)
        if known is not None:
            by_facts.setdefault(known, []).append(name)
    verdicts = {known: judge(demand, known, facts.board.settings) for known in by_facts}
    ranks = dict(zip(verdicts, scores(list(verdicts.values())), strict=True))
    order = sorted(verdicts, key=lambda known: (not verdicts[known].fits, -ranks[known], by_facts[known][0]))
    for known in order:
        lines += _of_alike(by_facts[known], known, verdicts[known], ranks[known], demand, facts)
    passing = sum(len(names) for known, names in by_facts.items() if verdicts[known].fits)
    lines.append(f"{passing} of {len(facts.nodes)} nodes would take it")
    return "\n".join(lines)


def _asks(demand: PodDemand) -> str:
    if demand.gpus == 0:
        return "It asks for no GPUs: every node passes"
    said = f"It asks for {demand.gpus} {demand.resource or 'devices of several kinds'}"
    said += f" to serve {demand.model}" if demand.model else ", and for what is not known"
    sizes = {"TP": demand.tensor_parallel, "PP": demand.pipeline_parallel, "DP": demand.data_parallel_local}
    told = [f"{name} {'unknown' if size is None else size}" for name, size in sizes.items() if size != 1]
    if demand.weights_bytes is not None:
        told.append(f"{demand.weights_bytes / GIB:.1f} GiB of weights")
    if demand.max_model_len is not None:
        told.append(f"{demand.max_model_len} tokens at most")
    return f"{said} ({', '.join(told)})" if told else said


def _of_alike(
    names: list[str], known: NodeFacts, verdict: Verdict, rank: int, demand: PodDemand, facts: Facts
) -> Iterable[str]:
    more = f" and {len(names) - NODES_NAMED} alike" if len(names) > NODES_NAMED else ""
    if verdict.reason is None:
        judged = f"passes, score {rank}"
    else:
        judged = f"refused: {verdict.reason}" + (" (preemption may help)" if verdict.resolvable else "")
    yield f"{', '.join(names[:NODES_NAMED])}{more}: {judged}"
    links = str(known.links)
    if known.links in (Links.FULL_MESH, Links.GROUPS) and known.group_gpus:
        links += f" of {known.group_gpus}"
    yield f"  has {known.product or 'GPUs of unknown product'}, {known.free_gpus} of {known.gpus} free, links: {links}"
    if verdict.links is not None:
        yield f"  that its GPUs will be linked is {verdict.links}"
    yield f"  {said_of(demand, known, verdict, facts.board.settings)}"
    yield from (f"  {note}" for note in (*verdict.notes, *known.remarks))
