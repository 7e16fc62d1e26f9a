"""On a real Prometheus each alert fires for what should fire it alone, and each panel of the dashboard has data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.checkout import ROOT
from tests.parts.control_plane import ControlPlane
from tests.parts.processes import Process, free_ports, wait_until
from tests.parts.prometheus import HOST, Prometheus, Target
from tests.real.autoscaler_process import PREHEAT
from tests.real.histories import STEP_SECONDS, Past, clock, growing, served, shown, steady
from tests.real.rising_load import Story
from tests.real.simulated_pods import SimulatedPods
from tests.real.workloads import Workload
from tests.scheduler_extender.worlds import A100_PAIRS, names_question, node, pod, written

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

MONITORING = ROOT / "manifests" / "monitoring"
GROUPS = yaml.safe_load((MONITORING / "prometheus-rule.yaml").read_text())["spec"]["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDS = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())

Fired = set[tuple[str, str]]
"""(alert, what it is about)."""


# -- alerts --------------------------------------------------------------------------------------------------------


def sound(name: str, **changes: Any) -> Past:
    """A target and an extender that fare well, but for what is changed: the series that so begins, with this label."""
    labels = f'namespace="inference",name="{name}"'
    server = f'server="{name}"'
    series = {
        'preheat_build_info{version="1"}': steady(1),
        "preheat_leads": steady(1),
        f"preheat_replicas_published{{{labels}}}": steady(3),
        f"preheat_last_turn_timestamp_seconds{{{labels}}}": clock(),
        f"preheat_last_observed_timestamp_seconds{{{labels}}}": clock(),
        f'preheat_samples{{{labels},state="fresh"}}': steady(3),
        f'preheat_samples{{{labels},state="stale"}}': steady(0),
        f'preheat_errors_total{{{labels},kind="refused"}}': steady(4),
        f'preheat_errors_total{{{labels},kind="prometheus"}}': growing(1),
        f'preheat_decisions_total{{{labels},binding="forecast"}}': growing(4),
        f'preheat_decisions_total{{{labels},binding="ceiling"}}': growing(1),
        f"preheat_replicas_desired{{{labels}}}": steady(3),
        f"preheat_replicas_ready{{{labels}}}": steady(3),
        f"preheat_scaled_by_others_total{{{labels}}}": steady(5),
        f"preheat_ticks_skipped_total{{{labels}}}": steady(2),
        f"preheat_forecast_coverage_ratio{{{labels}}}": steady(0.97),
        f"preheat_forecasts_compared{{{labels}}}": steady(100),
        f'preheat_prometheus_errors_total{{{server},kind="timeout"}}': steady(9),
        f"preheat_prometheus_clock_ahead_seconds{{{server}}}": steady(-0.4),
        "preheat_extender_ready": steady(1),
        "preheat_extender_pods_waiting": steady(0),
        'preheat_extender_last_question_timestamp_seconds{verb="filter"}': clock(),
        f'preheat_extender_questions_unanswered_total{{verb="{name}",reason="x"}}': steady(3),
    }
    for pattern, value in changes.items():
        begin, _, label = pattern.partition("__")
        (found,) = (each for each in series if each.startswith(f"preheat_{begin}") and label in each)
        series[found] = value
    return series


ILL: dict[str, dict[str, Any]] = {
    "PreheatTurnsStopped": {"last_turn": clock(behind_seconds=200)},
    "PreheatTargetNotSeen": {"last_observed": clock(behind_seconds=200)},
    "PreheatTargetNeverSeen": {"last_observed": lambda _: None},
    "PreheatNumberStale": {"replicas_published": lambda age: 3 if age > 700 else None},
    "PreheatPodsUnseen": {"samples__stale": steady(1)},
    "PreheatWriteRefused": {"errors__refused": growing(4)},
    "PreheatAtCeiling": {"decisions__forecast": steady(7)},
    "PreheatReplicasMissing": {"replicas_ready": steady(2)},
    "PreheatScaledByOthers": {"scaled_by_others": growing(1)},
    "PreheatTicksSkipped": {"ticks_skipped": growing(1)},
    "PreheatForecastTooLow": {"forecast_coverage": steady(0.7)},
    "PreheatPrometheusFails": {"prometheus_errors": growing(2)},
    "PreheatClocksApart": {"prometheus_clock": steady(-7)},
    "PreheatExtenderNotReady": {"extender_ready": steady(0)},
    "PreheatQuestionsUnanswered": {"extender_questions_unanswered": growing(1)},
}
NEARLY: dict[str, dict[str, Any]] = {
    "turns a minute late": {"last_turn": clock(behind_seconds=100), "last_observed": clock(behind_seconds=100)},
    "one change by somebody": {"scaled_by_others": lambda age: 5 if age > 600 else 6},
    "a replica that boots": {"replicas_ready": lambda age: 2 if age < 600 else 3},
    "a pod unseen for a moment": {"samples__stale": lambda age: 1 if age < 300 else 0},
    "few comparisons": {"forecast_coverage": steady(0.5), "forecasts_compared": steady(10)},
    "a failure or two": {"prometheus_errors": lambda age: 9 if age > 300 else 11},
}
"""What looks like it and is none."""


def started(folder: Path) -> Prometheus:
    """With the shipped rules loaded, as an operator would write them into a file."""
    made = Prometheus(folder)
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": GROUPS}))
    path = folder / "prometheus.yaml"
    config = yaml.safe_load(path.read_text())
    config["global"]["evaluation_interval"] = "1s"
    path.write_text(yaml.safe_dump({**config, "rule_files": [str(rules)]}))
    made.start()
    return made


@pytest.fixture
def prometheus_with_rules(tmp_path: Path) -> Iterator[Prometheus]:
    running = started(tmp_path / "prometheus")
    yield running
    running.stop()


def asked(prometheus: Prometheus, path: str, **params: str) -> Any:
    answer = requests.get(f"{prometheus.url}{path}", params=params, timeout=20).json()
    assert answer["status"] == "success", answer
    return answer["data"]


def minutes(text: str) -> float:
    found = re.fullmatch(r"(\d+)m", text)
    assert found is not None, text
    return float(found[1])


def fired(prometheus: Prometheus, now: float) -> Fired:
    """The alerts whose expression has held for as long as they ask, and whom they name."""
    found: Fired = set()
    for name, rule in ALERTS.items():
        expression = rule["expr"]
        for record, meaning in RECORDS.items():  # it records from now on only
            expression = expression.replace(record, f"({meaning})")
        held = 60 * minutes(rule.get("for", "0m"))
        span = {"start": str(now - held), "end": str(now), "step": str(STEP_SECONDS)}
        for series in asked(prometheus, "/api/v1/query_range", query=expression, **span)["result"]:
            if len(series["values"]) == held / STEP_SECONDS + 1:
                labels = series["metric"]
                about = (labels.get(key) for key in ("name", "server", "instance", "verb"))
                found.add((name, next(filter(None, about), "")))
    return found


def test_each_alert_fires_for_what_should_fire_it_and_for_nothing_else(prometheus_with_rules: Prometheus) -> None:
    prometheus = prometheus_with_rules
    pasts = {"well": sound("well"), **{name: sound(name, **changes) for name, changes in {**ILL, **NEARLY}.items()}}
    with shown(prometheus, {name.replace(" ", "-"): past for name, past in pasts.items()}) as now:
        assert fired(prometheus, now) == {(name, name) for name in ILL}
    of_all = {"PreheatAutoscalerAbsent", "PreheatNobodyLeads", "PreheatExtenderAbsent", "PreheatNobodyAsks"}
    assert set(ALERTS) == {*ILL, *of_all}


def test_what_is_gone_is_told_and_so_are_pods_that_nobody_asks_for(prometheus_with_rules: Prometheus) -> None:
    prometheus = prometheus_with_rules
    old = {"extender_pods_waiting": steady(2), "extender_last_question": clock(behind_seconds=1000)}
    old["leads"] = steady(0)
    with shown(prometheus, {"extender": sound("extender", **old)}) as now:
        assert fired(prometheus, now) == {("PreheatNobodyAsks", ""), ("PreheatNobodyLeads", "")}
        assert fired(prometheus, now - 3600) == {("PreheatAutoscalerAbsent", ""), ("PreheatExtenderAbsent", "")}


def test_the_rules_are_taken_and_their_sentences_are_filled_in(prometheus_with_rules: Prometheus) -> None:
    prometheus = prometheus_with_rules
    ill = {"last_turn": clock(behind_seconds=200), "last_observed": clock(behind_seconds=200)}
    with shown(prometheus, {"ill": sound("ill", **ill)}):
        groups = asked(prometheus, "/api/v1/rules")["groups"]
        assert {rule["name"] for group in groups for rule in group["rules"]} == {*ALERTS, *RECORDS}

        def told() -> list[str]:
            pending = asked(prometheus, "/api/v1/alerts")["alerts"]
            ours = [each for each in pending if each["labels"]["alertname"] == "PreheatTurnsStopped"]
            return [each["annotations"]["summary"] for each in ours]

        (summary,) = wait_until(told, within=90, what="a pending alert")
    assert re.fullmatch(r"inference/ill has had no turn for [\dms .]+\.", summary), summary
    assert all({"summary", "description"} == set(rule["annotations"]) for rule in ALERTS.values())


# -- the dashboard -------------------------------------------------------------------------------------------------

DCGM = "".join(
    f'{name}{{gpu="{gpu}",UUID="GPU-{gpu}",Hostname="node-1",namespace="NS",pod="vllm-{gpu}"}} {value}\n'
    for gpu in (0, 1)
    for name, value in (
        ("DCGM_FI_DEV_GPU_UTIL", 93),
        ("DCGM_FI_DEV_FB_USED", 73000),
        ("DCGM_FI_DEV_FB_FREE", 8000),
        ("DCGM_FI_DEV_POWER_USAGE", 331.5),
    )
)
"""Of a stand-in for NVIDIA's exporter: its names and labels."""


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def filled(query: str) -> str:
    for variable, value in (("$namespace", ".*"), ("$name", ".*"), ("$__rate_interval", "30s")):
        query = query.replace(variable, value)
    assert "$" not in query, query
    return query


def test_every_panel_shows_something_of_real_pages(
    stories: dict[str, Story], control_plane: ControlPlane, prometheus: Prometheus, namespace: str, tmp_path: Path
) -> None:
    """Those of an autoscaler with a story behind it, of an extender that is asked, and of pods that serve."""
    target = Workload(control_plane, namespace)
    target.create(1, cold_start_seconds=0)
    with (
        SimulatedPods(control_plane, prometheus, namespace) as pods,
        extender(tmp_path) as extender_port,
        served({"/metrics": DCGM.replace("NS", namespace).encode()}) as exporter_port,
    ):
        pods.bear(2.0)
        autoscaler_port = stories["shadow"].autoscaler.lines(port=...)[-1]["port"]
        ports = (autoscaler_port, extender_port, exporter_port)
        prometheus.watch([Target(f"{HOST}:{port}") for port in ports], group="ours")
        empty = list(map(filled, queries()))
        assert len(empty) > 30

        def all_shown() -> bool:
            ask(extender_port)
            empty[:] = [query for query in empty if not asked(prometheus, "/api/v1/query", query=query)["result"]]
            return not empty

        wait_until(all_shown, within=180, what=lambda: f"something for {empty}", every=1)


@contextmanager
def extender(folder: Path) -> Iterator[int]:
    """`preheat extender` over a file of two nodes; its port."""
    (port,) = free_ports(1)
    file = written(folder, node("linked"), node("pairs", labels=A100_PAIRS))
    command: list[str | Path] = [PREHEAT, "extender", "--inventory", file, "--host", HOST, "--port", str(port)]
    process = Process("extender", command, folder / "extender.log")
    try:
        process.wait_ready(lambda: ask(port), within=60)
        yield port
    finally:
        process.stop()


def ask(port: int) -> bool:
    """A question as a scheduler asks it, of which one node is refused."""
    body = names_question(pod("asking"), "linked", "pairs")
    try:
        answer = requests.post(f"http://{HOST}:{port}/filter", json=body, timeout=5).json()
    except requests.RequestException:
        return False
    return bool(answer["FailedNodes"] or answer["FailedAndUnresolvableNodes"])
