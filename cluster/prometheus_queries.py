"""The PromQL that is sent, and how a series finds its pod; text and tables, no I/O.

Every query serves all targets of a server at once. The inner `max by` makes one of what was scraped twice (two
jobs, two replicas of Prometheus behind one address): such series differ in labels that are not vLLM's own. The
outer aggregation adds up the engines of one process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cluster import vllm_metrics
from cluster.vllm_metrics import Edges
from policies.scaling.resource import Objectives, PrometheusLabels

Way = tuple[str, str]
"""The labels by which a series names its pod: of the namespace, of the pod."""

WAYS: Final[tuple[Way, ...]] = (("namespace", "pod"), ("kubernetes_namespace", "kubernetes_pod_name"))
"""In this order; a series with neither pair joins by the host of its `instance`, if that is a pod's IP."""
INSTANCE: Final = "instance"
TARGET: Final = "preheat_target"
"""Label put on what belongs to one target, where one query answers for many."""
BY_POD: Final = PrometheusLabels()


@dataclass(frozen=True, slots=True)
class PodAddress:
    """What a series can name a pod by."""

    namespace: str
    name: str
    ip: str = ""


@dataclass(frozen=True, slots=True)
class TargetPods:
    """One target's pods and what is to be read of them."""

    pods: Sequence[PodAddress]
    objectives: Objectives
    arrivals: str | None = None
    labels: PrometheusLabels = BY_POD
    wake: str | None = None


GAUGES: Final = tuple(name for names in vllm_metrics.GAUGES.values() for name in names)
COUNTERS: Final = tuple(name for names in vllm_metrics.COUNTERS.values() for name in names)
_LATENCIES: Final = tuple(dict.fromkeys(name for names in vllm_metrics.DISTRIBUTIONS.values() for name in names))
LATENCY_SUMS: Final = tuple(f"{name}_sum" for name in _LATENCIES)
LATENCY_COUNTS: Final = tuple(f"{name}_count" for name in _LATENCIES)


def override(labels: PrometheusLabels) -> Way | None:
    if labels.namespace is None and labels.pod is None:
        return None
    return (labels.namespace or WAYS[0][0], labels.pod or WAYS[0][1])


class PodIndex:
    """Which pod a series belongs to; each pod is known by its place in `pods`."""

    def __init__(self, targets: Iterable[TargetPods]) -> None:
        self.pods: dict[tuple[str, str], int] = {}
        self._overridden: dict[Way, dict[tuple[str, str], int]] = {}
        self._named: dict[tuple[str, str], int] = {}
        by_ip: dict[str, set[int]] = {}
        for target in targets:
            way = override(target.labels)
            table = self._named if way is None else self._overridden.setdefault(way, {})
            for pod in target.pods:
                place = self.pods.setdefault((pod.namespace, pod.name), len(self.pods))
                table[pod.namespace, pod.name] = place
                if pod.ip and way is None:
                    by_ip.setdefault(pod.ip, set()).add(place)
        # Pods on the host's network share its IP: it tells none of them from the others.
        self._by_ip = {ip: places.pop() for ip, places in by_ip.items() if len(places) == 1}
        ways = (*WAYS, *self._overridden)
        self.labels = tuple(dict.fromkeys((*(label for way in ways for label in way), INSTANCE)))
        self.namespaces = tuple(sorted({namespace for namespace, _ in self.pods}))

    def place(self, labels: Mapping[str, str]) -> int | None:
        """The pod's place; None: no pod of ours."""
        for way, table in self._overridden.items():
            place = table.get((labels.get(way[0], ""), labels.get(way[1], "")))
            if place is not None:
                return place
        for namespace_label, pod_label in WAYS:
            namespace, pod = labels.get(namespace_label), labels.get(pod_label)
            if namespace and pod:
                # A series that names its pod is believed: an IP may have passed from a dead pod to another.
                return self._named.get((namespace, pod))
        return self._by_ip.get(host(labels.get(INSTANCE, "")))

    def namespace_label(self, labels: Mapping[str, str]) -> str | None:
        """The label by which a series that is a pod's named the namespace; None where the IP told the pod."""
        for way in (*self._overridden, *WAYS):
            namespace, pod = labels.get(way[0], ""), labels.get(way[1], "")
            if (namespace, pod) in self._overridden.get(way, self._named):
                return way[0]
        return None


def host(instance: str) -> str:
    """The host of "10.0.0.7:8000", "[fd00::7]:8000" or "10.0.0.7"."""
    if instance.startswith("["):
        return instance[1:].partition("]")[0]
    return instance.rpartition(":")[0] if instance.count(":") == 1 else instance


def quoted(text: str) -> str:
    escaped = text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{escaped}"'


def one_of(values: Iterable[str]) -> str:
    """A quoted regular expression that matches exactly these."""
    return quoted("|".join(re.sub(r"([.+*?()|\[\]{}^$\\])", r"\\\1", value) for value in values))


def matching(names: Sequence[str], matchers: Iterable[str] = ()) -> str:
    """A selector of series by name and further matchers."""
    name = f"__name__={quoted(names[0])}" if len(names) == 1 else f"__name__=~{one_of(names)}"
    return "{" + ",".join((name, *matchers)) + "}"


def _by(labels: Iterable[str]) -> str:
    return f"by ({', '.join(labels)})"


def once(labels: Sequence[str], vector: str) -> str:
    """The vector without what was scraped twice; it keeps the labels that join, and vLLM's own."""
    return f"max {_by(dict.fromkeys((*labels, *vllm_metrics.ENGINE_LABELS)))} ({vector})"


def summed(
    labels: Sequence[str], names: Sequence[str], matchers: Iterable[str] = (), *, apart: Sequence[str] = ()
) -> str:
    """Readings of each pod, name by name, engines added up; `apart` are labels that set readings apart."""
    vector = once(("__name__", *labels), matching(names, matchers))
    return f"sum {_by(('__name__', *apart, *labels))} ({vector})"


def highest(
    labels: Sequence[str], names: Sequence[str], matchers: Iterable[str] = (), *, apart: Sequence[str] = ()
) -> str:
    """Readings of each pod, name by name, of engines the highest."""
    return f"max {_by(('__name__', *apart, *labels))} ({matching(names, matchers)})"


def scrape_times(labels: Sequence[str]) -> str:
    """When each pod was scraped: the time of the newest sample of a gauge that every vLLM shows."""
    # Name by name: timestamp() drops the name, and two spellings of one pod would then be the same series.
    return " or ".join(
        f"max {_by((*labels, 'model_name'))} (timestamp({matching((name,), ())}))"
        for name in vllm_metrics.GAUGES["requests_running"]
    )


def shown_lately(labels: Sequence[str], matchers: Iterable[str]) -> str:
    """What showed a gauge that every vLLM shows within the last hour."""
    # Name by name, as above.
    return " or ".join(
        f"group {_by(labels)} (count_over_time({matching((name,), matchers)}[1h]))"
        for name in vllm_metrics.GAUGES["requests_running"]
    )


def bucket_edges() -> str:
    """Which edges the histograms have on this server, spelt as it spells them."""
    names = [name for field in vllm_metrics.DISTRIBUTIONS for name in vllm_metrics.bucket_names(field)]
    return f"group by (__name__, le) ({matching(tuple(dict.fromkeys(names)))})"


def bucket_queries(
    index: PodIndex, edges: Edges, objectives: Iterable[Objectives], matchers: Sequence[str]
) -> list[str]:
    """Of each latency only the two buckets around each objective, latencies with the same edges together."""
    names_by_edges: dict[tuple[str, ...], list[str]] = {}
    for field in vllm_metrics.DISTRIBUTIONS:
        wanted = {vllm_metrics.objective_of(field, each) for each in objectives}
        for name in vllm_metrics.bucket_names(field):
            spelt = edges.get(name, ())
            around = {edge for o in wanted for edge in vllm_metrics.edges_around(o, (e for e, _ in spelt))}
            labels = tuple(label for edge, label in spelt if edge in around)
            if labels and name not in names_by_edges.setdefault(labels, []):
                names_by_edges[labels].append(name)
    return [
        summed(index.labels, names, (f"le=~{one_of(labels)}", *matchers), apart=("le",))
        for labels, names in names_by_edges.items()
    ]


def http_matchers() -> tuple[str, str]:
    return ('method="POST"', f"handler=~{one_of(vllm_metrics.HTTP_HANDLERS)}")


def for_each(labels: Sequence[str], queries: Mapping[int, str]) -> str:
    """One query that answers for many targets: each one's sums by process, labelled with its number."""
    # The line's end closes a comment that the user's own query may end with.
    return " or ".join(
        f'label_replace(sum {_by(labels)} ({query}\n), "{TARGET}", "{number}", "", "")'
        for number, query in queries.items()
    )
