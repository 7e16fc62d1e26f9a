"""A real control plane on 127.0.0.1: etcd, API server, controllers, scheduler, and kwok in the kubelets' place.

kwok's nodes run nothing: their pods go through the stages in `stages.yaml`, which stand for loading
weights ("cold-start") and for finishing what streams ("drain"). Everything else is Kubernetes itself.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme
import yaml

from tests.parts import build
from tests.parts.kubernetes_api import Api, Json
from tests.parts.processes import Process, free_ports, wait_until

STAGES = Path(__file__).with_name("stages.yaml")
HOST = "127.0.0.1"
FRONT_PROXY = "front-proxy-client"
"""The API server's name to those whom it hands requests on to."""
SECONDS_TO_START = 120
"""Five on two quiet cores; the bound is for a machine that does much else."""

CONTROLLERS = (
    # Of some forty those whose work the tests see; all of them cost 3 s more until the first pod.
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "horizontal-pod-autoscaler-controller",
    "disruption-controller",
    "resourcequota-controller",
    "endpointslice-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "node-lifecycle-controller",
    "taint-eviction-controller",
    "pod-garbage-collector-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "clusterrole-aggregation-controller",
)


@dataclass(frozen=True)
class User:
    """Somebody with a token."""

    name: str
    groups: tuple[str, ...] = ()


MASTERS = ("system:masters",)
USERS = {
    "admin": User("admin", MASTERS),
    "kwok": User("kwok", MASTERS),
    "scheduler": User("system:kube-scheduler"),
    "controllers": User("system:kube-controller-manager"),
    "nobody": User("nobody"),
}


class ControlPlane:
    """Its processes, their certificates, and kubeconfigs for whoever needs one; `options` for them by their names."""

    def __init__(self, folder: Path, options: Mapping[str, Sequence[str]] | None = None) -> None:
        self.folder = folder
        self.options = options or {}
        for name in ("log", "etcd", "kubeconfig"):
            (folder / name).mkdir(parents=True)
        self.binaries = build.ensure(build.KUBERNETES)
        self.kwok = build.ensure(build.KWOK) / "kwok"
        self.etcd_port, self.peer_port, self.port, self.controllers_port, self.scheduler_port = free_ports(5)
        self.url = f"https://{HOST}:{self.port}"
        self.processes: dict[str, Process] = {}
        self.ca = folder / "ca.crt"
        self.front_proxy_ca = folder / "front-proxy-ca.crt"
        self._make_certificates()
        self._tokens = {user: secrets.token_hex(16) for user in USERS}
        (folder / "tokens.csv").write_text(
            "".join(f'{self._tokens[user]},{who.name},{user},"{",".join(who.groups)}"\n' for user, who in USERS.items())
        )
        self.api = self.api_as("admin")

    def start(self) -> None:
        self._start_etcd()
        self.start_api_server()
        self._start_controllers()
        self._start_scheduler()
        self._spawn(
            "kwok",
            self.kwok,
            f"--kubeconfig={self.kubeconfig('kwok')}",
            f"--config={STAGES}",
            "--manage-all-nodes",
            "--node-lease-duration-seconds=40",
        )
        # A pod can be created only once its namespace has a service account.
        accounts = "/api/v1/namespaces/default/serviceaccounts"
        wait_until(
            lambda: any(account["metadata"]["name"] == "default" for account in self.api.items(accounts)),
            within=SECONDS_TO_START,
            what="the default service account",
        )

    def stop(self) -> None:
        self.api.session.close()
        for name in ("kwok", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            if name in self.processes:
                self.processes[name].stop()

    def kubeconfig(self, user: str) -> Path:
        """A kubeconfig of one of `USERS`."""
        return self._kubeconfig(user, self._tokens[user])

    def kubeconfig_of_service_account(self, namespace: str, name: str) -> Path:
        """A kubeconfig as a pod under this service account has it."""
        return self._kubeconfig(f"{namespace}-{name}", self.token_of_service_account(namespace, name))

    def token_of_service_account(self, namespace: str, name: str) -> str:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token: str = self.api.create(path, request)["status"]["token"]
        return token

    def api_as(self, user: str) -> Api:
        return Api(self.url, ca=self.ca, token=self._tokens[user])

    def kubectl(self, *words: str | Path) -> str:
        """As the administrator; what it printed."""
        command = [self.binaries / "kubectl", f"--kubeconfig={self.kubeconfig('admin')}", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def add_node(self, name: str, *, gpus: int = 8, labels: dict[str, str] | None = None) -> None:
        """With its sizes filled in: patched on afterwards, they would race what kwok writes."""
        sizes = {"cpu": "64", "memory": "512Gi", "pods": "250", "nvidia.com/gpu": str(gpus)}
        status: Json = {"capacity": sizes, "allocatable": sizes}
        metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}
        self.api.create("/api/v1/nodes", {"metadata": metadata, "status": status})

    def start_api_server(self) -> None:
        pki = self.folder
        server = self._spawn(
            "kube-apiserver",
            self.binaries / "kube-apiserver",
            f"--etcd-servers=http://{HOST}:{self.etcd_port}",
            f"--bind-address={HOST}",
            f"--advertise-address={HOST}",
            f"--secure-port={self.port}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            f"--token-auth-file={pki / 'tokens.csv'}",
            f"--client-ca-file={self.ca}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'accounts.key'}",
            f"--service-account-signing-key-file={pki / 'accounts.key'}",
            f"--requestheader-client-ca-file={self.front_proxy_ca}",
            f"--requestheader-allowed-names={FRONT_PROXY}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki / 'front-proxy.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy.key'}",
            "--v=1",
        )
        server.wait_ready(self.api.is_ready, within=SECONDS_TO_START)

    def stop_api_server(self) -> None:
        """At once, as a crash would: a graceful end waits for the watches to close."""
        self.processes["kube-apiserver"].kill()

    def _start_etcd(self) -> None:
        clients, peers = f"http://{HOST}:{self.etcd_port}", f"http://{HOST}:{self.peer_port}"
        self._spawn(
            "etcd",
            self.binaries / "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",  # its data ends with the tests
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--log-level=warn",
        )

    def _start_controllers(self) -> None:
        kubeconfig = self.kubeconfig("controllers")
        self._spawn(
            "kube-controller-manager",
            self.binaries / "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--bind-address={HOST}",
            f"--secure-port={self.controllers_port}",
            f"--cert-dir={self.folder / 'controllers'}",
            "--leader-elect=false",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={self.folder / 'accounts.key'}",
            f"--root-ca-file={self.ca}",
            f"--controllers={','.join(CONTROLLERS)}",
            "--node-monitor-grace-period=1h",
            "--horizontal-pod-autoscaler-sync-period=2s",
            "--v=1",
        )

    def _start_scheduler(self) -> None:
        kubeconfig = self.kubeconfig("scheduler")
        self._spawn(
            "kube-scheduler",
            self.binaries / "kube-scheduler",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--bind-address={HOST}",
            f"--secure-port={self.scheduler_port}",
            f"--cert-dir={self.folder / 'scheduler'}",
            "--leader-elect=false",
            "--v=1",
        )

    def _spawn(self, name: str, *command: str | Path) -> Process:
        command = (*command, *self.options.get(name, ()))
        process = Process(name, command, self.folder / "log" / f"{name}.log")
        self.processes[name] = process
        return process

    def _make_certificates(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        server = authority.issue_cert(HOST, "localhost", "kubernetes.default.svc", common_name="kube-apiserver")
        server.private_key_pem.write_to_path(self.folder / "apiserver.key")
        for pem in server.cert_chain_pems:
            pem.write_to_path(self.folder / "apiserver.crt", append=True)
        # Those who are handed requests on know by another authority that it was the API server who did so.
        proxies = trustme.CA()
        proxies.cert_pem.write_to_path(self.front_proxy_ca)
        proxy = proxies.issue_cert("front-proxy.invalid", common_name=FRONT_PROXY)
        proxy.private_key_pem.write_to_path(self.folder / "front-proxy.key")
        proxy.cert_chain_pems[0].write_to_path(self.folder / "front-proxy.crt")
        accounts = authority.issue_cert("accounts.invalid")  # only its key is used: it signs tokens
        accounts.private_key_pem.write_to_path(self.folder / "accounts.key")

    def _kubeconfig(self, name: str, token: str) -> Path:
        path = self.folder / "kubeconfig" / f"{name}.yaml"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": name}}],
            "current-context": "here",
        }
        path.write_text(yaml.safe_dump(config))
        return path
