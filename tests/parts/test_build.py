"""The builder of the real parts: what it keys on, which Go it takes, and that half a build is never taken for one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts import build
from tests.parts.build import KUBERNETES, KWOK, PARTS, PROMETHEUS, BuildError, Part
from tests.parts.progress import ProgressError


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def a_go(folder: Path, version: str, builds: str = "true") -> str:
    """A stand-in for go: tells a version, and builds by the shell words given, with the output's path in $out."""
    folder.mkdir()
    script = folder / "go"
    script.write_text(
        f"""#!/bin/sh
case $1 in
  version) echo "go version go{version} linux/amd64" ;;
  build) while [ "$1" != -o ]; do shift; done; out=$2; {builds} ;;
esac
"""
    )
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_every_part_pins_the_module_it_is_built_from(part: Part) -> None:
    assert build.version(part).startswith("v")


def test_the_cache_lies_outside_the_checkout(a_cache_of_its_own: Path) -> None:
    assert build.folder(PROMETHEUS).is_relative_to(a_cache_of_its_own)


@pytest.mark.parametrize("name", ["go.mod", "go.sum"])
def test_a_changed_pin_is_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = build.key(KWOK)
    shutil.copytree(build.MODULES, tmp_path / "modules")
    monkeypatch.setattr(build, "MODULES", tmp_path / "modules")
    assert build.key(KWOK) == before
    with (tmp_path / "modules" / "kwok" / name).open("a") as file:
        file.write("// changed\n")
    assert build.key(KWOK) != before


def test_kubernetes_is_stamped_with_its_version_and_prometheus_without_the_v() -> None:
    stamped = build.version(KUBERNETES)
    major, minor, _ = stamped.removeprefix("v").split(".")
    flags = build.linker_flags(KUBERNETES)
    assert f"version.gitVersion={stamped} " in flags
    assert f"version.gitMajor={major} " in flags
    assert f"version.gitMinor={minor}" in flags
    assert f"version.Version={build.version(PROMETHEUS)[1:]}" in build.linker_flags(PROMETHEUS)


def test_the_first_go_that_is_new_enough_is_taken(tmp_path: Path) -> None:
    old, new = a_go(tmp_path / "old", "1.25.9"), a_go(tmp_path / "new", "1.26.0")
    assert build.find_go([str(tmp_path / "none"), old, new]) == new


def test_without_a_go_that_is_new_enough_the_wheel_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "go_from_wheel", lambda: "the wheel's")
    assert build.find_go([str(tmp_path / "none"), a_go(tmp_path / "old", "1.9")]) == "the wheel's"


def test_what_was_built_once_is_only_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = a_go(tmp_path / "bin", "1.26.0", 'echo built > "$out"')
    monkeypatch.setattr(build, "find_go", lambda: go)
    first = build.ensure(KWOK)
    assert (first / "kwok").read_text() == "built\n"

    def not_again() -> str:
        raise AssertionError("it was there already")

    monkeypatch.setattr(build, "find_go", not_again)
    assert build.ensure(KWOK) == first


def test_a_build_that_fails_says_how_and_leaves_nothing_that_looks_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = a_go(tmp_path / "bin", "1.26.0", 'echo half > "$out"; echo "no such module" >&2; exit 1')
    monkeypatch.setattr(build, "find_go", lambda: go)
    with pytest.raises(ProgressError, match=r"(?s)kwok: kwok failed with status 1.*no such module"):
        build.ensure(KWOK)
    assert not build.folder(KWOK).exists()


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = build.cache() / ".building-left"
    left.mkdir(parents=True)
    go = a_go(tmp_path / "bin", "1.26.0", 'echo built > "$out"')
    monkeypatch.setattr(build, "find_go", lambda: go)
    build.ensure(KWOK)
    assert not left.exists()


def test_a_second_build_waits_for_the_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "lock"
    program = f"""
import sys
from pathlib import Path
from tests.parts.build import alone
with alone(Path({str(lock)!r})):
    print("has it", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "has it\n"
        assert holder.stdin is not None
        waiting = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert waiting.stderr is not None
        assert b"waiting for another build" in waiting.stderr.readline()
        assert waiting.poll() is None
        holder.stdin.close()
        assert waiting.communicate(timeout=20)[0] == b"has it\n"


def test_a_failure_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cannot(part: Part) -> Path:
        raise BuildError(f"{part.name} is not to be had")

    monkeypatch.setattr(build, "ensure", cannot)
    assert build.main(["kwok"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "cannot build the real parts: kwok is not to be had"
