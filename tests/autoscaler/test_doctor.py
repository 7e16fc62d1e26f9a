"""`preheat doctor` where links of the chain are missing: each is told with what to do, and the rest is looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.autoscaler.test_command_line import file, invoke, kubeconfig

__all__ = ["file", "kubeconfig"]


def test_without_a_kubeconfig_it_says_so(tmp_path: Path) -> None:
    told = invoke("doctor", "--kubeconfig", tmp_path / "none")
    assert told.exit_code == 2
    (line,) = told.stdout.splitlines()
    assert line.startswith("fail  kubeconfig: ")


def test_an_api_server_that_cannot_be_reached_is_one_line_and_prometheus_another(file: Path, kubeconfig: Path) -> None:
    told = invoke("doctor", "--kubeconfig", kubeconfig, "--config", file, "--json")
    assert told.exit_code == 2
    found = json.loads(told.stdout)["findings"]
    assert [line["about"] for line in found] == ["API server", "Prometheus http://127.0.0.1:9"]
    assert {line["level"] for line in found} == {"fail"}


@pytest.mark.parametrize("words", [("doctor", "--help"), ("doctor", "extender", "--help")])
def test_both_doctors_have_json(words: tuple[str, ...]) -> None:
    assert "--json" in invoke(*words).stdout


def test_a_file_that_cannot_be_read_is_told_as_check_tells_it(tmp_path: Path, kubeconfig: Path) -> None:
    told = invoke("doctor", "--kubeconfig", kubeconfig, "--config", tmp_path / "none.yaml")
    assert "fail  resources: " in told.stdout
    assert "does not exist: check the path" in told.stdout
