"""Rules and dashboard name metrics that somebody shows, and monitors select what the manifests bring."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from autoscaler.telemetry import BY_NAME
from cluster.vllm_metrics import known_names
from tests.checkout import ROOT

MANIFESTS = ROOT / "manifests"
MONITORING = MANIFESTS / "monitoring"
OF_THE_EXTENDER = (ROOT / "docs" / "extender.md").read_text()


def documents(path: str) -> list[Any]:
    return list(yaml.safe_load_all((MANIFESTS / path).read_text()))


def expressions() -> list[str]:
    (rules,) = documents("monitoring/prometheus-rule.yaml")
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    of_rules = [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    return of_rules + [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_every_metric_of_ours_that_is_asked_for_is_one_that_is_shown() -> None:
    asked = {name for each in expressions() for name in re.findall(r"\bpreheat_\w+", each)}
    assert len(asked) > 20
    for name in asked:
        stem = re.sub(r"_(bucket|sum|count)$", "", name)
        of_extender = name.removeprefix("preheat_extender") if name.startswith("preheat_extender") else None
        known = name in BY_NAME or stem in BY_NAME
        assert known or (of_extender and f"{re.sub('_bucket$', '', of_extender)}`" in OF_THE_EXTENDER), name


def test_every_metric_of_vllm_that_is_asked_for_is_one_of_its_names() -> None:
    asked = {name for each in expressions() for name in re.findall(r"\bvllm:\w+", each)}
    assert len(asked) > 5
    for name in asked:
        assert name in known_names() or re.sub(r"_bucket$", "_count", name) in known_names(), name


def test_monitors_select_the_services_that_are_shipped_and_keep_the_labels_of_targets() -> None:
    monitors = documents("monitoring/service-monitors.yaml")
    services = [*documents("base/autoscaler/service.yaml"), *documents("scheduler_extender/service.yaml")]
    for monitor, service in zip(monitors, services, strict=True):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= service["metadata"]["labels"].items()
        assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert monitors[0]["spec"]["endpoints"][0]["honorLabels"] is True
