"""The autoscaler's Deployment starts the program as it is, and nothing of the base runs with more than it needs."""

from __future__ import annotations

from typing import Any

import click
import pytest
import yaml

import preheat
from autoscaler.config import CREDENTIALS
from tests.checkout import ROOT

BASE = ROOT / "manifests" / "base" / "autoscaler"


def document(name: str) -> Any:
    return yaml.safe_load((BASE / name).read_text())


@pytest.fixture
def deployment() -> Any:
    return document("deployment.yaml")


def test_the_deployment_starts_the_program_with_options_that_it_has(deployment: Any) -> None:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    program, subcommand = container["command"]
    assert (program, subcommand) == ("preheat", "autoscaler")
    command = preheat.main.commands[subcommand]
    command.make_context(subcommand, list(container["args"]), parent=click.Context(preheat.main))
    probes = {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
    assert probes == {"/healthz", "/readyz"}


def test_what_resources_may_name_is_mounted_where_the_program_looks_for_it(deployment: Any) -> None:
    patch = yaml.safe_load((ROOT / "manifests" / "prometheus_token" / "deployment.yaml").read_text())
    (token,) = patch["spec"]["template"]["spec"]["volumes"]
    pod = deployment["spec"]["template"]["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    (volume,) = pod["volumes"]
    assert mount == {"name": volume["name"], "mountPath": str(CREDENTIALS), "readOnly": True}
    assert token["name"] == volume["name"]
    assert token["projected"]["sources"][0] == volume["projected"]["sources"][0]
    for subcommand in ("autoscaler", "doctor"):
        (option,) = [each for each in preheat.main.commands[subcommand].params if each.name == "credentials"]
        assert option.default == str(CREDENTIALS)


def test_service_budget_and_policy_are_about_the_deployments_pods(deployment: Any) -> None:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert document("service.yaml")["spec"]["selector"] == labels
    assert document("pod-disruption-budget.yaml")["spec"]["selector"]["matchLabels"] == labels
    policy = document("network-policy.yaml")["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    (port,) = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert policy["ingress"][0]["ports"] == [{"port": port["name"]}]
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    assert (
        account
        == yaml.safe_load((ROOT / "manifests" / "autoscaler" / "service-account.yaml").read_text())["metadata"]["name"]
    )
