"""Which processes of a pod are missed, and how long they are remembered."""

from __future__ import annotations

from cluster.prometheus_processes import FORGOTTEN_AFTER_SECONDS, Processes
from cluster.prometheus_queries import PodAddress, PodIndex, TargetPods
from tests.cluster.prometheus_world import NOW, OBJECTIVES

FIRST, SECOND = "10.0.0.1:8000", "10.0.0.1:8001"
BOTH_SCRAPED = {0: {FIRST: True, SECOND: False}}


def index(name: str) -> PodIndex:
    return PodIndex([TargetPods([PodAddress("inference", name, "10.0.0.1")], OBJECTIVES)])


def test_a_process_is_remembered_while_it_is_scraped() -> None:
    processes, pod = Processes(), index("a")
    assert processes.judge(pod, {0: [FIRST, SECOND]}, {}, BOTH_SCRAPED, NOW) == {0: {FIRST, SECOND}}
    assert processes.judge(pod, {0: [FIRST]}, {}, BOTH_SCRAPED, NOW) == {0: {FIRST, SECOND}}
    assert processes.judge(pod, {}, {}, BOTH_SCRAPED, NOW) == {0: {FIRST, SECOND}}
    only_first = {0: {FIRST: True}}
    assert processes.judge(pod, {0: [FIRST]}, {}, only_first, NOW) == {0: {FIRST, SECOND}}, "sums fall by the second's"
    assert processes.judge(pod, {0: [FIRST]}, {}, only_first, NOW) == {0: {FIRST}}
    assert processes.judge(pod, {0: [FIRST]}, {}, BOTH_SCRAPED, NOW) == {0: {FIRST}}, "it was forgotten"
    other = "10.0.0.9:8000"
    assert processes.judge(pod, {0: [other]}, {}, {0: {other: True}}, NOW) == {0: {other}}, "the pod is another"


def test_a_pod_that_is_gone_is_forgotten_and_one_that_a_sweep_does_not_name_is_not() -> None:
    processes = Processes()
    processes.judge(index("a"), {0: [FIRST, SECOND]}, {}, BOTH_SCRAPED, NOW)
    processes.judge(index("b"), {0: [FIRST]}, {}, BOTH_SCRAPED, NOW + 15)
    assert not processes.in_doubt(index("a"), {0: [FIRST]}, BOTH_SCRAPED)
    processes.judge(index("b"), {0: [FIRST]}, {}, BOTH_SCRAPED, NOW + FORGOTTEN_AFTER_SECONDS + 15)
    assert processes.in_doubt(index("a"), {0: [FIRST]}, BOTH_SCRAPED), "what is new is in doubt"
    assert not processes.in_doubt(index("b"), {0: [FIRST]}, BOTH_SCRAPED)
