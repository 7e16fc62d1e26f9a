"""The doctor names each thing that keeps the extender from being asked, heeded or sighted, and its remedy."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from click.testing import CliRunner

import preheat
from scheduler_extender.doctor import config_problems, metrics_problems, node_problems, pod_problems, policy_problems
from scheduler_extender.scheduler_config import shaped
from tests.scheduler_extender.test_manifests import MANIFESTS, shipped_configs
from tests.scheduler_extender.worlds import Served, knowing, names_question, node, pod, written


def changed(**fields: Any) -> dict[str, Any]:
    config: dict[str, Any] = copy.deepcopy(shipped_configs()[0])
    config["extenders"][0].update(fields)
    return config


@pytest.mark.parametrize("config", shipped_configs())
def test_nothing_is_wrong_with_what_is_shipped(config: Any) -> None:
    assert list(config_problems(shaped(config))) == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (changed(weight=1), "weight 1 makes its best node 100 points, and in-tree scores reach 1200"),
        (changed(prioritizeVerb=""), "has no prioritizeVerb"),
        (changed(preemptVerb=""), "has no preemptVerb"),
        (changed(nodeCacheCapable=False), "is sent whole nodes"),
        (changed(managedResources=[]), "write managedResources"),
        (changed(managedResources=[{"name": "x", "ignoredByScheduler": True}]), "take it out"),
        (changed(tlsConfig={}), "its certificate is not verified"),
        (changed(tlsConfig={"insecure": True, "caFile": "x"}), "its certificate is not verified"),
        (changed(enableHTTPS=False, urlPrefix="http://x"), "is asked in plain HTTP"),
        (changed(ignorable=True), "while it does not answer, GPU pods land anywhere"),
        (changed(filterVerb="other"), "none of ours is asked"),
        ({**changed(), "profiles": [{"schedulerName": "p"}]}, "profile p: of more than 100 nodes it looks at a sample"),
    ],
)
def test_each_mistake_of_a_configuration_is_named(config: Any, said: str) -> None:
    (problem,) = config_problems(shaped(config))
    assert said in problem


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            changed(managedResources=["nvidia.com/gpu"]),
            'extenders[0].managedResources[0] is "nvidia.com/gpu", where kube-scheduler reads an object: write one',
        ),
        (changed(weight="15"), 'extenders[0].weight is "15", where kube-scheduler reads a whole number: write one'),
        (changed(tlsConfig=True), "extenders[0].tlsConfig is true, where kube-scheduler reads an object: write one"),
        (
            changed(ignorable="no"),
            'extenders[0].ignorable is "no", where kube-scheduler reads true or false: write one',
        ),
        (changed(urlPrefix=[]), "extenders[0].urlPrefix is a list, where kube-scheduler reads a text: write one"),
        ({**changed(), "profiles": {}}, "profiles is an object, where kube-scheduler reads a list: write one"),
        ({**changed(), "profiles": [None]}, "profiles[0] is null, where kube-scheduler reads an object: write one"),
    ],
)
def test_a_value_of_a_wrong_kind_is_named_as_the_mistake_that_it_is(config: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "scheduler-config.yaml"
    path.write_text(yaml.safe_dump(config))
    result = CliRunner().invoke(preheat.main, ["doctor", "extender", "--scheduler-config", str(path)])
    assert result.output == f"fail  {path}: {said}\n"


def test_what_is_null_is_as_if_it_were_not_written() -> None:
    weightless = changed(weight=None, tlsConfig={"caFile": "x", "insecure": None}, ignorable=None)
    (problem,) = config_problems(shaped({**weightless, "percentageOfNodesToScore": 100, "profiles": None}))
    assert "weight 0 makes its best node 0 points" in problem


WRONG: Final[tuple[Any, ...]] = (
    None,
    True,
    3,
    -1.5,
    "text",
    "",
    [],
    [None],
    [3],
    ["text"],
    [[]],
    [{}],
    {},
    {"a": "text"},
    {3: [None]},
)
"""One of each kind; every field of the file is wrong with most of them."""


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a document."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, part in parts for place in ((*here, key), *places(part, (*here, key)))]


CONFIG_MAP = yaml.safe_load((MANIFESTS / "second_scheduler" / "scheduler-config.yaml").read_text())


@pytest.mark.parametrize(
    ("document", "place"),
    [(each, place) for each in (changed(), CONFIG_MAP) for place in places(each)],
    ids=lambda part: ".".join(map(str, part)) if isinstance(part, tuple) else part["kind"],
)
def test_no_field_of_any_kind_gets_a_traceback(document: Any, place: tuple[Any, ...], tmp_path: Path) -> None:
    path = tmp_path / "scheduler-config.yaml"
    for wrong in WRONG:
        mistaken = copy.deepcopy(document)
        at = mistaken
        for step in place[:-1]:
            at = at[step]
        at[place[-1]] = wrong
        path.write_text(yaml.safe_dump(mistaken))
        result = CliRunner().invoke(preheat.main, ["doctor", "extender", "--scheduler-config", str(path)])
        assert isinstance(result.exception, SystemExit | None), (wrong, result.exception)
        assert str(path) in result.output
        assert "has no attribute" not in result.output


def test_an_extender_that_nobody_asks_says_so() -> None:
    extender = knowing(node("gpu-a"))
    with Served(extender) as served:
        _, text = served.get("/metrics")
        problems = list(metrics_problems(text, time.time(), 10))
        assert [problem.split(":")[0] for problem in problems] == [
            "no scheduler has ever asked it to filter",
            "no scheduler has ever asked it to prioritize",
        ]
        for verb in ("filter", "prioritize"):
            served.post(f"/{verb}", names_question(pod("asking"), "gpu-a"))
        _, text = served.get("/metrics")
        assert list(metrics_problems(text, time.time(), 10)) == []
        late = list(metrics_problems(text, time.time() + 3600, 10))
        assert "no scheduler has asked it to filter for 60 minutes" in late[0]
        served.post("/preempt", b"no JSON")
        extender.answers.whole = False
        _, text = served.get("/metrics")
        not_ready, unanswered = metrics_problems(text, time.time(), 10)
        assert "does not know all nodes and pods yet" in not_ready
        assert unanswered.startswith("1 questions to preempt went unanswered")
    for page in ("up 1\n", "<html><body>404: not found</body></html>"):
        assert list(metrics_problems(page, 0, 1)) == ["what answers there is no extender of ours: name its own address"]


def test_nodes_without_labels_or_taints_are_named() -> None:
    nodes = [node("bare", 8, {}), node("well", taints=[{"key": "x"}]), node("plain", 0, {})]
    unlabelled, untainted = node_problems(nodes)
    assert unlabelled.startswith("bare have GPUs and no label nvidia.com/gpu.product")
    assert untainted.startswith("bare have GPUs and no taint")


def test_pods_that_are_never_shown_are_named() -> None:
    ours, claimed = pod("ours"), pod("claimed", 0)
    ours["spec"]["schedulerName"] = "preheat"
    claimed["spec"]["resourceClaims"] = [{"name": "gpu"}]
    other, claims = pod_problems([ours, claimed, *(pod(f"other-{number}") for number in range(7))], {"preheat"})
    assert other.startswith("inference/other-0, inference/other-1")
    assert "and 2 more ask for GPUs by the scheduler default-scheduler" in other
    assert claims.startswith("inference/claimed have resource claims")


def test_a_policy_that_keeps_the_control_plane_out_is_told() -> None:
    policy = yaml.safe_load((MANIFESTS / "network-policy.yaml").read_text())
    (placeholder,) = policy_problems(policy, [])
    assert "still admits 192.0.2.0/24" in placeholder
    leader = node("leader", 0, {"node-role.kubernetes.io/control-plane": ""})
    leader["status"]["addresses"] = [{"type": "InternalIP", "address": "10.1.0.5"}]
    block = policy["spec"]["ingress"][0]["from"][1]["ipBlock"]
    block["cidr"] = "10.2.0.0/16"
    (outside,) = policy_problems(policy, [leader])
    assert "does not admit leader of the control plane" in outside
    block["cidr"] = "10.1.0.0/16"
    assert list(policy_problems(policy, [leader])) == []
    assert list(policy_problems(None, [leader])) == []


def test_names_among_the_addresses_of_a_control_plane_are_no_matter_of_a_policy() -> None:
    policy = yaml.safe_load((MANIFESTS / "network-policy.yaml").read_text())
    policy["spec"]["ingress"][0]["from"][1]["ipBlock"]["cidr"] = "10.1.0.0/16"
    leader = node("leader", 0, {"node-role.kubernetes.io/control-plane": ""})
    names = [{"type": "Hostname", "address": "leader"}, {"type": "ExternalDNS", "address": "leader.example.com"}]
    leader["status"]["addresses"] = [*names, {"type": "InternalIP", "address": "10.1.0.5"}]
    assert list(policy_problems(policy, [leader])) == []
    leader["status"]["addresses"][-1]["address"] = "10.2.0.5"
    (outside,) = policy_problems(policy, [leader])
    assert "does not admit leader of the control plane" in outside


def test_the_command_looks_at_what_it_is_given(tmp_path: Path) -> None:
    config = MANIFESTS / "second_scheduler" / "scheduler-config.yaml"
    path = written(tmp_path, node("gpu-a", taints=[{"key": "x"}]), pod("other"))
    words = ["doctor", "extender", "--scheduler-config", str(config), "--inventory", str(path)]
    result = CliRunner().invoke(preheat.main, [*words, "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 2
    assert f"{config}: nothing is wrong with it" in result.output
    assert "fail  --url http://127.0.0.1:9: the extender does not answer" in result.output
    assert "fail  pods: inference/other ask for GPUs by the scheduler default-scheduler" in result.output
    as_json = json.loads(CliRunner().invoke(preheat.main, [*words, "--json"]).output)
    assert as_json["failed"] is True
    assert [line["about"] for line in as_json["findings"]] == [str(config), "pods", ""]
    refused = CliRunner().invoke(preheat.main, ["doctor", "extender", "--scheduler-config", str(path)])
    assert "holds no KubeSchedulerConfiguration" in refused.stderr
