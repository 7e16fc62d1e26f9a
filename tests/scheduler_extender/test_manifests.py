"""What is shipped for the cluster is what the program and its readers take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

import preheat
from scheduler_extender.config import load
from tests.checkout import ROOT

MANIFESTS = ROOT / "manifests" / "scheduler_extender"


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


def extender_of(config: Any) -> Any:
    (extender,) = config["extenders"]
    return extender


def shipped_configs() -> list[Any]:
    (config_map,) = documents("second_scheduler/scheduler-config.yaml")
    return [
        yaml.safe_load(config_map["data"]["scheduler-config.yaml"]),
        *documents("first_scheduler/scheduler-config.yaml"),
    ]


def test_the_config_map_is_read_by_the_program(tmp_path: Path) -> None:
    (config_map,) = documents("config.yaml")
    path = tmp_path / "extender.yaml"
    path.write_text(config_map["data"]["extender.yaml"])
    made, default = load(path).settings, load(None).settings
    assert made.placement == default.placement
    assert made.touch == default.touch


def test_the_deployment_starts_the_program_with_options_that_it_has() -> None:
    (deployment,) = documents("deployment.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    program, subcommand = container["command"]
    assert program == "preheat"
    command = preheat.main.commands[subcommand]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {argument.partition("=")[0] for argument in container["args"]} <= known
    command.make_context(subcommand, list(container["args"]), parent=click.Context(preheat.main))
    probes = {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
    assert probes == {"/healthz", "/readyz"}
    assert deployment["spec"]["replicas"] == 2


def test_the_role_holds_reading_and_touching_and_no_other_right() -> None:
    role, binding = documents("cluster-role.yaml")
    rights = {(verb, resource) for rule in role["rules"] for verb in rule["verbs"] for resource in rule["resources"]}
    assert rights == {(verb, what) for verb in ("get", "list", "watch") for what in ("nodes", "pods")} | {
        ("patch", "pods")
    }
    (deployment,) = documents("deployment.yaml")
    assert binding["subjects"][0]["name"] == deployment["spec"]["template"]["spec"]["serviceAccountName"]


def test_both_schedulers_ask_alike() -> None:
    for config in shipped_configs():
        extender = extender_of(config)
        verbs = {extender["filterVerb"], extender["prioritizeVerb"], extender["preemptVerb"]}
        assert verbs == {"filter", "prioritize", "preempt"}
        assert extender["weight"] == 15
        assert extender["nodeCacheCapable"] is True
        assert extender["enableHTTPS"] is True
        assert extender["tlsConfig"]["caFile"].endswith("ca.crt")
        assert extender["httpTimeout"] == "2s"
        assert extender["managedResources"] == [{"name": "nvidia.com/gpu", "ignoredByScheduler": False}]
        assert [profile["percentageOfNodesToScore"] for profile in config["profiles"]] == [100]


def test_the_second_scheduler_holds_a_lease_of_its_own_that_it_may_hold() -> None:
    election = shipped_configs()[0]["leaderElection"]
    (role,) = [thing for thing in documents("second_scheduler/rbac.yaml") if thing["kind"] == "Role"]
    assert election["resourceName"] != "kube-scheduler"
    assert [election["resourceName"]] in [rule.get("resourceNames") for rule in role["rules"]]
