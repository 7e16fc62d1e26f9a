"""A file of nodes and pods stands for a cluster, and is refused with the first object that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.files import ConfigError
from scheduler_extender import inventory
from scheduler_extender.config import load
from scheduler_extender.service import Extender
from scheduler_extender.telemetry import Telemetry
from tests.scheduler_extender.test_answers import filtered
from tests.scheduler_extender.worlds import L40S, node, pod, written
from tests.scheduler_extender.worlds import inventory as listed


def test_the_file_is_the_cluster(tmp_path: Path) -> None:
    path = written(
        tmp_path, node("full"), node("free"), node("plain", 8, L40S), pod("holder", 8, on="full"), pod("no", 0)
    )
    extender = Extender(load(None), Telemetry("test"), inventory_file=path)
    assert extender.answers.whole
    answer = filtered(extender, pod("asking"), "full", "free", "plain")
    assert answer["NodeNames"] == ["free"]
    assert answer["FailedNodes"] == {"full": "too few free GPUs"}
    assert list(extender.facts.pods) == ["inference/holder"]


def test_what_has_gone_from_the_file_is_gone(tmp_path: Path) -> None:
    extender = Extender(
        load(None), Telemetry("test"), inventory_file=written(tmp_path, node("a"), pod("one", 8, on="a"))
    )
    inventory.show(inventory.read(written(tmp_path, node("a"), node("b"))), extender.facts)
    assert filtered(extender, pod("asking", 8), "a", "b")["NodeNames"] == ["a", "b"]
    inventory.show(inventory.read(written(tmp_path, node("b"))), extender.facts)
    assert filtered(extender, pod("asking", 8), "a", "b")["NodeNames"] == ["b"]


NEGATIVE_NODE = node("a")
NEGATIVE_NODE["status"]["allocatable"]["nvidia.com/gpu"] = "-1"
NAMELESS = node("a")
del NAMELESS["metadata"]["name"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist: check the path"),
        (b"", "is not JSON from byte 1 on: write it with kubectl get nodes,pods -A -o json"),
        (b"kind: List", "is not JSON"),
        (listed(node("a"))[:-20], "is not JSON"),
        (listed(node("a")) + b"{}", "is not JSON"),
        (b"{}", "has no list `items`: write it with kubectl"),
        (b'{"items": {}}', "is not JSON"),
        (b'{"items": [3]}', "item 1: is neither a Node nor a Pod"),
        (listed(node("a"), {"kind": "Service"}), "item 2: is neither a Node nor a Pod"),
        (listed(NAMELESS), "item 1: metadata.name is missing"),
        (listed(node("a"), NEGATIVE_NODE), "item 2: node a has -1 nvidia.com/gpu to allocate"),
        (listed(pod("p", -2)), "item 1: pod inference/p asks for -2 nvidia.com/gpu"),
    ],
)
def test_a_file_that_cannot_be_is_one_sentence(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "inventory.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as refusal:
        inventory.read(path)
    assert len(refusal.value.problems) == 1
    assert str(refusal.value).startswith(f"--inventory {path}: ")
    assert said in str(refusal.value)
