"""A user's mistake is one sentence and exit status 2; the program starts, answers, and stops when it is told to."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml
from click.testing import CliRunner, Result

import preheat
from tests.scheduler_extender.worlds import L40S, names_question, node, pod, written

PREHEAT = Path(sys.executable).with_name("preheat")


def invoke(*words: object) -> Result:
    environment = {"KUBECONFIG": None, "KUBERNETES_SERVICE_HOST": None}
    return CliRunner(env=environment).invoke(preheat.main, [str(word) for word in words])


def refused(result: Result) -> str:
    """The one sentence of a command that ended with status 2, and without a traceback."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("{")]
    return line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "no cluster is named: give --kubeconfig FILE, set KUBECONFIG"),
        (("--inventory", "none.json"), "--inventory none.json: does not exist: check the path"),
        (("--config", "none.yaml"), "none.yaml: does not exist: check the path"),
        (("--tls-cert", "none.crt"), "--tls-cert none.crt is given without --tls-key"),
        (("--tls-cert", "none.crt", "--tls-key", "none.key"), "none.crt: does not exist"),
        (("--kubeconfig", "none"), "--kubeconfig none does not exist"),
    ],
)
def test_a_mistake_is_one_sentence(options: tuple[str, ...], said: str) -> None:
    assert said in refused(invoke("extender", *options))


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, node("gpu-a"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = invoke("extender", "--inventory", path, "--host", "127.0.0.1", "--port", port)
    assert f"--port {port} on 127.0.0.1 is in use" in refused(result)


def test_it_serves_a_file_of_nodes_until_it_is_told_to_stop(tmp_path: Path) -> None:
    path = written(tmp_path, node("linked"), node("unlinked", 8, L40S), pod("holder", 2, on="linked"))
    command = [str(PREHEAT), "extender", "--inventory", str(path), "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = json.loads(process.stderr.readline())
            url = f"http://127.0.0.1:{line['port']}/preheat"
            asked = names_question(pod("asking", 4), "linked", "unlinked")
            answer = requests.post(f"{url}/filter", json=asked, timeout=10).json()
            assert answer["NodeNames"] == ["linked"]
            told = requests.get(f"{url}/explain", params={"pod": "inference/holder"}, timeout=10).json()
            assert [each["node"] for each in told["nodes"]] == ["linked", "unlinked"]
            assert [each["reason"] for each in told["nodes"]] == [None, "GPUs are not NVLink-connected"]
            posted = requests.post(f"{url}/explain", json=pod("asking", 4), timeout=10).json()
            assert posted["demand"]["tensor_parallel"] == 4
            for wrong in ("", "no-slash", "inference/nobody"):
                answered = requests.get(f"{url}/explain", params={"pod": wrong}, timeout=10)
                assert answered.status_code in (400, 404)
                assert answered.json()["error"]
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert "Traceback" not in process.stderr.read()


def test_explain_pod_tells_of_every_kind_of_node_what_it_would_say(tmp_path: Path) -> None:
    nodes = [node(f"linked-{number}") for number in range(5)]
    path = written(tmp_path, *nodes, node("unlinked", 8, L40S), pod("waits", 4))
    workload = tmp_path / "deployment.yaml"
    workload.write_text(yaml.safe_dump({"kind": "Deployment", "spec": {"template": pod("x", 4)}}))
    for asked in (workload, "inference/waits"):
        told = invoke("explain-pod", asked, "--inventory", path)
        assert told.exit_code == 0, told.output
        assert "It asks for 4 nvidia.com/gpu to serve meta-llama/Llama-3.1-8B-Instruct (TP 4" in told.output
        assert "linked-0, linked-1, linked-2 and 2 alike: passes, score 10" in told.output
        assert "unlinked: refused: GPUs are not NVLink-connected" in told.output
        assert "5 of 6 nodes would take it" in told.output


def test_explain_pod_names_what_would_make_a_model_fit(tmp_path: Path) -> None:
    args = ["--model=meta-llama/Llama-3.1-70B-Instruct", "--tensor-parallel-size=2", "--max-model-len=32768"]
    path = written(tmp_path, node("linked"), pod("waits", 2, args=args))
    told = invoke("explain-pod", "inference/waits", "--inventory", path).output
    assert "does not fit; fits with" in told
    assert "TP 4" in told


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("none.yaml", "none.yaml: does not exist"),
        ("nothing", "name a file with a pod, or one of the cluster as NAMESPACE/NAME"),
        ("inference/?watch=1", "name a file with a pod, or one of the cluster as NAMESPACE/NAME"),
        ("inference/nobody", "no pod with GPUs of this name is in the inventory"),
    ],
)
def test_explain_pod_says_what_to_ask_instead(tmp_path: Path, asked: str, said: str) -> None:
    assert said in refused(invoke("explain-pod", asked, "--inventory", written(tmp_path, node("gpu-a"))))
