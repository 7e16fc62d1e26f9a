"""The image's steps, run one by one in a clean environment: what they leave starts both programs and is not large."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.autoscaler.test_config import document
from tests.checkout import ROOT
from tests.scheduler_extender.worlds import node, pod, written

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

LARGEST_BYTES = 230e6
"""Uncompressed, over the base image; a registry holds a third of it."""


def steps() -> list[list[tuple[str, str]]]:
    """Instructions and their words, a list a stage."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Containerfile").read_text())
    stages: list[list[tuple[str, str]]] = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            instruction, _, words = line.partition(" ")
            if instruction == "FROM":
                stages.append([])
            stages[-1].append((instruction, words))
    return stages


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that stands for the image's root, after the first stage."""
    root = tmp_path_factory.mktemp("image")
    programs = root / "usr" / "bin"
    programs.mkdir(parents=True)
    base = getattr(sys, "_base_executable", sys.executable)
    (programs / "python").symlink_to(base)  # the base image's
    # What pip and uv keep at home, and how the index is reached, is this machine's.
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    where = root
    for instruction, words in steps()[0][1:]:
        if instruction == "WORKDIR":
            where = root / words.lstrip("/")
            where.mkdir(parents=True)
        elif instruction == "COPY":
            *sources, target = words.split()
            for source in sources:
                copy(ROOT / source, (where / target / source) if target == "./" else where / target)
        else:
            assert instruction == "RUN", instruction
            command = words.replace("/opt/", f"{root}/opt/")
            done = subprocess.run(
                command,
                shell=True,
                cwd=where,
                env=environment,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            assert done.returncode == 0, f"{words}:\n{done.stderr[-2000:]}"
    shutil.rmtree(where)  # the second stage has no checkout
    yield root
    shutil.rmtree(root, ignore_errors=True)


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def run(image: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The image's own program, which knows of nothing beside it."""
    environment = {"PATH": str(image / "opt" / "preheat" / "bin"), "HOME": str(image)}
    return subprocess.run(
        ["preheat", *map(str, words)],
        executable=image / "opt" / "preheat" / "bin" / "preheat",
        cwd=image,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_second_stage_only_takes_over_and_runs_as_a_number() -> None:
    build, final = steps()
    assert build[0][1].partition(" ")[0] == final[0][1]
    assert ("COPY", "--from=build /opt/preheat /opt/preheat") in final
    assert ("USER", "65532:65532") in final
    assert all(instruction != "RUN" for instruction, _ in final)


def test_both_programs_run_of_what_the_steps_leave(image: Path, tmp_path: Path) -> None:
    assert run(image, "--version").stdout.startswith("preheat, version")
    inventory = written(tmp_path, node("gpu-a"), pod("asking"))
    told = run(image, "explain-pod", "inference/asking", "--inventory", inventory)
    assert "1 of 1 nodes would take it" in told.stdout, told.stderr
    file = tmp_path / "targets.yaml"
    file.write_text(document().replace("http://prometheus.monitoring:9090", "http://127.0.0.1:9"))
    refused = run(image, "autoscaler", "--config", file, "--kubeconfig", tmp_path / "none", "--keda-port", "0")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert "kubeconfig" in refused.stderr
    assert "No module" not in refused.stderr


def test_a_replay_says_what_it_would_need(image: Path) -> None:
    said = run(image, "replay", "azure2023_conv", "--engine", "x", "--slo-ttft", "1", "--slo-tpot", "1", "--max", "2")
    assert "which is not installed: pip install 'preheat[sim]'" in said.stderr


def test_it_is_not_large_and_holds_no_installer(image: Path) -> None:
    files = [path for path in (image / "opt").rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < LARGEST_BYTES
    assert not list((image / "opt" / "preheat" / "bin").glob("pip*"))
    assert not any(path.name == "pytest" for path in files)
