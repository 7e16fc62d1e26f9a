"""`preheat autoscaler` as a user starts it: a program with a file, a log, a journal and pages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.parts.kubernetes_api import Json
from tests.parts.processes import Process, wait_until

PREHEAT = Path(sys.executable).with_name("preheat")


def preheat(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Any other subcommand, to its end."""
    return subprocess.run(
        [str(PREHEAT), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


class Autoscaler:
    """Runs from `with` to its end; then it must have stopped by itself, in time and without a traceback."""

    def __init__(
        self,
        folder: Path,
        resources: Sequence[Json] | None,
        kubeconfig: Path,
        *,
        tick_seconds: float = 1,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Of a file with these resources, or of the cluster's own."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "targets.yaml"
        self.config.write_text(yaml.safe_dump_all(resources or ()))
        source = ("--config", self.config) if resources is not None else ()
        self.journal = folder / "journal"
        self.log = folder / "autoscaler.log"
        self.log.touch()
        self.command: list[str | Path] = [
            *(PREHEAT, "autoscaler", *source, "--kubeconfig", kubeconfig, *options),
            *("--port", "0", "--tick", str(tick_seconds), "--journal", self.journal),
        ]
        self._env = None if env is None else {**os.environ, **env}
        self._port = 0
        self._killed = False

    def kill(self) -> None:
        """At once, as a node that dies takes it along; nothing more is asked of its end."""
        self._killed = True
        self.process.kill()

    def __enter__(self) -> Self:
        self.process = Process("preheat autoscaler", self.command, self.log, env=self._env)
        try:
            self.process.wait_ready(lambda: bool(self.lines(port=...)), within=60)
        except BaseException:
            self.process.kill()
            raise
        self._port = self.lines(port=...)[-1]["port"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.process.kill()
            error.add_note(f"the autoscaler's last lines:\n{self.process.end_of_log(30)}")
            return
        status = self.process.stop(within=8)
        assert status == 0 or self._killed, self.process.end_of_log()
        assert not self.lines(error=...), "it met an error of its own"

    def lines(self, **having: Any) -> list[Json]:
        """What it logged: every line that has these fields with these values (`...`: any)."""
        found = []
        for line in self.log.read_text().splitlines():
            if not line.startswith("{"):
                raise AssertionError(f"a line of the log is no JSON: {line}")
            told: Json = json.loads(line)
            if all(key in told and value in (..., told[key]) for key, value in having.items()):
                found.append(told)
        return found

    def wait_line(self, text: str, *, within: float = 20, **having: Any) -> Json:
        """Until it says this; the line."""
        found = wait_until(
            lambda: [line for line in self.lines(**having) if text in line["message"]],
            within=within,
            what=lambda: f"'{text}' in the log; its last lines:\n{self.process.end_of_log(10)}",
        )
        return found[-1]

    def page(self, path: str) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self._port}{path}", timeout=5)

    def metric(self, metric: str, /, **labels: str) -> float | None:
        """The sum of a metric's series with these labels; None without any."""
        families = text_string_to_metric_families(self.page("/metrics").text)
        values = [
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        ]
        return sum(values) if values else None

    def entries(self, target: str) -> list[Json]:
        """The journal's turns of one target, oldest first."""
        lines = (line for path in sorted(self.journal.glob("*.jsonl")) for line in path.read_text().splitlines(True))
        turns = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be half written
        return [turn for turn in turns if turn["target"] == target]

    def wait_turns(self, target: str, count: int, *, within: float = 60) -> list[Json]:
        """So many more turns of the target."""
        before = len(self.entries(target))
        return wait_until(
            lambda: new if len(new := self.entries(target)[before:]) >= count else None,
            within=within,
            what=lambda: f"{count} turns of {target}; its last lines:\n{self.process.end_of_log(10)}",
        )

    def explain(self, target: str, at: float | None = None) -> str:
        told = preheat("explain", target, "--journal", self.journal, *(["--at", str(at)] if at else []))
        assert told.returncode == 0, told.stderr
        return told.stdout
