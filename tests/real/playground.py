"""A cluster to play with on one machine: real Kubernetes and Prometheus, simulated vLLM servers, a load to set.

    python -m tests.real.playground start play   # and `stop play`

`play/environment` says how to reach it, and a number written into `play/load` is how many requests a second arrive at
the pods that are labelled `app: tiny` in namespace `inference`. docs/tutorial.md plays with it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.parts import build
from tests.parts.fixtures import running_control_plane, running_prometheus
from tests.parts.processes import wait_until
from tests.parts.progress import say
from tests.real.simulated_pods import SimulatedPods

NAMESPACE, APP = "inference", "tiny"
SECONDS_A_LOOK = 0.5


def run(folder: Path) -> None:
    """Until SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with (
        running_control_plane(folder / "cluster") as control_plane,
        running_prometheus(folder / "prometheus") as prometheus,
        SimulatedPods(control_plane, prometheus, NAMESPACE, app=APP) as pods,
    ):
        path = os.pathsep.join((str(control_plane.binaries), str(Path(sys.executable).parent)))
        lines = {"KUBECONFIG": str(control_plane.kubeconfig("admin")), "PROMETHEUS": prometheus.url}
        text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in lines.items())
        (folder / "environment").write_text(f'{text}export PATH={shlex.quote(path)}:"$PATH"\n')
        borne = 0.0
        while not stop.wait(SECONDS_A_LOOK):
            rate = _rate(folder / "load")
            if rate is not None and rate != borne:
                pods.bear(borne := rate)


def _rate(path: Path) -> float | None:
    """None while it holds no number, as in the middle of being written."""
    try:
        return max(0.0, float(path.read_text()))
    except (OSError, ValueError):
        return None


def start(folder: Path) -> None:
    """Have it run in the background; returns when it is there to play with."""
    if folder.exists():
        sys.exit(f"{folder} is there already: `stop {folder}` and delete it, or name another folder")
    for part in (build.KUBERNETES, build.KWOK, build.PROMETHEUS):
        build.ensure(part)
    folder.mkdir(parents=True)
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "tests.real.playground", "run", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (folder / "pid").write_text(str(running.pid))
    wait_until(lambda: running.poll() is not None or (folder / "environment").exists(), within=300, what="the cluster")
    if running.poll() is not None:
        sys.exit(f"it did not start:\n{(folder / 'log').read_text()[-2000:]}")
    say(f"ready: . {folder}/environment")


def stop(folder: Path) -> None:
    """Take it down again; what it wrote stays to be looked at."""
    pid = int((folder / "pid").read_text())
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    wait_until(lambda: not _runs(pid), within=60, what="its end")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.real.playground", description=__doc__)
    parser.add_argument("what", choices=["start", "stop", "run"])
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args(arguments)
    {"start": start, "stop": stop, "run": run}[chosen.what](chosen.folder.absolute())


if __name__ == "__main__":
    main()
