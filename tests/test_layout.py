"""The shape of the house: what it holds, who may import whom, and what must be in no file."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.checkout import PACKAGES, ROOT, files, make_targets

LONGEST_FILE = 600

PROGRAMS = "Programs join what the world shows and what policies judge, never each other"
SIMULATIONS = "Simulations imagine: they know policies, and of the cluster only names and objects"
SERVING = "Nothing that serves knows of simulations"
REPLAY = "A fleet is imagined, a policy replayed over it, policies compared: each knows only what came before"
POLICIES = "Policies judge: no network, clock, randomness, logging or event loop"
BLIND = "Scaling and placement are blind to each other"
READABLE = "cluster.vllm_metrics and cluster.objects touch nothing: simulations may read them"

OFFENCES = [
    (PROGRAMS, "autoscaler/__init__.py", "import scheduler_extender"),
    (PROGRAMS, "scheduler_extender/__init__.py", "import autoscaler"),
    (PROGRAMS, "cluster/__init__.py", "import autoscaler"),
    (PROGRAMS, "policies/__init__.py", "import cluster"),
    (SIMULATIONS, "simulations/__init__.py", "import autoscaler"),
    (SIMULATIONS, "simulations/__init__.py", "import cluster.prometheus"),
    (SIMULATIONS, "simulations/__init__.py", "import kubernetes_asyncio"),
    (SERVING, "autoscaler/__init__.py", "import simulations"),
    (SERVING, "cluster/__init__.py", "import preheat"),
    (REPLAY, "simulations/model/__init__.py", "import simulations.replay"),
    (REPLAY, "simulations/replay.py", "import simulations.laboratory"),
    (POLICIES, "policies/scaling/__init__.py", "import time"),
    (POLICIES, "policies/placement/__init__.py", "import logging"),
    (BLIND, "policies/scaling/__init__.py", "import policies.placement"),
    (BLIND, "policies/placement/__init__.py", "import policies.scaling"),
    (READABLE, "cluster/vllm_metrics.py", "import asyncio"),
    (READABLE, "cluster/objects.py", "import requests"),
]


@pytest.mark.parametrize("name", [*PACKAGES, "preheat"])
def test_packages_are_imported_from_this_checkout(name: str) -> None:
    """Their names are plain: another distribution's `policies` in site-packages would shadow ours."""
    found = importlib.import_module(name).__file__
    assert found is not None
    assert Path(found).is_relative_to(ROOT)


def test_no_python_file_is_too_long_to_read() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in files(".py")}
    assert len(lengths) > 10
    assert {str(path): length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def contracts() -> list[str]:
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [contract["name"] for contract in configured["tool"]["importlinter"]["contracts"]]


def broken_contracts(tree: Path) -> set[str]:
    """What lint-imports says of a tree; it must have judged every contract."""
    judged = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(tree), "COLUMNS": "200", "PATH": ""},
    )
    verdicts = dict(re.findall(r"^(.+?) (KEPT|BROKEN)$", judged.stdout, re.MULTILINE))
    assert sorted(verdicts) == sorted(contracts()), judged.stdout + judged.stderr
    return {name for name, verdict in verdicts.items() if verdict == "BROKEN"}


def test_the_import_contracts_hold() -> None:
    assert broken_contracts(ROOT) == set()


def test_each_contract_has_an_offence_below() -> None:
    assert {contract for contract, _, _ in OFFENCES} == set(contracts())


@pytest.mark.parametrize(
    ("contract", "file", "line"), OFFENCES, ids=[f"{line} in {file}" for _, file, line in OFFENCES]
)
def test_an_offence_breaks_exactly_its_contract(tmp_path: Path, contract: str, file: str, line: str) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.gz"))
    for name in ("preheat.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    offender = tmp_path / file
    offender.write_text(f"{offender.read_text()}\n{line}\n")
    assert broken_contracts(tmp_path) == {contract}


# Spelled in pieces: this file must not hold what it forbids.
REGISTRIES = tuple(
    ".".join(pieces)
    for pieces in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("registry", "npmjs", "org"),
        ("crates", "io"),
        ("deb", "debian", "org"),
    )
)
ONE_MACHINES_PATH = re.compile(r"(?<![\w.$})/])/(?:root|work|home/\w+|Users/\w+)/[\w.]")


def test_no_file_speaks_of_one_machine_or_names_a_registry() -> None:
    """A clone must work wherever it lies, with whatever package index its machine is set up for."""
    found = []
    for path in files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # an archive of data
        if path.name == "go.sum":
            continue
        found += [f"{path.relative_to(ROOT)}: {host}" for host in REGISTRIES if host in text]
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in ONE_MACHINES_PATH.finditer(text)]
    assert found == []


def test_every_promised_make_target_is_there_with_a_line_of_help() -> None:
    promised = {
        "install",
        "demo",
        "test",
        "test-all",
        "check",
        "bench",
        "bench-packing",
        "bench-replay",
        "bench-policy",
        "bench-breadth",
        "bench-kinds",
        "bench-ablation",
        "bench-robustness",
        "crds",
        "docs",
        "clean",
        "help",
    }
    promised |= {"test-browser", "test-cluster", "test-vllm", "record-hpa"}
    targets = make_targets()
    assert set(targets) == promised
    assert all(targets.values())


def test_ci_runs_every_check_and_every_suite() -> None:
    assert re.search(r"make .*\bcheck test-all\b", (ROOT / ".ci" / "run").read_text())
    suites = {target for target in make_targets() if target.startswith("test")} - {"test-all"}
    rule = re.search(r"^test-all: (.*?) ##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rule is not None
    assert set(rule[1].split()) == suites


def test_a_machine_without_a_python_that_will_do_is_told_what_to_do(tmp_path: Path) -> None:
    made = subprocess.run(
        ["make", "install", "PYTHON=", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 2
    assert "no Python >= 3.11 found: install one, or name it: make PYTHON=" in made.stdout


def test_every_file_a_kustomization_names_is_there() -> None:
    for path in files(".yaml"):
        if path.name == "kustomization.yaml":
            stated = yaml.safe_load(path.read_text())
            patches = [each["path"] for each in stated.get("patches", ()) if "path" in each]
            for named in [*stated.get("resources", ()), *patches]:
                assert (path.parent / named).exists(), f"{path.relative_to(ROOT)} names {named}"
