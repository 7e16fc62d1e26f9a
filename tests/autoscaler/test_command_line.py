"""A user's mistake is one sentence and exit status 2; a stop is prompt and exit status 0."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import preheat
from autoscaler.journal import Entry, Journal
from autoscaler.loop import Outcome
from tests.autoscaler.test_config import document

PREHEAT = Path(sys.executable).with_name("preheat")
KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("", "autoscaler", "cluster", "preheat")]
    handlers, levels = loggers[0].handlers[:], [logger.level for logger in loggers]
    yield
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "targets.yaml"
    made.write_text(document().replace("http://prometheus.monitoring:9090", "http://127.0.0.1:9"))
    return made


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    made = tmp_path / "kubeconfig"
    made.write_text(KUBECONFIG)
    return made


def invoke(*words: object) -> Result:
    environment = {"KUBECONFIG": None, "KUBERNETES_SERVICE_HOST": None}
    return CliRunner(env=environment).invoke(preheat.main, [str(word) for word in words])


def refused(result: Result) -> list[str]:
    """The sentences of a command that ended with status 2, and without a traceback."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr.splitlines()


def test_a_file_with_mistakes_is_refused_with_all_of_them(file: Path, kubeconfig: Path) -> None:
    file.write_text(document().replace("maxReplicas: 8", "maxReplicas: 0\n  minReplica: 2"))
    expected = [
        f"{file}: spec.maxReplicas is 0: it must be at least 1; write the most replicas that may run, 1 or more",
        f"{file}: spec.minReplica is not a field of VLLMAutoscaler: did you mean minReplicas?",
    ]
    assert refused(invoke("autoscaler", "--config", file, "--kubeconfig", kubeconfig)) == expected
    assert refused(invoke("check", file, "--kubeconfig", kubeconfig)) == expected


def test_no_cluster_is_one_sentence(file: Path) -> None:
    (sentence,) = refused(invoke("autoscaler", "--config", file, "--port", 0))
    assert sentence.startswith("no cluster is named: give --kubeconfig FILE, set KUBECONFIG")


def test_a_kubeconfig_or_context_that_is_not_there_is_one_sentence(file: Path, kubeconfig: Path) -> None:
    (missing,) = refused(invoke("autoscaler", "--config", file, "--kubeconfig", "/nowhere"))
    assert missing == "--kubeconfig /nowhere does not exist: give the path of a kubeconfig"
    (context,) = refused(invoke("autoscaler", "--config", file, "--kubeconfig", kubeconfig, "--context", "y"))
    assert "has no context 'y': write --context with one of x" in context


def test_a_port_in_use_is_one_sentence(file: Path, kubeconfig: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = invoke("autoscaler", "--config", file, "--kubeconfig", kubeconfig, "--port", port)
    assert refused(result) == [f"--port {port} on 127.0.0.1 is in use: stop what listens there, or give another --port"]


def test_a_journal_that_cannot_be_written_is_one_sentence(file: Path, kubeconfig: Path, tmp_path: Path) -> None:
    result = invoke("autoscaler", "--config", file, "--kubeconfig", kubeconfig, "--journal", file / "journal")
    (sentence,) = refused(result)
    assert sentence.startswith(f"--journal {file}")


def test_check_tells_of_a_prometheus_and_a_cluster_that_are_both_away(file: Path, kubeconfig: Path) -> None:
    prometheus, cluster = sorted(refused(invoke("check", file, "--kubeconfig", kubeconfig)), reverse=True)
    assert prometheus.startswith("the API server at http://127.0.0.1:9 could not be asked")
    assert cluster.startswith("Prometheus at http://127.0.0.1:9 refuses connections")


def test_check_still_looks_at_sound_documents_beside_a_wrong_one(file: Path, kubeconfig: Path) -> None:
    file.write_text(file.read_text() + "---\n" + document("b", "b").replace("maxReplicas: 8", "maxReplicas: 0"))
    sentences = refused(invoke("check", file, "--kubeconfig", kubeconfig))
    assert sentences[0].startswith(f"{file}, document 2: spec.maxReplicas is 0")
    assert any(sentence.startswith("Prometheus at http://127.0.0.1:9") for sentence in sentences)


def test_explain_prints_a_story_or_what_to_ask(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.record(Entry("inference/llama", 1_795_262_400.0, Outcome.BLIND, "Prometheus is down"))
    journal.close()
    told = invoke("explain", "llama", "--journal", tmp_path)
    assert (told.exit_code, told.stderr) == (0, "")
    assert "Prometheus is down" in told.stdout
    assert refused(invoke("explain", "qwen", "--journal", tmp_path)) == [
        "qwen: the journal knows no such target; it knows inference/llama"
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["check"],
        ["explain", "x"],
        ["autoscaler", "--tick", "0"],
        ["autoscaler", "--tick", "nan"],
        ["autoscaler", "--keda-port", "99999"],
        ["replay", "x.csv", "--engine", "x", "--max", "3", "--slo-tpot", "1", "--slo-ttft", "inf"],
    ],
)
def test_what_a_command_needs_is_said_by_the_command_line_itself(words: list[str]) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert "Error: " in result.stderr


def test_a_file_and_a_namespace_of_the_cluster_exclude_each_other(file: Path) -> None:
    (sentence,) = refused(invoke("autoscaler", "--config", file, "--namespace", "inference"))
    assert sentence.startswith("--namespace chooses among the cluster's resources, and --config names a file")


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PREHEAT, *map(str, words)], capture_output=True, text=True, timeout=60, check=False)


def test_as_a_program_a_mistake_is_status_2_and_no_traceback(tmp_path: Path) -> None:
    ended = run("autoscaler", "--config", tmp_path / "none.yaml")
    assert ended.returncode == 2
    assert ended.stderr == f"{tmp_path / 'none.yaml'}: does not exist: check the path\n"


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_status_0_although_nothing_answers(
    file: Path, kubeconfig: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    """Neither the API server nor Prometheus is there: it says so, goes on, and is stopped all the same."""
    command = [PREHEAT, "autoscaler", "--config", file, "--kubeconfig", kubeconfig, "--port", "0", "--tick", "0.2"]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(30, process.kill)
        watchdog.start()
        assert process.stderr is not None
        lines = []
        for text in process.stderr:
            lines.append(json.loads(text))
            if lines[-1]["message"].startswith("holds:"):
                break
        process.send_signal(stop)
        lines += [json.loads(text) for text in process.stderr]
        status = process.wait()
        watchdog.cancel()
    assert status == 0
    assert lines[0]["message"].startswith("started: 1 targets")
    assert any("the API server at http://127.0.0.1:9 could not be asked" in line["message"] for line in lines)
    assert lines[-1]["message"] == "stopped"
    assert not [line for line in lines if "error" in line]


UNRESOLVED = """
import os, signal, socket, sys, time

def never(*_, **__):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(600)

socket.getaddrinfo = never
import preheat
preheat.main(sys.argv[1:])
"""


def test_a_name_that_nobody_resolves_does_not_hold_the_end_up(file: Path, kubeconfig: Path) -> None:
    kubeconfig.write_text(KUBECONFIG.replace("127.0.0.1", "kubernetes.example"))
    words = ["autoscaler", "--config", file, "--kubeconfig", kubeconfig, "--host", "127.0.0.1", "--port", "0"]
    command = [sys.executable, "-c", UNRESOLVED, *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert json.loads(ended.stderr.splitlines()[-1])["message"] == "stopped"
