"""Extenders and second schedulers as the manifests run them, beside a real control plane."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import trustme
import yaml

from tests.checkout import ROOT
from tests.parts.control_plane import ControlPlane
from tests.parts.kubernetes_api import Json
from tests.parts.processes import Process, free_ports, wait_until
from tests.real.autoscaler_process import PREHEAT

MANIFESTS = ROOT / "manifests" / "scheduler_extender"
OVERLAY = ROOT / "manifests" / "overlays" / "second-scheduler"
HOME = "preheat-system"
TAINT = "preheat.dev/placed"
H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}
B200 = {"nvidia.com/gpu.product": "NVIDIA-B200", "nvidia.com/gpu.memory": "183359"}
L40S = {"nvidia.com/gpu.product": "NVIDIA-L40S", "nvidia.com/gpu.memory": "46068"}
A100_PAIRS = {"nvidia.com/gpu.product": "NVIDIA-A100-80GB-PCIe", "nvidia.com/gpu.memory": "81920"}

_numbers = itertools.count(1)


class Service:
    """In a Service's place: each connection goes to the next of the processes that takes it."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self._turn = itertools.count()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._socket.accept()
                first = next(self._turn)
                for number in range(len(self.ports)):
                    with contextlib.suppress(OSError):
                        there = socket.create_connection(("127.0.0.1", self.ports[(first + number) % len(self.ports)]))
                        threading.Thread(target=_join, args=(here, there), daemon=True).start()
                        break
                else:
                    here.close()

    def close(self) -> None:
        self._socket.close()


def _join(here: socket.socket, there: socket.socket) -> None:
    """Pass bytes both ways until both ends have closed."""
    back = threading.Thread(target=_pass_on, args=(there, here), daemon=True)
    back.start()
    _pass_on(here, there)
    back.join()
    here.close()
    there.close()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
    for end in (one, other):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@dataclass
class Placing:
    """What the manifests brought into the cluster, and two replicas of the extender behind a service."""

    control_plane: ControlPlane
    folder: Path
    certificates: dict[str, Path]
    extenders: list[Process] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)

    def start_extender(self) -> None:
        number = len(self.extenders)
        log = self.folder / f"extender-{number}.log"
        config_map = yaml.safe_load((MANIFESTS / "config.yaml").read_text())
        config = self.folder / "extender.yaml"
        config.write_text(config_map["data"]["extender.yaml"])
        kubeconfig = self.control_plane.kubeconfig_of_service_account(HOME, "preheat-extender")
        (port,) = free_ports(1)
        command: list[str | Path] = [
            *(PREHEAT, "extender", "--host", "127.0.0.1", "--port", str(port), "--config", config),
            *("--kubeconfig", kubeconfig),
            *("--tls-cert", self.certificates["cert"], "--tls-key", self.certificates["key"]),
        ]
        process = Process(f"extender {number}", command, log)
        self.extenders.append(process)
        self.ports.append(port)
        process.wait_ready(lambda: self.page(number, "/readyz") == "ok\n", within=60)

    def page(self, number: int, path: str) -> str:
        with contextlib.suppress(requests.RequestException):
            url = f"https://127.0.0.1:{self.ports[number]}{path}"
            return requests.get(url, verify=str(self.certificates["ca"]), timeout=5).text
        return ""

    def configure(self, text: str) -> None:
        """Write the extenders' settings, and wait until each has read them."""
        told = 'preheat_extender_reloads_total{file="config",result="used"}'

        def reloads() -> list[float]:
            lines = [line for number in range(len(self.ports)) for line in self.page(number, "/metrics").splitlines()]
            return [float(line.rpartition(" ")[2]) for line in lines if line.startswith(told)]

        before = sum(reloads())
        (self.folder / "extender.yaml").write_text(text)
        wait_until(lambda: sum(reloads()) >= before + len(self.ports), within=20, what="the settings read anew")

    @contextlib.contextmanager
    def scheduler(self, port: int, **changed: Any) -> Iterator[str]:
        """The shipped second scheduler under a name of its own, asking there; its `schedulerName`."""
        name = f"preheat-{next(_numbers)}"
        shipped = yaml.safe_load((MANIFESTS / "second_scheduler" / "scheduler-config.yaml").read_text())
        config = yaml.safe_load(shipped["data"]["scheduler-config.yaml"])
        kubeconfig = self.control_plane.kubeconfig_of_service_account(HOME, "preheat-scheduler")
        config["clientConnection"] = {"kubeconfig": str(kubeconfig)}
        config["profiles"][0]["schedulerName"] = name
        if name != "preheat-1":
            config["leaderElection"] = {"leaderElect": False}  # the lease is the first one's
        config["extenders"][0] |= {"urlPrefix": f"https://127.0.0.1:{port}/of/{name}", **changed}
        config["extenders"][0]["tlsConfig"] = {"caFile": str(self.certificates["ca"])}
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(config))
        (secure_port,) = free_ports(1)
        process = Process(
            name,
            [
                *(self.control_plane.binaries / "kube-scheduler", f"--config={file}", "--bind-address=127.0.0.1"),
                *(f"--secure-port={secure_port}", f"--cert-dir={self.folder / name}", "--v=1"),
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
            ],
            self.folder / f"{name}.log",
        )
        try:
            yield name
        finally:
            process.kill()

    def add_node(self, name: str, labels: dict[str, str], gpus: int = 8) -> str:
        """Tainted, so that nobody else's pods come."""
        counted = {**labels, "nvidia.com/gpu.count": str(gpus), "placing": "yes"}
        sizes = {"cpu": "64", "memory": "512Gi", "pods": "250", "nvidia.com/gpu": str(gpus)}
        node: Json = {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **counted}},
            "spec": {"taints": [{"key": TAINT, "value": "gpu", "effect": "NoSchedule"}]},
            "status": {"capacity": sizes, "allocatable": sizes},
        }
        self.control_plane.api.create("/api/v1/nodes", node)
        self.nodes.append(name)
        return name

    def remove_nodes(self) -> None:
        while self.nodes:
            self.control_plane.api.delete(f"/api/v1/nodes/{self.nodes.pop()}")

    def add_pod(
        self,
        namespace: str,
        name: str,
        scheduler: str,
        *,
        gpus: int,
        model: str = "meta-llama/Llama-3.1-8B-Instruct",
        length: int = 8192,
        tensor_parallel: int | None = None,
        priority: str = "",
    ) -> None:
        size = gpus if tensor_parallel is None else tensor_parallel
        args = [f"--model={model}", f"--tensor-parallel-size={size}", f"--max-model-len={length}"]
        limits = {"nvidia.com/gpu": str(gpus)}
        spec: Json = {
            "schedulerName": scheduler,
            "nodeSelector": {"placing": "yes"},
            "tolerations": [{"key": TAINT, "operator": "Exists"}],
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "vllm",
                    "image": "vllm/vllm-openai:v0.32.0",
                    "args": args,
                    "resources": {"limits": limits, "requests": limits},
                }
            ],
        }
        if priority:
            spec["priorityClassName"] = priority
        self.control_plane.api.create(
            f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": name}, "spec": spec}
        )

    def pods(self, namespace: str) -> dict[str, Json]:
        found = self.control_plane.api.items(f"/api/v1/namespaces/{namespace}/pods")
        return {pod["metadata"]["name"]: pod for pod in found}

    def places(self, namespace: str) -> dict[str, str]:
        """The nodes of the pods that have one."""
        return {
            name: pod["spec"]["nodeName"] for name, pod in self.pods(namespace).items() if "nodeName" in pod["spec"]
        }

    def wait_places(self, namespace: str, count: int, *, within: float = 60) -> dict[str, str]:
        def all_bound() -> dict[str, str] | None:
            places = self.places(namespace)
            return places if len(places) >= count else None

        return wait_until(all_bound, within=within, what=lambda: f"{count} pods bound: {self.told(namespace)}")

    def told(self, namespace: str) -> dict[str, str]:
        """What the scheduler says of each pod that waits."""
        said = {}
        for name, pod in self.pods(namespace).items():
            for condition in pod["status"].get("conditions") or ():
                if condition["type"] == "PodScheduled" and condition["status"] == "False":
                    said[name] = f"{condition.get('reason')}: {condition.get('message', '')}"
        return copy.deepcopy(said)

    def wait_told(self, namespace: str, name: str, words: str, *, within: float = 30) -> str:
        return wait_until(
            lambda: said if words in (said := self.told(namespace).get(name, "")) else "",
            within=within,
            what=lambda: f"'{words}' of {name}: {self.told(namespace)}",
        )


@contextlib.contextmanager
def placing_in(control_plane: ControlPlane, folder: Path) -> Iterator[Placing]:
    """`kubectl apply -k` of what is shipped, and the extender started twice under its account."""
    control_plane.kubectl("apply", "-f", MANIFESTS / "namespace.yaml")
    control_plane.kubectl("apply", "-k", OVERLAY)
    for deployment in ("preheat-extender", "preheat-scheduler"):  # their programs run here, not on a node of kwok's
        control_plane.kubectl("-n", HOME, "scale", f"deployment/{deployment}", "--replicas=0")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    paths = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    paths["cert"].write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(paths["key"])
    placing = Placing(control_plane, folder, paths)
    try:
        placing.start_extender()
        placing.start_extender()
        yield placing
    finally:
        placing.remove_nodes()
        for process in placing.extenders:
            process.stop()
        with contextlib.suppress(AssertionError):
            control_plane.kubectl("delete", "--wait=false", "-k", OVERLAY)


def errors_in(log: Path) -> list[Json]:
    """Lines of an extender that tell of a mistake of its own."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if "error" in line]
